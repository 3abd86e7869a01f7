"""The limits of a stand-in, over a clock that is handed in."""

from __future__ import annotations

from collections import deque
from math import floor
from typing import TYPE_CHECKING, Protocol

from orchestrator.simulator.scenario import Bucket, InFlight

if TYPE_CHECKING:
    from orchestrator.simulator.scenario import Change, Scenario, Window


class Limiter(Protocol):
    """One limit at work."""

    def next_s(self, now: float, inside: int) -> float:
        """Return the seconds until a request may come in, 0 for at once; ``inside`` are in already."""

    def take(self, now: float) -> None:
        """Charge a request that came in."""


class TokenBucket:
    """API Gateway's limiter: ``rate`` tokens a second, at most ``burst`` saved up, one a request."""

    def __init__(self, limit: Bucket, now: float, before: Limiter | None = None) -> None:
        """Start at ``now``: full, or with the tokens of the bucket ``before``."""
        self._rate, self._burst = limit.rate, float(limit.burst)
        kept = before.tokens(now) if isinstance(before, TokenBucket) else self._burst
        self._tokens, self._at = min(kept, self._burst), now

    def tokens(self, now: float) -> float:
        """Return what is saved up."""
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
    """So many requests in each period, counted from the moment the limit came up."""

    def __init__(self, limit: Window, now: float) -> None:
        """Begin the first period at ``now``."""
        self._requests, self._per_s, self._began = limit.requests, limit.per, now
        self._period, self._count = 0, 0

    def next_s(self, now: float, _inside: int) -> float:
        """Return the seconds until the period has room, or the next begins."""
        self._move_on(now)
        if self._count < self._requests:
            return 0.0
        return self._began + (self._period + 1) * self._per_s - now

    def take(self, now: float) -> None:
        """Count a request."""
        self._move_on(now)
        self._count += 1

    def _move_on(self, now: float) -> None:
        period = floor((now - self._began) / self._per_s)
        if period != self._period:
            self._period, self._count = period, 0


class SlidingWindow:
    """So many requests in any period of a length."""

    def __init__(self, limit: Window, before: Limiter | None = None) -> None:
        """Begin empty, or with what the sliding window ``before`` remembers."""
        self._requests, self._per_s = limit.requests, limit.per
        self._taken: deque[float] = deque(before._taken if isinstance(before, SlidingWindow) else ())  # noqa: SLF001 - its kin

    def next_s(self, now: float, _inside: int) -> float:
        """Return the seconds until enough requests are far enough back."""
        while self._taken and self._taken[0] <= now - self._per_s:
            self._taken.popleft()
        too_many = len(self._taken) - self._requests
        return 0.0 if too_many < 0 else self._taken[too_many] + self._per_s - now

    def take(self, now: float) -> None:
        """Remember a request."""
        self._taken.append(now)


class ConcurrencyLimit:
    """So many requests at a time."""

    def __init__(self, limit: InFlight) -> None:
        """Take the number."""
        self._requests = limit.requests

    def next_s(self, _now: float, inside: int) -> float:
        """Return 0 if there is room, else 1: nobody can know."""
        return 0.0 if inside < self._requests else 1.0

    def take(self, _now: float) -> None:
        """Do nothing: who is inside is counted for all."""


class Limits:
    """All limits of a scenario, which change on its schedule; times are seconds since its first request."""

    def __init__(self, scenario: Scenario) -> None:
        """Begin with the scenario's own limits."""
        self._limiters = [_limiter(limit, 0.0, None) for limit in scenario.limits]
        self._changes = deque(sorted(scenario.schedule, key=lambda change: change.at))
        self._inside = 0

    def enter(self, now: float) -> float:
        """Let a request in and return 0, or return the seconds after which the last limit that refuses it would not.

        A request that any limit refuses is charged by none.
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
        """Hear that a request that was let in has been answered."""
        self._inside -= 1

    def _change(self, change: Change) -> None:
        before = {type(limiter): limiter for limiter in reversed(self._limiters)}
        self._limiters = [_limiter(limit, change.at, before) for limit in change.limits]


def _limiter(limit: Bucket | Window | InFlight, now: float, before: dict[type[Limiter], Limiter] | None) -> Limiter:
    """Return ``limit`` at work from ``now`` on; it goes on from the one of its kind ``before``, a fixed window anew."""
    known = before or {}
    if isinstance(limit, Bucket):
        return TokenBucket(limit, now, known.get(TokenBucket))
    if isinstance(limit, InFlight):
        return ConcurrencyLimit(limit)
    if limit.kind == "fixed_window":
        return FixedWindow(limit, now)
    return SlidingWindow(limit, known.get(SlidingWindow))
