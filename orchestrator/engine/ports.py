"""What the core needs of the world, as Protocols; the rooms above meet them with real objects, tests with fakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from orchestrator.model import AttemptResult, BackupRequest, Checkpoint, Outcome
    from orchestrator.pacing import Feedback, Ticket


class Api(Protocol):
    """One account's view of the API. Never raises for a failed request, not even for one that is cancelled."""

    async def create_backup(self, request: BackupRequest) -> AttemptResult:
        """Send one POST, once."""

    async def list_backups(self, install_id: str, offset: int) -> AttemptResult:
        """Send one ``GET`` of a page of an install's backups, which may be repeated freely."""

    async def list_installs(self, account_id: str | None, offset: int) -> AttemptResult:
        """Send one ``GET`` of a page of the installs, all or those of one of WP Engine's accounts."""

    async def list_accounts(self, offset: int) -> AttemptResult:
        """Send one ``GET`` of a page of WP Engine's accounts."""

    async def show_backup(self, install_id: str, backup_id: str) -> AttemptResult:
        """Send one ``GET`` of a backup."""

    async def check_credentials(self) -> AttemptResult:
        """Send one ``GET /user``, which may be repeated freely."""


class Throttle(Protocol):
    """The gate of one budget that every request passes, reads included. It has one waiter: the dispatcher."""

    def admit_at_once(self) -> Ticket | None:
        """Start one more request if it need not wait, else return ``None``."""

    async def admit(self) -> Ticket:
        """Wait until one more request may start, and start it. Cancelled, it has admitted nothing."""

    def observe(self, ticket: Ticket, feedback: Feedback) -> None:
        """Take the ticket back with what the answer said."""

    def release(self, ticket: Ticket) -> None:
        """Take the ticket back when there was no answer, or no request."""

    def rate(self) -> float:
        """Return the requests per second that are let through for now."""

    def held_s(self) -> float:
        """Return for how many seconds the budget has been held so far."""


class Journal(Protocol):
    """Where it is kept how each planned backup stands, so that a run that is killed can be resumed."""

    async def note(self, checkpoint: Checkpoint) -> None:
        """Return when ``checkpoint`` is on disk. Raises ``StorageError``."""

    def note_soon(self, checkpoint: Checkpoint) -> None:
        """Keep ``checkpoint``; losing it costs a lookup, no more."""


class OutcomeSink(Protocol):
    """Where outcomes go the moment they are final."""

    def record(self, outcome: Outcome, on_failure: Callable[[Outcome, Exception], None]) -> None:
        """Keep one outcome for good, soon; call ``on_failure`` if it cannot be kept.

        That is with a ``StorageError``, or whatever a bug raised.
        """

    async def drain(self) -> None:
        """Return when every outcome is kept, or has failed. Raises what a bug raised after an outcome was kept."""


class Clock(Protocol):
    """Time and chance."""

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""

    def now(self) -> datetime:
        """Return the wall clock's time, with its zone."""

    def draw(self) -> float:
        """Return a number that is uniform in [0, 1)."""


class Log(Protocol):
    """Events by dotted name, with fields."""

    def bind(self, **fields: object) -> Log:
        """Return a log that gives every event these fields too."""

    def debug(self, event: str, **fields: object) -> object:
        """Say what only a developer wants to know."""

    def info(self, event: str, **fields: object) -> object:
        """Say how things go."""

    def warning(self, event: str, **fields: object) -> object:
        """Say what somebody should look at."""

    def error(self, event: str, **fields: object) -> object:
        """Say what went wrong for good."""
