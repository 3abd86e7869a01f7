"""The queues: one per account, and one budget for the accounts that share a limit.

Nothing waits here. ``Budget.take`` picks the next request: first a check of credentials, then a lookup that settles
whether a backup exists, then an install. New installs, in the order of the plan, alternate with retries, so a group of
failing installs does not delay the others. Polls and other reads get every tenth turn while there is something to
request, and all turns after that. Polls take no more than ``POLL_SHARE`` of the rate. Accounts take turns.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from typing import TYPE_CHECKING, assert_never

from orchestrator.engine.pending import (
    CompletionWait,
    CredentialsCheck,
    InDoubt,
    PendingBackup,
    ReadRequest,
    RecencyCheck,
    ToRequest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.engine.pending import Work
    from orchestrator.engine.ports import Api, Throttle
    from orchestrator.model import AttemptResult, ErrorInfo
    from orchestrator.pacing import Ticket


MOST_RATE_HEADERS = 16
"""Maximum number of rate headers kept per account, in case a server keeps inventing new names."""

TURNS_OF_READS = 10
"""While there is something to request, one in so many requests is a poll or another read."""

POLL_SHARE = 0.5
"""The largest share of the rate for polls, even if nothing is left to request: other programs may use the limit."""


class AccountState(StrEnum):
    """Whether an account's installs may be requested."""

    TO_CHECK = "to_check"
    CHECKING = "checking"
    OPEN = "open"
    STOPPED = "stopped"


class DueQueue:
    """Work ordered by the monotonic instant when it is due, then by the order in which it was put.

    Skips an entry if its work is settled, or if its ``turn`` shows that the work was queued again since.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._heap: list[_Entry] = []
        self._order = count()

    def __bool__(self) -> bool:
        """Tell whether it holds any entry."""
        return self.due_at() is not None

    def __len__(self) -> int:
        """Return the maximum number of entries: some settled ones stay until they are due."""
        return len(self._heap)

    def __iter__(self) -> Iterator[tuple[float, PendingBackup | ReadRequest]]:
        """Yield each instant with its work, in order."""
        return ((entry[0], entry[2]) for entry in sorted(self._heap, key=_by_time) if not _is_over(entry))

    def put(self, work: PendingBackup | ReadRequest, due_at: float, turn: int | None = None) -> None:
        """Queue ``work``, due at ``due_at``. If ``turn`` is given, the entry is valid while ``work.turn`` equals it."""
        heapq.heappush(self._heap, (due_at, next(self._order), work, turn))

    def due_at(self) -> float | None:
        """Return when the first entry is due, ``None`` if there is none."""
        while self._heap and _is_over(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def is_due(self, now: float) -> bool:
        """Tell whether the first entry is due."""
        at = self.due_at()
        return at is not None and at <= now

    def pop(self) -> PendingBackup | ReadRequest:
        """Remove and return the first entry's work."""
        return heapq.heappop(self._heap)[2]

    def clear(self) -> list[PendingBackup | ReadRequest]:
        """Remove and return all work, in order."""
        left = [work for _, work in self]
        self._heap.clear()
        return left


_Entry = tuple[float, int, PendingBackup | ReadRequest, int | None]


def _by_time(entry: _Entry) -> tuple[float, int]:
    return entry[:2]


def _is_over(entry: _Entry) -> bool:
    _, _, work, turn = entry
    return work.is_settled or (turn is not None and turn != work.turn)


