"""The real ``status`` against the stand-in: how the backups of a run ended."""

from __future__ import annotations

import fcntl
import json
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from command import PASSWORD, USER, Ended, StandIn, fleet, install_ids, run_command, stand_in, start_command, until
from schemas import report_line_problems
from states import by_hand

if TYPE_CHECKING:
    from collections.abc import Sequence

FAST = ("--rate", "200", "--max-rate", "200")
QUICK = "retry: {max_attempts: 1}\nwait: {poll_interval: 100ms}\n"
COUNT = 8
GONE, REFUSED = install_ids(COUNT)[3], install_ids(COUNT)[5]


def scenario(folder: Path, text: str) -> tuple[str, str]:
    (folder / "scenario.yaml").write_text(f"latency: 1ms\n{text}")
    return "--scenario", str(folder / "scenario.yaml")


def configure(folder: Path, server: StandIn, count: int = COUNT) -> None:
    (folder / "wpe-backup.yaml").write_text(fleet(server.base_url, count, QUICK))


def run(folder: Path, *arguments: str) -> Ended:
    return run_command("run", *FAST, *arguments, cwd=folder)


def status(folder: Path, *arguments: str, **changes: str) -> Ended:
    return run_command("status", *FAST, *arguments, cwd=folder, **changes)


def report(folder: Path, run_id: str = "*") -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return the lines by install, and the summary, of the only matching run. Check all against the schema."""
    (path,) = (folder / "state/runs").glob(f"{run_id}/report.jsonl")
    *lines, summary = map(json.loads, path.read_text().splitlines())
    assert [problem for line in (*lines, summary) for problem in report_line_problems(line)] == []
    assert json.loads((path.parent / "summary.json").read_text()) == summary
    return {line["install_id"]: line for line in lines}, summary


def kinds(lines: Sequence[dict[str, Any]] | Any) -> Counter[str]:
    return Counter(line["outcome"] for line in lines)


def settled(folder: Path, *arguments: str) -> Ended:
    """Run ``status`` until every backup has ended."""
    answers: list[Ended] = []

    def is_settled() -> bool:
        answers.append(status(folder, *arguments))
        return answers[-1].code != 3

    until(is_settled)
    return answers[-1]


def test_status_reports_how_the_backups_of_a_run_ended(tmp_path: Path) -> None:
    text = f"""\
backups: {{completes_after: 10ms, aborts: 0.4}}
faults:
  - {{kind: not_found, operation: show, installs: [{GONE}]}}
  - {{kind: not_found, installs: [{REFUSED}]}}
