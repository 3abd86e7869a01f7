"""The limits of a stand-in. The caller passes the time."""

from __future__ import annotations

from collections import deque
from math import floor
from typing import TYPE_CHECKING, Protocol

from orchestrator.simulator.limit_keys import Bucket, InFlight

if TYPE_CHECKING:
    from orchestrator.simulator.limit_keys import Change, Window
    from orchestrator.simulator.scenario import Scenario


class Limiter(Protocol):
    """One limit and its state."""

    def next_s(self, now: float, inside: int) -> float:
        """Return the seconds until one more request may enter, 0 for now. ``inside`` requests are in already."""

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
            period += 1  # the quotient was rounded down just below a boundary
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
        self._limiters = [_limiter(limit, 0.0, None) for limit in scenario.limits]
        self._changes = deque(sorted(scenario.schedule, key=lambda change: change.at))
        self._inside = 0

    def enter(self, now: float) -> float:
        """Let a request in and return 0, or refuse it and return the seconds until all limits would let it in.

        If any limit refuses a request, no limit counts it.
        """
        while self._changes and self._changes[0].at <= now:
            self._change(self._changes.popleft())
        wait_s = max((limiter.next_s(now, self._inside) for limiter in self._limiters), default=0.0)
        if wait_s <= 0:
            self._inside += 1
            for limiter in self._limiters:
                limiter.take(now)
        return wait_s

    def leave(self) -> None:
        """Note that a request inside has been answered."""
        self._inside -= 1

    def _change(self, change: Change) -> None:
        before = {type(limiter): limiter for limiter in reversed(self._limiters)}
        self._limiters = [_limiter(limit, change.at, before) for limit in change.limits]


def _limiter(limit: Bucket | Window | InFlight, now: float, before: dict[type[Limiter], Limiter] | None) -> Limiter:
    """Return the limiter of ``limit`` from ``now`` on.

    A bucket and a sliding window take over the state of the limiter of their kind in ``before``. A fixed window starts
    empty.
    """
    known = before or {}
    if isinstance(limit, Bucket):
        return TokenBucket(limit, now, known.get(TokenBucket))
    if isinstance(limit, InFlight):
        return ConcurrencyLimit(limit)
    if limit.kind == "fixed_window":
        return FixedWindow(limit, now)
    return SlidingWindow(limit, known.get(SlidingWindow))
