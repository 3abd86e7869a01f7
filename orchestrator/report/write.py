"""Write the report during the run: each line whole, as soon as its outcome is final.

A regular file is written anew when it is opened, beginning with the lines that a resumed run has already, so that two
reports are never mixed (``files.py``). A pipe, a device or standard output is only appended to. A thread writes the
lines, so that a reader that pauses does not block the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import queue
import stat
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from orchestrator.errors import ReportError, StateError
from orchestrator.report.files import is_replaceable, opened_anew, write_all
from orchestrator.report.lines import encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

STANDARD_OUTPUT = "-"
OWN_REPORT = "report.jsonl"
"""The report's name in the directory of its run, its default place."""

READER_POLL_S = 0.1


_REMEDIES = {
    errno.ENOENT: "create its directory, or ",
    errno.EACCES: "allow this user to write there, or ",
    errno.ENOSPC: "make room there, or ",
    errno.EDQUOT: "make room there, or ",
}
"""The first remedy for an error of the system, by its number."""


class ReportWriter:
    """Write lines of JSON. Use it as an asynchronous context manager.

    After a failed write, every later write fails too: a report with a gap would look complete.
    """

    def __init__(self, target: str, stdout_fd: int | None, first: bytes = b"", *, is_private: bool = False) -> None:
        """Prepare to write ``first``, then lines, to the path ``target``; ``-`` is the descriptor ``stdout_fd``.

        A private file belongs to the state, and is accessible to its owner only.
        """
        self._target = target
        self._stdout_fd = stdout_fd
        self._first = first
        self._is_private = is_private
        self._fd: int | None = None
        self._failure: ReportError | None = None
        self._thread = _WriterThread()

    async def __aenter__(self) -> Self:
        """Open the report. For a named pipe, wait until it has a reader. Raises ``ReportError``."""
        try:
            await self._open()
        except (OSError, ValueError) as error:
            raise self._failed(error, self._remedy(error)) from error
        return self

    def _remedy(self, error: OSError | ValueError) -> str:
        if self._target == STANDARD_OUTPUT:
            return ""
        first = _REMEDIES.get(getattr(error, "errno", None) or 0, "")
        return f"; {first}name another {'directory with --state-dir' if self._is_private else 'file with -o'}"

    async def _open(self) -> None:
        path = Path(self._target)
        if self._target == STANDARD_OUTPUT:
            self._fd = self._standard_output()
        elif is_replaceable(path):
            self._fd = await asyncio.to_thread(opened_anew, path, self._first, is_private=self._is_private)
            return
        else:
            self._fd = await _opened_as_it_is(str(path))
        if self._first:
            await self.write(self._first)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; standard output stays open."""
        self._thread.stop()
        if self._fd is not None and self._target != STANDARD_OUTPUT:
            with contextlib.suppress(OSError):
                os.close(self._fd)

    async def write(self, data: bytes, *, sync: bool = False) -> None:
        """Write whole lines. With ``sync``, return when a regular file is on disk. Raises ``ReportError``."""
        if self._failure:
            raise self._failure
        await self._thread.run(partial(self._write_now, data, sync=sync))

    def stuck_s(self) -> float:
        """Return for how many seconds the current write has taken so far, 0 if there is none."""
        return self._thread.busy_s()

    def abandon(self) -> None:
        """Stop waiting for a reader that does not read. Everything unwritten fails with ``ReportError``."""
        self._thread.abandon(self._failed(TimeoutError("its reader does not read")))

    def _write_now(self, data: bytes, *, sync: bool) -> None:
        if self._failure:
            raise self._failure
        if self._fd is None:
            message = "the report is written to before it is opened"
            raise RuntimeError(message)
        try:
            write_all(self._fd, data)
            if sync and self._target != STANDARD_OUTPUT and stat.S_ISREG(os.fstat(self._fd).st_mode):
                os.fsync(self._fd)
        except OSError as error:
            raise self._failed(error, self._remedy(error)) from error

    def _standard_output(self) -> int:
        if self._stdout_fd is None:
            raise OSError(errno.EBADF, "it is closed")
        return self._stdout_fd

    def _failed(self, error: Exception, remedy: str = "") -> ReportError:
        name = "standard output" if self._target == STANDARD_OUTPUT else self._target
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self._failure = ReportError(f"the report cannot be written to {name}: {reason}{remedy}")
        return self._failure


class _WriterThread:
    """Run calls one after the other in a thread. The interpreter does not wait for it when it ends."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], None], asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._waiting: set[asyncio.Future[None]] = set()
        self._busy_since: float | None = None
        threading.Thread(target=self._work, name="report", daemon=True).start()

    async def run(self, call: Callable[[], None]) -> None:
        """Run ``call`` in the thread, and return when it has ended. Raises what ``call`` raises."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(done)
        done.add_done_callback(self._waiting.discard)
        self._calls.put((call, done))
        await done

    def busy_s(self) -> float:
        """Return for how many seconds the current call has run so far, 0 if there is none."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def abandon(self, error: Exception) -> None:
        """Let every call that has not ended fail with ``error``."""
        for done in list(self._waiting):
            _settle(done, error)

    def stop(self) -> None:
        """End the thread after all calls so far."""
        self._calls.put(None)

    def _work(self) -> None:
        while (entry := self._calls.get()) is not None:
            call, done = entry
            error: Exception | None = None
            self._busy_since = time.monotonic()
            try:
                call()
            except Exception as raised:  # noqa: BLE001 - raised again for the caller that waits
                error = raised
            self._busy_since = None
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                done.get_loop().call_soon_threadsafe(_settle, done, error)


