"""The exceptions that stop the command, each with its exit code.

::

    OrchestratorError        1  an error that this program did not foresee
    ├── UsageError           2  the command line asks for something impossible; nothing was sent
    ├── ConfigError          2  the configuration is wrong, with every problem; nothing was sent
    ├── StorageError         4  a file of the run could not be read or written:
    │   ├── StateError       4  the state
    │   └── ReportError      4  the report
    ├── LockedError         11  another process holds the lock; nothing was sent
    └── StoppedError   128 + n  signal n came before anything was sent

A failed request is an ``AttemptResult``, and a failed install an ``Outcome``; they are not exceptions. This module
imports nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of the command. ``of_signal`` returns the code of a signal."""

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
        """Return the exit code that shells use for a signal: 128 + ``signum``."""
        return 128 + signum


class OrchestratorError(Exception):
    """Stop the command with one plain message and ``exit_code``.

    ``has_places`` tells whether each line of the message begins with a place in a file.
    """

    exit_code: int = ExitCode.BUG
    has_places = False


class UsageError(OrchestratorError):
    """Say what is wrong with the arguments or options, and the remedy."""

    exit_code = ExitCode.USAGE


class StorageError(OrchestratorError):
    """Say which file of the report or the state could not be read or written, and why."""

    exit_code = ExitCode.STORAGE


class StateError(StorageError):
    """Say which file of the state could not be read or written, and why."""


class ReportError(StorageError):
    """Say why the report could not be written."""


class LockedError(OrchestratorError):
    """Say which run holds the lock, and the remedy."""

    exit_code = ExitCode.LOCKED


class StoppedError(OrchestratorError):
    """Say that a signal stopped the command before it sent anything."""

    def __init__(self, signum: int) -> None:
        """Set the exit code for the signal ``signum``."""
        self.exit_code = ExitCode.of_signal(signum)
        super().__init__("stopped before anything was sent")


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One problem of a configuration, with its place.

    ``line`` and ``column`` count from 1. ``path`` leads to the value, such as ``installs[3].id``; it is empty if the
    problem concerns the whole file. ``excerpt`` is the line of the file with a caret below it, ready to print.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    excerpt: str = ""

    def __str__(self) -> str:
        """Format as one line, ``file:line:column: path: message``. Editors and CI systems make links of this form."""
        where = f"{self.file}:{self.line}:{self.column}"
        text = f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"
        return text.replace("\n", "\\x0a")


class ConfigError(OrchestratorError):
    """Report every problem of a configuration at once, ordered by place."""

    exit_code = ExitCode.USAGE
    has_places = True

    def __init__(self, problems: list[Problem]) -> None:
        """Sort ``problems`` by place, and keep them."""
        self.problems = tuple(sorted(problems))
        shown = (f"{problem}\n{problem.excerpt}" if problem.excerpt else str(problem) for problem in self.problems)
        super().__init__("\n".join(shown))
