"""Reports and doubts that a later command must not lose; a review found these cases."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from command import StandIn, fleet, install_ids, run_command, stand_in, start_command, until

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 4
LOST = install_ids(COUNT)[1]
ILL = f"""\
faults:
  - {{kind: gateway_timeout, created: true, installs: [{LOST}], first_tries: 1}}
  - {{kind: not_found, operation: listing, until: 12s}}
"""


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def outcomes(lines: list[dict[str, Any]]) -> dict[str, str]:
    return {line["install_id"]: line["outcome"] for line in lines if line["type"] == "backup"}


def configure(folder: Path, server: StandIn, count: int = COUNT, *without: str) -> None:
    text = fleet(server.base_url, count, "reconcile: {grace: 1s}")
    (folder / "wpe-backup.yaml").write_text("\n".join(x for x in text.splitlines() if not any(w in x for w in without)))


def until_well(server: StandIn) -> None:
    """Wait until the scenario's fault of the listing is over."""
    first = server.requests()[0]["at"]
    time.sleep(max(0.0, 12.5 - (time.monotonic() - first)))


def test_a_doubt_stays_open_when_a_retry_no_longer_has_its_install(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(ILL)
    with stand_in("--scenario", str(tmp_path / "scenario.yaml")) as server:
        configure(tmp_path, server)
        first = run_command("run", "-o", "-", cwd=tmp_path)
        run_id = first.lines()[-1]["run_id"]
        assert outcomes(first.lines())[LOST] == "unconfirmed"
        configure(tmp_path, server, COUNT, LOST)
        for _ in range(2):
            gone = run_command("run", "--retry-failed", "latest", "-o", "-", cwd=tmp_path)
            assert (gone.code, outcomes(gone.lines())) == (3, {LOST: "unconfirmed"})
            assert gone.lines()[0]["look_for"] == [f"[wpe-backup {run_id}]"]
            assert "Finish it" not in gone.stderr
        configure(tmp_path, server)
        until_well(server)
        back = run_command("run", "--retry-failed", "latest", "-o", "-", cwd=tmp_path)
        assert (back.code, back.lines()[0]["reconciled"]) == (0, True)
        assert Counter(backup["install_id"] for backup in server.backups()) == dict.fromkeys(install_ids(COUNT), 1)


def test_an_install_that_the_quota_refused_is_not_in_doubt_when_the_run_is_resumed(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text("faults: [{kind: quota, until: 3s}]\nlisting: {available: false}\n")
    with stand_in("--scenario", str(tmp_path / "scenario.yaml")) as server:
        configure(tmp_path, server)
        stopped = run_command("run", "-o", "-", cwd=tmp_path)
        assert set(outcomes(stopped.lines()).values()) == {"cancelled"}
        time.sleep(3.0)
        again = run_command("run", "--resume", "latest", "-o", "-", cwd=tmp_path)
    assert (again.code, set(outcomes(again.lines()).values())) == (0, {"accepted"})
    assert sum(line["throttled"] for line in again.lines()[:-1]) == again.lines()[-1]["throttled"]


def test_a_state_folder_under_another_name_keeps_its_reports(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with stand_in() as server:
        configure(tmp_path, server)
        assert run_command("run", "--state-dir", "link", cwd=tmp_path).code == 0
        (report,) = (tmp_path / "real/runs").glob("*/report.jsonl")
        before = report.read_bytes()
        assert run_command("run", "--state-dir", "real", "--resume", "latest", cwd=tmp_path).code == 0
        (tmp_path / "real").rename(tmp_path / "moved")
        assert run_command("run", "--state-dir", "moved", "--resume", "latest", cwd=tmp_path).code == 0
    (moved,) = (tmp_path / "moved/runs").glob("*/report.jsonl")
    assert outcomes(lines_of(moved)) == outcomes([json.loads(line) for line in before.splitlines()])


def test_settle_does_not_overwrite_the_report_of_a_later_run(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(ILL)
    with stand_in("--scenario", str(tmp_path / "scenario.yaml")) as server:
        configure(tmp_path, server)
        run_command("run", "-o", "nightly.jsonl", cwd=tmp_path)
        first = lines_of(tmp_path / "nightly.jsonl")[-1]["run_id"]
        run_command("run", "-o", "nightly.jsonl", cwd=tmp_path)
        later = (tmp_path / "nightly.jsonl").read_bytes()
        settled = run_command("settle", first, LOST, "--absent", cwd=tmp_path)
    assert settled.code == 0
    assert (tmp_path / "nightly.jsonl").read_bytes() == later
    own = tmp_path / "state/runs" / first / "report.jsonl"
    assert str(own) in settled.stderr
    assert outcomes(lines_of(own))[LOST] == "exhausted"


def test_settling_an_install_of_a_killed_run_does_not_end_the_run(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(ILL.replace("until: 12s", "until: 600s"))
    slowly = ("--rate", "4", "--max-rate", "4")
    with stand_in("--scenario", str(tmp_path / "scenario.yaml")) as server:
        configure(tmp_path, server, 30)
        for arguments, signum in (((), signal.SIGINT), (("--resume", "latest"), signal.SIGKILL)):
            live = start_command("run", *slowly, *arguments, cwd=tmp_path)
            made = server.stats()["backups_made"] + 3
            until(lambda made=made: server.stats()["backups_made"] >= made)  # type: ignore[misc]  # mypy infers no lambda with a default
            live.send_signal(signum)
            live.ended()
        ended = run_command("settle", "latest", LOST, "--absent", cwd=tmp_path)
        (report,) = (tmp_path / "state/runs").glob("*/report.jsonl")
        assert ended.code == 2 or lines_of(report)[-1]["type"] == "backup"
        assert run_command("run", "--retry-failed", "latest", cwd=tmp_path).code == 2
        whole = run_command("run", "--resume", "latest", "-o", "-", cwd=tmp_path)
        assert len(outcomes(whole.lines())) == 30
        assert max(Counter(backup["install_id"] for backup in server.backups()).values()) == 1


@pytest.mark.parametrize("option", ["--resume", "--retry-failed"])
def test_an_empty_run_id_does_not_start_a_new_run(tmp_path: Path, option: str) -> None:
    with stand_in() as server:
        configure(tmp_path, server)
        assert run_command("run", cwd=tmp_path).code == 0
        ended = run_command("run", option, "", cwd=tmp_path)
        assert (ended.code, server.stats()["posts"]) == (2, COUNT)


def test_the_report_never_overwrites_the_configuration_in_the_current_folder(tmp_path: Path) -> None:
    with stand_in() as server:
        configure(tmp_path, server)
        before = (tmp_path / "wpe-backup.yaml").read_text()
        ended = run_command("run", "-o", "./wpe-backup.yaml", cwd=tmp_path)
        assert (ended.code, server.stats()["requests"]) == (2, 0)
    assert (tmp_path / "wpe-backup.yaml").read_text() == before


def test_a_second_signal_during_the_report_loses_no_line(tmp_path: Path) -> None:
    count = 3000
    with stand_in() as server:
        configure(tmp_path, server, count)
        live = start_command("run", "-o", "report.jsonl", "--rate", "5", cwd=tmp_path)
        until(lambda: server.stats()["backups_made"] >= 3)
        live.send_signal(signal.SIGTERM)
        live.send_signal(signal.SIGTERM)
        ended = live.ended()
    *lines, summary = lines_of(tmp_path / "report.jsonl")
    assert (ended.code, summary["exit_code"], len(outcomes(lines))) == (143, 143, count)
