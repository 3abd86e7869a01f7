"""Estimate what a server refills, from the requests it served between two refusals.

A token bucket is empty when it refuses. So between two refusals it served exactly what it refilled: their number over
that time is its rate, whatever its burst. Before the second refusal only bounds are known. A window refuses until it
ends; where a canary was refused as well, the refill lies between the last refusal and the canary that was served.

The course of admissions is kept as steps, (instant, requests admitted before it). A bucket of rate r bears it if its
burst is at least ``max over s of admitted(s, t) - r · (t - s)``: the arrival curve of network calculus (Le Boudec and
Thiran, "Network Calculus", 2001, section 1.2). At the first refusal that bound is reached, so it is the burst; and for
a known burst the same inequality, solved for r, says how far the limit must have risen.
"""

from __future__ import annotations

import math

from orchestrator.value import replace, value

CoursePoint = tuple[float, int]

KEPT_STEPS = 24

LEAST_RATE = 0.01
"""Requests per second that no estimate falls below, so that a budget never stands still for good."""

TYPICAL_BURST_S = 1.0
"""Seconds of a bucket's rate that its burst is taken for where nothing is known of it."""

OVERSHOOT_SHARE = 0.8
"""Of the rate that met the first 429: growth overshot it by a step of between 1 and 2."""

TRUSTED = 5
"""Served requests between two refusals from which the burst is worth solving for."""

CHANGED_SHARE = 1.05
"""How far above the measured rate the course of admissions must lie to prove that the limit rose meanwhile."""

RISE_SEEN_S = 0.5
"""Seconds that a rise must have lasted to be believed."""

PASSED_SHARE, BELOW_SHARE = 0.97, 0.9
"""Of the rate of the last cycle before a refusal: what a window bears, one request more or less. A lower bound is
below any rate that is refused."""

LARGEST_RETREAT = 0.03
"""How far below a refused rate the next one is at least; with n served since the last refusal, 2/n suffices."""

CONTRADICTED_SHARE = 1.02
"""Of the measured rate: a refusal at less contradicts the model that it was measured by, so the plain count holds."""

AMBIGUOUS_SHARE = 1.15
"""Of the plain count: a correction beyond that leaves open what is rate and what is burst."""

MEASURED_SPREAD, AWAY_SHARE = 1.3, 0.7
"""A limit known within 1.3 that lets less than 0.7 of itself through over a long refusal was away, and is no window."""

REFILLED = 2.0
"""Requests that a bucket has refilled by the time that its refusal is taken for that of a window."""

ROUNDS = 12
SHORTEST_S = 0.05
SHORTEST_CYCLE_S, LONGEST_CYCLE_S = 0.5, 120.0


@value
class Mark:
    """A request at which counting begins or ends: when it started, and the requests admitted before it."""

    at: float
    ordinal: int


@value
class Opening:
    """The course of admissions up to the first refusal, kept until the rate is known and so gives the burst."""

    steps: tuple[CoursePoint, ...]
    refusal: Mark


@value
class Meter:
    """The previous meeting with the limit and the present one.

    The previous: ``emptied`` is its first refusal, ``None`` before there was one, and the bucket is full;
    ``last_refused_at`` is its last refusal, ``canary`` the start of what was served then, ``resumed_at`` its answer.
    The present: ``refused`` is its first refusal, ``refused_last_at`` its last, ``refused_canaries`` counts those.
    """

    emptied: Mark | None = None
    last_refused_at: float = 0.0
    canary: Mark | None = None
    resumed_at: float = 0.0
    refused: Mark | None = None
    refused_last_at: float = 0.0
    refused_canaries: int = 0


@value
class Estimate:
    """What a server is believed to bear: ``rate`` within ``low`` and ``high``, and ``burst`` requests at once beyond.

    ``burst`` is ``None`` while it is unknown and ``opening`` then has what it will be solved from. ``windowed`` tells
    that the server counts in windows, of about ``cycle_s`` seconds. ``agrees`` tells that the last measurement was
    within the bounds so far, which it then narrowed; ``measured`` is what it said, 0 before there was one.
    ``is_refused`` tells that a refusal taught it, and not answers that slow down.
    """

    low: float
    rate: float
    high: float
    burst: float | None = None
    opening: Opening | None = None
    windowed: bool = False
    cycle_s: float = SHORTEST_CYCLE_S
    agrees: bool = False
    measured: float = 0.0
    is_refused: bool = True


