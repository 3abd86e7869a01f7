"""The queues: one lane an account, one budget for the accounts that share a limit.

No waiting happens here. ``Budget.take`` says which request goes next: a check of credentials first, then installs
in the order of the plan and retries in turn, so that a sick group of installs starves nobody; accounts in turn.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from typing import TYPE_CHECKING

from orchestrator.model import Spent, Standing
from orchestrator.outcome import Expense
from orchestrator.reconcile import Sight, Sought

if TYPE_CHECKING:
    from datetime import datetime

    from orchestrator.engine.ports import Api, Throttle
    from orchestrator.model import AttemptResult, ErrorInfo, PlannedBackup
    from orchestrator.pacing import Ticket


MOST_RATE_HEADERS = 16
"""Names of headers about rates that are kept of an account: a server that makes up new ones gets no further."""


class LaneState(StrEnum):
    """Whether an account's installs may be requested."""

    TO_CHECK = "to_check"
    CHECKING = "checking"
    OPEN = "open"
    STOPPED = "stopped"


@dataclass(slots=True)
class Reading:
    """A listing that is being read, page by page, since the monotonic instant ``began_at``.

    ``last`` are the ids of the last page, ``total`` the entries that there are in all, as that page said.
    """

    install_id: str
    began_at: float
    sight: Sight = field(default_factory=Sight)
    offset: int = 0
    pages: int = 0
    last: tuple[str, ...] = ()
    total: int | None = None

    def begin_anew(self) -> None:
        """Read from the first page again, since the listing has changed under way."""
        self.sight, self.offset, self.last, self.total = Sight(), 0, (), None


@dataclass(slots=True)
class Doubt:
    """Why nobody knows whether a backup exists, and how far the looking has come.

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
    own: Reading | None = None
    specimen: Reading | None = None


@dataclass(slots=True)
class Effort:
    """One planned backup under way: what was spent on it so far. Instants are monotonic seconds.

    ``tries`` count towards ``max_attempts``; of them, ``attempts`` were sent. ``began_at`` is the first POST of this
    process, ``started_at`` that of the run. ``request_id`` is of the last answer. ``sought`` are the runs whose
    requests may have made it, ``sent_at`` when the first of these was sent, in seconds since 1970 by the server's
    clock, ``described`` what it was to be called if not as planned. ``is_resumed`` tells that another process began
    it. ``is_settled`` tells that it has its outcome,
    which is its only one.
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
    doubt: Doubt | None = None
    is_resumed: bool = False
    is_settled: bool = False

    @property
    def spent(self) -> Spent:
        """Return what it has cost so far."""
        return Spent(self.tries, self.attempts, self.throttled, self.started_at)

    def standing(self) -> Standing:
        """Return how it stands, for the journal."""
        doubt = self.doubt
        return Standing(
            planned=self.planned,
            spent=self.spent,
            sought=self.sought,
            sent_at=self.sent_at,
            described=self.described,
            open_since=doubt.server_since if doubt else None,
            may_repeat=doubt is None or doubt.may_repeat,
            error=doubt.error if doubt else None,
        )

    def expense(self, now: float, held_s: float) -> Expense:
        """Return what it has cost by the instant ``now``; its budget has been held for ``held_s`` seconds so far."""
        if self.began_at is None:
            return Expense(self.tries, 0.0)
        return Expense(self.tries, now - self.began_at - (held_s - self.held_before_s))

    def end_doubt(self) -> None:
        """Forget the requests whose fate was open: it is known."""
        self.sought, self.sent_at, self.described, self.doubt = (), None, None, None

    def looked_for(self, backend_behind_s: float) -> Sought:
        """Return what its listing is searched for, where times are ``backend_behind_s`` seconds behind the server's."""
        sent_at = None if self.sent_at is None else self.sent_at - backend_behind_s
        return Sought(self.sought, sent_at, self.described or self.planned.request.description)


@dataclass(frozen=True, slots=True)
class CredentialsCheck:
    """The work of asking ``GET /user``; as the ``canary`` of a hold it decides nothing about the account."""

    canary: bool = False


Work = Effort | CredentialsCheck


