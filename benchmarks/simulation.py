"""Simulate a server of ``servers.py`` in virtual time, and record what it sees of a client.

This is a plain event simulation: a heap of moments, nothing asynchronous. The limits are the stand-in's own
(``orchestrator/simulator/limits.py``). The rest is modelled on ``orchestrator/simulator/gateway.py``:

- The latency comes after the limits, as in the stand-in: a request arrives immediately, and so does a 429. With
  ``late_refusals``, half of the latency comes before the limits, and a 429 takes all of it. This is harder, because the
  requests that start meanwhile are rejected too. If the number in flight is limited, all of the latency still comes
  after the limits, as in the stand-in.
- If the schedule changes the latency, a request has the latency that is in force when it arrives. The part before the
  limits follows the latency at the start of the request.
- A backend works on as many requests as it has slots, in the order of arrival. After the gateway's timeout, the gateway
  answers 504, and the work goes on in its slot.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

from servers import ideal_s, limit_per_s

from orchestrator.simulator.answers import retry_after
from orchestrator.simulator.limit_keys import InFlight, RetryAfter
from orchestrator.simulator.limits import Limits
from orchestrator.wpengine.retry_after import retry_after_s

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers import Server

    from orchestrator.simulator.scenario import Scenario

ACCEPTED, THROTTLED, GATEWAY_TIMEOUT = 202, 429, 504

WINDOW_S = 2.0
REACHED_SHARE = 0.95

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
"""The time of the server's clock at the first request. Any time would do."""

ROUNDING_S = 1e-9
"""Tolerance for rounding errors in sums of floats. It is too short for a server to notice."""


class StuckError(Exception):
    """The client is not done after far more time than it should need."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The status of an answer, and the wait that its ``Retry-After`` named."""

    status: int
    retry_after_s: float | None = None


@dataclass(slots=True)
class Seen:
    """What the server saw. Instants are seconds since the first start.

    ``accepted_at`` holds one instant per backup that is made, whether the answer is 202 or 504. ``ended_at`` is the
    instant of the last answer or of the last backup, whichever is later.
    """

    requests: int = 0
    rejected: int = 0
    failed: int = 0
    early: int = 0
    longest_run: int = 0
    ended_at: float = 0.0
    accepted_at: list[float] = field(default_factory=list)


