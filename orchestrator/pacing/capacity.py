"""Estimate a server's limit from the requests that it served between two refusals.

A token bucket is empty when it refuses. So between two refusals it serves exactly the tokens that it gains: the number
of served requests divided by the time is its rate, whatever its burst. Before the second refusal, only bounds are
known. A window refuses requests until it ends. If it refuses canaries too, it ended between the last refusal and the
start of the canary that was served.

The course of admissions is kept as steps (instant, requests admitted before it). A bucket of rate r can admit them if
its burst is at least ``max over s of admitted(s, t) - r · (t - s)``: the arrival curve of network calculus (Le Boudec
and Thiran, "Network Calculus", 2001, section 1.2). The first refusal reaches that bound, so the bound is the burst. If
the burst is known, the same inequality, solved for r, shows how far the limit must have risen.
"""

from __future__ import annotations

import math

from orchestrator.value import replace, value

CoursePoint = tuple[float, int]

KEPT_STEPS = 24

LEAST_RATE = 0.01
"""The lowest estimate in requests per second, so that a budget never stops for good."""

TYPICAL_BURST_S = 1.0
"""An unknown burst is assumed to be this many seconds of the bucket's rate."""

OVERSHOOT_SHARE = 0.8
"""A guess of the limit, as a share of the rate that met the first 429. The last step of growth overshot the limit by a
factor between 1 and 2."""

TRUSTED = 5
"""The burst can be solved for only if more requests than this were served between two refusals."""

CHANGED_SHARE = 1.05
"""The limit has risen if the course of admissions needs more than this multiple of the highest rate measured."""

RISE_SEEN_S = 0.5
"""A rise of the limit must have lasted this many seconds to count."""

PASSED_SHARE, BELOW_SHARE = 0.97, 0.9
"""Shares of a window's rate of admissions in the last cycle before a refusal. The first gives the estimate, which
allows for a request more or less. The second gives the lower bound, which must be below every refused rate."""

LARGEST_RETREAT = 0.03
"""The next rate is below a refused rate by at least this share, or by 2/n if that is less, where n is the number of
requests served since the last refusal."""

CONTRADICTED_SHARE = 1.02
"""A refusal at up to this multiple of the measured rate contradicts the model of the measurement. Then the plain count
is used."""

AMBIGUOUS_SHARE = 1.15
"""If a correction raises the plain count by more than this factor, rate and burst cannot be told apart."""

MEASURED_SPREAD, AWAY_SHARE = 1.3, 0.7
"""A limit is measured if its bounds are within a factor of 1.3. If the server then lets less than 0.7 of it through,
the limit was suspended, and it is no window."""

REFILLED = 2.0
"""If a canary is refused although a bucket would have gained this many tokens, the limit is a window."""

ROUNDS = 12
SHORTEST_S = 0.05
SHORTEST_CYCLE_S, LONGEST_CYCLE_S = 0.5, 120.0


@value
class Mark:
    """A request at which counting begins or ends: its start, and the number of requests admitted before it."""

    at: float
    ordinal: int


@value
class Opening:
    """The course of admissions up to the first refusal. It is kept to solve for the burst once the rate is known."""

    steps: tuple[CoursePoint, ...]
    refusal: Mark


@value
class Meter:
    """The previous meeting with the limit, and the present one.

    Of the previous one, ``emptied`` is the first refusal and ``last_refused_at`` the last. ``canary`` is the request
    that was served then, and ``resumed_at`` the instant of its answer. If no limit was met before, ``emptied`` is
    ``None``, and the bucket was full. Of the present one, ``refused`` is the first refusal, ``refused_last_at`` the
    last, and ``refused_canaries`` the number of refused canaries.
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
    """The estimated limit of a server: ``rate``, between ``low`` and ``high``, and ``burst`` requests at once beyond.

    ``burst`` is ``None`` while it is unknown; ``opening`` then holds the data to solve it from. ``windowed`` tells that
    the server counts in windows of about ``cycle_s`` seconds. ``agrees`` tells that the last measurement agreed with
    the bounds before it and narrowed them. ``measured`` is the rate that it gave, 0 before the first one.
    ``is_refused`` tells that the estimate comes from a refusal, not from answers that slow down.
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
    """Return the meter at the start of a run whose first request starts at ``now``."""
    return Meter(last_refused_at=now, canary=Mark(now, 0), resumed_at=now)


def refused(meter: Meter, refusal: Mark) -> Meter:
    """Note a refusal. Of all refusals of a meeting, the request that started first shows when the bucket was empty."""
    is_older = meter.canary is not None and refusal.at < meter.canary.at
    if is_older or (meter.refused is not None and refusal.at >= meter.refused.at):
        return meter
    return replace(meter, refused=refusal, refused_last_at=max(refusal.at, meter.refused_last_at))


def canary_refused(meter: Meter, started_at: float) -> Meter:
    """Note that a canary was refused."""
    return replace(meter, refused_last_at=started_at, refused_canaries=meter.refused_canaries + 1)


