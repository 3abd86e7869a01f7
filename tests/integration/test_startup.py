"""A signal ends a command from its first moment on, and the stand-in gets no request."""

from __future__ import annotations

import os
import shlex
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from command import COMMAND, Ended, fleet, opened, run_program, stand_in, start_command, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from command import StandIn

STOPPED = "wpe-backup: stopped before anything was sent\n"
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)

AT_IMPORT = """\
import importlib.abc, os, signal, sys

class Sender(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == os.environ["AT_IMPORT_OF"]:
            signal.raise_signal(int(os.environ["SIGNAL"]))

sys.meta_path.insert(0, Sender())
"""
"""Code that sends the process a signal just before it imports a module."""


@pytest.fixture(autouse=True)
def nothing_ignored() -> Iterator[None]:
    """Start commands with no signal ignored, even if the process that runs the tests ignores some."""
    kept = {signum: signal.signal(signum, signal.SIG_DFL) for signum in SIGNALS}
    yield
    for signum, handler in kept.items():
        signal.signal(signum, handler)


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


@pytest.fixture
def sender(tmp_path: Path) -> str:
    folder = tmp_path / "sender"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(AT_IMPORT)
    return os.pathsep.join([str(folder), *sys.path])


def may_be_process_1() -> bool:
    ended = subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True, check=False)  # noqa: S607 - any unshare
    return ended.returncode == 0


MOMENTS = (
    "orchestrator.cli.streams",
    "click",
    "pydantic",
    "orchestrator.cli.run",
    "orchestrator.config.load",
    "aiohttp",
    "orchestrator.runs.run",
)


@pytest.mark.parametrize(
    ("module", "signum"), [*((each, signal.SIGTERM) for each in MOMENTS), *((MOMENTS[3], each) for each in SIGNALS[:2])]
)
def test_a_signal_while_the_libraries_are_imported_ends_the_command(
    module: str, signum: int, sender: str, server: StandIn, tmp_path: Path
) -> None:
    (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 3))
    before = server.stats()["requests"]
    ended = run_program(*COMMAND, "run", cwd=tmp_path, PYTHONPATH=sender, AT_IMPORT_OF=module, SIGNAL=str(signum))
    assert ended == Ended(128 + signum, "", STOPPED)
    assert server.stats()["requests"] == before
    assert not (tmp_path / "state").exists()


@pytest.mark.skipif(not may_be_process_1(), reason="nobody here may make a process 1")
@pytest.mark.parametrize("module", MOMENTS[::3])
def test_a_signal_also_ends_process_1_of_a_container(module: str, sender: str, server: StandIn, tmp_path: Path) -> None:
    (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 3))
    before = server.stats()["requests"]
    words = ("unshare", "--pid", "--fork", "--kill-child", *COMMAND, "run")
    more = {"PYTHONPATH": sender, "AT_IMPORT_OF": module, "SIGNAL": str(signal.SIGTERM.value)}
    assert run_program(*words, cwd=tmp_path, **more) == Ended(143, "", STOPPED)
    assert server.stats()["requests"] == before


def test_a_signal_that_the_parent_ignores_stays_ignored(sender: str, server: StandIn, tmp_path: Path) -> None:
    (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 3))
    shell = f"trap '' HUP; exec {shlex.join(COMMAND)} run -q"
    more = {"PYTHONPATH": sender, "AT_IMPORT_OF": "click", "SIGNAL": str(signal.SIGHUP.value)}
    assert run_program("/bin/sh", "-c", shell, cwd=tmp_path, **more) == Ended(0, "", "")


NEVER = "fifo"
"""The name of a pipe that nobody writes to."""

WAITS = {
    "config": (("run", "-c", NEVER), signal.SIGTERM),
    "validate": (("config", "validate", "-c", NEVER), signal.SIGHUP),
    "installs": (("run", "--installs-from", NEVER), signal.SIGINT),
    "retry": (("run", "--retry-failed", f"./{NEVER}"), signal.SIGTERM),
    "report": (("report", "failures", f"./{NEVER}"), signal.SIGINT),
    "scenario": (("simulate", "--scenario", NEVER), signal.SIGHUP),
}


@pytest.mark.parametrize(("command", "signum"), WAITS.values(), ids=WAITS)
def test_a_signal_ends_every_command_that_waits_for_a_pipe(
    command: tuple[str, ...], signum: int, server: StandIn, tmp_path: Path
) -> None:
    (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 3))
    os.mkfifo(tmp_path / NEVER)
    process = start_command(*command, cwd=tmp_path)
    with open(tmp_path / NEVER, "wb"):  # noqa: PTH123 - returns when the command opens the other end
        process.send_signal(signum)
        assert process.ended() == Ended(128 + signum, "", STOPPED)


