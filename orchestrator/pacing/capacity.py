"""Estimate the rate of a server's limit from its meetings: the first 429 after a while, the hold, the served canary.

A token bucket is empty when it refuses. So between two refusals it serves exactly the tokens that it gains, whatever
its burst: the number of served requests divided by the time is its rate. If the hold between them was longer than the
bucket takes to fill, some tokens were lost, and the rate is higher. Before the second refusal, only bounds are known.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from orchestrator.pacing import bucket as buckets
from orchestrator.value import replace, value

if TYPE_CHECKING:
    from orchestrator.pacing.history import History

LEAST_RATE = 0.01
"""The lowest estimate in requests per second, so that a budget never stops for good."""

TYPICAL_BURST_S = 1.0
"""An unknown burst is assumed to be this many seconds of the bucket's rate."""

OVERSHOOT_SHARE = 0.8
"""A guess of the limit, as a share of the rate that met the first 429. The last step of growth overshot the limit by a
factor between 1 and 2."""

FEW = 5
"""So few requests say too little about a rate."""

CHANGED_SHARE = 1.05
"""The limit has risen if what was admitted since the last meeting needs more than this multiple of the estimate."""

RETREAT_SHARE = 0.98
"""The next rate is at most this share of a refused one."""

AWAY_SHARE, FIGURE_RATIO = 0.7, 1.3
"""If the bounds are within a factor of 1.3 and the server then lets less than 0.7 of the rate through, the limit was
suspended."""

ROUNDS = 12
SHORTEST_S = 0.05


@value
class Meter:
    """The previous meeting with the limit, and the present one. Instants are starts of requests.

    Of the previous one, ``emptied_at`` is the first refusal, ``canary_at`` the canary that was served, and
    ``resumed_at`` the instant of its answer. Before the first meeting, ``emptied_at`` is ``None``, and the other two
    are the start of the run. Of the present one, ``refused_at`` is the first refusal, ``last_at`` the last, and
    ``canaries`` the number of refused canaries.
    """

    emptied_at: float | None = None
    canary_at: float = -math.inf
    resumed_at: float = -math.inf
    refused_at: float | None = None
    last_at: float = -math.inf
    canaries: int = 0


@value
class Estimate:
    """The estimated limit of a server: ``rate``, between ``low`` and ``high``, and ``burst`` requests at once beyond.

    ``burst`` is ``None`` while it is unknown. ``agrees`` tells that the last measurement agreed with the bounds before
    it and narrowed them. ``is_refused`` tells that the estimate comes from a refusal, not from answers that slow down.
    """

    low: float
    rate: float
    high: float
    burst: float | None = None
    agrees: bool = False
    is_refused: bool = True


def refused(meter: Meter, at: float) -> Meter:
    """Note a refusal. The request that started first shows when the limit was reached."""
    if at < meter.canary_at or (meter.refused_at is not None and at >= meter.refused_at):
        return meter
    return replace(meter, refused_at=at, last_at=max(at, meter.last_at))


def canary_refused(meter: Meter, at: float) -> Meter:
    """Note that a canary was refused."""
    return replace(meter, last_at=at, canaries=meter.canaries + 1)


def closed(meter: Meter, canary_at: float, now: float) -> Meter:
    """Return the meter for the next meeting, after a canary was served at ``now``."""
    return Meter(emptied_at=meter.refused_at, canary_at=canary_at, resumed_at=now)


def in_order(estimate: Estimate) -> Estimate:
    """Return ``estimate`` with its rate between its bounds, and all three at least ``LEAST_RATE``."""
    high = max(LEAST_RATE, estimate.high)
    low = min(max(LEAST_RATE, estimate.low), high)
    return replace(estimate, low=low, high=high, rate=min(max(estimate.rate, low), high))


def guessed(history: History, refused_at: float, refused_rate: float) -> Estimate:
    """Return the estimate after the first refusal of a run that knew nothing."""
    needed = buckets.least_rate(history.taken, refused_at, burst_s=TYPICAL_BURST_S)
    usual = min(refused_rate, max(LEAST_RATE, needed))
    return in_order(Estimate(LEAST_RATE, max(usual, math.sqrt(usual * OVERSHOOT_SHARE * refused_rate)), refused_rate))


