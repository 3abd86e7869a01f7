"""The queues: one an account, and one budget for the accounts that share a limit.

Nothing waits here. ``Budget.take`` says which request goes next: a check of credentials first, then lookups that
settle whether a backup exists, then installs in the order of the plan and retries in turn, so that a sick group of
installs starves nobody. Reads that nothing depends on yet get every tenth turn while there is something to request,
and all turns after that; of these, polls take no more than ``POLL_SHARE``. Accounts take turns.
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
"""Names of headers about rates that are kept of an account: a server that makes up new ones gets no further."""

TURNS_OF_READS = 10
"""Of so many requests one is a poll or such a read, while there is something to request."""

POLL_SHARE = 0.5
"""Of the rate, once nothing is left to request: others may use the same limit."""


class AccountState(StrEnum):
    """Whether an account's installs may be requested."""

    TO_CHECK = "to_check"
    CHECKING = "checking"
    OPEN = "open"
    STOPPED = "stopped"


class DueQueue:
    """Work by the monotonic instant from which it is due; of one instant, in the order in which it came.

    What has its outcome meanwhile is passed over, and so is what was put elsewhere later, where ``turn`` tells.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self._heap: list[_Entry] = []
        self._order = count()

    def __bool__(self) -> bool:
        """Tell whether there is anything in it."""
        return self.due_at() is not None

    def __len__(self) -> int:
        """Return how many are in it, at most: of what has its outcome, some are passed over only when they are due."""
        return len(self._heap)

    def __iter__(self) -> Iterator[tuple[float, PendingBackup | ReadRequest]]:
        """Yield each instant with its work, in order."""
        return ((entry[0], entry[2]) for entry in sorted(self._heap, key=_by_time) if not _is_over(entry))

    def put(self, work: PendingBackup | ReadRequest, due_at: float, turn: int | None = None) -> None:
        """Queue ``work`` from ``due_at`` on, for as long as ``turn``, where it is given, is the turn of ``work``."""
        heapq.heappush(self._heap, (due_at, next(self._order), work, turn))

    def due_at(self) -> float | None:
        """Return the instant of the first, ``None`` if there is none."""
        while self._heap and _is_over(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def is_due(self, now: float) -> bool:
        """Tell whether the first is due."""
        at = self.due_at()
        return at is not None and at <= now

    def pop(self) -> PendingBackup | ReadRequest:
        """Take out the first."""
        return heapq.heappop(self._heap)[2]

    def clear(self) -> list[PendingBackup | ReadRequest]:
        """Take out everything, in order."""
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
    """One account's work still to be done, and how the account fares.

    ``fresh`` are installs to be requested that were not tried yet, ``retries`` those that were. ``lookups`` settle
    whether a backup exists, or how one stands whose wait is over. ``polls`` are backups that are waited for, none is
    asked before ``polls_from``; ``reads`` are recency checks, reads that somebody waits for, and backups that are
    polled once. ``suspects`` is work whose 401, kept with it, waits for the check. ``unserved_since`` is when the first
    failure after the last served POST was seen. ``stop`` says why the account stopped. ``rate_headers`` are the last
    values of headers about rates. ``server_ahead_s`` is what to add to monotonic seconds for the server's clock, at
    least; ``backend_behind_s`` is how far the clock behind ``create_time`` was seen behind that one. ``specimen`` is
    the first install whose backup was accepted, and when, ``specimen_looked_at`` when its listing was last read;
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
        """Return how many backups are waited for, without those that are being asked."""
        return len(self.polls)

    @property
    def has_requests(self) -> bool:
        """Tell whether anything is still to be requested or looked up."""
        return bool(self.fresh or self.retries or self.lookups)

    def ready_at(self) -> float | None:
        """Return the instant from which there is something to send, ``None`` if only an answer can tell."""
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
        """Keep the headers about rates of ``result`` as evidence; tell whether they are the first."""
        is_first = bool(result.rate_headers) and not self.rate_headers
        for name, value in result.rate_headers:
            if name in self.rate_headers or len(self.rate_headers) < MOST_RATE_HEADERS:
                self.rate_headers[name] = value
        return is_first

    def server_time(self, now: float) -> float | None:
        """Return the seconds since 1970 by the server's clock, at least, ``None`` if it is not known."""
        return None if self.server_ahead_s is None else now + self.server_ahead_s

    def queue(self, work: PendingBackup | ReadRequest, due_at: float) -> None:
        """Queue ``work`` from ``due_at`` on, wherever its stage belongs."""
        work.turn += 1
        self._queue_of(work).put(work, due_at, work.turn)

    def queue_last_poll(self, pending: PendingBackup, now: float) -> None:
        """Let ``pending``, whose wait is over, be polled once more before anything else, wherever it is queued."""
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
        """Return what this account sends now, and count it as under way."""
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
        """Return the queue whose turn it is among the reads, polls and others alternately."""
        is_poll_due = self.polls_from <= now and self.polls.is_due(now)
        is_other_due = self.reads.is_due(now)
        if is_poll_due and not (is_other_due and self._poll_was_last):
            return self.polls
        return self.reads if is_other_due else None

    def clear(self) -> list[PendingBackup | ReadRequest]:
        """Take out everything that is still to be done, in the order in which it would have been tried."""
        left = [*(work for work, _ in self.suspects), *self.lookups.clear(), *self.retries.clear()]
        left += [*self.polls.clear(), *self.reads.clear(), *self.fresh]
        self.suspects.clear()
        self.fresh.clear()
        return left

    def take_requests(self) -> list[PendingBackup]:
        """Take out every backup that would be requested, or checked first."""
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

    ``changed`` is set whenever what is ready may have changed; ``in_flight`` counts the workers. ``is_attended`` tells
    that somebody may bring more work at any moment. ``admission`` is the wait for the next ticket while there is one.
    """

    throttle: Throttle
    accounts: list[AccountQueue]
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    in_flight: int = 0
    is_attended: bool = False
    admission: asyncio.Task[Ticket] | None = None

    @property
    def is_finished(self) -> bool:
        """Tell whether nothing is left to do and nothing under way could bring more."""
        return not self.is_attended and self.in_flight == 0 and not any(account.has_work for account in self.accounts)

    def look_again(self) -> None:
        """Let whoever admits see that something was settled meanwhile; for nothing, no ticket is waited for."""
        self.changed.set()
        if self.admission and self.ready_at() is None:
            self.admission.cancel()

    def ready_at(self) -> float | None:
        """Return the instant from which some account has something to send, ``None`` if only an answer can tell."""
        instants = [at for account in self.accounts if (at := account.ready_at()) is not None]
        return min(instants, default=None)

    def take(self, now: float, *, read_only: bool) -> tuple[AccountQueue, Work] | None:
        """Return what goes next and its account, whose next turn comes after those of the others.

        With ``read_only`` that is a check of credentials whatever the account would send.
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
        """Let no other poll follow ``work``, if that is one, before its share of the rate allows it."""
        if not isinstance(work, PendingBackup) or not isinstance(work.state, CompletionWait):
            return
        gap_s = 1.0 / (self.throttle.rate() * POLL_SHARE)
        for account in self.accounts:
            account.polls_from = max(account.polls_from, now - gap_s) + gap_s
