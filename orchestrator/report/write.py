"""Write the report as the run goes: each line whole, the moment its outcome is final.

A regular file takes the place of an older one when it is opened, so two reports are never mixed; a pipe, a device or
standard output is only written to. A thread writes, since a reader that pauses must not stop the run's clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import queue
import re
import select
import stat
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from orchestrator.errors import WriteError
from orchestrator.report.lines import backup_line, encode, summary_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from orchestrator.model import Outcome
    from orchestrator.summary import Summary

STANDARD_OUTPUT = "-"
READER_POLL_S = 0.1

_DESCRIPTOR = re.compile(r"/dev/(stdin|stdout|stderr|fd/\d+)|/proc/[^/]+/fd/\d+", re.ASCII)
"""Paths that name an open descriptor: what is behind one belongs to whoever opened it, and is only written to."""


class ReportWriter:
    """Keep outcomes as JSON lines; the engine's ``OutcomeSink``. Use it as an asynchronous context manager.

    What could not be written once is not tried again: a report with a hole would look whole.
    """

    def __init__(self, run_id: str, target: str, stdout_fd: int | None) -> None:
        """Prepare to write the report of ``run_id`` to the path ``target``, ``-`` for the descriptor ``stdout_fd``."""
        self._run_id = run_id
        self._target = target
        self._stdout_fd = stdout_fd
        self._fd: int | None = None
        self._failure: WriteError | None = None
        self._thread = _WriterThread()

    async def __aenter__(self) -> Self:
        """Open the report; of a named pipe, wait for its reader. Raises ``WriteError``."""
        try:
            self._fd = self._standard_output() if self._target == STANDARD_OUTPUT else await _open(Path(self._target))
        except (OSError, ValueError) as error:
            raise self._failed(error) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; standard output stays open."""
        self._thread.stop()
        if self._fd is not None and self._target != STANDARD_OUTPUT:
            with contextlib.suppress(OSError):
                os.close(self._fd)

    async def record(self, outcome: Outcome) -> None:
        """Write one outcome's line. Raises ``WriteError``."""
        await self._write(backup_line(self._run_id, outcome))

    async def finish(self, summary: Summary) -> None:
        """Write the summary's line, and have a regular file on disk. Raises ``WriteError``."""
        await self._write(summary_line(summary), sync=True)

    def abandon(self) -> None:
        """Wait no longer for a reader that does not read: what is not written yet fails with ``WriteError``."""
        self._thread.abandon(self._failed(TimeoutError("its reader does not read")))

    async def _write(self, line: dict[str, Any], *, sync: bool = False) -> None:
        if self._failure:
            raise self._failure
        await self._thread.run(partial(self._write_now, encode(line), sync=sync))

    def _write_now(self, data: bytes, *, sync: bool) -> None:
        if self._failure:
            raise self._failure
        if self._fd is None:
            message = "the report is written to before it is opened"
            raise RuntimeError(message)
        try:
            _write_all(self._fd, data)
            if sync and self._target != STANDARD_OUTPUT and stat.S_ISREG(os.fstat(self._fd).st_mode):
                os.fsync(self._fd)
        except OSError as error:
            raise self._failed(error) from error

    def _standard_output(self) -> int:
        if self._stdout_fd is None:
            raise OSError(errno.EBADF, "it is closed")
        return self._stdout_fd

    def _failed(self, error: Exception) -> WriteError:
        name = "standard output" if self._target == STANDARD_OUTPUT else self._target
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self._failure = WriteError(f"the report cannot be written to {name}: {reason}")
        return self._failure


class _WriterThread:
    """Run calls one after the other in a thread that does not keep the interpreter from ending."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], None], asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._waiting: set[asyncio.Future[None]] = set()
        threading.Thread(target=self._work, name="report", daemon=True).start()

    async def run(self, call: Callable[[], None]) -> None:
        """Return when ``call`` has returned in the thread; raise what it raises."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(done)
        done.add_done_callback(self._waiting.discard)
        self._calls.put((call, done))
        await done

    def abandon(self, error: Exception) -> None:
        """Fail every call that has not returned."""
        for done in list(self._waiting):
            _settle(done, error)

    def stop(self) -> None:
        """End the thread after the calls before."""
        self._calls.put(None)

    def _work(self) -> None:
        while (entry := self._calls.get()) is not None:
            call, done = entry
            error: Exception | None = None
            try:
                call()
            except Exception as raised:  # noqa: BLE001 - it is raised again where it is waited for
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop may have been closed meanwhile
                done.get_loop().call_soon_threadsafe(_settle, done, error)


def _settle(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error:
        done.set_exception(error)
    else:
        done.set_result(None)


def write_summary(folder: Path, summary: Summary) -> None:
    """Write ``summary.json`` into a run's ``folder``, whole or not at all. Raises ``WriteError``."""
    path = folder / "summary.json"
    try:
        descriptor, name = tempfile.mkstemp(prefix=".summary.", dir=folder)
        try:
            _write_all(descriptor, encode(summary_line(summary)))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        Path(name).replace(path)
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}"
        raise WriteError(message) from error


def make_folder(path: Path) -> None:
    """Make a folder of the state, for its owner alone. Raises ``WriteError``."""
    try:
        for folder in reversed((path, *path.parents)):
            if not folder.exists():
                folder.mkdir(mode=0o700, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        message = f"{path} cannot be made: {reason}; name another folder with --state-dir"
        raise WriteError(message) from error


def drop_folder(path: Path) -> None:
    """Remove a folder that nothing was put into."""
    with contextlib.suppress(OSError):
        path.rmdir()


async def _open(path: Path) -> int:
    """Open ``path`` for writing: a new regular file in the place of an older one, anything else as it is."""
    return _replaced(path) if _is_replaceable(path) else await _opened_as_it_is(str(path))


def _is_replaceable(path: Path) -> bool:
    if _DESCRIPTOR.fullmatch(str(path.absolute())):
        return False
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True


def _replaced(path: Path) -> int:
    real = path.resolve()
    descriptor, name = tempfile.mkstemp(prefix=f".{real.name[:100]}.", dir=real.parent)
    try:
        Path(name).replace(real)
    except OSError:
        os.close(descriptor)
        Path(name).unlink()
        raise
    return descriptor


async def _opened_as_it_is(path: str) -> int:
    """Open a pipe or a device. A named pipe has no reader yet where the system says ENXIO: wait for one."""
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(os.lstat(path).st_mode):
                raise
            await asyncio.sleep(READER_POLL_S)
        else:
            os.set_blocking(descriptor, True)
            return descriptor


def _write_all(descriptor: int, data: bytes) -> None:
    """Write every byte, however few the descriptor takes at a time."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()
