"""Write the report as the run goes: each line whole, flushed, the moment its outcome is final.

A regular file is written beside its target and takes its place when it is opened, so an older report is replaced, never
mixed with; a pipe, a device or standard output is only written to.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from orchestrator.errors import WriteError
from orchestrator.report.lines import backup_line, encode, summary_line

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from orchestrator.model import Outcome
    from orchestrator.summary import Summary

STANDARD_OUTPUT = "-"


class ReportWriter:
    """Keep outcomes as JSON lines; the engine's ``OutcomeSink``. Use it as a context manager."""

    def __init__(self, run_id: str, target: str, stdout: BinaryIO) -> None:
        """Prepare to write the report of ``run_id`` to the path ``target``, ``-`` for ``stdout``."""
        self._run_id = run_id
        self._target = target
        self._stdout = stdout
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        """Open the report. Raises ``WriteError``."""
        try:
            self._file = self._stdout if self._target == STANDARD_OUTPUT else _open(Path(self._target))
        except OSError as error:
            raise WriteError(self._words(error)) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; standard output stays open."""
        if self._file and self._target != STANDARD_OUTPUT:
            with contextlib.suppress(OSError):
                self._file.close()

    async def record(self, outcome: Outcome) -> None:
        """Write one outcome's line. Raises ``WriteError``."""
        self._write(backup_line(self._run_id, outcome))

    def finish(self, summary: Summary) -> None:
        """Write the summary's line, and have a regular file on disk. Raises ``WriteError``."""
        self._write(summary_line(summary))
        if self._file and self._target != STANDARD_OUTPUT:
            try:
                if stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
                    os.fsync(self._file.fileno())
            except OSError as error:
                raise WriteError(self._words(error)) from error

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is None:
            message = "the report is written to before it is opened"
            raise RuntimeError(message)
        try:
            self._file.write(encode(line))
            self._file.flush()
        except (OSError, ValueError) as error:
            raise WriteError(self._words(error)) from error

    def _words(self, error: Exception) -> str:
        name = "standard output" if self._target == STANDARD_OUTPUT else self._target
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return f"the report cannot be written to {name}: {reason}"


def write_summary(folder: Path, summary: Summary) -> None:
    """Write ``summary.json`` into a run's ``folder``, whole or not at all. Raises ``WriteError``."""
    path = folder / "summary.json"
    try:
        descriptor, name = tempfile.mkstemp(prefix=".summary.", dir=folder)
        with os.fdopen(descriptor, "wb") as file:
            file.write(encode(summary_line(summary)))
            file.flush()
            os.fsync(file.fileno())
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
    except OSError as error:
        message = f"{path} cannot be made: {error.strerror}; name another folder with --state-dir"
        raise WriteError(message) from error


def _open(path: Path) -> BinaryIO:
    """Open ``path`` for writing: a new regular file in the place of an older one, anything else as it is."""
    real = Path(os.path.realpath(path))
    try:
        is_regular = stat.S_ISREG(real.stat().st_mode)
    except FileNotFoundError:
        is_regular = True
    if not is_regular:
        return real.open("wb", buffering=0)
    descriptor, name = tempfile.mkstemp(prefix=f".{real.name}.", dir=real.parent)
    try:
        Path(name).replace(real)
    except OSError:
        os.close(descriptor)
        Path(name).unlink()
        raise
    return os.fdopen(descriptor, "wb")
