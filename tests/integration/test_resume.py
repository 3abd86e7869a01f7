"""The real command finishes runs later, and retries their failures; checked by the server's counts."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import pytest
from command import Ended, StandIn, fleet, install_ids, opened, run_command, stand_in, start_command, until
from schemas import report_line_problems

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK = "timeouts: {connect: 1s, read: 2s}\nreconcile: {grace: 1s}\nretry: {max_attempts: 3}\n"
PACE = ("--rate", "100", "--max-rate", "100")
SLOWLY = ("--rate", "4", "--max-rate", "4", "--concurrency", "1")


def configure(folder: Path, server: StandIn, count: int, more: str = QUICK) -> None:
    (folder / "wpe-backup.yaml").write_text(fleet(server.base_url, count, more))


def scenario(folder: Path, **settings: Any) -> tuple[str, str]:
    """Return the stand-in's options for a scenario with ``settings``; by default answers take 1 to 5 ms."""
    path = folder / "scenario.yaml"
    path.write_text(json.dumps({"latency": ["1ms", "5ms"]} | settings))
    return "--scenario", str(path)


def made_of_each(server: StandIn) -> Counter[str]:
    return Counter(backup["install_id"] for backup in server.backups())


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, path.read_bytes().splitlines()) if line["type"] == "backup"]


def ends(path: Path) -> list[str]:
    """Return the install ids of a report in the order of its lines."""
    return [line["install_id"] for line in lines_of(path)]


def cut_short(folder: Path, server: StandIn, *options: str, after: int = 1) -> Ended:
    """Begin a run, and stop it with Ctrl-C once it has made ``after`` backups."""
    process = start_command("run", *SLOWLY, *options, cwd=folder)
    until(lambda: len(server.backups()) >= after)
    process.send_signal(signal.SIGINT)
    return process.ended()


# -- a resumed run that is killed in its turn --------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--resume", "--retry-failed"])
def test_a_request_of_a_killed_resumption_is_looked_up_even_if_the_run_had_cancelled_it(
    tmp_path: Path, option: str
) -> None:
    last = install_ids(3)[-1]
    hang = {"kind": "hang", "created": True, "first_tries": 1, "installs": [last]}
    with stand_in(*scenario(tmp_path, faults=[hang])) as server:
        configure(tmp_path, server, 3, QUICK.replace("read: 2s", "read: 20s"))
        assert cut_short(tmp_path, server).code == 130
        process = start_command("run", "--resume", "latest", *PACE, cwd=tmp_path)
        until(lambda: made_of_each(server)[last])
        process.send_signal(signal.SIGKILL)
        process.ended()
        if option == "--retry-failed":  # refused until the run is finished, or it looks the backup up
            run_command("run", option, "latest", *PACE, cwd=tmp_path)
        done = run_command("run", "--resume", "latest", *PACE, cwd=tmp_path)
        assert made_of_each(server) == dict.fromkeys(install_ids(3), 1)
    assert done.code == 0


def test_a_resumption_that_waited_for_a_live_run_continues_after_its_end(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path)) as server:
        configure(tmp_path, server, 8)
        (tmp_path / "copy.yaml").write_text((tmp_path / "wpe-backup.yaml").read_text())  # another path: another scope
        process = start_command("run", *SLOWLY, cwd=tmp_path)
        until(server.backups)
        run_id = next((tmp_path / "state" / "runs").iterdir()).name
        waited = run_command("run", "-c", "copy.yaml", "--resume", run_id, "--lock-wait", "20s", *PACE, cwd=tmp_path)
        assert process.ended().code == 0
        assert made_of_each(server) == dict.fromkeys(install_ids(8), 1)
    assert waited.code == 0


# -- the place of the report -------------------------------------------------------------------------------------------


def test_the_report_of_a_resumed_run_is_found_at_its_new_place(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path)) as server:
        configure(tmp_path, server, 4)
        assert cut_short(tmp_path, server).code == 130
        assert run_command("run", "--resume", "latest", "-o", "whole.jsonl", *PACE, cwd=tmp_path).code == 0
    assert len((tmp_path / "whole.jsonl").read_bytes().splitlines()) == 5
    assert "4 of 4 installs backed up" in run_command("report", "summary", "latest", cwd=tmp_path).stdout