def closed(meter: Meter, canary: Mark, now: float) -> Meter:
    """Return the meter for the next meeting, after a ``canary`` was served at ``now``."""
    return Meter(emptied=meter.refused, last_refused_at=meter.refused_last_at, canary=canary, resumed_at=now)


def excess(steps: tuple[CoursePoint, ...], until: Mark, rate: float) -> float:
    """Return the requests admitted up to ``until`` beyond ``rate``: the least burst of a bucket with that rate."""
    return max([0.0, *(until.ordinal - before - rate * (until.at - at) for at, before in steps if at <= until.at)])


def burst_of(estimate: Estimate) -> float:
    """Return the known burst, else the burst that fits the estimated rate."""
    return burst_at(estimate, estimate.rate)


def burst_at(estimate: Estimate, rate: float) -> float:
    """Return the known burst, else the burst that fits ``rate`` at the first refusal."""
    if estimate.opening is None:
        return estimate.burst or 0.0
    return excess(estimate.opening.steps, estimate.opening.refusal, rate)


def least_rate(steps: tuple[CoursePoint, ...], until: Mark, *, burst: float = 0.0, burst_s: float = 0.0) -> float:
    """Return the lowest rate of a bucket that can admit the requests up to ``until``.

    Its burst is ``burst`` requests plus ``burst_s`` seconds of its rate. Steps less than ``RISE_SEEN_S`` before
    ``until``, with ``burst_s`` added, are ignored.
    """
    rates = (
        (until.ordinal - before - burst) / (until.at - at + burst_s)
        for at, before in steps
        if until.at - at + burst_s >= RISE_SEEN_S
    )
    return max([LEAST_RATE, *rates])


def trailing_rate(steps: tuple[CoursePoint, ...], until: Mark, seconds: float) -> float | None:
    """Return the mean rate of admissions in the last ``seconds``, ``None`` if the steps do not reach back that far."""
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
    """Return the estimate after a meeting with the limit.

    ``meter`` records the meeting, and ``canary`` is the request whose answer ended it. ``refused_rate`` is the rate at
    the first refusal: the limit is not higher. Raises ``ValueError`` without a refusal.
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
        message = "cannot estimate a limit without a refusal"
        raise ValueError(message)
    if (known is not None and known.windowed) or _is_window(known, meter, steps):
        return _of_a_window(known, meter, steps, canary.at, refused_rate)
    if known is None:
        return _of_the_first_refusal(refusal, steps, refused_rate)
    if meter.emptied is None:
        return _of_a_known_bucket(known, refusal, steps, refused_rate)
    return _of_a_bucket(known, _Cycle(meter.emptied, meter.resumed_at, refusal), steps, refused_rate)


def _in_order(estimate: Estimate) -> Estimate:
    """Return ``estimate`` with its rate between its bounds, and all three at least ``LEAST_RATE``."""
    high = max(LEAST_RATE, estimate.high)
    low = min(max(LEAST_RATE, estimate.low), high)
    return replace(estimate, low=low, high=high, rate=min(max(estimate.rate, low), high))


def _is_window(known: Estimate | None, meter: Meter, steps: tuple[CoursePoint, ...]) -> bool:
    """Tell whether a canary was refused although a bucket would have gained two tokens by then.

    If hardly any request was served before, it is no window: somebody else has used up the limit, or the API is
    unavailable.
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
    """Tell whether a measured limit was suspended for a while. A window would have served about as many requests."""
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
    """Bound the rate by the earliest and the latest end of the window.

    Once the length of the cycle is known, estimate the rate from the admissions of the last cycle instead.
    """
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
    """The time from one meeting with a bucket's limit to the next."""

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
    """Return the estimate after the first refusal of a run that began with a remembered estimate.

    Such a run begins with a full bucket. One refusal cannot tell the rate from the burst. If it comes before the
    remembered burst is spent, or just after, reduce both and widen the bounds. If it comes later, keep the burst and
    solve for the rate.
    """
    burst = known.burst or 0.0
    seen = excess(steps, refusal, known.rate)
    if seen < burst or refusal.ordinal <= burst + TRUSTED:
        return Estimate(0.8 * known.rate, 0.9 * known.rate, max(known.rate, refused_rate), min(seen, burst))
    rate = least_rate(steps, refusal, burst=burst)
    return Estimate(0.95 * rate, rate, max(rate, refused_rate), burst)


def _solved(known: Estimate, cycle: _Cycle, served: int) -> tuple[float, float]:
    """Return the rate and burst that fit both the opening and ``served`` requests in the cycle.

    If a hold is longer than the bucket takes to fill, the tokens beyond its burst are lost. The bucket is then full
    when the hold ends, and serves its burst and the tokens that it gains after the hold. Rate and burst depend on each
    other, so a few rounds are needed.
    """
    rate = max(LEAST_RATE, served / cycle.seconds)
    burst = burst_at(known, rate)
    for _ in range(ROUNDS):
        if cycle.held_s * rate <= burst + 1.0:
            break
        rate = max(rate, served / (cycle.open_s + (burst + 1.0) / rate))
        burst = burst_at(known, rate)
    return rate, burst