def begun(now: float) -> Meter:
    """Return the meter of a run whose first request starts at ``now``."""
    return Meter(last_refused_at=now, canary=Mark(now, 0), resumed_at=now)


def refused(meter: Meter, refusal: Mark) -> Meter:
    """Note a refusal; of those that belong together the earliest start is when the bucket was empty."""
    is_older = meter.canary is not None and refusal.at < meter.canary.at
    if is_older or (meter.refused is not None and refusal.at >= meter.refused.at):
        return meter
    return replace(meter, refused=refusal, refused_last_at=max(refusal.at, meter.refused_last_at))


def canary_refused(meter: Meter, started_at: float) -> Meter:
    """Note that a canary was refused."""
    return replace(meter, refused_last_at=started_at, refused_canaries=meter.refused_canaries + 1)


def closed(meter: Meter, canary: Mark, now: float) -> Meter:
    """Begin anew after a ``canary`` was served at ``now``."""
    return Meter(emptied=meter.refused, last_refused_at=meter.refused_last_at, canary=canary, resumed_at=now)


def excess(steps: tuple[CoursePoint, ...], until: Mark, rate: float) -> float:
    """Return the requests admitted up to ``until`` beyond ``rate``: the burst that a bucket of that rate must have."""
    return max([0.0, *(until.ordinal - before - rate * (until.at - at) for at, before in steps if at <= until.at)])


def burst_of(estimate: Estimate) -> float:
    """Return the burst that is known, else the one that goes with the estimated rate."""
    return burst_at(estimate, estimate.rate)


def burst_at(estimate: Estimate, rate: float) -> float:
    """Return the burst that is known, else the one that goes with ``rate`` at the first refusal."""
    if estimate.opening is None:
        return estimate.burst or 0.0
    return excess(estimate.opening.steps, estimate.opening.refusal, rate)


def least_rate(steps: tuple[CoursePoint, ...], until: Mark, *, burst: float = 0.0, burst_s: float = 0.0) -> float:
    """Return the rate that a bucket must have to bear the admissions up to ``until``.

    Its burst is ``burst`` requests and ``burst_s`` seconds of its rate. Steps nearer than ``RISE_SEEN_S`` prove
    nothing.
    """
    rates = (
        (until.ordinal - before - burst) / (until.at - at + burst_s)
        for at, before in steps
        if until.at - at + burst_s >= RISE_SEEN_S
    )
    return max([LEAST_RATE, *rates])


def trailing_rate(steps: tuple[CoursePoint, ...], until: Mark, seconds: float) -> float | None:
    """Return the mean rate of admission over the last ``seconds``, ``None`` if the steps do not reach back so far."""
    since = until.at - seconds
    earlier = [step for step in steps if step[0] <= since]
    if not earlier:
        return None
    at, before = earlier[-1]
    next_at, next_before = next((step for step in steps if step[0] > since), (until.at, until.ordinal))
    admitted_before = before + (next_before - before) * (since - at) / max(SHORTEST_S, next_at - at)
    return (until.ordinal - admitted_before) / seconds


def estimated(
    known: Estimate | None, meter: Meter, steps: tuple[CoursePoint, ...], canary: Mark, refused_rate: float
) -> Estimate:
    """Return what the meeting with the limit that ``meter`` saw, and the ``canary`` that ended it, say of the server.

    ``refused_rate`` is the rate at which the first refusal came: the limit is not above it.
    """
    if known is not None and meter.refused_canaries and _was_away(known, meter, canary.at):
        return replace(known, agrees=False)
    found = _found(known, meter, steps, canary, refused_rate)
    if known is None or known.low > found.high or found.low > known.high:
        return _in_order(found)
    low, high = max(known.low, found.low), min(known.high, found.high)
    if found.windowed:
        low = min(low, BELOW_SHARE * refused_rate)
    return _in_order(replace(found, low=low, high=high, agrees=True))