def test_a_resumed_run_does_not_request_an_install_that_was_answered_202(tmp_path: Path) -> None:
    no_id = {"kind": "missing_id", "first_tries": 1}
    with stand_in(*scenario(tmp_path, faults=[no_id], listing={"lag": "1h"})) as server:
        configure(tmp_path, server, 1, QUICK + "on_ambiguous: fail\n")
        assert run_command("run", *PACE, cwd=tmp_path).code == 3
        configure(tmp_path, server, 1)
        done = run_command("run", "--resume", "latest", *PACE, cwd=tmp_path)
        assert server.stats()["posts"] == 1
    assert done.code == 3


# -- a run that was stopped --------------------------------------------------------------------------------------------


def only_report(folder: Path) -> Path:
    (path,) = (folder / "state/runs").glob("*/report.jsonl")
    return path


def whole(path: Path, count: int) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return the backup lines by install, and the summary. Check the schema, one line an install, and the order."""
    *lines, summary = map(json.loads, path.read_text().splitlines())
    assert [problem for line in (*lines, summary) for problem in report_line_problems(line)] == []
    assert [line["type"] for line in (*lines, summary)] == ["backup"] * count + ["summary"]
    assert len({line["install_id"] for line in lines}) == count
    assert {kind: n for kind, n in summary["outcomes"].items() if n} == Counter(line["outcome"] for line in lines)
    assert {line["run_id"] for line in (*lines, summary)} == {summary["run_id"]}
    return {line["install_id"]: line for line in lines}, summary


def told(lines: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return the install of each backup id in a report."""
    return {line["backup"]["id"]: install_id for install_id, line in lines.items() if line["backup"]}


def made(server: StandIn) -> dict[str, str]:
    return {backup["id"]: backup["install_id"] for backup in server.backups()}


def sent(server: StandIn) -> int:
    """Return how many requests the command has sent to the server."""
    return len(server.requests())


def refused(ended: Ended, code: int, *words: str) -> None:
    """Check that a command ended before it began, with one plain message that contains ``words``."""
    assert ended.code == code, ended.stderr
    assert (ended.stdout, "Traceback" in ended.stderr, ended.stderr.count("\n")) == ("", False, 1), ended.stderr
    for word in words:
        assert word in ended.stderr


def test_a_run_stopped_by_ctrl_c_is_finished_with_the_same_id_and_report(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path)) as server:
        configure(tmp_path, server, 8)
        assert cut_short(tmp_path, server, after=2).code == 130
        path = only_report(tmp_path)
        first, before = whole(path, 8)
        assert (before["exit_code"], before["outcomes"]["cancelled"]) == (130, 8 - len(made(server)))
        assert told(first) == made(server)
        done = run_command("run", "--resume", "latest", *PACE, cwd=tmp_path)
        assert (done.code, only_report(tmp_path)) == (0, path)
        lines, summary = whole(path, 8)
        assert made_of_each(server) == dict.fromkeys(install_ids(8), 1)
        assert told(lines) == made(server)
        assert summary["requests"] == sent(server)
    assert (summary["run_id"], summary["started_at"]) == (before["run_id"], before["started_at"])
    assert {each: line for each, line in first.items() if line["backup"]}.items() <= lines.items()
    assert json.loads(path.with_name("summary.json").read_text()) == summary


def test_a_resumed_run_looks_up_unconfirmed_installs_and_requests_absent_ones_again(tmp_path: Path) -> None:
    ids = install_ids(4)
    lost = [{"kind": "gateway_timeout", "created": n == 1, "first_tries": 1, "installs": [ids[n]]} for n in (1, 2)]
    with stand_in(*scenario(tmp_path, faults=lost)) as server:
        configure(tmp_path, server, 4, QUICK + "on_ambiguous: fail\n")
        assert run_command("run", *PACE, cwd=tmp_path).code == 3
        configure(tmp_path, server, 4)
        assert run_command("run", "--resume", "latest", *PACE, cwd=tmp_path).code == 0
        lines, summary = whole(only_report(tmp_path), 4)
        assert made_of_each(server) == dict.fromkeys(ids, 1)
        assert told(lines) == made(server)
    assert [lines[each]["reconciled"] for each in ids] == [False, True, False, False]
    assert [lines[each]["attempts"] for each in ids] == [1, 1, 2, 1]
    assert (summary["reconciled"], summary["retries"], summary["exit_code"]) == (1, 1, 0)