@pytest.mark.parametrize("command", [("run",), ("config", "validate"), ("doctor",)])
def test_a_signal_ends_a_password_command_and_its_children(
    command: tuple[str, ...], server: StandIn, tmp_path: Path
) -> None:
    (tmp_path / "slow.sh").write_text("sleep 600 > fifo | cat")
    text = fleet(server.base_url, 3).replace("default: {", 'default: {password_command: "sh slow.sh", ')
    (tmp_path / "wpe-backup.yaml").write_text(text)
    os.mkfifo(tmp_path / NEVER)
    before = server.stats()["requests"]
    process = start_command(*command, cwd=tmp_path)
    with open(tmp_path / NEVER, "rb") as grandchild:  # noqa: PTH123 - returns when the grandchild runs
        process.send_signal(signal.SIGTERM)
        assert process.ended() == Ended(143, "", STOPPED)
        assert grandchild.read() == b""  # the pipe ends when the grandchild ends
    assert server.stats()["requests"] == before


@pytest.mark.parametrize("command", [("run",), ("history",)])
def test_a_signal_ends_the_wait_for_a_locked_state(command: tuple[str, ...], server: StandIn, tmp_path: Path) -> None:
    (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 1))
    (tmp_path / "state").mkdir()
    with closing(sqlite3.connect(tmp_path / "state" / "state.db", isolation_level=None)) as other:
        other.execute("CREATE TABLE runs (id)")
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("INSERT INTO runs VALUES (1)")
        process = start_command(*command, cwd=tmp_path)
        until(lambda: any("state.db" in opened(process.pid) for _ in range(500)))  # each try opens it for a moment
        process.send_signal(signal.SIGTERM)
        ended = process.ended()
    assert (ended.code, ended.stderr) == (143, STOPPED)  # it would be 4 if it waited for the lock to the end


@pytest.mark.parametrize("command", [("audit",), ("installs",), ("run", "--dry-run")])
def test_a_signal_before_the_event_loop_starts_is_passed_to_it(
    command: tuple[str, ...], sender: str, server: StandIn, tmp_path: Path
) -> None:
    (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 1))
    script = (
        "import sys, signal\n"
        "from orchestrator.cli import main, signals\n"
        "signals.hold()\n"
        f"sys.argv = {['wpe-backup', *command]!r}\n"
        "main()\n"
    )
    before = server.stats()["requests"]
    module = f"orchestrator.cli.{command[0]}"
    more = {"PYTHONPATH": sender, "AT_IMPORT_OF": module, "SIGNAL": str(signal.SIGTERM.value)}
    assert run_program(sys.executable, "-c", script, cwd=tmp_path, **more) == Ended(143, "", STOPPED)
    assert server.stats()["requests"] == before


def test_a_signal_inside_a_finalizer_ends_the_command(tmp_path: Path) -> None:
    script = (
        "import signal\n"
        "from orchestrator.cli import signals\n"
        "class Last:\n"
        "    def __del__(self): signal.raise_signal(signal.SIGTERM)\n"
        "signals.arm()\n"
        "last = Last()\n"
        "del last\n"
        "print('went on')\n"
    )
    assert run_program(sys.executable, "-c", script, cwd=tmp_path) == Ended(143, "", STOPPED)


def test_a_signal_just_before_a_blocking_system_call_ends_the_command(tmp_path: Path) -> None:
    """Another thread takes the signal, so the call is not interrupted, as if the signal had come before it."""
    script = (
        "import os, signal, subprocess, threading\n"
        "from orchestrator.cli import signals\n"
        "try:\n"
        "    signals.arm()\n"
        "    source, _ = os.pipe()\n"
        "    threading.Thread(target=signal.sigwait, args=[[signal.SIGUSR1]], daemon=True).start()\n"
        "    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
        "    subprocess.Popen(['sh', '-c', f'kill -TERM {os.getpid()}'])\n"
        "    os.read(source, 1)\n"
        "except signals.Interrupt as interrupt:\n"
        "    os._exit(signals.exit_code_of(interrupt))\n"
    )
    assert run_program(sys.executable, "-c", script, cwd=tmp_path) == Ended(143, "", STOPPED)


def test_a_signal_ends_a_command_whose_output_is_not_read(server: StandIn, tmp_path: Path) -> None:
    (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 2000))
    process = start_command("run", "--dry-run", cwd=tmp_path)
    process.stdout.read(1)  # the command has begun to print, and the pipe will fill up
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    assert process.ended().stderr == "wpe-backup: stopped\n"