def of_a_remembered_one(known: Estimate, history: History, meter: Meter, refused_rate: float) -> Estimate:
    """Return the estimate after the first refusal of a run that began with a remembered bucket, which was full.

    One refusal cannot tell the rate from the burst. If it comes before the burst is spent, or just after, reduce the
    rate, widen its bounds, and forget the burst. If it comes later, keep the burst and solve for the rate.
    """
    refused_at = meter.canary_at if meter.refused_at is None else meter.refused_at
    burst, admitted = known.burst or 0.0, history.starts.between(meter.canary_at, refused_at)
    if admitted <= burst + FEW:
        rate = 0.9 * known.rate
        return Estimate(0.8 * rate, rate, max(known.rate, refused_rate))
    rate = (admitted - burst) / max(SHORTEST_S, refused_at - meter.canary_at)
    return in_order(Estimate(0.95 * rate, rate, max(rate, refused_rate), burst))


def measured(known: Estimate, history: History, meter: Meter, refused_rate: float) -> Estimate:
    """Return the estimate between two refusals. Raises ``ValueError`` without two."""
    if meter.emptied_at is None or meter.refused_at is None:
        message = "a rate is measured between two refusals"
        raise ValueError(message)
    cycle = _Cycle(
        admitted=history.starts.between(meter.emptied_at, meter.refused_at),
        seconds=max(SHORTEST_S, meter.refused_at - meter.emptied_at),
        open_s=max(SHORTEST_S, meter.refused_at - meter.resumed_at),
    )
    opening = [] if known.burst is not None else [each for each in history.taken if each < meter.emptied_at]
    rate, burst = _solved(cycle, opening, known.burst)
    plain, one = cycle.rate, 1 / max(1, cycle.admitted)
    low, high = rate * (1 - one), rate * (1 + one)
    if cycle.admitted <= FEW and cycle.held_s * refused_rate > burst + 1.0:
        low, high = plain, min(refused_rate, max(rate, cycle.admitted / cycle.open_s))
        rate = plain ** (2 / 3) * high ** (1 / 3)
    risen = buckets.least_rate(history.starts.since(meter.resumed_at), meter.refused_at, burst=burst)
    if risen > CHANGED_SHARE * high:
        low, rate, high = min(risen, refused_rate), 1.1 * risen, refused_rate
    found = Estimate(low, min(rate, RETREAT_SHARE * refused_rate), min(high, refused_rate), burst)
    return in_order(narrowed(found, known))


@value
class _Cycle:
    """The time between two refusals: its requests, its seconds, and those of them after the hold."""

    admitted: int
    seconds: float
    open_s: float

    @property
    def held_s(self) -> float:
        return self.seconds - self.open_s

    @property
    def rate(self) -> float:
        return max(LEAST_RATE, self.admitted / self.seconds)


def _solved(cycle: _Cycle, opening: list[float], known_burst: float | None) -> tuple[float, float]:
    """Return the rate and the burst that fit both the cycle and what came before it (``opening``).

    If a hold is longer than the bucket takes to fill, the tokens beyond its burst are lost. The bucket is then full
    when the hold ends, and serves its burst and the tokens that it gains afterwards. Rate and burst depend on each
    other, so a few rounds are needed.
    """
    rate, burst = cycle.rate, 0.0
    for _ in range(ROUNDS):
        burst = buckets.burst(opening, rate) if known_burst is None else known_burst
        if cycle.held_s * rate <= burst + 1.0:
            break
        rate = max(rate, cycle.admitted / (cycle.open_s + (burst + 1.0) / rate))
    return rate, burst


def narrowed(found: Estimate, known: Estimate) -> Estimate:
    """Return ``found`` within the bounds of ``known``, if these agree."""
    if known.low > found.high or found.low > known.high:
        return found
    return replace(found, low=max(found.low, known.low), high=min(found.high, known.high), agrees=True)


def was_away(known: Estimate, history: History, meter: Meter, canary_at: float) -> bool:
    """Tell whether a measured limit was suspended for a while, before the canary at ``canary_at`` was served."""
    if not meter.canaries or known.burst is None or known.high >= FIGURE_RATIO * known.low or meter.refused_at is None:
        return False
    admitted = history.starts.between(meter.canary_at, meter.refused_at)
    return admitted < AWAY_SHARE * known.rate * (canary_at - meter.canary_at)
