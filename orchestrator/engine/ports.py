"""The interfaces that the core needs, as Protocols. Other packages implement them; tests pass fakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from orchestrator.model import AttemptResult, BackupRequest, Checkpoint, Outcome
    from orchestrator.pacing import Feedback, Ticket


class Api(Protocol):
    """One account's access to the API. It never raises for a failed or cancelled request."""

    async def create_backup(self, request: BackupRequest) -> AttemptResult:
        """Send one POST, once."""

    async def list_backups(self, install_id: str, offset: int) -> AttemptResult:
        """Send one ``GET`` for a page of an install's backups. It may be repeated freely."""

    async def list_installs(self, account_id: str | None, offset: int) -> AttemptResult:
        """Send one ``GET`` for a page of all installs, or of the installs in one of WP Engine's accounts."""

    async def list_accounts(self, offset: int) -> AttemptResult:
        """Send one ``GET`` for a page of WP Engine's accounts."""

    async def show_backup(self, install_id: str, backup_id: str) -> AttemptResult:
        """Send one ``GET`` for a backup."""

    async def check_credentials(self) -> AttemptResult:
        """Send one ``GET /user``. It may be repeated freely."""


class Throttle(Protocol):
    """The gate of one budget. Every request passes it, also each read. Only the dispatcher waits for it."""

    def admit_at_once(self) -> Ticket | None:
        """Start one more request if it need not wait, else return ``None``."""

    async def admit(self) -> Ticket:
        """Wait until one more request may start, and start it. If cancelled, it admits nothing."""

    def observe(self, ticket: Ticket, feedback: Feedback) -> None:
        """Take the ticket back with the feedback from the answer."""

    def release(self, ticket: Ticket) -> None:
        """Take the ticket back when there was no answer, or no request."""

    def rate(self) -> float:
        """Return the current rate in requests per second."""

    def held_s(self) -> float:
        """Return how many seconds the budget has been held so far."""


class Journal(Protocol):
    """Keeps the checkpoint of each pending backup, so that a killed run can be resumed."""

    async def note(self, checkpoint: Checkpoint) -> None:
        """Return when ``checkpoint`` is on disk. Raises ``StorageError``."""

    def note_soon(self, checkpoint: Checkpoint) -> None:
        """Write ``checkpoint`` soon, without waiting. If it is lost, that costs no more than a lookup."""


class OutcomeSink(Protocol):
    """Receives each outcome as soon as it is final."""

    def record(self, outcome: Outcome, on_failure: Callable[[Outcome, Exception], None]) -> None:
        """Write one outcome to disk soon. Call ``on_failure`` if that fails.

        The exception passed to it is a ``StorageError``, or any other if there is a bug.
        """

    async def drain(self) -> None:
        """Return when every outcome is written or has failed. Raises the exception of a bug that came after a write."""


class Clock(Protocol):
    """Time and chance."""

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""

    def now(self) -> datetime:
        """Return the wall clock's time, with its zone."""

    def draw(self) -> float:
        """Return a number that is uniform in [0, 1)."""


class Log(Protocol):
    """Log events that have a dotted name and fields."""

    def bind(self, **fields: object) -> Log:
        """Return a log that gives every event these fields too."""

    def debug(self, event: str, **fields: object) -> object:
        """Log what only a developer needs."""

    def info(self, event: str, **fields: object) -> object:
        """Log normal progress."""

    def warning(self, event: str, **fields: object) -> object:
        """Log a problem that somebody should look at."""

    def error(self, event: str, **fields: object) -> object:
        """Log a failure that the run does not repair."""
