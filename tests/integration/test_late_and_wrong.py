"""The real command against the stand-in: a network that comes up late, and a clock that is days off."""

from __future__ import annotations

import socket
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from command import Ended, fleet, run_command, stand_in, start_command

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("without_coverage")

PACE = ("--rate", "100", "--max-rate", "100", "-o", "-")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def outcomes(ended: Ended) -> Counter[str]:
    return Counter(line["outcome"] for line in ended.lines()[:-1])


def scenario(folder: Path, text: str) -> tuple[str, str]:
    (folder / "scenario.yaml").write_text(text)
    return "--scenario", str(folder / "scenario.yaml")


# -- the network is late -----------------------------------------------------------------------------------------------


def test_the_run_waits_for_an_api_that_is_not_up_yet(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "wpe-backup.yaml").write_text(fleet(f"http://127.0.0.1:{port}/v1", 3, "retry: {max_attempts: 1}"))
    process = start_command("run", *PACE, cwd=tmp_path)
    said = ""
    while "account.not_reached" not in said:
        line = process.stderr.readline()
        assert line, "it ended before the API was there"
        said += line
    with stand_in("--port", str(port)) as server:
        ended = process.ended()
        assert server.stats()["backups_made"] == 3
    assert (ended.code, outcomes(ended)) == (0, {"accepted": 3})
    assert "account.reached" in said + ended.stderr


def test_the_deadline_ends_the_wait_for_a_failing_api(tmp_path: Path) -> None:
    ill = "faults: [{kind: unavailable, operation: user, first_tries: 8}]\nlatency: 1ms\n"
    with stand_in(*scenario(tmp_path, ill)) as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 3, "retry: {max_attempts: 1}"))
        ended = run_command("run", *PACE, "--deadline", "1ms", cwd=tmp_path)
        assert (ended.code, outcomes(ended)) == (10, {"cancelled": 3})


def test_the_run_gives_up_an_api_that_never_comes_up(tmp_path: Path) -> None:
    yaml = fleet(f"http://127.0.0.1:{free_port()}/v1", 3, "throttle: {give_up: 1s}")
    (tmp_path / "wpe-backup.yaml").write_text(yaml)
    ended = run_command("run", *PACE, cwd=tmp_path)
    assert (ended.code, outcomes(ended)) == (3, {"cancelled": 3})
    assert {line["error"]["kind"] for line in ended.lines()[:-1]} == {"network"}
    assert all("throttle.give_up" in line["error"]["message"] for line in ended.lines()[:-1])


# -- the clock is off --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", ["3d", "-3d", "21h"])
def test_the_age_of_a_backup_is_measured_by_the_servers_clock(tmp_path: Path, skew: str) -> None:
    """A server that is three days ahead looks like this machine after its own clock was set back three days."""
    text, port = "backups: {completes_after: 10ms}\nlatency: 1ms\n", free_port()
    (tmp_path / "wpe-backup.yaml").write_text(fleet(f"http://127.0.0.1:{port}/v1", 3, "wait: {poll_interval: 1s}"))
    gate = ("run", "--skip-if-recent", "20h", *PACE)
    with stand_in("--port", str(port), *scenario(tmp_path, text)) as server:
        assert outcomes(run_command("run", "--wait", *PACE, cwd=tmp_path)) == {"completed": 3}
        before = server.stats()["requests"]
        skipped = run_command(*gate, cwd=tmp_path)
        assert (skipped.code, outcomes(skipped)) == (0, {"skipped": 3})
        assert server.stats()["requests"] == before + 1, "one request tells the time"
    with stand_in("--port", str(port), *scenario(tmp_path, f"{text}clock_skew: {skew}\n")) as server:
        asked = run_command(*gate, cwd=tmp_path)
        assert (asked.code, outcomes(asked)) == (0, {"accepted": 3})
        assert server.stats()["backups_made"] == 3
