"""Runs that are finished later, or whose failures are retried: the real command, judged by what the server counted."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from command import Ended, StandIn, fleet, install_ids, run_command, stand_in, start_command

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

QUICK = "timeouts: {connect: 1s, read: 2s}\nreconcile: {grace: 1s}\nretry: {max_attempts: 3}\n"
PACE = ("--rate", "100", "--max-rate", "100")
SLOWLY = ("--rate", "4", "--max-rate", "4", "--concurrency", "1")


def configure(folder: Path, server: StandIn, count: int, more: str = QUICK) -> None:
    (folder / "wpe-backup.yaml").write_text(fleet(server.base_url, count, more))


def scenario(folder: Path, **settings: Any) -> tuple[str, str]:
    """Return the stand-in's options for a scenario of ``settings``; answers come at once unless these say otherwise."""
    path = folder / "scenario.yaml"
    path.write_text(json.dumps({"latency": ["1ms", "5ms"]} | settings))
    return "--scenario", str(path)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def ended(process: subprocess.Popen[str]) -> Ended:
    stdout, stderr = process.communicate(timeout=30)
    return Ended(process.returncode, stdout, stderr)


def made_of_each(server: StandIn) -> Counter[str]:
    return Counter(backup["install_id"] for backup in server.backups())


def cut_short(folder: Path, server: StandIn, *options: str, after: int = 1) -> Ended:
    """Begin a run, and stop it with Ctrl-C once it has made ``after`` backups."""
    process = start_command("run", *SLOWLY, *options, cwd=folder)
    until(lambda: len(server.backups()) >= after)
    process.send_signal(signal.SIGINT)
    return ended(process)


# -- a resumed run that is killed in its turn --------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--resume", "--retry-failed"])
def test_what_a_killed_resumption_requested_is_looked_up_though_the_run_had_cancelled_it(
    tmp_path: Path, option: str
) -> None:
    last = install_ids(3)[-1]
    hang = {"kind": "hang", "created": True, "first_tries": 1, "installs": [last]}
    with stand_in(*scenario(tmp_path, faults=[hang])) as server:
        configure(tmp_path, server, 3, QUICK.replace("read: 2s", "read: 20s"))
        assert cut_short(tmp_path, server).code == 130
        process = start_command("run", "--resume", "latest", *PACE, cwd=tmp_path)
        until(lambda: made_of_each(server)[last])
        process.kill()
        ended(process)
        if option == "--retry-failed":  # either it is refused until the run has been finished, or it looks
            run_command("run", option, "latest", *PACE, cwd=tmp_path)
        done = run_command("run", "--resume", "latest", *PACE, cwd=tmp_path)
        assert made_of_each(server) == dict.fromkeys(install_ids(3), 1)
    assert done.code == 0


def test_a_resumption_that_waited_for_a_live_run_goes_on_from_where_that_ended(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path)) as server:
        configure(tmp_path, server, 8)
        (tmp_path / "copy.yaml").write_text((tmp_path / "wpe-backup.yaml").read_text())  # another path: another scope
        process = start_command("run", *SLOWLY, cwd=tmp_path)
        until(server.backups)
        run_id = next((tmp_path / "state" / "runs").iterdir()).name
        waited = run_command("run", "-c", "copy.yaml", "--resume", run_id, "--lock-wait", "20s", *PACE, cwd=tmp_path)
        assert ended(process).code == 0
        assert made_of_each(server) == dict.fromkeys(install_ids(8), 1)
    assert waited.code == 0


# -- where the report goes ---------------------------------------------------------------------------------------------


def test_the_report_of_a_resumed_run_is_found_where_it_went(tmp_path: Path) -> None:
    with stand_in(*scenario(tmp_path)) as server:
        configure(tmp_path, server, 4)
        assert cut_short(tmp_path, server).code == 130
        assert run_command("run", "--resume", "latest", "-o", "whole.jsonl", *PACE, cwd=tmp_path).code == 0
    assert len((tmp_path / "whole.jsonl").read_bytes().splitlines()) == 5
    assert "4 of 4 installs backed up" in run_command("report", "summary", "latest", cwd=tmp_path).stdout


def test_an_install_that_was_answered_202_is_not_requested_again_by_a_resumption(tmp_path: Path) -> None:
    no_id = {"kind": "missing_id", "first_tries": 1}
    with stand_in(*scenario(tmp_path, faults=[no_id], listing={"lag": "1h"})) as server:
        configure(tmp_path, server, 1, QUICK + "on_ambiguous: fail\n")
        assert run_command("run", *PACE, cwd=tmp_path).code == 3
        configure(tmp_path, server, 1)
        done = run_command("run", "--resume", "latest", *PACE, cwd=tmp_path)
        assert server.stats()["posts"] == 1
    assert done.code == 3
