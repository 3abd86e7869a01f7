"""The real command against the stand-in: the inventory and the selection of installs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from command import Ended, StandIn, run_command, stand_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("without_coverage")

SCENARIO = """\
latency: 1ms
accounts:
  - {name: agencyone, installs: 6, environments: [production, staging]}
  - name: agencytwo
    installs: [{name: torquemag}, {name: torqueshop, environment: staging}, {name: newsite, status: pending}]
pages: {size: 2}
"""
ID = "00000000-0000-4000-8000-000000000001"
HEAD = """\
version: 1
accounts: {{default: {{base_url: "{url}"}}}}
defaults: {{notification_emails: [ops@example.com]}}
retry: {{max_attempts: 1}}
"""


def configure(folder: Path, server: StandIn, more: str, scenario: str = "") -> None:
    (folder / "wpe-backup.yaml").write_text(HEAD.format(url=server.base_url) + scenario + more)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StandIn]:
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    with stand_in("--scenario", str(tmp_path / "scenario.yaml")) as running:
        yield running


def run(folder: Path, *arguments: str) -> tuple[Ended, dict[str, Any], dict[str, Any]]:
    """Run with ``arguments``. Return its end, its lines by name and its summary."""
    ended = run_command("run", "-o", "-", *arguments, cwd=folder)
    lines = ended.lines()
    backups = {line["name"] or line["install_id"]: line for line in lines if line["type"] == "backup"}
    return ended, backups, next((line for line in lines if line["type"] == "summary"), {})


def test_a_name_is_resolved_and_an_unknown_name_fails_alone(server: StandIn, tmp_path: Path) -> None:
    configure(tmp_path, server, "installs: [{name: torquemag}, {name: gonesite, tags: [t]}, torqueshop]\n")
    ended, lines, summary = run(tmp_path)
    assert ended.code == summary["exit_code"] == 3
    assert [lines[name]["outcome"] for name in ("torquemag", "gonesite", "torqueshop")] == [
        "accepted",
        "rejected",
        "accepted",
    ]
    gone = lines["gonesite"]
    assert (gone["install_id"], gone["error"]["kind"], gone["tags"], gone["attempts"]) == (None, "not_found", ["t"], 0)
    assert lines["torqueshop"]["environment"] == "staging"
    made = {backup["install_id"] for backup in server.backups()}
    assert made == {lines["torquemag"]["install_id"], lines["torqueshop"]["install_id"]}
    strict = run_command("run", "--strict", cwd=tmp_path)
    assert (strict.code, len(server.backups())) == (2, 2)
    assert "wpe-backup.yaml:5: gonesite: the listing of account default has no install of this name" in strict.stderr
    again = run_command("run", "--retry-failed", "latest", "-o", "-", cwd=tmp_path)
    assert [(line["name"], line["outcome"]) for line in again.lines()[:-1]] == [("gonesite", "rejected")]


def test_a_failed_listing_never_means_not_found_and_a_resumed_run_reads_it_again(tmp_path: Path) -> None:
    sick = SCENARIO + "faults: [{kind: unavailable, operation: installs, first_tries: 1}]\n"
    (tmp_path / "scenario.yaml").write_text(sick)
    with stand_in("--scenario", str(tmp_path / "scenario.yaml")) as server:
        configure(tmp_path, server, "installs: [{name: torquemag}, {name: gonesite}]\n")
        ended, lines, _ = run(tmp_path)
        assert ended.code == 3
        assert {line["outcome"] for line in lines.values()} == {"cancelled"}
        assert {line["error"]["kind"] for line in lines.values()} == {"unavailable"}
        assert server.backups() == []
        resumed = run_command("run", "--resume", "latest", "-o", "-", cwd=tmp_path)
        kinds = {line["name"]: line["outcome"] for line in resumed.lines()[:-1]}
        assert (resumed.code, kinds) == (3, {"torquemag": "accepted", "gonesite": "rejected"})
        assert len(server.backups()) == 1


def test_discovered_installs_are_backed_up_without_being_listed(server: StandIn, tmp_path: Path) -> None:
    configure(
        tmp_path,
        server,
        """\
inventory:
  - discover: {wpengine_accounts: [agencyone], environments: [production], exclude: ["*3"]}
  - discover: {wpengine_accounts: [agencytwo]}
installs:
  - {name: torquemag, description: "By hand", tags: [listed]}
