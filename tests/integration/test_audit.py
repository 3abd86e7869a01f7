"""The real ``audit`` against the stand-in: how old the newest backups of a fleet are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from command import PASSWORD, USER, Ended, StandIn, install_ids, run_command, stand_in

if TYPE_CHECKING:
    from pathlib import Path

FAST = ("--rate", "200", "--max-rate", "200")
FLEET = """\
latency: 1ms
accounts: [{name: agency, installs: 4, environments: [production, staging]}]
pages: {size: 2}
backups: {completes_after: 10ms}
"""
IDS = install_ids(4)


def scenario(folder: Path, text: str) -> tuple[str, str]:
    (folder / "scenario.yaml").write_text(text)
    return "--scenario", str(folder / "scenario.yaml")


def configure(folder: Path, server: StandIn, more: str) -> None:
    head = f'version: 1\naccounts: {{default: {{base_url: "{server.base_url}"}}}}\n'
    rest = "defaults: {notification_emails: []}\nretry: {max_attempts: 1}\n"
    (folder / "wpe-backup.yaml").write_text(head + rest + more)


def audit(folder: Path, *arguments: str, **changes: str) -> Ended:
    return run_command("audit", *FAST, *arguments, cwd=folder, **changes)


def told(folder: Path, *arguments: str) -> tuple[Ended, list[dict[str, Any]]]:
    ended = audit(folder, "--format", "json", *arguments)
    return ended, json.loads(ended.stdout)


def test_wp_engines_own_checkpoints_count_and_all_pages_are_read(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path, FLEET + "listing: {nightly: 3, order: oldest}\n")) as server:
        configure(tmp_path, server, "inventory: [discover: {}]\n")
        ended, rows = told(tmp_path)
        assert (ended.code, {row["verdict"] for row in rows}, len(rows)) == (0, {"ok"}, 4)
        assert {(row["ours"], row["run_id"], row["backup"]["description"]) for row in rows} == {
            (False, None, "Automatic backup")
        }
        assert [row["age_s"] for row in rows] == sorted((row["age_s"] for row in rows), reverse=True)
        assert all(0 <= row["age_s"] < 25 * 3600 for row in rows)
        assert "audit.asking" in ended.stderr
        assert server.stats()["requests"] == 1 + 2 + 4 * 2
        assert not (tmp_path / "state").exists()
        quiet = audit(tmp_path, "-q")
        assert (quiet.code, quiet.stdout, quiet.stderr) == (0, "", "")
        stale = audit(tmp_path, "-q", "--max-age", "1ms", "agency000001")
        assert (stale.code, stale.stderr) == (3, "")
        _, row, totals = stale.stdout.splitlines()
        assert totals == "1 install: 1 stale; made by wpe-backup: 0"
        assert row.split()[:3] == ["agency000001", "default", "production"]
        assert row.split()[-4:-1] == ["1ms", "stale", "other"]
        assert server.stats()["posts"] == 0

        assert run_command("run", "agency000002", "-q", cwd=tmp_path).code == 0
        requests = server.stats()["requests"]
        ended, rows = told(tmp_path)
        (ours,) = (row for row in rows if row["ours"])
        (made,) = server.backups()
        assert (ended.code, rows[-1], ours["backup"]["id"]) == (0, ours, made["id"])
        assert f"[wpe-backup {ours['run_id']}]" in made["description"]
        assert 0 <= ours["age_s"] < 60
        assert server.stats()["requests"] == requests + 1 + 2 + 4 * 2


def test_unknown_and_stale_installs_come_first_with_their_reasons(tmp_path: Path) -> None:
    text = f"""\
latency: 1ms
listing: {{nightly: 1}}
backups: {{completes_after: 1h}}
faults:
  - {{kind: unavailable, operation: listing, installs: [{IDS[1]}]}}
  - {{kind: not_found, operation: installs}}
"""
    yaml = f"""\
installs:
  - {{id: {IDS[0]}, name: fine, tags: [listed]}}
  - {{id: {IDS[1]}, name: sick}}
  - {{id: {IDS[2]}, name: strict, max_age: 1s}}
  - {{name: nameless}}
