"""The work that a run still has to do: a ``PendingBackup`` per planned backup, in one of four states, and other reads.

::

    RecencyCheck ──→ ToRequest ⇄ InDoubt
         │               │          │
         └──────→ CompletionWait ←──┘

Each state can also end in an outcome (``ledger.py``). ``State`` is a tagged union, so mypy proves that each ``match``
handles all four.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.model import Checkpoint, Made, Spent
from orchestrator.outcome import Expense
from orchestrator.paging import PageCursor
from orchestrator.reconcile import Sight, Sought

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from datetime import datetime

    from orchestrator.engine.ports import Api
    from orchestrator.model import AttemptResult, Backup, ErrorInfo, PlannedBackup


@dataclass(frozen=True, slots=True)
class ToRequest:
    """A POST comes next: every backup made so far is known."""


TO_REQUEST = ToRequest()


@dataclass(slots=True)
class ListingRead:
    """The reading of an install's listing, begun at the monotonic instant ``began_at``, and what it shows so far."""

    install_id: str
    began_at: float
    sight: Sight = field(default_factory=Sight)
    cursor: PageCursor = field(default_factory=PageCursor)


@dataclass(slots=True)
class InDoubt:
    """Nobody knows whether a backup exists: the install's listing is read until that is settled.

    ``error`` is the answer that caused the doubt. ``since`` is the monotonic instant from which this process knows of
    the doubt. ``server_since`` is when the doubt began, in seconds since 1970 by the server's clock. ``may_repeat``
    means that the POST may be sent again once the backup is known to be absent. ``is_inherited`` means that the doubt
    began in another process. ``failed`` counts the failed page reads in a row. ``own`` is the listing of the install,
    ``specimen`` the listing of an install whose backup is known to exist.
    """

    error: ErrorInfo
    since: float
    may_repeat: bool = True
    server_since: float | None = None
    is_inherited: bool = False
    failed: int = 0
    own: ListingRead | None = None
    specimen: ListingRead | None = None


@dataclass(slots=True)
class RecencyCheck:
    """The install's listing is read for a recent backup; ``backups`` are the backups seen so far.

    ``known`` is a completed backup that an earlier run waited for. If it is recent by the server's clock, nothing is
    read.
    """

    known: Backup | None = None
    backups: list[Backup] = field(default_factory=list)
    cursor: PageCursor = field(default_factory=PageCursor)
    failed: int = 0


@dataclass(slots=True)
class CompletionWait:
    """A backup exists, and the run waits for its end until the monotonic instant ``until``.

    ``is_own`` means that a request of this plan made the backup. Otherwise it is a recent backup: once it is completed,
    no request is needed. ``may_repeat`` means that the backup may be requested once more if it is aborted.
    ``is_polled_once`` means that it gets only one poll. ``failed`` counts the failed polls in a row. ``error`` is the
    error of the latest poll, ``None`` if that was answered. ``poller`` is the task of the poll in flight. ``is_last``
    means that the wait is over, and only the last poll remains.
    """

    backup: Backup
    until: float
    is_own: bool = True
    may_repeat: bool = True
    is_polled_once: bool = False
    failed: int = 0
    error: ErrorInfo | None = None
    poller: asyncio.Task[object] | None = None
    is_last: bool = False


State = ToRequest | RecencyCheck | InDoubt | CompletionWait


@dataclass(slots=True, eq=False)
class PendingBackup:
    """One planned backup without its outcome: its state, and what was spent on it so far.

    ``tries`` counts towards ``max_attempts``. ``attempts`` counts the POSTs that were sent and not throttled,
    ``throttled`` the 429s. ``began_at`` is the monotonic instant of this process's first POST, ``started_at`` the time
    of the run's first POST. ``held_before_s`` is how long the budget had been held before ``began_at``. ``request_id``
    comes from the last answer that had one. ``sought`` are the runs whose requests may have made the backup.
    ``sent_at`` is when the first of these requests was sent, in seconds since 1970 by the server's clock.
    ``described`` is the description that they asked for, if it differs from the plan's. ``made`` are the backups that
    are known to exist. ``is_resumed`` means that another process began the work. ``is_settled`` means that it has its
    one outcome. ``turn`` counts how often it was queued: only the latest queue entry is valid.
    """

    planned: PlannedBackup
    tries: int = 0
    attempts: int = 0
    throttled: int = 0
    started_at: datetime | None = None
    began_at: float | None = None
    held_before_s: float = 0.0
    request_id: str | None = None
    sought: tuple[str, ...] = ()
    sent_at: float | None = None
    described: str | None = None
    made: Made = field(default_factory=Made)
    state: State = TO_REQUEST
    is_resumed: bool = False
    is_settled: bool = False
    turn: int = 0

    @property
    def is_to_be_requested(self) -> bool:
        """Tell whether a POST comes next, or the check whether a POST is needed."""
        return isinstance(self.state, ToRequest | RecencyCheck)

    @property
    def is_patient(self) -> bool:
        """Tell whether failed reads are repeated until the wait is over, and do not stop the account."""
        return isinstance(self.state, CompletionWait) and not self.state.is_polled_once

    @property
    def spent(self) -> Spent:
        """Return what was spent on it so far."""
        return Spent(self.tries, self.attempts, self.throttled, self.started_at)

    def checkpoint(self) -> Checkpoint:
        """Return what the journal needs to continue from here after the process was killed."""
        doubt = self.state if isinstance(self.state, InDoubt) else None
        return Checkpoint(
            planned=self.planned,
            spent=self.spent,
            sought=self.sought,
            sent_at=self.sent_at,
            described=self.described,
            open_since=doubt.server_since if doubt else None,
            may_repeat=doubt is None or doubt.may_repeat,
            error=doubt.error if doubt else None,
            made=self.made,
        )

    def expense(self, now: float, held_s: float) -> Expense:
        """Return the expense at the instant ``now``, without holds; ``held_s`` adds up the budget's holds so far."""
        if self.began_at is None:
            return Expense(self.tries, 0.0)
        return Expense(self.tries, now - self.began_at - (held_s - self.held_before_s))

    def nothing_is_open(self) -> None:
        """Forget the requests that left a doubt: the doubt is settled, and the next request may be sent."""
        self.sought, self.sent_at, self.described, self.state = (), None, None, TO_REQUEST

    def looked_for(self, backend_behind_s: float) -> Sought:
        """Return what to seek in its listing, whose times are ``backend_behind_s`` behind the server's clock."""
        sent_at = None if self.sent_at is None else self.sent_at - backend_behind_s
        return Sought(self.sought, sent_at, self.described or self.planned.request.description)


@dataclass(slots=True, eq=False)
class ReadRequest:
    """One read that somebody waits for. ``call`` sends it through an account's ``Api``, and may be called again."""

    call: Callable[[Api], Coroutine[object, object, AttemptResult]]
    answer: asyncio.Future[AttemptResult | ErrorInfo]
    failed: int = 0
    turn: int = 0

    @property
    def is_settled(self) -> bool:
        """Tell whether it is answered, or nobody waits for it any more."""
        return self.answer.done()

    def end(self, answer: AttemptResult | ErrorInfo) -> None:
        """Give ``answer`` to the caller that waits."""
        if not self.answer.done():
            self.answer.set_result(answer)


@dataclass(frozen=True, slots=True)
class CredentialsCheck:
    """A ``GET /user`` to be sent. As the ``canary`` of a hold, it may stop the account, but never opens it."""

    canary: bool = False


Work = PendingBackup | ReadRequest | CredentialsCheck
