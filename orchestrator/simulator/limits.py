"""The limits of a stand-in, over a clock that is handed in."""

from __future__ import annotations

from collections import deque
from math import floor
from typing import TYPE_CHECKING, Protocol

from orchestrator.simulator.scenario import Bucket, Window

if TYPE_CHECKING:
    from orchestrator.simulator.scenario import Change, InFlight, Scenario


class Limiter(Protocol):
    """One limit at work."""

    def take(self, now: float) -> bool:
        """Let one request in, if it may come in."""

    def next_s(self, now: float) -> float:
        """Return the seconds until one may come in."""

    def give_back(self) -> None:
        """Hear that a request that was let in has been answered."""


class TokenBucket:
    """API Gateway's limiter: ``rate`` tokens a second, at most ``burst`` saved up, one a request."""

    def __init__(self, rate: float, burst: int, now: float, tokens: float | None = None) -> None:
        """Start at ``now``, full or with ``tokens``."""
        self._rate, self._burst = rate, float(burst)
        self._tokens, self._at = self._burst if tokens is None else min(tokens, self._burst), now

    def take(self, now: float) -> bool:
        """Take one token if there is one."""
        if self.tokens(now) < 1:
            return False
        self._tokens -= 1
        return True

    def tokens(self, now: float) -> float:
        """Return what is saved up."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return self._tokens

    def next_s(self, now: float) -> float:
        """Return the seconds until there is a token."""
        return max(0.0, (1 - self.tokens(now)) / self._rate)

    def give_back(self) -> None:
        """Do nothing: a token is spent."""


class FixedWindow:
    """So many requests in each period, counted from the moment the limit came up."""

    def __init__(self, requests: int, per_s: float, now: float) -> None:
        """Begin the first period at ``now``."""
        self._requests, self._per_s, self._began = requests, per_s, now
        self._period, self._count = 0, 0

    def take(self, now: float) -> bool:
        """Count one request if the period has room."""
        self._move_on(now)
        if self._count >= self._requests:
            return False
        self._count += 1
        return True

    def next_s(self, now: float) -> float:
        """Return the seconds until the period has room, or the next begins."""
        self._move_on(now)
        if self._count < self._requests:
            return 0.0
        return self._began + (self._period + 1) * self._per_s - now

    def give_back(self) -> None:
        """Do nothing: a request counts when it comes."""

    def _move_on(self, now: float) -> None:
        period = floor((now - self._began) / self._per_s)
        if period != self._period:
            self._period, self._count = period, 0


class SlidingWindow:
    """So many requests in any period of a length."""

    def __init__(self, requests: int, per_s: float) -> None:
        """Begin empty."""
        self._requests, self._per_s = requests, per_s
        self._taken: deque[float] = deque()

    def take(self, now: float) -> bool:
        """Count one request if the last period has room."""
        self._forget(now)
        if len(self._taken) >= self._requests:
            return False
        self._taken.append(now)
        return True

    def next_s(self, now: float) -> float:
        """Return the seconds until the oldest request is far enough back."""
        self._forget(now)
        return 0.0 if len(self._taken) < self._requests else self._taken[0] + self._per_s - now

    def give_back(self) -> None:
        """Do nothing: a request counts when it comes."""

    def _forget(self, now: float) -> None:
        while self._taken and self._taken[0] <= now - self._per_s:
            self._taken.popleft()


class ConcurrencyLimit:
    """So many requests at a time."""

    def __init__(self, requests: int) -> None:
        """Begin with none."""
        self._requests, self._inside = requests, 0

    def take(self, _now: float) -> bool:
        """Let one in if there is room."""
        if self._inside >= self._requests:
            return False
        self._inside += 1
        return True

    def next_s(self, _now: float) -> float:
        """Return 1: nobody can know."""
        return 1.0

    def give_back(self) -> None:
        """Let the next one in."""
        self._inside -= 1


class Limits:
    """All limits of a scenario, which change on its schedule; times are seconds since its first request."""

    def __init__(self, scenario: Scenario) -> None:
        """Begin with the scenario's own limits."""
        self._limiters = [_limiter(limit, 0.0) for limit in scenario.limits]
        self._changes = deque(sorted(scenario.schedule, key=lambda change: change.at))

    def take(self, now: float) -> Limiter | list[Limiter]:
        """Let one request in: return those who must hear of its end, or the limiter that refused it."""
        while self._changes and self._changes[0].at <= now:
            self._change(self._changes.popleft())
        taken: list[Limiter] = []
        for limiter in self._limiters:
            if not limiter.take(now):
                for each in taken:
                    each.give_back()
                return limiter
            taken.append(limiter)
        return taken

    def _change(self, change: Change) -> None:
        saved = [limiter.tokens(change.at) for limiter in self._limiters if isinstance(limiter, TokenBucket)]
        self._limiters = [_limiter(limit, change.at, min(saved, default=None)) for limit in change.limits]


def _limiter(limit: Bucket | Window | InFlight, now: float, tokens: float | None = None) -> Limiter:
    if isinstance(limit, Bucket):
        return TokenBucket(limit.rate, limit.burst, now, tokens)
    if not isinstance(limit, Window):
        return ConcurrencyLimit(limit.requests)
    if limit.kind == "fixed_window":
        return FixedWindow(limit.requests, limit.per, now)
    return SlidingWindow(limit.requests, limit.per)