def _found(
    known: Estimate | None, meter: Meter, steps: tuple[CoursePoint, ...], canary: Mark, refused_rate: float
) -> Estimate:
    refusal = meter.refused
    if refusal is None or meter.canary is None:
        message = "there is nothing to learn from without a refusal"
        raise ValueError(message)
    if (known is not None and known.windowed) or _is_window(known, meter, steps):
        return _of_a_window(known, meter, steps, canary.at, refused_rate)
    if known is None:
        return _of_the_first_refusal(refusal, steps, refused_rate)
    if meter.emptied is None:
        return _of_a_known_bucket(known, refusal, steps, refused_rate)
    return _of_a_bucket(known, _Cycle(meter.emptied, meter.resumed_at, refusal), steps, refused_rate)


def _in_order(estimate: Estimate) -> Estimate:
    """Return ``estimate`` with its rate between its bounds, and none of them next to nothing."""
    high = max(LEAST_RATE, estimate.high)
    low = min(max(LEAST_RATE, estimate.low), high)
    return replace(estimate, low=low, high=high, rate=min(max(estimate.rate, low), high))


def _is_window(known: Estimate | None, meter: Meter, steps: tuple[CoursePoint, ...]) -> bool:
    """Tell whether a canary was refused that a bucket would have served: by then it had refilled two requests.

    A window that let next to nothing through is none: somebody else has used it up, or the API is away.
    """
    refusal, since = meter.refused, meter.canary
    if refusal is None or since is None or not meter.refused_canaries:
        return False
    if refusal.ordinal - since.ordinal <= TRUSTED:
        return False
    if known is not None and known.measured:
        rate = known.measured
    elif known is not None and meter.emptied is not None:
        rate = (refusal.ordinal - meter.emptied.ordinal) / max(SHORTEST_S, refusal.at - meter.emptied.at)
    else:
        rate = least_rate(steps, refusal, burst_s=TYPICAL_BURST_S)
    return rate * (meter.refused_last_at - refusal.at) >= REFILLED


def _was_away(known: Estimate, meter: Meter, canary_at: float) -> bool:
    """Tell whether a measured limit was suspended for a while: a window would have let about as many through."""
    is_measured = known.opening is None and not known.windowed and known.high < MEASURED_SPREAD * known.low
    if not is_measured or meter.refused is None or meter.canary is None:
        return False
    served, seconds = meter.refused.ordinal - meter.canary.ordinal, canary_at - meter.canary.at
    return served < AWAY_SHARE * known.rate * seconds


def _of_the_first_refusal(refusal: Mark, steps: tuple[CoursePoint, ...], refused_rate: float) -> Estimate:
    usual = min(refused_rate, least_rate(steps, refusal, burst_s=TYPICAL_BURST_S))
    rate = max(usual, math.sqrt(usual * OVERSHOOT_SHARE * refused_rate))
    return Estimate(
        min(LEAST_RATE, refused_rate), min(rate, refused_rate), refused_rate, opening=Opening(steps, refusal)
    )


def _of_a_window(
    known: Estimate | None, meter: Meter, steps: tuple[CoursePoint, ...], canary_at: float, refused_rate: float
) -> Estimate:
    """Bound the refill by when it can have come; once its cycle is known, take the last cycle that passed instead."""
    refusal, begun_with = meter.refused or Mark(0.0, 0), meter.canary or Mark(0.0, 0)
    if known is not None and known.windowed:
        passed = trailing_rate(steps, refusal, max(known.cycle_s, TRUSTED / refused_rate))
        if passed is not None:
            borne = min(passed, refused_rate)
            low, rate = BELOW_SHARE * borne, PASSED_SHARE * borne
            return Estimate(low, rate, borne, burst=0.0, windowed=True, cycle_s=known.cycle_s, measured=rate)
    served = max(0, refusal.ordinal - begun_with.ordinal)
    low = max(LEAST_RATE, served / max(SHORTEST_S, canary_at - meter.last_refused_at))
    high = max(low, (served + 1) / max(SHORTEST_S, meter.refused_last_at - begun_with.at))
    known_s = known.cycle_s if known is not None and known.windowed else SHORTEST_CYCLE_S
    cycle_s = min(LONGEST_CYCLE_S, max(known_s, canary_at - begun_with.at))
    return Estimate(low, low, high, burst=0.0, windowed=True, cycle_s=cycle_s)