def test_a_run_is_resumed_by_the_start_of_its_id_and_latest_is_this_yamls_newest_run(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path)) as server:
        configure(tmp_path, server, 8)
        assert cut_short(tmp_path, server).code == 130
        run_id = only_report(tmp_path).parent.name
        (tmp_path / "other.yaml").write_text(fleet(server.base_url, 1, QUICK))
        assert run_command("run", "-c", "other.yaml", *PACE, cwd=tmp_path).code == 0
        requests = sent(server)
        unknown = run_command("run", "--resume", "01ZZ", cwd=tmp_path)
        refused(unknown, 2, "there is no run 01ZZ; the newest runs in", run_id)
        assert sent(server) == requests
        stopped = start_command("run", "--resume", "latest", *SLOWLY, cwd=tmp_path)
        until(lambda: len(server.backups()) > 2)
        stopped.send_signal(signal.SIGKILL)
        stopped.ended()
        assert run_command("run", "--resume", run_id[:16].lower(), *PACE, cwd=tmp_path).code == 0
        ids = install_ids(8)
        assert made_of_each(server) == dict.fromkeys(ids, 1) | {ids[0]: 2}  # the other YAML's run made one of the two
    lines, _ = whole(tmp_path / "state/runs" / run_id / "report.jsonl", 8)
    assert {line["outcome"] for line in lines.values()} == {"accepted"}


def test_an_impossible_resume_is_refused_and_nothing_is_sent(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path)) as server:
        configure(tmp_path, server, 2)
        nothing = run_command("run", "--resume", "latest", cwd=tmp_path)
        refused(
            nothing, 2, f"there are no runs of {tmp_path}/wpe-backup.yaml in", "name another directory with --state-dir"
        )
        both = run_command("run", "--resume", "latest", "--retry-failed", "latest", cwd=tmp_path)
        refused(both, 2, "--resume finishes a run, and --retry-failed begins a new one")
        assert sent(server) == 0


def test_a_finished_run_that_is_resumed_writes_its_report_again_and_sends_nothing(tmp_path: Path) -> None:
    bad = {"kind": "bad_request", "installs": [install_ids(4)[2]]}
    with stand_in(*scenario(tmp_path, faults=[bad])) as server:
        configure(tmp_path, server, 4)
        assert run_command("run", *PACE, cwd=tmp_path).code == 3
        path = only_report(tmp_path)
        before, requests = path.read_bytes(), sent(server)
        path.unlink()
        again = run_command("run", "--resume", "latest", *PACE, cwd=tmp_path)
        assert (again.code, sent(server)) == (3, requests)
        assert path.read_bytes() == before
        # even if the account has moved since: no request is needed
        configure(tmp_path, server, 4)
        text = (tmp_path / "wpe-backup.yaml").read_text().replace(server.base_url, "http://127.0.0.1:1/v1")
        (tmp_path / "wpe-backup.yaml").write_text(text)
        assert run_command("run", "--resume", "latest", "-o", "copy.jsonl", *PACE, cwd=tmp_path).code == 3
    *lines, summary = map(json.loads, (tmp_path / "copy.jsonl").read_bytes().splitlines())
    *lines_before, summary_before = map(json.loads, before.splitlines())
    assert lines == lines_before
    assert summary == summary_before | {"report": str(tmp_path / "copy.jsonl")}


def test_a_rewritten_report_has_the_same_bytes_in_the_order_of_the_outcomes(tmp_path: Path) -> None:
    bad = {"kind": "bad_request", "installs": [install_ids(12)[2]]}
    broken = {"kind": "reset", "created": False, "first_tries": 9, "installs": install_ids(12)[4:6]}
    with stand_in(*scenario(tmp_path, latency=["1ms", "400ms"], faults=[bad, broken])) as server:
        configure(tmp_path, server, 12, f"{QUICK}on_ambiguous: fail\n")
        assert run_command("run", *PACE, "-o", "r.jsonl", cwd=tmp_path).code == 3
        path = tmp_path / "r.jsonl"
        first = ends(path)
        assert first[:10] != sorted(first[:10]), "the installs have to end in another order than they were planned in"
        assert run_command("settle", "latest", "shop4", "--absent", cwd=tmp_path).code == 0
        assert ends(path) == first, "a line that is amended stays where it stood"
        assert run_command("settle", "latest", "shop5", "--absent", cwd=tmp_path).code == 0
        settled = path.read_bytes()
        path.unlink()
        assert run_command("run", "--resume", "latest", *PACE, cwd=tmp_path).code == 3
        assert path.read_bytes() == settled