@dataclass(slots=True)
class AccountQueue:
    """One account's work still to be done, and how the account fares. Instants are monotonic.

    ``fresh`` are installs to be requested for the first time, ``retries`` installs to be requested again. ``lookups``
    are backups in doubt, and backups that get their last poll. ``polls`` are backups that the run waits for; none is
    polled before ``polls_from``. ``reads`` are recency checks, reads that somebody waits for, and backups that get only
    one poll. ``suspects`` is work that got a 401, with that answer, until the credentials are checked.
    ``unserved_since`` is the instant of the first failure after the last served POST. ``stop`` is the reason why the
    account stopped. ``rate_headers`` are the last values of headers about rates.

    The server's clock, in seconds since 1970, is at least the monotonic seconds plus ``server_ahead_s``.
    ``backend_behind_s`` is the largest lag of a ``create_time`` behind that clock. ``specimen`` is the first install
    whose backup was accepted, with the instant. ``specimen_looked_at`` is when a reading of its listing last began.
    ``markers_come_back`` tells whether listings show markers, ``None`` while that is not known.
    """

    name: str
    api: Api
    fresh: deque[PendingBackup] = field(default_factory=deque)
    retries: DueQueue = field(default_factory=DueQueue)
    lookups: DueQueue = field(default_factory=DueQueue)
    polls: DueQueue = field(default_factory=DueQueue)
    polls_from: float = 0.0
    reads: DueQueue = field(default_factory=DueQueue)
    state: AccountState = AccountState.TO_CHECK
    check_due_at: float = 0.0
    check_attempts: int = 0
    suspects: list[tuple[PendingBackup | ReadRequest, AttemptResult]] = field(default_factory=list)
    unserved_since: float | None = None
    stop: ErrorInfo | None = None
    requests: int = 0
    throttled: int = 0
    rate_headers: dict[str, str] = field(default_factory=dict)
    server_ahead_s: float | None = None
    backend_behind_s: float = 0.0
    specimen: tuple[str, float] | None = None
    specimen_looked_at: float | None = None
    markers_come_back: bool | None = None
    _retry_next: bool = True
    _since_read: int = 0
    _poll_was_last: bool = False

    @property
    def has_work(self) -> bool:
        """Tell whether anything of this account is still to be done."""
        is_any_suspect = any(not work.is_settled for work, _ in self.suspects)
        return bool(self.has_requests or self.polls or self.reads or is_any_suspect)

    @property
    def watched(self) -> int:
        """Return how many backups the run waits for, without those whose poll is in flight."""
        return len(self.polls)

    @property
    def has_requests(self) -> bool:
        """Tell whether anything is still to be requested or looked up."""
        return bool(self.fresh or self.retries or self.lookups)

    def ready_at(self) -> float | None:
        """Return the instant from which there is something to send, ``None`` if only an answer can bring work."""
        if self.fresh and self.state is AccountState.OPEN:
            return 0.0
        if not self.has_work:
            return None
        if self.state is AccountState.TO_CHECK:
            return self.check_due_at
        if self.state is not AccountState.OPEN:
            return None
        due = [queue.due_at() for queue in (self.retries, self.lookups, self.reads)]
        poll_at = self.polls.due_at()
        if poll_at is not None:
            due.append(max(poll_at, self.polls_from))
        return min((at for at in due if at is not None), default=None)

    def notes_headers(self, result: AttemptResult) -> bool:
        """Keep the rate headers of ``result`` as evidence; tell whether they are the account's first."""
        is_first = bool(result.rate_headers) and not self.rate_headers
        for name, value in result.rate_headers:
            if name in self.rate_headers or len(self.rate_headers) < MOST_RATE_HEADERS:
                self.rate_headers[name] = value
        return is_first

    def server_time(self, now: float) -> float | None:
        """Return the least seconds since 1970 that the server's clock may show, ``None`` if that is not known."""
        return None if self.server_ahead_s is None else now + self.server_ahead_s

    def queue(self, work: PendingBackup | ReadRequest, due_at: float) -> None:
        """Put ``work``, due at ``due_at``, into the queue for its state."""
        work.turn += 1
        self._queue_of(work).put(work, due_at, work.turn)

    def queue_last_poll(self, pending: PendingBackup, now: float) -> None:
        """Queue the last poll of ``pending``, whose wait is over, before other work. Its old entry becomes void."""
        pending.turn += 1
        self.lookups.put(pending, now, pending.turn)

    def _queue_of(self, work: PendingBackup | ReadRequest) -> DueQueue:
        if isinstance(work, ReadRequest):
            return self.reads
        match work.state:
            case ToRequest():
                return self.retries
            case InDoubt():
                return self.lookups
            case RecencyCheck():
                return self.reads
            case CompletionWait(is_polled_once=is_polled_once):
                return self.reads if is_polled_once else self.polls
            case _:
                assert_never(work.state)

    def take(self, now: float) -> Work | None:
        """Remove and return the work that this account sends now, ``None`` if there is none."""
        ready_at = self.ready_at()
        if ready_at is None or ready_at > now:
            return None
        if self.state is AccountState.TO_CHECK:
            self.state = AccountState.CHECKING
            return CredentialsCheck()
        is_retry_due, reads = self.retries.is_due(now), self._due_reads(now)
        has_others = bool(self.fresh) or is_retry_due or self.lookups.is_due(now)
        if reads is not None and (not has_others or self._since_read >= TURNS_OF_READS - 1):
            self._since_read, self._poll_was_last = 0, reads is self.polls
            return reads.pop()
        self._since_read += 1
        if self.lookups.is_due(now):
            return self.lookups.pop()
        if is_retry_due and (self._retry_next or not self.fresh):
            self._retry_next = False
            return self.retries.pop()
        self._retry_next = True
        return self.fresh.popleft()

    def _due_reads(self, now: float) -> DueQueue | None:
        """Return the queue of the next due read, ``None`` if there is none; polls and other reads alternate."""
        is_poll_due = self.polls_from <= now and self.polls.is_due(now)
        is_other_due = self.reads.is_due(now)
        if is_poll_due and not (is_other_due and self._poll_was_last):
            return self.polls
        return self.reads if is_other_due else None

    def clear(self) -> list[PendingBackup | ReadRequest]:
        """Remove and return all remaining work, in the order in which it would have been tried."""
        left = [*(work for work, _ in self.suspects), *self.lookups.clear(), *self.retries.clear()]
        left += [*self.polls.clear(), *self.reads.clear(), *self.fresh]
        self.suspects.clear()
        self.fresh.clear()
        return left

    def take_requests(self) -> list[PendingBackup]:
        """Remove and return every backup that is still to be requested, or to be checked for recency first."""
        queued = [*self.retries.clear(), *self.fresh]
        reads = [*self.reads]
        self.fresh.clear()
        self.reads.clear()
        for at, work in reads:
            if isinstance(work, PendingBackup) and work.is_to_be_requested:
                queued.append(work)
            else:
                self.reads.put(work, at, work.turn)
        return [work for work in queued if isinstance(work, PendingBackup)]


