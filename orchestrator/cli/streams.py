"""Standard output and standard error, which never fail whoever writes to them.

A reader may go away, a disk be full, a stream be closed, a locale lack a character. None of that may cost a run its
outcomes, or end in a traceback. What standard output lost is said once, at the end (``stdout_failure``). Data goes out
in UTF-8, text for people in the encoding of their locale.
"""

from __future__ import annotations

import errno
import io
import json
import os
import select
import sys
from typing import TYPE_CHECKING

from orchestrator.cli.utf8 import encoding_of_terminals

if TYPE_CHECKING:
    from typing import TextIO

    from _typeshed import ReadableBuffer


class _Descriptor(io.FileIO):
    """Write to an open descriptor as long as that works; keep why it did not, and drop what comes after that."""

    def __init__(self, descriptor: int, *, is_closed: bool = False) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.failure: OSError | None = None
        self._is_closed = is_closed

    def write(self, data: ReadableBuffer, /) -> int:
        """Return how many bytes were written, all of them once it has failed."""
        while self.failure is None:
            try:
                written = self._written(data)
            except OSError as error:
                self.failure = error
            else:
                if written is not None:
                    return written
                _wait_until_writable(self.fileno())
        return memoryview(data).nbytes

    def _written(self, data: ReadableBuffer) -> int | None:
        if self._is_closed:
            raise OSError(errno.EBADF, "it is closed")
        return super().write(data)


def _wait_until_writable(descriptor: int) -> None:
    """Wait for whoever reads a stream that somebody has made non-blocking."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLOUT)
    waiting.poll()


def prepare() -> None:
    """Put streams that never fail in the place of Python's own.

    A closed one is filled, so that no file of ours gets its descriptor.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115 - open while we run
    sys.stdout = _unfailing(sys.stdout, is_terminal_like=False)
    sys.stderr = _unfailing(sys.stderr, is_terminal_like=True)


def _unfailing(stream: TextIO | None, *, is_terminal_like: bool) -> TextIO:
    """Return the stream to use in the place of ``stream``, ``None`` being a closed one."""
    if stream is None:
        raw, encoding = _Descriptor(os.open(os.devnull, os.O_WRONLY), is_closed=True), "utf-8"
    else:
        stream.flush()
        raw, encoding = _Descriptor(stream.fileno()), stream.encoding
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding_of_terminals() or encoding,
        "backslashreplace",
        line_buffering=is_terminal_like or raw.isatty(),
        write_through=getattr(stream, "write_through", False),
    )


def _raw(stream: TextIO) -> _Descriptor | None:
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, _Descriptor) else None


def stdout_failure() -> str | None:
    """Return why not all of standard output was written; a reader that went away wanted no more."""
    sys.stdout.flush()
    raw = _raw(sys.stdout)
    if raw is None or raw.failure is None or isinstance(raw.failure, BrokenPipeError):
        return None
    return raw.failure.strerror


def let_go() -> None:
    """Drop what is not written yet: whoever should read it may keep the command from ending."""
    for stream in (sys.stdout, sys.stderr):
        raw = _raw(stream) if stream is not None else None
        if raw is not None:
            raw.failure = raw.failure or BrokenPipeError(errno.EPIPE, "nobody waits for it any more")


def say(text: str) -> None:
    """Write ``text`` as lines of its own to standard error."""
    sys.stderr.write(f"{text}\n")


def print_data(text: str) -> None:
    """Write ``text`` to standard output in UTF-8, for programs: YAML, say, is in no other encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))


def print_json(value: object, indent: int | None = None) -> None:
    """Write ``value`` to standard output as JSON, all of it ASCII."""
    sys.stdout.write(json.dumps(value, indent=indent) + "\n")