def test_a_resumed_run_keeps_its_lines_in_order_and_adds_the_others(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path, latency=["1ms", "400ms"])) as server:
        configure(tmp_path, server, 16)
        paced = ("--rate", "20", "--max-rate", "20")
        process = start_command("run", *paced, "-o", "r.jsonl", cwd=tmp_path)
        until(lambda: len(server.backups()) >= 5)
        process.send_signal(signal.SIGINT)
        assert process.ended().code == 130
        path = tmp_path / "r.jsonl"
        before = [line for line in lines_of(path) if line["outcome"] == "accepted"]
        assert run_command("run", "--resume", "latest", *PACE, cwd=tmp_path).code == 0
        assert lines_of(path)[: len(before)] == before
        whole_report = path.read_bytes()
        path.unlink()
        assert run_command("run", "--resume", "latest", *PACE, cwd=tmp_path).code == 0
        assert path.read_bytes() == whole_report


# -- changes in the meantime -------------------------------------------------------------------------------------------


def test_changes_of_the_yaml_are_reported_and_the_plan_of_the_run_counts(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path)) as server:
        configure(tmp_path, server, 6)
        assert cut_short(tmp_path, server).code == 130
        run_id = only_report(tmp_path).parent.name
        *kept, gone = (tmp_path / "wpe-backup.yaml").read_text().splitlines(keepends=True)
        text = "".join(kept).replace("name: shop4}", "name: shop4, description: Otherwise}")
        new = gone.replace(install_ids(6)[5], "00000000-0000-4000-8000-0000000000ff").replace("shop5", "new")
        (tmp_path / "wpe-backup.yaml").write_text(text + new)
        done = run_command("run", "--resume", "latest", "--log-format", "json", *PACE, cwd=tmp_path)
        assert done.code == 0
        assert made_of_each(server) == dict.fromkeys(install_ids(6), 1)
        words = {backup["install_id"]: backup["description"] for backup in server.backups()}
    assert words == {each: f"Test shop{n} [wpe-backup {run_id}]" for n, each in enumerate(install_ids(6))}
    said = [json.loads(line) for line in done.stderr.splitlines()]
    reasons = [each["reason"] for each in said if each["event"] == "resume.config_changed"]
    assert [reason.rsplit(": ", 1)[1] for reason in reasons] == ["new", "shop5", "shop4"]
    whole(only_report(tmp_path), 6)


def test_a_moved_or_removed_account_is_exit_2_and_nothing_is_sent(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path)) as server:
        configure(tmp_path, server, 6)
        assert cut_short(tmp_path, server).code == 130
        text, requests, report = (tmp_path / "wpe-backup.yaml").read_text(), sent(server), only_report(tmp_path)
        before = report.read_bytes()
        for changed, why in (
            (text.replace("/v1", "/v2"), "/v1 and is now at"),
            (
                text.replace("{default:", "{other:").replace("defaults: {", "defaults: {account: other, "),
                "no longer in",
            ),
        ):
            (tmp_path / "wpe-backup.yaml").write_text(
                changed.replace('/v1"', '/v1", user_id: u, password: p').replace(
                    '/v2"', '/v2", user_id: u, password: p'
                )
            )
            moved = run_command("run", "--resume", "latest", cwd=tmp_path)
            refused(moved, 2, f"run {report.parent.name} cannot be resumed: the account default", why)
        assert (sent(server), report.read_bytes()) == (requests, before)


# -- one at a time -----------------------------------------------------------------------------------------------------