@dataclass(slots=True)
class Lane:
    """One account's installs still to be requested, and how the account fares.

    ``suspects`` are the installs whose 401, kept with them, waits for the check. ``unserved_since`` is when the first
    failure after the last served POST was seen. ``stop`` says why the account stopped. ``rate_headers`` are the last
    values of headers about rates. ``server_ahead_s`` is what to add to monotonic seconds for the server's clock, at
    least; ``backend_behind_s`` is how far the clock behind ``create_time`` was seen behind that one. ``specimen`` is
    the first install whose backup was accepted, and when, ``specimen_looked_at`` when its listing was last read;
    ``markers_come_back`` tells whether listings show markers, ``None`` while that is not known.
    """

    name: str
    api: Api
    fresh: deque[Effort] = field(default_factory=deque)
    retries: list[tuple[float, int, Effort]] = field(default_factory=list)
    state: LaneState = LaneState.TO_CHECK
    check_due_at: float = 0.0
    check_attempts: int = 0
    suspects: list[tuple[Effort, AttemptResult]] = field(default_factory=list)
    unserved_since: float | None = None
    stop: ErrorInfo | None = None
    requests: int = 0
    throttled: int = 0
    rate_headers: dict[str, str] = field(default_factory=dict)
    retry_next: bool = True
    server_ahead_s: float | None = None
    backend_behind_s: float = 0.0
    specimen: tuple[str, float] | None = None
    specimen_looked_at: float | None = None
    markers_come_back: bool | None = None
    _order: count[int] = field(default_factory=count)

    @property
    def has_work(self) -> bool:
        """Tell whether anything of this account is still to be done."""
        return bool(self.fresh or self.retries or self.suspects)

    def ready_at(self) -> float | None:
        """Return the instant from which there is something to send, ``None`` if only an answer can tell."""
        if not self.has_work:
            return None
        if self.state is LaneState.TO_CHECK:
            return self.check_due_at
        if self.state is not LaneState.OPEN:
            return None
        if self.fresh:
            return 0.0
        return self.retries[0][0] if self.retries else None

    def notes_headers(self, result: AttemptResult) -> bool:
        """Keep the headers about rates of ``result`` as evidence; tell whether they are the first."""
        is_first = bool(result.rate_headers) and not self.rate_headers
        for name, value in result.rate_headers:
            if name in self.rate_headers or len(self.rate_headers) < MOST_RATE_HEADERS:
                self.rate_headers[name] = value
        return is_first

    def server_time(self, now: float) -> float | None:
        """Return the seconds since 1970 by the server's clock, at least, ``None`` if it is not known."""
        return None if self.server_ahead_s is None else now + self.server_ahead_s

    def retry(self, effort: Effort, due_at: float) -> None:
        """Queue ``effort`` to be sent again from ``due_at`` on."""
        heapq.heappush(self.retries, (due_at, next(self._order), effort))

    def take(self, now: float) -> Work | None:
        """Return what this account sends now, and count it as under way."""
        ready_at = self.ready_at()
        if ready_at is None or ready_at > now:
            return None
        if self.state is LaneState.TO_CHECK:
            self.state = LaneState.CHECKING
            return CredentialsCheck()
        is_retry_due = bool(self.retries) and self.retries[0][0] <= now
        if is_retry_due and (self.retry_next or not self.fresh):
            self.retry_next = False
            return heapq.heappop(self.retries)[2]
        self.retry_next = True
        return self.fresh.popleft()

    def clear(self) -> list[Effort]:
        """Take out everything that is still to be done, in the order in which it would have been tried."""
        left = [*(entry[0] for entry in self.suspects), *(entry[2] for entry in sorted(self.retries)), *self.fresh]
        self.suspects.clear()
        self.retries.clear()
        self.fresh.clear()
        return left


@dataclass(slots=True)
class Budget:
    """The lanes that share one limit, and the throttle that keeps it.

    ``changed`` is set whenever what is ready may have changed; ``in_flight`` counts the workers. ``admission`` is the
    wait for the next ticket while there is one.
    """

    throttle: Throttle
    lanes: list[Lane]
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    in_flight: int = 0
    admission: asyncio.Task[Ticket] | None = None

    @property
    def is_finished(self) -> bool:
        """Tell whether nothing is left to do and nothing under way could bring more."""
        return self.in_flight == 0 and not any(lane.has_work for lane in self.lanes)

    def ready_at(self) -> float | None:
        """Return the instant from which some lane has something to send, ``None`` if only an answer can tell."""
        instants = [at for lane in self.lanes if (at := lane.ready_at()) is not None]
        return min(instants, default=None)

    def take(self, now: float, *, read_only: bool) -> tuple[Lane, Work] | None:
        """Return what goes next and its lane; the lane goes to the end of the line.

        With ``read_only`` that is a check of credentials whatever the lane would send.
        """
        for index, lane in enumerate(self.lanes):
            ready_at = lane.ready_at()
            if ready_at is None or ready_at > now:
                continue
            work = (
                lane.take(now) if not read_only or lane.state is LaneState.TO_CHECK else CredentialsCheck(canary=True)
            )
            if work is not None:
                self.lanes.append(self.lanes.pop(index))
                return lane, work
        return None