"""
    with stand_in(*scenario(tmp_path, text)) as server:
        configure(tmp_path, server)
        assert run(tmp_path).code == 3
        requests = server.stats()["requests"]
        ended = status(tmp_path)
        assert server.stats()["requests"] == requests + 1 + (COUNT - 1)
        lines, summary = report(tmp_path)
        truth = {backup["install_id"]: backup["status"] for backup in server.backups()}
        aborted = [install_id for install_id, said in truth.items() if said == "aborted" and install_id != GONE]
        assert len(aborted) == 2, "the stand-in's seed has changed"
        told = {install_id: line["outcome"] for install_id, line in lines.items()}
        assert told == truth | {GONE: "accepted", REFUSED: "rejected"}
        assert all(lines[each]["backup"]["status"] == truth[each] for each in truth if each != GONE)
        assert kinds(lines.values()) == {key: count for key, count in summary["outcomes"].items() if count}
        assert summary["accounts"]["default"]["outcomes"] == kinds(lines.values())
        (past,) = json.loads(run_command("history", "--format", "json", cwd=tmp_path).stdout)
        assert (past["exit_code"], past["outcomes"]) == (3, kinds(lines.values()))
        assert ended.code == 3
        assert "status.asking" in ended.stderr
        assert "backups=7 requests=8 takes='about 1s at 200/s'" in ended.stderr
        first, *rows, totals = ended.stdout.splitlines()
        assert first.split() == ["install", "account", "outcome", "backup", "is", "took", "backup", "id", "why"]
        assert [row.split()[2] for row in rows] == ["aborted"] * 2 + ["accepted"] + ["completed"] * 4
        assert rows[2].endswith(f"{lines[GONE]['backup']['id']}  404 Not Found")
        assert totals == f"Run {summary['run_id']}: 4 completed, 1 unknown, 2 aborted; without a backup: 1"
        assert f"Report: {summary['report']}" in ended.stderr

        again = status(tmp_path, summary["run_id"][:20])
        assert (again.code, again.stdout, "Report:" in again.stderr) == (3, ended.stdout, False)
        assert server.stats()["requests"] == requests + 1 + (COUNT - 1) + 2

        by_hand(tmp_path / "state/state.db", "UPDATE runs SET summary = json_set(summary, '$.outcomes.accepted', 99)")
        Path(summary["report"]).unlink()
        assert "Report:" in status(tmp_path).stderr
        assert report(tmp_path) == (lines, summary)

        assert run(tmp_path, "--retry-failed", "latest").code == 3
        assert server.stats()["posts"] == COUNT + len(aborted) + 1


def test_a_backup_under_way_stays_open_and_latest_is_this_yamls_newest_run(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path, "backups: {completes_after: 1h}\n")) as server:
        (tmp_path / "other").mkdir()
        (tmp_path / "other/f.yaml").write_text(fleet(server.base_url, 1))
        configure(tmp_path, server)
        assert run(tmp_path, "--wait", "--wait-timeout", "200ms").code == 3
        whole = report(tmp_path)[1]["run_id"]
        ended = status(tmp_path, "--format", "json", "--log-format", "json")
        assert (ended.code, len(json.loads(ended.stdout))) == (3, COUNT)
        *_, finished = map(json.loads, ended.stderr.splitlines())
        assert (finished["event"], finished["under_way"]) == ("status.finished", COUNT)
        lines, summary = report(tmp_path)
        assert kinds(lines.values()) == {"incomplete": COUNT}
        assert {line["error"]["kind"] for line in lines.values()} == {"timeout"}
        assert summary["exit_code"] == 3

        assert run(tmp_path, "shop1", "shop2").code == 0
        assert run(tmp_path, "-c", "other/f.yaml").code == 0
        (first, second) = json.loads(status(tmp_path, "--format", "json").stdout)
        assert [first["name"], second["name"]] == ["shop1", "shop2"]
        assert (first["outcome"], first["error"], first["took_s"]) == ("accepted", None, None)
        assert 0 <= first["age_s"] < 60
        assert first["backup"]["status"] in {"requested", "in_progress"}
        assert json.loads(status(tmp_path, whole, "--format", "json").stdout)[0]["run_id"] == whole
        moved = status(tmp_path, whole, "-c", "-", stdin=fleet("http://127.0.0.1:9/v1", 1))
        assert (moved.code, "cannot be asked about: the account default was at" in moved.stderr) == (2, True)


def test_incomplete_and_skipped_backups_complete_later_and_nothing_is_left_to_do(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path, "backups: {completes_after: 1500ms}\n")) as server:
        configure(tmp_path, server, 3)
        assert run(tmp_path, "--wait", "--wait-timeout", "100ms").code == 3
        waited = report(tmp_path)[1]["run_id"]
        assert run(tmp_path, "--skip-if-recent", "1h").code == 0
        skipping = settled(tmp_path)
        assert skipping.code == 0
        assert "Run " in skipping.stdout
        (skipped,) = ({line["outcome"] for line in report(tmp_path, each.name)[0].values()} for each in
                      (tmp_path / "state/runs").iterdir() if each.name != waited)  # fmt: skip
        assert skipped == {"skipped"}
        ended = status(tmp_path, waited, "-q")
        assert (ended.code, ended.stdout, ended.stderr) == (0, "", "")
        lines, summary = report(tmp_path, waited)
        assert kinds(lines.values()) == {"completed": 3}
        assert {line["error"] for line in lines.values()} == {None}
        assert summary["exit_code"] == 0
        requests = server.stats()["requests"]
        nothing = status(tmp_path, waited)
        assert (nothing.code, "The API was not asked" in nothing.stderr, "Report" in nothing.stderr) == (0, True, False)
        assert run(tmp_path, "--resume", waited, "--wait").code == 0
        assert server.stats()["requests"] == requests
        assert run(tmp_path, "--retry-failed", waited).code == 0
        assert server.stats()["posts"] == 3


def test_refused_credentials_of_one_account_do_not_affect_the_other(tmp_path: Path) -> None:
    text = f"credentials: {{user_id: {USER}, password: {PASSWORD}}}\nbackups: {{completes_after: 10ms}}\n"
    yaml = """\