inventory: [discover: {{}}]
"""
    with stand_in(*scenario(tmp_path, text)) as server:
        configure(tmp_path, server, yaml)
        (tmp_path / "list.txt").write_text("fine\nsick\nstrict\nnameless\nelsewhere\n")
        assert run_command("run", "--tag", "listed", "-q", cwd=tmp_path).code == 0
        ended, rows = told(tmp_path, "--installs-from", "list.txt")
        assert ended.code == 3
        assert [(row["name"], row["verdict"]) for row in rows] == [
            ("sick", "unknown"),
            ("nameless", "unknown"),
            ("elsewhere", "unknown"),
            ("strict", "stale"),
            ("fine", "ok"),
        ]
        sick, nameless, elsewhere, strict, fine = rows
        assert (sick["error"]["status"], sick["backup"], sick["ours"]) == (503, None, None)
        assert "could not be looked up" in nameless["error"]["message"]
        assert elsewhere["error"]["message"].startswith(
            "is not in the plan (list.txt:5); it may be in a source that could not"
        )
        assert (strict["max_age_s"], strict["error"]) == (1.0, None)
        assert fine["under_way"]["status"] in {"requested", "in_progress"}
        assert "source.failed" in ended.stderr
        table = audit(tmp_path)
        assert "wpe-backup.yaml" in table.stderr
        assert table.stdout.splitlines()[-1].endswith("sources that could not be read: 2")
        assert f"another backup is under way: {fine['under_way']['id']}" in table.stdout
        ruled_out = audit(tmp_path, "--tag", "listed")
        assert (ruled_out.code, ruled_out.stderr.count("source.failed")) == (0, 0)
        nothing = audit(tmp_path, "--only", "x*")
        assert (nothing.code, "source.failed" in nothing.stderr) == (3, True), "one may be in the source that failed"


def test_an_install_without_backups_is_missing_and_one_without_a_listing_is_unknown(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path, FLEET)) as server:
        configure(tmp_path, server, "installs: [{name: agency000001}, {name: goneone}]\n")
        ended, rows = told(tmp_path)
        assert (ended.code, [row["verdict"] for row in rows]) == (3, ["missing", "unknown"])
        assert rows[1]["error"]["kind"] == "not_found"
        empty = audit(tmp_path, "agency000001", "--shard", "1/2")
        other = audit(tmp_path, "agency000001", "--shard", "2/2")
        assert {each.code for each in (empty, other)} == {0, 3}
        assert "0 installs" in {empty.code: empty, other.code: other}[0].stdout.splitlines()
    with stand_in(*scenario(tmp_path, FLEET + "listing: {available: false}\n")) as server:
        configure(tmp_path, server, "installs: [{name: agency000001}]\n")
        ended = audit(tmp_path)
        assert (ended.code, "404 Not Found" in ended.stdout, "1 unknown" in ended.stdout) == (3, True, True)


def test_refused_credentials_of_one_account_do_not_affect_the_other(tmp_path: Path) -> None:
    text = f"latency: 1ms\nlisting: {{nightly: 1}}\ncredentials: {{user_id: {USER}, password: {PASSWORD}}}\n"
    with stand_in(*scenario(tmp_path, text)) as server:
        (tmp_path / "wpe-backup.yaml").write_text(f"""\
version: 1
accounts:
  default: {{base_url: "{server.base_url}"}}
  b: {{base_url: "{server.base_url}", user_id: a-stranger, password: out-of-date}}
defaults: {{notification_emails: []}}
installs: [{{id: {IDS[0]}, name: one}}, {{id: {IDS[1]}, name: two, account: b}}]
""")
        ended, rows = told(tmp_path)
        assert ended.code == 12
        assert [(row["name"], row["verdict"], row["error"] and row["error"]["kind"]) for row in rows] == [
            ("two", "unknown", "credentials"),
            ("one", "ok", None),
        ]
        assert audit(tmp_path, "--account", "default").code == 0


def test_an_unusable_state_does_not_stop_the_audit(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path, "latency: 1ms\nlisting: {nightly: 1}\n")) as server:
        configure(tmp_path, server, f"installs: [{{id: {IDS[0]}}}]\n")
        (tmp_path / "state").mkdir()
        (tmp_path / "state/state.db").write_text("no database " * 100)
        ended = audit(tmp_path)
        assert (ended.code, "it is not an SQLite database" in ended.stderr) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--max-age", "soon"], "must be a duration above 0"),
        (["--account", "nobody"], "there is no such account"),
        (["nobody"], "not in the plan: nobody"),
    ],
)
def test_wrong_arguments_are_exit_2_and_send_nothing(tmp_path: Path, arguments: list[str], said: str) -> None:
    configure(tmp_path, StandIn("http://127.0.0.1:9/v1"), f"installs: [{{id: {IDS[0]}}}]\n")
    ended = audit(tmp_path, *arguments)
    shown = " ".join(ended.stderr.replace("│", " ").split())
    assert (ended.code, said in shown, ended.stdout) == (2, True, ""), shown