class Simulation:
    """One run of a client against one server, in virtual time.

    ``now`` is in seconds and starts at any number, like a monotonic clock. All random numbers of the run come from
    ``chance``.
    """

    def __init__(self, scenario: Scenario, seed: int, *, late_refusals: bool = False) -> None:
        """Set up the server in its state before the first request."""
        self.chance = random.Random(seed)  # noqa: S311 - seeded on purpose: a run must be repeatable
        self.now = self.chance.uniform(1e3, 1e5)
        self.seen = Seen()
        self._began = self.now
        self._scenario, self._late_refusals = scenario, late_refusals
        self._limits, self._first_arrival = Limits(scenario), 0.0
        held_inside = any(isinstance(limit, InFlight) for limit in scenario.limits)
        self._under_way = 0.5 if late_refusals and not held_inside else 0.0
        self._free_at = [0.0] * (scenario.backend.slots if scenario.backend else 0)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbered = 0
        self._run = 0
        self._named_until = 0.0

    def call_at(self, moment: float, act: Callable[[], None]) -> None:
        """Call ``act`` at ``moment``. Calls for the same moment happen in the order of ``call_at``."""
        self._numbered += 1
        heapq.heappush(self._events, (moment, self._numbered, act))

    def send(self, answered: Callable[[Answer], None], *, read_only: bool = False) -> None:
        """Start a request, a POST unless ``read_only``. ``answered`` is called with the answer."""
        drawn = self.chance.random()
        self.seen.requests += 1
        self.seen.early += self.now < self._named_until - ROUNDING_S
        under_way_s = self._under_way * self._latency_s(drawn)
        self.call_at(self.now + under_way_s, lambda: self._arrive(answered, drawn, read_only))

    def run(self, longest_s: float) -> None:
        """Run all events. Raises ``StuckError`` if they take more than ``longest_s`` virtual seconds."""
        events = self._events
        while events:
            self.now, _, act = heapq.heappop(events)
            act()
            if self.now - self._began > longest_s:
                message = f"not done after {longest_s:.0f} s"
                raise StuckError(message)

    def _arrive(self, answered: Callable[[Answer], None], drawn: float, read_only: bool) -> None:  # noqa: FBT001 - the one caller is above
        self._first_arrival = self._first_arrival or self.now
        rest_s = (1 - self._under_way) * self._latency_s(drawn)
        wait_s = self._limits.enter(self.now - self._first_arrival, read_only=read_only)
        if wait_s > 0:
            self.seen.rejected += 1
            self._run += 1
            self.seen.longest_run = max(self.seen.longest_run, self._run)
            refusal = Answer(THROTTLED, self._retry_after_s(wait_s))
            self.call_at(self.now + (rest_s if self._late_refusals else 0.0), lambda: self._answer(answered, refusal))
            return
        self._run = 0
        if not read_only:
            self.seen.accepted_at.append(self.now - self._began)
        work_s = self._worked_s()
        is_late = work_s > self._scenario.gateway_timeout
        self.seen.failed += is_late
        self.seen.ended_at = max(self.seen.ended_at, self.now + work_s - self._began)
        answer = Answer(GATEWAY_TIMEOUT if is_late else ACCEPTED)
        inside_s = min(work_s, self._scenario.gateway_timeout)
        self.call_at(self.now + inside_s + rest_s, lambda: self._leave(answered, answer, read_only))

    def _latency_s(self, drawn: float) -> float:
        """Return the latency in force now that belongs to ``drawn``, a number from 0 to 1 (exclusive)."""
        shortest, longest = self._scenario.latency_at(self.now - self._first_arrival if self._first_arrival else 0.0)
        return shortest + (longest - shortest) * drawn

    def _worked_s(self) -> float:
        """Return the seconds until the backend has done a request that arrives now, and keep a slot busy until then."""
        if self._scenario.backend is None:
            return 0.0
        free_at = max(self.now, self._free_at[0])
        done_at = free_at + self.chance.uniform(*self._scenario.backend.takes)
        heapq.heapreplace(self._free_at, done_at)
        return done_at - self.now

    def _leave(self, answered: Callable[[Answer], None], answer: Answer, read_only: bool) -> None:  # noqa: FBT001 - the one caller is above
        self._limits.leave(read_only=read_only)
        self._answer(answered, answer)

    def _answer(self, answered: Callable[[Answer], None], answer: Answer) -> None:
        self.seen.ended_at = max(self.seen.ended_at, self.now - self._began)
        if answer.retry_after_s is not None:
            self._named_until = max(self._named_until, self.now + answer.retry_after_s)
        answered(answer)

    def _retry_after_s(self, wait_s: float) -> float | None:
        """Return the wait that the client reads from the stand-in's ``Retry-After``, ``None`` without the header."""
        if self._scenario.retry_after is RetryAfter.NONE:
            return None
        clock = NOON + timedelta(seconds=self.now - self._began)
        value = retry_after(self._scenario.retry_after, wait_s, clock)
        return retry_after_s(value, format_datetime(clock.replace(microsecond=0), usegmt=True), clock)


def figures(server: Server, seen: Seen) -> dict[str, float]:
    """Return the figures of ``servers.FIGURES`` that one run shows."""
    ideal = ideal_s(server, len(seen.accepted_at))
    return {
        "time_over_ideal": seen.ended_at / ideal,
        "capacity_used": ideal / seen.ended_at,
        "rejected": seen.rejected,
        "rejected_share": seen.rejected / seen.requests,
        "failed_share": seen.failed / seen.requests,
        "time_to_95_s": time_to_s(seen.accepted_at, REACHED_SHARE * limit_per_s(server.scenario)),
        "longest_run_of_429s": seen.longest_run,
        "early": seen.early,
    }


def time_to_s(accepted_at: list[float], rate: float) -> float:
    """Return when the requests accepted within ``WINDOW_S`` first reached ``rate`` per second, infinity for never."""
    recent: deque[float] = deque()
    for moment in accepted_at:
        recent.append(moment)
        while recent[0] <= moment - WINDOW_S:
            recent.popleft()
        if len(recent) >= rate * WINDOW_S:
            return moment
    return float("inf")
