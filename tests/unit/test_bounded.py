"""Reads from pipes and commands that may never end still end."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from orchestrator.config.placed_yaml.bounded import FailedError, TooSlowError, command_output, file_content


def test_a_file_is_read_to_its_end_or_to_the_bound(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"secret\n")
    assert file_content(tmp_path / "f", 100, 1.0) == b"secret\n"
    assert file_content(Path("/dev/zero"), 100, 1.0) == bytes(100)
    with pytest.raises(IsADirectoryError):
        file_content(tmp_path, 100, 1.0)


def test_a_read_waits_for_a_pipe_but_not_for_ever(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(TooSlowError):
        file_content(pipe, 100, 0.1)
    writer = threading.Thread(target=pipe.write_text, args=("late\n",))  # which waits for a reader
    writer.start()
    assert file_content(pipe, 100, 30.0) == b"late\n"
    writer.join()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("printf 'a b'", b"a b"),
        ("cat", b""),
        ("head -c 100000000 /dev/zero", bytes(100)),
    ],
)
def test_a_command_is_read_to_its_end_or_to_the_bound(command: str, expected: bytes) -> None:
    assert command_output(command, 100, 30.0) == expected


def test_the_read_of_a_command_does_not_wait_for_its_children() -> None:
    left = int(command_output("sh -c 'sleep 600 & echo $!'", 100, 30.0))
    os.kill(left, signal.SIGKILL)  # raises if the process has ended


@pytest.mark.parametrize("command", ["sleep 30", "sh -c 'exec >&-; sleep 30'", "sh -c 'echo x; sleep 30'"])
def test_a_command_that_does_not_end_is_killed(command: str) -> None:
    with pytest.raises(TooSlowError):
        command_output(command, 100, 0.2)


def test_a_command_that_fails_or_cannot_be_run_is_an_error() -> None:
    with pytest.raises(FailedError, match="exit code 3"):
        command_output("sh -c 'echo x; exit 3'", 100, 10.0)
    for command in ("", "/nowhere/op", "'", "a\0b"):
        with pytest.raises((OSError, ValueError)):
            command_output(command, 100, 10.0)