""",
    )
    ended, lines, summary = run(tmp_path)
    assert ended.code == 0
    assert sorted(lines) == ["agencyon000001", "agencyon000005", "torquemag", "torqueshop"]
    assert lines["torquemag"]["description"].startswith("By hand [")
    assert summary["planned"] == len(server.backups()) == 4
    assert "1 pending install(s) left out until active: newsite" in ended.stderr


def test_a_failed_source_is_exit_3_and_the_others_run(server: StandIn, tmp_path: Path) -> None:
    configure(
        tmp_path,
        server,
        "inventory: [discover: {wpengine_accounts: [nobody]}, discover: {wpengine_accounts: [agencyone]}]\n",
    )
    ended, lines, summary = run(tmp_path, "--limit", "1")
    assert (ended.code, [line["outcome"] for line in lines.values()]) == (3, ["accepted"])
    (failed,) = summary["failed_sources"]
    assert failed["error"]["message"] == "WP Engine shows no account nobody; it shows agencyone, agencytwo"
    assert "not read: wpe-backup.yaml:5: discover default" in ended.stderr
    assert run_command("run", "--strict", cwd=tmp_path).code == 2
    resumed = run_command("run", "--resume", "latest", cwd=tmp_path)
    assert (resumed.code, len(server.backups())) == (3, 1)


def test_a_dry_run_shows_the_plan_and_requests_nothing(server: StandIn, tmp_path: Path) -> None:
    configure(tmp_path, server, "inventory: [discover: {}]\n")
    ended = run_command("run", "-n", "--email", "a@example.com", "--email", "b@example.com", cwd=tmp_path)
    assert ended.code == 0
    assert "8 installs of 1 account would be backed up; WP Engine would send 16 mails to 2 addresses" in ended.stdout
    assert ended.stdout.count("a@example.com, b@example.com") == 8
    assert not (tmp_path / "state").exists()
    machine = run_command(
        "run", "-n", "--log-format", "json", "--description", "Hand", "--only", "torque*", cwd=tmp_path
    )
    assert [(line["name"], line["description"][:5]) for line in machine.lines()] == [
        ("torquemag", "Hand "),
        ("torqueshop", "Hand "),
    ]
    assert server.backups() == []


def test_shards_are_parts_of_the_fleet_and_do_not_lock_each_other(server: StandIn, tmp_path: Path) -> None:
    configure(tmp_path, server, "inventory: [discover: {wpengine_accounts: [agencyone]}]\n")
    parts = [run(tmp_path, "--shard", f"{number}/3") for number in (1, 2, 3)]
    assert {ended.code for ended, _, _ in parts} == {0}
    names = [name for _, lines, _ in parts for name in lines]
    assert sorted(names) == [f"agencyon00000{number}" for number in range(1, 7)]
    assert len(server.backups()) == 6
    latest = run_command("run", "--shard", "1/3", "--resume", "latest", "-o", "-", cwd=tmp_path)
    assert {line["name"] for line in latest.lines()[:-1]} == set(parts[0][1])


def test_named_installs_need_no_lock_and_resume_latest_ignores_their_runs(server: StandIn, tmp_path: Path) -> None:
    configure(tmp_path, server, "installs: [{name: torquemag}, {name: torqueshop}]\n")
    whole, _, summary = run(tmp_path)
    named, lines, _ = run(tmp_path, "torquemag", "--description", "Before the {name} upgrade")
    assert (whole.code, named.code, list(lines)) == (0, 0, ["torquemag"])
    assert lines["torquemag"]["description"].startswith("Before the torquemag upgrade [wpe-backup ")
    latest = run_command("run", "--resume", "latest", "-o", "-", cwd=tmp_path)
    assert latest.lines()[-1]["run_id"] == summary["run_id"]
    unknown = run_command("run", "torquemga", cwd=tmp_path)
    assert (unknown.code, "did you mean torquemag?" in unknown.stderr) == (2, True)


def test_a_list_may_name_installs_that_are_not_in_the_plan(server: StandIn, tmp_path: Path) -> None:
    configure(tmp_path, server, "installs: [{name: torquemag}, {name: torqueshop}]\n")
    (tmp_path / "list.txt").write_text("# tonight\ntorquemag\n\nelsewhere\n")
    ended, lines, _ = run(tmp_path, "--installs-from", "list.txt")
    assert ended.code == 3
    assert {name: line["outcome"] for name, line in lines.items()} == {"torquemag": "accepted", "elsewhere": "rejected"}
    assert lines["elsewhere"]["error"]["message"] == "is not in the plan (list.txt:4)"
    assert run_command("run", "--installs-from", "list.txt", "--strict", cwd=tmp_path).code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "x*"], "no install is selected"),
        (["--account", "nobody"], "there is no such account"),
        (["--resume", "latest", "--only", "x"], "--resume takes its installs from the earlier run"),
        (["--retry-failed", "latest", "torquemag"], "--retry-failed takes its installs from the earlier run"),
        (["--resume", "latest", "--email", "a@b"], "remove --description and --email"),
        (["--email", "nobody"], "must be an email address"),
        (["--description", "{nmae}"], "unknown field"),
        (["--max-failures", "0"], "neither a number from 1"),
        (["--shard", "3/2"], "is not I/N"),
    ],
)
def test_wrong_arguments_are_exit_2_and_send_nothing(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "wpe-backup.yaml").write_text(
        HEAD.format(url="http://127.0.0.1:9/v1") + f"installs: [{{id: {ID}, name: torquemag}}]\n"
    )
    ended = run_command("run", *arguments, cwd=tmp_path)
    shown = " ".join(ended.stderr.replace("│", " ").split())
    assert (ended.code, said in shown) == (2, True), shown
    assert "Traceback" not in ended.stderr


def test_an_install_listed_by_id_and_by_name_is_backed_up_once_even_after_a_resume(
    server: StandIn, tmp_path: Path
) -> None:
    configure(tmp_path, server, "inventory: [discover: {wpengine_accounts: [agencytwo], exclude: [torqueshop]}]\n")
    (known,) = run_command("run", "-n", "--log-format", "json", cwd=tmp_path).lines()
    (tmp_path / "sick.yaml").write_text(
        SCENARIO + "faults: [{kind: unavailable, operation: installs, first_tries: 1}]\n"
    )
    with stand_in("--scenario", str(tmp_path / "sick.yaml")) as sick:
        configure(tmp_path, sick, f"installs: [{{id: {known['install_id']}, name: label}}, {{name: torquemag}}]\n")
        first, lines, _ = run(tmp_path)
        assert (first.code, {name: line["outcome"] for name, line in lines.items()}) == (
            3,
            {"label": "accepted", "torquemag": "cancelled"},
        )
        resumed = run_command("run", "--resume", "latest", "-o", "-", cwd=tmp_path)
        lines = {line["name"]: line for line in resumed.lines()[:-1]}
        assert (lines["label"]["outcome"], lines["torquemag"]["outcome"]) == ("accepted", "cancelled")
        assert "the same install as label" in lines["torquemag"]["error"]["message"]
        assert len(sick.backups()) == 1


def test_a_failed_listing_hides_no_install_from_the_report(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(SCENARIO + "faults: [{kind: unavailable, operation: installs}]\n")
    with stand_in("--scenario", str(tmp_path / "scenario.yaml")) as server:
        configure(
            tmp_path, server, f"installs: [{{name: torquemag}}, {{id: {ID}, name: a, environment: production}}]\n"
        )
        (tmp_path / "list.txt").write_text("elsewhere\n")
        for selection, seen in (
            (("--environment", "staging"), {"torquemag": "cancelled"}),
            (("--shard", "1/2"), None),
            (("--shard", "2/2"), None),
            (("--installs-from", "list.txt"), {"elsewhere": "cancelled"}),
        ):
            ended, lines, summary = run(tmp_path, *selection)
            assert (ended.code, summary["failed_sources"][0]["source"]) == (3, "the names of account default")
            assert seen is None or {name: line["outcome"] for name, line in lines.items()} == seen


def test_a_disabled_install_is_not_discovered(server: StandIn, tmp_path: Path) -> None:
    off = "installs: [{name: torquemag, enabled: false}]\n"
    configure(tmp_path, server, "inventory: [discover: {wpengine_accounts: [agencytwo]}]\n" + off)
    ended, lines, summary = run(tmp_path)
    assert (ended.code, list(lines), summary["disabled"]) == (0, ["torqueshop"], 1)


def test_a_deadline_also_ends_the_planning(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(SCENARIO + "faults: [{kind: hang, operation: installs}]\n")
    with stand_in("--scenario", str(tmp_path / "scenario.yaml")) as server:
        configure(tmp_path, server, f"installs: [{{name: torquemag}}, {{id: {ID}}}]\n")
        ended, lines, _ = run(tmp_path, "--deadline", "500ms")
        assert (ended.code, {line["error"]["kind"] for line in lines.values()}) == (10, {"deadline"})
        assert len(lines) == 2
        configure(tmp_path, server, "inventory: [discover: {}]\n")
        ended, lines, summary = run(tmp_path, "--deadline", "500ms")
        assert (ended.code, lines, len(summary["failed_sources"])) == (10, {}, 1)
        assert server.backups() == []
