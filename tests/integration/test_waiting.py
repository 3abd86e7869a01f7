"""The real command against the stand-in: it waits, skips recent backups, and stops early."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from command import StandIn, fleet, run_command, stand_in, start_command, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("without_coverage")

QUICK = "wait: {timeout: 20s, poll_interval: 200ms}\nretry: {max_attempts: 2}\nreconcile: {grace: 1s}\n"
PACE = ("--rate", "200", "--max-rate", "200")


def scenario(folder: Path, text: str) -> tuple[str, str]:
    (folder / "scenario.yaml").write_text(f"latency: 1ms\n{text}")
    return "--scenario", str(folder / "scenario.yaml")


def configure(folder: Path, server: StandIn, count: int, more: str = QUICK) -> None:
    (folder / "wpe-backup.yaml").write_text(fleet(server.base_url, count, more))


def outcomes(stdout: str) -> Counter[str]:
    lines = [json.loads(line) for line in stdout.splitlines()]
    return Counter(line["outcome"] for line in lines if line["type"] == "backup")


def backup_lines(stdout: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, stdout.splitlines()) if line["type"] == "backup"]


def marks(server: StandIn) -> Counter[str]:
    """Return how many backups each install has."""
    return Counter(backup["install_id"] for backup in server.backups())


def test_waiting_survives_failed_polls_and_a_lost_answer(tmp_path: Path) -> None:
    sick = """\
backups: {completes_after: [500ms, 1500ms]}
faults:
  - {kind: unavailable, operation: show, share: 0.2}
  - {kind: reset, operation: show, share: 0.1}
  - {kind: not_found, operation: show, share: 0.05, of: requests}
  - {kind: gateway_timeout, share: 0.2, created: true, after: 1ms}
