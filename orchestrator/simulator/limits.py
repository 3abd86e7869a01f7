"""The limits of a stand-in. The caller passes the time."""

from __future__ import annotations

from collections import Counter, deque
from math import floor
from typing import TYPE_CHECKING, Protocol

from orchestrator.simulator.limit_keys import Bucket, InFlight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.simulator.limit_keys import AppliesTo, Window
    from orchestrator.simulator.scenario import Scenario

    Kept = dict[tuple[type["Limiter"], AppliesTo], "Limiter"]
    """The limiters before a change, by their kind and the requests to which they apply."""


class Limiter(Protocol):
    """One limit and its state."""

    def next_s(self, now: float, inside: int) -> float:
        """Return the seconds until one more request may enter, 0 for now. ``inside`` requests are in already.

        Requests to which the limit does not apply are left out.
        """

    def take(self, now: float) -> None:
        """Count a request that was let in."""


class TokenBucket:
    """API Gateway's limiter. It gains ``rate`` tokens per second and holds at most ``burst``. A request takes one."""

    def __init__(self, limit: Bucket, now: float, before: Limiter | None = None) -> None:
        """Start at ``now``, full or with the tokens of the old bucket ``before``."""
        self._rate, self._burst = limit.rate, float(limit.burst)
        kept = before.tokens(now) if isinstance(before, TokenBucket) else self._burst
        self._tokens, self._at = min(kept, self._burst), now

    def tokens(self, now: float) -> float:
        """Return the number of tokens at ``now``."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return self._tokens

    def next_s(self, now: float, _inside: int) -> float:
        """Return the seconds until there is a token."""
        return max(0.0, (1 - self.tokens(now)) / self._rate)

    def take(self, now: float) -> None:
        """Take a token."""
        self._tokens = self.tokens(now) - 1


class FixedWindow:
    """A maximum number of requests in each period. The limit starts ``phase`` seconds into the first period."""

    def __init__(self, limit: Window, now: float) -> None:
        """Start empty at ``now``."""
        self._requests, self._per_s, self._began = limit.requests, limit.per, now - limit.phase
        self._period, self._count = 0, 0

    def next_s(self, now: float, _inside: int) -> float:
        """Return 0 if the period has room, else the seconds until the next period."""
        self._move_on(now)
        if self._count < self._requests:
            return 0.0
        return self._end_of(self._period) - now

    def take(self, now: float) -> None:
        """Count a request."""
        self._move_on(now)
        self._count += 1

    def _move_on(self, now: float) -> None:
        period = floor((now - self._began) / self._per_s)
        if self._end_of(period) <= now:
            period += 1  # the quotient was rounded down at a boundary
        elif self._end_of(period - 1) > now:
            period -= 1  # the quotient was rounded up just before a boundary
        if period > self._period:
            self._period, self._count = period, 0

    def _end_of(self, period: int) -> float:
        return self._began + (period + 1) * self._per_s


class SlidingWindow:
    """A maximum number of requests in the past period, at any moment."""

    def __init__(self, limit: Window, before: Limiter | None = None) -> None:
        """Start empty, or with the requests of the old sliding window ``before``."""
        self._requests, self._per_s = limit.requests, limit.per
        self._taken: deque[float] = deque(before._taken if isinstance(before, SlidingWindow) else ())  # noqa: SLF001 - the same class

    def next_s(self, now: float, _inside: int) -> float:
        """Return the seconds until enough requests have left the window."""
        while self._taken and self._taken[0] + self._per_s <= now:  # the same sum as below, rounded in the same way
            self._taken.popleft()
        too_many = len(self._taken) - self._requests
        return 0.0 if too_many < 0 else self._taken[too_many] + self._per_s - now

    def take(self, now: float) -> None:
        """Remember a request."""
        self._taken.append(now)


class ConcurrencyLimit:
    """A maximum number of requests at a time."""

    def __init__(self, limit: InFlight) -> None:
        """Keep the maximum."""
        self._requests = limit.requests

    def next_s(self, _now: float, inside: int) -> float:
        """Return 0 if there is room, else 1: nobody knows when a request ends."""
        return 0.0 if inside < self._requests else 1.0

    def take(self, _now: float) -> None:
        """Do nothing: ``Limits`` counts the requests inside for all limits."""


class Limits:
    """All limits of a scenario, with the changes of its schedule. Times are seconds since the first request."""

    def __init__(self, scenario: Scenario) -> None:
        """Start with the scenario's ``limits``."""
        self._limiters = _limiters(scenario.limits, 0.0, {})
        changes = [(change.at, change.limits) for change in scenario.schedule if change.limits is not None]
        self._changes = deque(sorted(changes, key=lambda change: change[0]))
        self._inside: Counter[AppliesTo] = Counter()

    def enter(self, now: float, *, read_only: bool = False) -> float:
        """Let a request in and return 0, or refuse it and return the seconds until all limits would let it in.

        The request is a POST unless ``read_only``. If any limit refuses a request, no limit counts it.
        """
        while self._changes and self._changes[0][0] <= now:
            at, limits = self._changes.popleft()
            before = {(type(limiter), kind): limiter for kind, limiter in reversed(self._limiters)}
            self._limiters = _limiters(limits, at, before)
        kinds = _kinds(read_only=read_only)
        asked = [(kind, limiter) for kind, limiter in self._limiters if kind in kinds]
        wait_s = max((limiter.next_s(now, self._inside[kind]) for kind, limiter in asked), default=0.0)
        if wait_s <= 0:
            self._inside.update(kinds)
            for _, limiter in asked:
                limiter.take(now)
        return wait_s

    def leave(self, *, read_only: bool = False) -> None:
        """Note that a request inside has been answered. It was a POST unless ``read_only``."""
        self._inside.subtract(_kinds(read_only=read_only))


def _kinds(*, read_only: bool) -> tuple[AppliesTo, AppliesTo]:
    """Return the values of ``applies_to`` that concern a request."""
    return ("all", "gets") if read_only else ("all", "posts")


def _limiters(
    limits: Sequence[Bucket | Window | InFlight], now: float, before: Kept
) -> list[tuple[AppliesTo, Limiter]]:
    return [(limit.applies_to, _limiter(limit, now, before)) for limit in limits]


def _limiter(limit: Bucket | Window | InFlight, now: float, before: Kept) -> Limiter:
    """Return the limiter of ``limit`` from ``now`` on.

    A bucket and a sliding window take over the state of the limiter in ``before`` that is of their kind and applies to
    the same requests. A fixed window starts empty.
    """
    if isinstance(limit, Bucket):
        return TokenBucket(limit, now, before.get((TokenBucket, limit.applies_to)))
    if isinstance(limit, InFlight):
        return ConcurrencyLimit(limit)
    if limit.kind == "fixed_window":
        return FixedWindow(limit, now)
    return SlidingWindow(limit, before.get((SlidingWindow, limit.applies_to)))