@dataclass(slots=True)
class Budget:
    """The accounts that share one limit, and the throttle that keeps it.

    ``changed`` is set whenever other work may be ready. ``in_flight`` counts the workers. ``is_attended`` means that
    more work may come at any moment. ``admission`` is the task that waits for the next ticket, if there is one.
    """

    throttle: Throttle
    accounts: list[AccountQueue]
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    in_flight: int = 0
    is_attended: bool = False
    admission: asyncio.Task[Ticket] | None = None

    @property
    def is_finished(self) -> bool:
        """Tell whether no work is left, and nothing in flight can bring more."""
        return not self.is_attended and self.in_flight == 0 and not any(account.has_work for account in self.accounts)

    def look_again(self) -> None:
        """Let the dispatcher look again after work was settled. If nothing is left to send, end its ticket wait."""
        self.changed.set()
        if self.admission and self.ready_at() is None:
            self.admission.cancel()

    def ready_at(self) -> float | None:
        """Return the instant from which an account has work to send, ``None`` if only an answer can bring work."""
        instants = [at for account in self.accounts if (at := account.ready_at()) is not None]
        return min(instants, default=None)

    def take(self, now: float, *, read_only: bool) -> tuple[AccountQueue, Work] | None:
        """Return the next work and its account, which then goes behind the other accounts.

        With ``read_only``, the work is a check of credentials, whatever the account would send.
        """
        for index, account in enumerate(self.accounts):
            ready_at = account.ready_at()
            if ready_at is None or ready_at > now:
                continue
            work = (
                account.take(now)
                if not read_only or account.state is AccountState.TO_CHECK
                else CredentialsCheck(canary=True)
            )
            if work is not None:
                self.accounts.append(self.accounts.pop(index))
                self._space_polls(work, now)
                return account, work
        return None

    def _space_polls(self, work: Work, now: float) -> None:
        """If ``work`` is a poll, delay the next poll until the polls' share of the rate allows it."""
        if not isinstance(work, PendingBackup) or not isinstance(work.state, CompletionWait):
            return
        gap_s = 1.0 / (self.throttle.rate() * POLL_SHARE)
        for account in self.accounts:
            account.polls_from = max(account.polls_from, now - gap_s) + gap_s