"""
    with stand_in(*scenario(tmp_path, sick)) as server:
        configure(tmp_path, server, 20)
        ended = run_command("run", "--wait", *PACE, "-o", "-", cwd=tmp_path)
        assert (ended.code, outcomes(ended.stdout)) == (0, {"completed": 20})
        assert {line["backup"]["status"] for line in backup_lines(ended.stdout)} == {"completed"}
        assert set(marks(server).values()) == {1}


def test_an_aborted_backup_is_requested_exactly_once_more(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path, "backups: {completes_after: 300ms, aborts: 0.5}\n")) as server:
        configure(tmp_path, server, 16, QUICK.replace("200ms", "200ms, retry_aborted: 1"))
        ended = run_command("run", "--wait", *PACE, "-o", "-", cwd=tmp_path)
        kinds = outcomes(ended.stdout)
        assert (ended.code, set(kinds)) == (3, {"completed", "aborted"})
        made = {backup["id"]: backup for backup in server.backups()}
        for line in backup_lines(ended.stdout):
            earlier = [made[each["id"]]["status"] for each in line["earlier_backups"]]
            assert earlier in ([], ["aborted"])
            assert made[line["backup"]["id"]]["status"] == line["outcome"]
            second = f"[wpe-backup {line['run_id']}/2]"
            assert made[line["backup"]["id"]]["description"].endswith(second) is bool(earlier)
            assert line["attempts"] == 1 + len(earlier)
            assert line["outcome"] == "completed" or earlier == ["aborted"]
        assert max(marks(server).values()) == 2


def test_a_backup_unfinished_in_time_is_incomplete_and_a_resumed_run_polls_it_again(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path, "backups: {completes_after: 8s}\n")) as server:
        configure(tmp_path, server, 5)
        began = time.monotonic()
        ended = run_command("run", "--wait", "--wait-timeout", "500ms", *PACE, "-o", "-", cwd=tmp_path)
        assert (ended.code, outcomes(ended.stdout)) == (3, {"incomplete": 5})
        lines = backup_lines(ended.stdout)
        assert {line["error"]["kind"] for line in lines} == {"timeout"}
        assert {line["backup"]["id"] for line in lines} == {backup["id"] for backup in server.backups()}
        assert "--wait --resume" in ended.stderr
        kept = run_command("run", "--resume", "latest", "-o", "-", cwd=tmp_path)
        assert (kept.code, outcomes(kept.stdout)) == (3, {"incomplete": 5})
        if time.monotonic() - began < 3:
            once = run_command("run", "--retry-failed", "latest", *PACE, "-o", "-", cwd=tmp_path)
            assert set(outcomes(once.stdout)) <= {"incomplete", "completed"}
        resumed = run_command("run", "--wait", "--resume", lines[0]["run_id"], *PACE, "-o", "-", cwd=tmp_path)
        assert (resumed.code, outcomes(resumed.stdout)) == (0, {"completed": 5})
        assert {line["run_id"] for line in backup_lines(resumed.stdout)} == {lines[0]["run_id"]}
        assert set(marks(server).values()) == {1}


def test_a_run_killed_while_it_waits_continues_the_wait_when_resumed(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path, "backups: {completes_after: 2s}\n")) as server:
        configure(tmp_path, server, 8)
        live = start_command("run", "--wait", *PACE, cwd=tmp_path)
        until(lambda: any("/backups/" in each["path"] for each in server.requests()))
        live.send_signal(signal.SIGKILL)
        live.ended()
        resumed = run_command("run", "--wait", "--resume", "latest", *PACE, "-o", "-", cwd=tmp_path)
        assert (resumed.code, outcomes(resumed.stdout)) == (0, {"completed": 8})
        assert (len(server.backups()), set(marks(server).values())) == (8, {1})


def test_a_signal_while_waiting_leaves_accepted_backups_incomplete(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path, "backups: {completes_after: 1h}\n")) as server:
        configure(tmp_path, server, 3)
        live = start_command("run", "--wait", *PACE, "-o", "-", cwd=tmp_path)
        until(lambda: len(server.backups()) >= 3)
        live.send_signal(signal.SIGTERM)
        stopped = live.ended()
        assert (stopped.code, outcomes(stopped.stdout)) == (143, {"incomplete": 3})
        assert {line["error"]["kind"] for line in backup_lines(stopped.stdout)} == {"timeout"}
        assert all("cut short" in line["error"]["message"] for line in backup_lines(stopped.stdout))
        assert run_command("run", "--resume", "latest", cwd=tmp_path).code == 143, "nothing is left to do but to wait"


def test_the_maintenance_gate_requests_only_installs_without_a_recent_backup(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path, "backups: {completes_after: 300ms}\nlisting: {nightly: 3}\n")) as server:
        configure(tmp_path, server, 4)
        gate = ("run", "--wait", "--skip-if-recent", "1h", *PACE, "-o", "-")
        assert run_command("run", "shop0", "shop1", *PACE, cwd=tmp_path).code == 0
        first = run_command(*gate, cwd=tmp_path)
        assert (first.code, sum(outcomes(first.stdout).values())) == (0, 4)
        assert outcomes(first.stdout)["completed"] in {2, 3, 4}
        made = len(server.backups())
        second = run_command(*gate, cwd=tmp_path)
        assert (second.code, outcomes(second.stdout)) == (0, {"skipped": 4})
        assert all("younger than 1h" in line["reason"] for line in backup_lines(second.stdout))
        assert len(server.backups()) == made
        elsewhere = run_command(*gate, "--state-dir", str(tmp_path / "other"), cwd=tmp_path)
        assert (elsewhere.code, outcomes(elsewhere.stdout), len(server.backups())) == (0, {"skipped": 4}, made)


def test_a_deadline_cancels_installs_not_yet_requested_and_waits_for_the_rest(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path, "backups: {completes_after: 2s}\n")) as server:
        configure(tmp_path, server, 40)
        ended = run_command("run", "--wait", "--deadline", "1s", "--rate", "8", "-o", "-", cwd=tmp_path)
        kinds = outcomes(ended.stdout)
        assert (ended.code, set(kinds)) == (10, {"completed", "cancelled"})
        assert kinds["completed"] == len(server.backups())
        why = {line["error"]["kind"] for line in backup_lines(ended.stdout) if line["error"]}
        assert why == {"deadline"}
        resumed = run_command("run", "--resume", "latest", *PACE, cwd=tmp_path)
        assert (resumed.code, len(server.backups()), set(marks(server).values())) == (0, 40, {1})


@pytest.mark.parametrize("rule", [["--fail-fast"], ["--max-failures", "50%"]])
def test_too_many_failures_stop_the_run_early(tmp_path: Path, rule: list[str]) -> None:
    with stand_in(*scenario(tmp_path, "faults: [{kind: forbidden}]\n")) as server:
        configure(tmp_path, server, 60)
        ended = run_command("run", *rule, "--rate", "40", "--concurrency", "1", "-o", "-", cwd=tmp_path)
        kinds = outcomes(ended.stdout)
        tried = 1 if rule == ["--fail-fast"] else 20
        assert (ended.code, kinds["rejected"]) == (3, tried)
        assert kinds["cancelled"] == 60 - tried
        stopped = {line["error"]["kind"] for line in backup_lines(ended.stdout) if line["outcome"] == "cancelled"}
        assert stopped == {"stopped"}
        assert server.stats()["posts"] == tried


def test_each_account_of_an_agency_fails_alone(tmp_path: Path) -> None:
    revoked = "credentials: {user_id: good, password: right}\nbackups: {completes_after: 200ms}\n"
    with stand_in(*scenario(tmp_path, revoked)) as server:
        (tmp_path / "clients").mkdir()
        (tmp_path / "clients/acme.csv").write_text("id,account,tags\n00000000-0000-4000-8000-000000000001,acme,a;b\n")
        (tmp_path / "clients/globex.jsonl").write_text(
            '{"id": "00000000-0000-4000-8000-000000000002", "account": "globex", "name": "globexblog"}\n'
        )
        url = server.base_url
        (tmp_path / "wpe-backup.yaml").write_text(
            f"""\