@value
class _Cycle:
    """From one meeting with a bucket's limit to the next."""

    emptied: Mark
    resumed_at: float
    refused: Mark

    @property
    def served(self) -> int:
        return max(0, self.refused.ordinal - self.emptied.ordinal)

    @property
    def seconds(self) -> float:
        return max(SHORTEST_S, self.refused.at - self.emptied.at)

    @property
    def open_s(self) -> float:
        return max(SHORTEST_S, self.refused.at - self.resumed_at)

    @property
    def held_s(self) -> float:
        return self.resumed_at - self.emptied.at


def _of_a_bucket(known: Estimate, cycle: _Cycle, steps: tuple[CoursePoint, ...], refused_rate: float) -> Estimate:
    served = cycle.served
    below = refused_rate * (1.0 - min(LARGEST_RETREAT, 2.0 / max(1, served)))
    is_credible = refused_rate > CONTRADICTED_SHARE * known.measured
    plain = max(LEAST_RATE, served / cycle.seconds)
    rate, burst = _solved(known, cycle, served) if is_credible else (plain, burst_at(known, plain))
    if known.opening is not None and (served <= TRUSTED or rate > AMBIGUOUS_SHARE * plain):
        high = max(rate, min(refused_rate, served / cycle.open_s)) if served <= TRUSTED else rate
        middle = plain ** (2 / 3) * high ** (1 / 3)
        return Estimate(plain, min(below, middle), min(high, refused_rate), opening=known.opening)
    is_lost = cycle.held_s * refused_rate > burst + 1.0
    if known.opening is None and is_lost and served <= TRUSTED:
        return Estimate(plain, math.sqrt(plain * below), below, burst, measured=below)
    scale = rate / plain
    low, high = scale * max(0, served - 1) / cycle.seconds, scale * (served + 1) / cycle.seconds
    risen = least_rate(steps, cycle.refused, burst=burst)
    if is_credible and risen > CHANGED_SHARE * high:
        low, rate, high = min(risen, refused_rate), 1.1 * risen, refused_rate
    low, rate = max(LEAST_RATE, min(low, below)), min(rate, below)
    return Estimate(low, rate, max(low, min(high, refused_rate)), burst, measured=rate)


def _of_a_known_bucket(known: Estimate, refusal: Mark, steps: tuple[CoursePoint, ...], refused_rate: float) -> Estimate:
    """Say what the first refusal of a run says that began with a remembered estimate, and so with a full bucket.

    One refusal cannot tell the rate from the burst. Before the remembered burst was spent, or just after, it shrinks
    the burst and doubts the rate; later it believes in the burst.
    """
    burst = known.burst or 0.0
    seen = excess(steps, refusal, known.rate)
    if seen < burst or refusal.ordinal <= burst + TRUSTED:
        return Estimate(0.8 * known.rate, 0.9 * known.rate, max(known.rate, refused_rate), min(seen, burst))
    rate = least_rate(steps, refusal, burst=burst)
    return Estimate(0.95 * rate, rate, max(rate, refused_rate), burst)


def _solved(known: Estimate, cycle: _Cycle, served: int) -> tuple[float, float]:
    """Return rate and burst that fit both the opening and ``served`` requests in the cycle.

    A hold longer than the bucket takes to fill loses what it refills beyond its burst: the bucket began full then, and
    served its burst beside what it refilled since. As the burst follows from the rate, and the rate from the burst, a
    few rounds are taken.
    """
    rate = max(LEAST_RATE, served / cycle.seconds)
    burst = burst_at(known, rate)
    for _ in range(ROUNDS):
        if cycle.held_s * rate <= burst + 1.0:
            break
        rate = max(rate, served / (cycle.open_s + (burst + 1.0) / rate))
        burst = burst_at(known, rate)
    return rate, burst