def test_a_live_run_blocks_its_yaml_and_its_own_resumption(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path)) as server:
        configure(tmp_path, server, 60)
        (tmp_path / "copy.yaml").write_text((tmp_path / "wpe-backup.yaml").read_text())  # another path: another scope
        live = start_command("run", *SLOWLY, cwd=tmp_path)
        until(server.backups)
        run_id = only_report(tmp_path).parent.name
        for arguments in ((), ("--resume", "latest")):
            refused(run_command("run", *arguments, cwd=tmp_path), 11, "wpe-backup.yaml is going on", str(live.pid))
        itself = run_command("run", "-c", "copy.yaml", "--resume", run_id, cwd=tmp_path)
        by = f"run {run_id}, begun at 2"
        refused(itself, 11, f"a run of wpe-backup.yaml is going on, {by}", f" UTC, in process {live.pid}; wait")
        waiting = start_command("run", "--lock-wait", "60s", cwd=tmp_path)
        until(lambda: "/locks/" in opened(waiting.pid))
        waiting.send_signal(signal.SIGINT)
        stopped = waiting.ended()
        assert stopped.code == 130
        said, last = stopped.stderr.splitlines()
        assert "lock.waiting" in said
        assert str(live.pid) in said
        assert last == "wpe-backup: stopped before anything was sent"
        live.send_signal(signal.SIGINT)
        assert live.ended().code == 130
        assert set(made_of_each(server).values()) == {1}
    assert len(list((tmp_path / "state/runs").iterdir())) == 1


def test_with_lock_wait_a_run_waits_for_the_one_before_it(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path)) as server:
        configure(tmp_path, server, 6)
        live = start_command("run", *SLOWLY, cwd=tmp_path)
        until(server.backups)
        assert run_command("run", "--lock-wait", "30s", *PACE, cwd=tmp_path).code == 0
        assert live.ended().code == 0
        order = [backup["description"].split("wpe-backup ")[1] for backup in server.backups()]
        assert made_of_each(server) == dict.fromkeys(install_ids(6), 2)
    assert Counter(order) == dict.fromkeys(set(order), 6)
    first, second = sorted((tmp_path / "state/runs").glob("*/summary.json"))
    assert json.loads(first.read_text())["finished_at"] <= json.loads(second.read_text())["finished_at"]


# -- failures that are retried -----------------------------------------------------------------------------------------


def named(folder: Path, how: str) -> str:
    """Return the newest run as an argument of ``--retry-failed``: its id, or the file of its report."""
    path = max((folder / "state/runs").glob("*/report.jsonl"))
    return path.parent.name if how == "run" else str(path)


def newest(folder: Path, count: int) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    return whole(max((folder / "state/runs").glob("*/report.jsonl")), count)


@pytest.mark.parametrize("how", ["run", "file"])
def test_only_failures_are_retried_each_according_to_its_outcome(tmp_path: Path, how: str) -> None:
    ids = install_ids(7)
    bad = {"kind": "bad_request", "of": "requests", "first_tries": 1, "installs": [ids[1], ids[4], ids[5]]}
    lost = [{"kind": "gateway_timeout", "created": n == 2, "first_tries": 1, "installs": [ids[n]]} for n in (2, 3)]
    with stand_in(*scenario(tmp_path, faults=[bad, *lost])) as server:
        configure(tmp_path, server, 7, QUICK + "on_ambiguous: fail\n")
        assert run_command("run", *PACE, cwd=tmp_path).code == 3
        _, first = newest(tmp_path, 7)
        assert (first["outcomes"]["rejected"], first["outcomes"]["unconfirmed"]) == (3, 2)
        configure(tmp_path, server, 7)
        text = (tmp_path / "wpe-backup.yaml").read_text()
        without = "".join(line for line in text.splitlines(keepends=True) if ids[4] not in line)
        (tmp_path / "wpe-backup.yaml").write_text(without.replace("name: shop5}", "name: shop5, enabled: false}"))
        done = run_command("run", "--retry-failed", named(tmp_path, how), *PACE, cwd=tmp_path)
        lines, summary = newest(tmp_path, 5)
        assert (done.code, summary["exit_code"]) == (3, 3)
        assert summary["run_id"] != first["run_id"]
        assert [lines[ids[n]]["outcome"] for n in (1, 2, 3, 4, 5)] == ["accepted"] * 3 + ["cancelled"] * 2
        assert [lines[ids[n]]["reconciled"] for n in (1, 2, 3)] == [False, True, False]
        assert {lines[ids[n]]["error"]["kind"] for n in (4, 5)} == {"stopped"}
        assert made_of_each(server) == dict.fromkeys(set(ids) - {ids[4], ids[5]}, 1)
        words = {backup["install_id"]: backup["description"] for backup in server.backups()}
        assert [first["run_id"] in words[ids[n]] for n in (1, 2, 3)] == [False, True, False]
        assert [summary["run_id"] in words[ids[n]] for n in (1, 2, 3)] == [True, False, True]
        # it stays cancelled when that run is resumed, though the YAML has it again
        (tmp_path / "wpe-backup.yaml").write_text(text)
        requests = sent(server)
        again = run_command("run", "--resume", "latest", *PACE, cwd=tmp_path)
        assert (again.code, sent(server)) == (3, requests)
    resumed, _ = newest(tmp_path, 5)
    assert [resumed[ids[n]]["outcome"] for n in (1, 2, 3, 4, 5)] == ["accepted"] * 3 + ["cancelled"] * 2


