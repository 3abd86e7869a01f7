"""Read from files and commands that may never end, or never begin, with a limit of bytes and a limit of time."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that end wpe-backup."""

GLANCE_S = 0.05
"""Seconds between two checks whether a command has ended. Its child processes may hold its output open without end."""


class TooSlowError(Exception):
    """Say that a file or a command did not end in time."""


class FailedError(Exception):
    """Say that a command ended with an exit code other than 0."""

    def __init__(self, exit_code: int) -> None:
        """Keep the exit code."""
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code


def file_content(path: Path, most: int, within_s: float) -> bytes:
    """Return the first ``most`` bytes of the file ``path``. Wait for a pipe, for ``within_s`` seconds at most.

    Raises ``OSError`` if the file cannot be read, ``ValueError`` for an impossible path, ``TooSlowError``.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return _read(descriptor, most, time.monotonic() + within_s)
    finally:
        os.close(descriptor)


def command_output(command: str, most: int, within_s: float) -> bytes:
    """Run ``command`` without a shell and without input, and return the first ``most`` bytes of its output.

    If the command is stopped early, its child processes are killed too. If it ends by itself, they go on: one may be an
    agent. Raises ``OSError`` or ``ValueError`` if the command cannot be run, ``FailedError``, ``TooSlowError``.
    """
    arguments = shlex.split(command)
    if not arguments:
        message = "there is nothing to run"
        raise ValueError(message)
    until = time.monotonic() + within_s
    with _started(arguments) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        try:
            output = _read(process.stdout.fileno(), most, until, lambda: process.poll() is not None)
            if len(output) < most:
                process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise TooSlowError from None
    if len(output) < most and process.returncode:
        raise FailedError(process.returncode)
    return output


@contextmanager
def _started(arguments: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command; on exit, kill it if it still runs, with all its child processes.

    For that, the command gets its own process group. If it may ask the user something, it stays in the foreground group
    of the terminal, since no other group can read from the terminal. Then only the command is killed: Ctrl-C reaches
    its children.
    """
    group = None if _may_ask() else 0
    process: subprocess.Popen[bytes] | None = None
    try:
        with _signals_put_off():
            process = subprocess.Popen(  # noqa: S603 - the operator's own command, without a shell
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                process_group=group,
            )
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        os.set_blocking(process.stdout.fileno(), False)
        yield process
    finally:
        if process is not None:
            with process:
                if process.poll() is None:
                    _kill(process, is_group=group is not None)


@contextmanager
def _signals_put_off() -> Iterator[None]:
    """Delay the handlers of signals until the end. A handler that raises earlier would leave a process behind."""
    came: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    found = {signum: signal.getsignal(signum) for signum in SIGNALS if is_main}
    handlers = {signum: handler for signum, handler in found.items() if callable(handler)}
    for signum in handlers:
        signal.signal(signum, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    for number in came[:1]:
        handlers[signal.Signals(number)](number, None)


def _may_ask() -> bool:
    """Tell whether this process is in the foreground of a terminal, so that a command may ask there."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _kill(process: subprocess.Popen[bytes], *, is_group: bool) -> None:
    with suppress(ProcessLookupError):
        if is_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _read(descriptor: int, most: int, until: float, has_ended: Callable[[], bool] | None = None) -> bytes:
    """Read ``most`` bytes, or to the end, or until ``has_ended`` and no output waits. Raises ``TooSlowError``."""
    content = bytearray()
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    while len(content) < most:
        ended = has_ended is not None and has_ended()
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise TooSlowError
        if not waiting.poll(0 if ended else min(left_s, GLANCE_S) * 1000):
            if ended:
                break
            continue
        chunk = _chunk(descriptor, most - len(content))
        if chunk == b"":
            break
        content += chunk or b""
    return bytes(content)


def _chunk(descriptor: int, size: int) -> bytes | None:
    try:
        return os.read(descriptor, size)
    except BlockingIOError:
        return None
