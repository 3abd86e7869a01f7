"""What a run still has to do: one ``PendingBackup`` a planned backup, in one of four states, and what is read besides.

::

    RecencyCheck ──→ ToRequest ⇄ InDoubt
         │               │          │
         └──────→ CompletionWait ←──┘

Each state ends in an outcome, too (``ledger.py``). ``State`` is a tagged union, so mypy proves that whoever looks at it
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
    """A POST comes next: nothing may have been made that is not known."""


TO_REQUEST = ToRequest()


@dataclass(slots=True)
class ListingRead:
    """The listing of an install that is being read since the monotonic instant ``began_at``, and what it shows."""

    install_id: str
    began_at: float
    sight: Sight = field(default_factory=Sight)
    cursor: PageCursor = field(default_factory=PageCursor)


@dataclass(slots=True)
class InDoubt:
    """A backup may exist and nobody knows: its listing is read until that is settled.

    ``error`` is the answer that left it open. ``since`` is the monotonic instant from which on this process knows it
    was, ``server_since`` when it became so in seconds since 1970 by the server's clock; ``is_inherited`` tells that
    this was in another process. ``failed`` counts the pages in a row that could not be had. ``own`` is the listing of
    the install, ``specimen`` that of another one whose backup is known to exist.
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
    """The listing of an install is read for a recent backup: ``backups`` are those seen so far.

    ``known`` is a completed backup that an earlier run waited for: if it is recent by the server's clock, nothing is
    read.
    """

    known: Backup | None = None
    backups: list[Backup] = field(default_factory=list)
    cursor: PageCursor = field(default_factory=PageCursor)
    failed: int = 0


@dataclass(slots=True)
class CompletionWait:
    """A backup exists and is waited for, until the monotonic instant ``until``.

    ``is_own`` tells that a request of this plan made it; one that is not would be the recent backup that makes a
    request needless. ``may_repeat`` tells that it may be requested once more if it is aborted; ``is_polled_once`` that
    one poll is all it gets. ``error`` is what came of the last poll, ``None`` if it was answered; ``poller`` is the one
    that is under way, ``is_last`` tells that it is the last.
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
    """One planned backup without its outcome: its state, and what was spent on it so far. Instants are monotonic.

    ``tries`` count towards ``max_attempts``; of them, ``attempts`` were sent. ``began_at`` is the first POST of this
    process, ``started_at`` that of the run. ``request_id`` is of the last answer. ``sought`` are the runs whose
    requests may have made it, ``sent_at`` when the first of these was sent, in seconds since 1970 by the server's
    clock, ``described`` what it was to be called if not as planned. ``made`` is what is known to exist. ``is_resumed``
    tells that another process began it. ``is_settled`` tells that it has its outcome, which is its only one. ``turn``
    counts how often it was queued: only where it was put last does it stand.
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
        """Tell whether a POST is what comes next, or a check whether one is needed."""
        return isinstance(self.state, ToRequest | RecencyCheck)

    @property
    def is_patient(self) -> bool:
        """Tell whether its own time alone bounds what it waits for, so that a failed read of it ends no account."""
        return isinstance(self.state, CompletionWait) and not self.state.is_polled_once

    @property
    def spent(self) -> Spent:
        """Return what it has cost so far."""
        return Spent(self.tries, self.attempts, self.throttled, self.started_at)

    def checkpoint(self) -> Checkpoint:
        """Return what the journal has to know, to go on from here after a kill."""
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
        """Return what it has cost by the instant ``now``; its budget has been held for ``held_s`` seconds so far."""
        if self.began_at is None:
            return Expense(self.tries, 0.0)
        return Expense(self.tries, now - self.began_at - (held_s - self.held_before_s))

    def nothing_is_open(self) -> None:
        """Forget the requests whose fate was open: it is known, and the next one may be sent."""
        self.sought, self.sent_at, self.described, self.state = (), None, None, TO_REQUEST

    def looked_for(self, backend_behind_s: float) -> Sought:
        """Return what its listing is searched for, where times are ``backend_behind_s`` seconds behind the server's."""
        sent_at = None if self.sent_at is None else self.sent_at - backend_behind_s
        return Sought(self.sought, sent_at, self.described or self.planned.request.description)


@dataclass(slots=True, eq=False)
class ReadRequest:
    """One read that somebody waits for: ``call`` asks it of an account's ``Api``, as often as it takes."""

    call: Callable[[Api], Coroutine[object, object, AttemptResult]]
    answer: asyncio.Future[AttemptResult | ErrorInfo]
    failed: int = 0
    turn: int = 0

    @property
    def is_settled(self) -> bool:
        """Tell whether nobody waits any more."""
        return self.answer.done()

    def end(self, answer: AttemptResult | ErrorInfo) -> None:
        """Give ``answer`` to whoever waits."""
        if not self.answer.done():
            self.answer.set_result(answer)


@dataclass(frozen=True, slots=True)
class CredentialsCheck:
    """The work of asking ``GET /user``; as the ``canary`` of a hold it decides nothing about the account."""

    canary: bool = False


Work = PendingBackup | ReadRequest | CredentialsCheck