version: 1
accounts:
  acme: {{user_id: good, password: right, base_url: "{url}"}}
  globex: {{user_id: good, password: wrong, base_url: "{url}"}}
defaults: {{notification_emails: []}}
wait: {{poll_interval: 100ms}}
inventory: [files: ["clients/*.csv", "clients/*.jsonl"]]
"""
        )
        ended = run_command("run", "--wait", "-o", "-", cwd=tmp_path)
        *_, summary = map(json.loads, ended.stdout.splitlines())
        assert ended.code == 12
        assert {name: each["outcomes"] for name, each in summary["accounts"].items()} == {
            "acme": {"completed": 1},
            "globex": {"cancelled": 1},
        }
        assert "account globex: 0 of 1, 1 cancelled" in ended.stderr


def test_a_resumed_retry_polls_an_incomplete_backup_and_never_requests_it(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path, "backups: {completes_after: 6s, aborts: 1}\n")) as server:
        configure(tmp_path, server, 4, QUICK.replace("200ms", "200ms, retry_aborted: 1"))
        first = run_command("run", "--wait", "--wait-timeout", "300ms", *PACE, "-o", "-", cwd=tmp_path)
        assert outcomes(first.stdout) == {"incomplete": 4}
        retry = run_command("run", "--retry-failed", "latest", *PACE, "-o", "-", cwd=tmp_path)
        assert outcomes(retry.stdout) == {"incomplete": 4}
        resumed = run_command("run", "--resume", "latest", "--wait", *PACE, "-o", "-", cwd=tmp_path)
        assert (resumed.code, outcomes(resumed.stdout)) == (3, {"aborted": 4})
        assert len(server.backups()) == 4
