"""What stops a run, as exceptions; each knows the exit code that it ends the command with.

::

    OrchestratorError        1  something this program did not foresee
    ├── UsageError           2  the command line asks for something that cannot be; nothing was sent
    ├── ConfigError          2  the configuration is wrong; every problem at once; nothing was sent
    ├── StorageError         4  what a run keeps could not be read or written
    │   ├── StateError       4  … the state
    │   └── ReportError      4  … the report
    ├── LockedError         11  another process runs the same thing; nothing was sent
    └── StoppedError   128 + n  signal n came before anything was sent

A failure of one request or one install is never an exception: it is an ``AttemptResult`` or an
``Outcome``. Imports nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """How the command ends, and so how a run did. A signal ends it with ``of_signal``."""

    OK = 0
    BUG = 1
    USAGE = 2
    FAILED = 3
    STORAGE = 4
    DEADLINE = 10
    LOCKED = 11
    CREDENTIALS = 12

    @staticmethod
    def of_signal(signum: int) -> int:
        """Return the code that shells give to a command that the signal ended."""
        return 128 + signum


class OrchestratorError(Exception):
    """Stop the command with one plain message and ``exit_code``.

    ``has_places`` tells that each line of the message begins with a place in a file.
    """

    exit_code: int = ExitCode.BUG
    has_places = False


class UsageError(OrchestratorError):
    """Say what is wrong with what was asked for on the command line, and the remedy."""

    exit_code = ExitCode.USAGE


class StorageError(OrchestratorError):
    """Say which file of the report or the state could not be read or written, and why."""

    exit_code = ExitCode.STORAGE


class StateError(StorageError):
    """Say which file of the state could not be read or written, and why."""


class ReportError(StorageError):
    """Say why the report could not be written."""


class LockedError(OrchestratorError):
    """Say which run is going on, and the remedy."""

    exit_code = ExitCode.LOCKED


class StoppedError(OrchestratorError):
    """Say that a signal ended the command before it had begun its work."""

    def __init__(self, signum: int) -> None:
        """Take the exit code that shells give to a command that ``signum`` ended."""
        self.exit_code = ExitCode.of_signal(signum)
        super().__init__("stopped before anything was sent")


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with a configuration, with its place.

    ``line`` and ``column`` count from 1. ``path`` is the way to the value, as ``installs[3].id``; empty
    where the file as a whole is meant. ``excerpt`` is the line of the file, with a caret, ready to be shown.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    excerpt: str = ""

    def __str__(self) -> str:
        """Format as ``file:line:column: path: message``, one line, the form that editors and CI systems link."""
        where = f"{self.file}:{self.line}:{self.column}"
        text = f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"
        return text.replace("\n", "\\x0a")


class ConfigError(OrchestratorError):
    """Report every problem of a configuration at once, in the order of the file."""

    exit_code = ExitCode.USAGE
    has_places = True

    def __init__(self, problems: list[Problem]) -> None:
        """Keep ``problems`` sorted by place."""
        self.problems = tuple(sorted(problems))
        shown = (f"{problem}\n{problem.excerpt}" if problem.excerpt else str(problem) for problem in self.problems)
        super().__init__("\n".join(shown))
