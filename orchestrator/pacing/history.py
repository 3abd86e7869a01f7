"""Record what explains a limit: when requests started that were not refused, and when others were.

A value must not change. But a copy of thousands of instants per request would be too slow. So the list of starts is
shared: a value knows its length, and appending to the latest value leaves all earlier ones as they are.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from math import inf

from orchestrator.value import replace, value

MOST_STARTS, MOST_REFUSALS = 8_000, 24
"""How many are kept at most. Of the starts, the newer half is kept when there are more."""


@dataclass(frozen=True, slots=True)
class Starts:
    """Instants in ascending order: the first ``length`` of ``shared``."""

    shared: list[float]
    length: int

    def __len__(self) -> int:
        """Return the number of starts."""
        return self.length

    def added(self, at: float) -> Starts:
        """Return these starts and one more, which is not earlier than the last."""
        shared = self.shared
        if len(shared) != self.length or self.length >= MOST_STARTS:
            shared = shared[max(0, self.length - MOST_STARTS // 2) : self.length]
        shared.append(at)
        return Starts(shared, len(shared))

    def without(self, at: float) -> Starts:
        """Return these starts without one at ``at``."""
        found = bisect_left(self.shared, at, 0, self.length)
        if found == self.length or self.shared[found] != at:
            return self
        kept = self.shared[:found] + self.shared[found + 1 : self.length]
        return Starts(kept, len(kept))

    def before(self, at: float) -> int:
        """Return how many started before ``at``."""
        return bisect_left(self.shared, at, 0, self.length)

    def between(self, since: float, until: float) -> int:
        """Return how many started from ``since`` on and before ``until``."""
        return self.before(until) - self.before(since)

    def since(self, at: float) -> list[float]:
        """Return the starts from ``at`` on."""
        return self.shared[self.before(at) : self.length]

    def last_before(self, at: float) -> float:
        """Return the last start before ``at``, minus infinity if there is none."""
        index = self.before(at) - 1
        return self.shared[index] if index >= 0 else -inf

    def nth_last(self, number: int, until: float) -> float | None:
        """Return the start of the last but ``number - 1`` before ``until``, ``None`` if there are fewer."""
        index = self.before(until) - number
        return self.shared[index] if index >= 0 else None


@value
class History:
    """What a limit must explain.

    ``starts`` are those of the requests that were not refused (yet). ``refusals`` are the starts of refused canaries,
    and of the last other refused request of each meeting with the limit. Only what is later than ``since`` counts: the
    limit may have been another one before. At that moment, a bucket had ``level`` requests less to spare than its
    burst.
    """

    starts: Starts = Starts([], 0)
    refusals: tuple[float, ...] = ()
    since: float = -inf
    level: int = 0

    def started(self, at: float) -> History:
        """Return the history with one more start."""
        return replace(self, starts=self.starts.added(at))

    def unsent(self, at: float) -> History:
        """Return the history without a request that never reached the server."""
        return replace(self, starts=self.starts.without(at))

    def refused(self, at: float, *, canary: bool, meeting_since: float) -> History:
        """Return the history after the request that started at ``at`` was refused.

        The present meeting with the limit began after ``meeting_since``. Requests overtake each other, so of all that
        are refused at once, the last one to start tells the most surely that the limit was reached.
        """
        refusals = self.refusals
        is_first = not refusals or refusals[-1] < meeting_since
        if canary or is_first:
            refusals = (*refusals, at)[-MOST_REFUSALS:]
        elif len(refusals) == 1 or refusals[-2] < meeting_since:
            refusals = (*refusals[:-1], max(refusals[-1], at))
        return replace(self, starts=self.starts.without(at), refusals=refusals)

    def acquitted(self, since: float) -> History:
        """Return the history without the refusals since ``since``: they had another reason."""
        return replace(self, refusals=tuple(each for each in self.refusals if each < since))

    def forgotten(self, since: float, level: int) -> History:
        """Return the history that counts only from ``since`` on."""
        return replace(self, since=since, level=level)

    @property
    def last_refusal(self) -> float:
        """Return the last refusal, minus infinity if there is none."""
        return self.refusals[-1] if self.refusals else -inf

    @property
    def counted_refusals(self) -> list[float]:
        """Return the refusals that count."""
        return list(self.refusals[bisect_right(self.refusals, self.since) :])

    @property
    def counted_starts(self) -> list[float]:
        """Return the starts that count."""
        return self.starts.since(self.since)

    @property
    def taken(self) -> list[float]:
        """Return the starts that count, after ``level`` at the moment from which on they count."""
        return [self.since] * self.level + self.counted_starts