def _settle(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error:
        done.set_exception(error)
    else:
        done.set_result(None)


def write_summary(folder: Path, line: dict[str, Any]) -> None:
    """Write ``summary.json`` into the ``folder`` of a run, whole or not at all. Raises ``StateError``."""
    write_whole(folder / "summary.json", encode(line))


def write_whole(path: Path, data: bytes) -> None:
    """Replace the regular file ``path`` by ``data``, accessible to its owner only. Raises ``StateError``."""
    try:
        os.close(opened_anew(path, data, is_private=True))
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}"
        raise StateError(message) from error


def make_folder(path: Path) -> None:
    """Create a directory of the state, accessible to its owner only. Raises ``StateError``."""
    try:
        for folder in reversed((path, *path.parents)):
            if not folder.exists():
                folder.mkdir(mode=0o700, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        message = f"{path} cannot be made: {reason}; name another directory with --state-dir"
        raise StateError(message) from error


def drop_old_report(folder: Path, target: str) -> None:
    """Remove the report from the ``folder`` of a run if the report now goes to another place, ``target``."""
    own = folder / OWN_REPORT
    with contextlib.suppress(OSError, ValueError):
        is_there = target != STANDARD_OUTPUT and Path(target).samefile(own)
        if not is_there:
            own.unlink(missing_ok=True)


def drop_run(folder: Path) -> None:
    """Remove a run's files from its directory, and the directory itself if it is then empty."""
    with contextlib.suppress(OSError):
        for name in (OWN_REPORT, "summary.json", "lock"):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def rewrite(target: str, data: bytes, *, is_private: bool = False) -> bool:
    """Replace the report at ``target`` by ``data`` if it is a regular file or missing. Tell whether it was replaced.

    Raises ``ReportError``.
    """
    path = Path(target)
    try:
        is_file = target != STANDARD_OUTPUT and is_replaceable(path)
        if is_file:
            os.close(opened_anew(path, data, is_private=is_private))
    except OSError as error:
        remedy = "correct this, then write the report again with run --resume"
        message = f"the report cannot be written to {target}: {error.strerror}; {remedy}"
        raise ReportError(message) from error
    return is_file


async def _opened_as_it_is(path: str) -> int:
    """Open a pipe or a device. If the system says ENXIO, a named pipe has no reader yet: wait for one."""
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
