"""Standard output and standard error that never raise.

A reader may go away, the disk may be full, a stream may be closed, the locale may lack a character. None of these may
cost a run its outcomes, or end in a traceback. ``stdout_failure`` reports a failure of standard output once, at the
end. Data is UTF-8; text for people has the encoding of their locale.
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
    """Write to an open descriptor until that fails; then keep the reason and drop the rest."""

    def __init__(self, descriptor: int, *, is_closed: bool = False) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.failure: OSError | None = None
        self._is_closed = is_closed

    def write(self, data: ReadableBuffer, /) -> int:
        """Return the number of bytes written; after a failure, the number of all bytes."""
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
    """Wait until a non-blocking stream accepts data."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLOUT)
    waiting.poll()


def prepare() -> None:
    """Replace Python's streams with streams that never raise.

    A closed stream gets a descriptor, so that no file of ours takes its number.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115 - open while we run
    sys.stdout = _unfailing(sys.stdout, is_terminal_like=False)
    sys.stderr = _unfailing(sys.stderr, is_terminal_like=True)


def _unfailing(stream: TextIO | None, *, is_terminal_like: bool) -> TextIO:
    """Return the replacement of ``stream``; ``None`` is a closed stream."""
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
    """Return the reason why standard output is incomplete, ``None`` if it is complete or its reader went away."""
    sys.stdout.flush()
    raw = _raw(sys.stdout)
    if raw is None or raw.failure is None or isinstance(raw.failure, BrokenPipeError):
        return None
    return raw.failure.strerror


def let_go() -> None:
    """Drop unwritten output, because a slow reader would delay the end of the command."""
    for stream in (sys.stdout, sys.stderr):
        raw = _raw(stream) if stream is not None else None
        if raw is not None:
            raw.failure = raw.failure or BrokenPipeError(errno.EPIPE, "the command ends")


def say(text: str) -> None:
    """Write ``text`` as lines of its own to standard error."""
    sys.stderr.write(f"{text}\n")


def print_data(text: str) -> None:
    """Write ``text`` to standard output in UTF-8, for programs."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))


def print_json(value: object, indent: int | None = None) -> None:
    """Write ``value`` to standard output as JSON in ASCII."""
    sys.stdout.write(json.dumps(value, indent=indent) + "\n")