@pytest.mark.parametrize("how", ["run", "file"])
def test_an_unconfirmed_retry_still_looks_for_the_first_runs_backup(tmp_path: Path, how: str) -> None:
    (lost,) = install_ids(1)
    faults = [
        {"kind": "gateway_timeout", "created": True, "first_tries": 1},
        {"kind": "not_found", "operation": "listing", "of": "requests", "first_tries": 1},
    ]
    with stand_in(*scenario(tmp_path, faults=faults)) as server:
        configure(tmp_path, server, 1, QUICK + "on_ambiguous: fail\n")
        assert run_command("run", *PACE, cwd=tmp_path).code == 3
        _, first = newest(tmp_path, 1)
        configure(tmp_path, server, 1)
        assert run_command("run", "--retry-failed", named(tmp_path, how), *PACE, cwd=tmp_path).code == 3
        lines, second = newest(tmp_path, 1)
        assert second["run_id"] != first["run_id"]
        assert (lines[lost]["outcome"], lines[lost]["attempts"]) == ("unconfirmed", 0)
        assert lines[lost]["look_for"] == [f"[wpe-backup {first['run_id']}]"]
        assert run_command("run", "--retry-failed", named(tmp_path, how), *PACE, cwd=tmp_path).code == 0
        lines, _ = newest(tmp_path, 1)
        assert told(lines) == made(server)
        assert server.stats()["posts"] == 1
    assert (lines[lost]["outcome"], lines[lost]["reconciled"]) == ("accepted", True)


def test_a_retry_of_a_run_without_failures_does_nothing_and_of_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path)) as server:
        configure(tmp_path, server, 4)
        process = start_command("run", *SLOWLY, cwd=tmp_path)
        until(server.backups)
        process.send_signal(signal.SIGKILL)
        process.ended()
        requests, run_id = sent(server), only_report(tmp_path).parent.name
        early = run_command("run", "--retry-failed", "latest", cwd=tmp_path)
        refused(early, 2, f"run {run_id} is not finished: finish it first with --resume {run_id}")
        assert sent(server) == requests
        assert run_command("run", "--resume", "latest", *PACE, cwd=tmp_path).code == 0
        assert made_of_each(server) == dict.fromkeys(install_ids(4), 1)
        requests = sent(server)
        empty = run_command("run", "--retry-failed", "latest", "-o", "-", *PACE, cwd=tmp_path)
        (summary,) = empty.lines()
        assert (empty.code, summary["type"], summary["planned"], summary["exit_code"]) == (0, "summary", 0, 0)
        assert report_line_problems(summary) == []
        assert sent(server) == requests


# -- failed writes -----------------------------------------------------------------------------------------------------