version: 1
accounts:
  default: {{base_url: "{url}"}}
  b: {{base_url: "{url}", user_id: an-api-user, password: {password}}}
throttle: {{scope: host}}
defaults: {{notification_emails: []}}
installs: [{{id: {ids[0]}, name: one}}, {{id: {ids[1]}, name: two, account: b}}]
"""
    with stand_in(*scenario(tmp_path, text)) as server:
        keys = {"url": server.base_url, "ids": install_ids(2)}
        config = tmp_path / "wpe-backup.yaml"
        config.write_text(yaml.format(password=PASSWORD, **keys))
        assert run(tmp_path).code == 0
        config.write_text(yaml.format(password="out-of-date", **keys))
        ended = status(tmp_path, "--format", "json")
    told = {
        each["name"]: (each["outcome"], each["error"] and each["error"]["kind"]) for each in json.loads(ended.stdout)
    }
    assert (ended.code, told) == (12, {"one": ("completed", None), "two": ("accepted", "credentials")})
    assert "out-of-date" not in ended.stderr + ended.stdout
    assert kinds(report(tmp_path)[0].values()) == {"completed": 1, "accepted": 1}
    assert report(tmp_path)[1]["exit_code"] == 0


def test_a_signal_keeps_the_answers_so_far(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path, "backups: {completes_after: 10ms}\n")) as server:
        configure(tmp_path, server, 40)
        assert run(tmp_path).code == 0
        before = server.stats()["requests"]
        command = start_command("status", "--rate", "10", cwd=tmp_path)
        until(lambda: server.stats()["requests"] >= before + 4)
        command.send_signal(signal.SIGINT)
        ended = command.ended()
    counts = kinds(report(tmp_path)[0].values())
    assert (ended.code, "Traceback" in ended.stderr) == (130, False)
    assert counts.total() == 40
    assert 2 <= counts["completed"] < 40
    assert f"{counts['completed']} completed, {counts['accepted']} unknown" in ended.stdout
    assert ended.stdout.count("accepted") == 0
    assert f"answered={counts['completed']} backups=40 by=SIGINT" in ended.stderr


def test_an_impossible_question_is_refused_before_any_request(tmp_path: Path) -> None:
    (tmp_path / "wpe-backup.yaml").write_text(fleet("http://127.0.0.1:9/v1", 1))
    nothing = status(tmp_path)
    assert (nothing.code, "there are no runs in" in nothing.stderr) == (2, True)
    assert not (tmp_path / "state").exists()
    with stand_in(*scenario(tmp_path, "backups: {completes_after: 1h}\n")) as server:
        configure(tmp_path, server, 1)
        assert run(tmp_path).code == 0
        requests = server.stats()["requests"]
        path = next((tmp_path / "state/runs").iterdir())
        with (path / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            alive = status(tmp_path)
        assert (alive.code, f"run {path.name} is going on" in alive.stderr) == (11, True)
        unknown = status(tmp_path, "01ZZZ")
        assert (unknown.code, "there is no run 01ZZZ" in unknown.stderr) == (2, True)
        elsewhere = status(tmp_path, "-c", "-", stdin=fleet(server.base_url, 2))
        assert (elsewhere.code, "there are no runs of a YAML from a stream" in elsewhere.stderr) == (2, True)
        gone = fleet(server.base_url, 1).replace("default:", "other:", 1).replace("name:", "account: other, name:")
        ended = status(
            tmp_path, path.name, "-c", "-", stdin=gone.replace("other: {", 'other: {user_id: u, password: "p", ')
        )
        assert (ended.code, "the account default is no longer in" in ended.stderr) == (2, True), ended.stderr
        assert server.stats()["requests"] == requests


@pytest.mark.usefixtures("without_coverage")
def test_status_warns_about_a_run_that_did_not_end(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path, "backups: {completes_after: 10ms}\n")) as server:
        configure(tmp_path, server, 3)
        assert run(tmp_path).code == 0
        by_hand(
            tmp_path / "state/state.db",
            "DELETE FROM outcomes WHERE position = 1",
            "UPDATE runs SET ended_at = NULL, summary = NULL",
        )
        ended = status(tmp_path)
        assert (ended.code, "1 of its installs have no outcome" in ended.stderr) == (3, True)
        assert "2 completed" in ended.stdout
        (path,) = (tmp_path / "state/runs").glob("*/report.jsonl")
        assert [json.loads(line)["outcome"] for line in path.read_text().splitlines()] == ["completed"] * 2