def test_a_resumed_run_writes_a_complete_report_after_a_full_disk(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path)) as server:
        configure(tmp_path, server, 12)
        full = run_command("run", "-o", "/dev/full", *PACE, cwd=tmp_path)
        assert (full.code, "Traceback" in full.stderr) == (4, False)
        assert all(backup["id"] in full.stderr for backup in server.backups())
        assert run_command("run", "--resume", "latest", "-o", "whole.jsonl", *PACE, cwd=tmp_path).code == 0
        lines, _ = whole(tmp_path / "whole.jsonl", 12)
        assert made_of_each(server) == dict.fromkeys(install_ids(12), 1)
        assert told(lines) == made(server)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 1 MB; skip the test if that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount") or "mount"
    try:
        done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], check=False, timeout=10)
    except OSError as error:
        pytest.skip(f"a small disk cannot be mounted: {error}")
    if done.returncode:
        pytest.skip("a small disk cannot be mounted here: that takes root")
    yield folder
    subprocess.run([shutil.which("umount") or "umount", "-l", str(folder)], check=True, timeout=10)


@pytest.mark.parametrize("report_on_it", [False, True])
def test_a_state_whose_disk_fills_up_during_a_run_loses_nothing_and_makes_nothing_twice(
    tmp_path: Path,
    small_disk: Path,
    report_on_it: bool,  # noqa: FBT001 - a column of the table
) -> None:
    where = () if report_on_it else ("-o", "report.jsonl")
    state = str(small_disk / "state")
    with stand_in(*scenario(tmp_path)) as server:
        configure(tmp_path, server, 30)
        process = start_command(
            "run", "--rate", "20", "--max-rate", "20", *where, cwd=tmp_path, WPE_BACKUP_STATE_DIR=state
        )
        until(lambda: len(server.backups()) > 3)
        filler = small_disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        full = process.ended()
        count = len(server.backups())
        assert (full.code, "Traceback" in full.stderr, count < 30) == (4, False, True)
        (report,) = small_disk.rglob("report.jsonl") if report_on_it else (tmp_path / "report.jsonl",)
        reported = report.read_text()
        assert [each for each in made(server) if each not in reported + full.stderr] == []
        if not report_on_it:  # the report has all of them, even those that the state could not store
            lines, summary = whole(report, 30)
            assert (told(lines), summary["exit_code"]) == (made(server), 4)
        filler.unlink()
        assert run_command("run", "--resume", "latest", *PACE, cwd=tmp_path, WPE_BACKUP_STATE_DIR=state).code == 0
        lines, _ = whole(report, 30)
        assert made_of_each(server) == dict.fromkeys(install_ids(30), 1)
        assert told(lines) == made(server)


def test_a_newer_or_damaged_state_is_exit_4_and_nothing_is_sent(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path)) as server:
        configure(tmp_path, server, 2)
        state = tmp_path / "state" / "state.db"
        state.parent.mkdir(mode=0o700)
        with closing(sqlite3.connect(state)) as connection:
            connection.execute("PRAGMA user_version = 99")
        future = run_command("run", "--resume", "latest", cwd=tmp_path)
        refused(future, 4, str(state), "schema version 99", "upgrade this program")
        state.write_bytes(b"no database, by any means" * 100)
        refused(run_command("run", cwd=tmp_path), 4, str(state), "it is not an SQLite database; move it away")
        assert sent(server) == 0
        assert state.read_bytes() == b"no database, by any means" * 100


def test_runs_older_than_keep_are_removed_but_not_another_yamls_runs_or_reports_elsewhere(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path)) as server:
        configure(tmp_path, server, 1, QUICK + "state: {keep: 1s}\n")
        (tmp_path / "other.yaml").write_text((tmp_path / "wpe-backup.yaml").read_text())
        runs = tmp_path / "state" / "runs"
        assert run_command("run", "-o", "elsewhere.jsonl", *PACE, cwd=tmp_path).code == 0
        (old,) = (each.name for each in runs.iterdir())
        assert run_command("run", "-c", "other.yaml", *PACE, cwd=tmp_path).code == 0
        (other,) = {each.name for each in runs.iterdir()} - {old}
        time.sleep(1.0)
        assert run_command("run", *PACE, cwd=tmp_path).code == 0
        left = {each.name for each in runs.iterdir()}
        assert (old in left, other in left, len(left)) == (False, True, 2)
        refused(run_command("run", "--resume", old, cwd=tmp_path), 2, f"there is no run {old}")
    assert len((tmp_path / "elsewhere.jsonl").read_bytes().splitlines()) == 2
