"""When the rate grows, and by how much: seeking a limit, measuring it, probing whether it has risen.

Every growth asks that the present rate was really used and that a request that started at it was served in time: an
unused rate proves nothing, and with answers after a second the growth waits for what it did. While answers slow down
nothing grows.
"""

from __future__ import annotations

from orchestrator.pacing import flight as flights
from orchestrator.pacing.capacity import KEPT_STEPS, LEAST_RATE, SHORTEST_S, Estimate, Mark, burst_of, excess
from orchestrator.pacing.state import Binding, Cause, Growth, Pace, Phase, Stage
from orchestrator.value import replace, value

USED_SHARE = 0.8
"""A rate counts as really used from this share of it on."""

SHORTEST_SEEKING_S, LONGEST_SEEKING_S, SEEKING_LATENCIES = 0.12, 0.25, 2.5
SEEKING_STEPS = ((20, 2.0), (80, 1.5), (None, 1.2))
"""Factors of growth by the requests served so far. Doubling finds the order of magnitude; the smaller ones, while a
burst is being spent, keep low the rate at which the first 429 comes, and so the requests that it takes along."""

SEEKING_GAIN = 2.0
"""Of the answers per second, for which requests may be in flight while the rate is doubled (see ``bound``)."""

ANSWERED_SHARE = 0.45
"""Of the rate, that answers come at while it is doubled in each time of an answer; less tells of a queue."""

BLIND = 16
"""Unanswered requests up to which seeking goes on without an answer: the start must not wait for slow ones."""

MEASURING_INTERVAL_S, GAP_SHARE, WINDOW_GAP_SHARE = 0.5, 1 / 8, 1 / 6
LEAST_MEASURING_STEP, LARGEST_MEASURING_STEP = 1.02, 1.5
"""Between bounds, each step goes an eighth of the way to the upper one, on a scale of ratios; a sixth from the lower
bound of a window."""

CYCLES = 1 / 3
"""Of a window's cycle between two such steps: a refusal shows only as the cycle ends."""

SETTLED_SHARE = 0.99
"""Of the measured limit: the count of served requests is exact to one, so little needs to be left unused."""

SPEND_S = 5.0
"""Seconds over which what the server saved up during a hold is spent, evenly."""

SPEND_MARGIN = 2.0
"""Saved-up requests that are left alone: what is in flight may spend them first."""

FIRST_QUIET_S, LONGEST_QUIET_S, QUIET_REMEMBERED_S = 8.0, 240.0, 30.0
"""Seconds after a hold until the first probe; each probe that fails doubles them. A remembered limit is trusted longer.
"""

QUIET_AFTER_FALL_S, FALLEN_SHARE = 3.0, 0.7
"""A limit measured below this share of what it was has fallen, and is likely to come back soon."""

FIRST_PROBE, LARGEST_PROBE = 0.02, 0.5
PROBE_INTERVAL_S, PROBE_LATENCIES, PROBE_ANSWERS = 0.5, 2.0, 3
"""Each step of a probe lasts so many seconds, times of an answer, and answers; a window's lasts a cycle."""

BOLD_SHARE, BURST_SPENT_IN_S, REFUSALS_AT_RISK, BURST_MARGIN = 0.04, 2.5, 4.0, 1.1
"""Probes go up by 2%, 4%, 8% … But a bucket that has saved up its burst lets any rate pass until that is spent. So
until more was sent than the limit and the burst explain, a probe goes no further above the limit than spends the burst
in 2.5 s, and than brings four 429s in the time of an answer."""

UNQUEUED_SHARE = 0.5
"""Of the bound on the number in flight, below which slow answers are not a queue's."""

FILLING_SHARE = 1.05
"""Of the answers per second of a server that slows down: enough to keep all of it at work."""

CREDIT_PER_SERVED, CREDIT_LIMIT = 0.008, 3.0
"""A probe costs a 429, which is earned by 125 served requests; at most three are saved up."""

SPREAD = 1.08
"""Bounds this close to each other count as a figure."""


def grown(pace: Pace, now: float) -> Pace:
    """Return the pace with the rate that follows from how the present one has fared up to ``now``."""
    growth = pace.growth
    if pace.fixed or pace.phase is not Phase.FLOWING or growth.since is None:
        return pace
    if growth.spend_until is not None:
        return pace if now < growth.spend_until else _spent(pace, now)
    return _judged(pace, now, now - growth.since)


def _judged(pace: Pace, now: float, elapsed_s: float) -> Pace:
    step = _step(pace)
    if elapsed_s < step.interval_s:
        return pace
    is_used = pace.growth.started >= USED_SHARE * pace.rate * elapsed_s
    if pace.flight.latency.is_slow:
        return _slowed(pace, now, is_used=is_used)
    if _is_unanswered(pace, step, elapsed_s):
        return pace
    if not is_used:
        return _pressed(pace, now)
    return _stepped(replace(pace, binding=Binding.RATE), now, step.factor)


def _is_unanswered(pace: Pace, step: _Rise, elapsed_s: float) -> bool:
    """Tell whether too little was heard of the present rate, or far fewer answers come than requests start."""
    is_seeking = pace.stage is Stage.SEEKING
    if is_seeking and pace.in_flight <= BLIND:
        return False
    is_queueing = is_seeking and pace.growth.answers <= ANSWERED_SHARE * pace.rate * elapsed_s
    return is_queueing or pace.growth.served < step.answers


def _stepped(pace: Pace, now: float, factor: float) -> Pace:
    match pace.stage:
        case Stage.SEEKING:
            return _risen(pace, now, pace.rate * factor, Cause.NOT_REFUSED)
        case Stage.MEASURING:
            return _narrowed(pace, now, factor)
        case Stage.SETTLED:
            return _probed(pace, now, factor)


def bound(pace: Pace) -> int:
    """Return how many requests may be in flight, apart from ``concurrency``.

    While the rate is doubled it says nothing of what the server serves; twice the answers per second at the last step
    do (the gain of BBR's start-up is 2.89, ours 2 · 1.5).
    """
    if pace.stage is not Stage.SEEKING:
        return flights.bound(pace.flight, pace.rate, pace.served)
    rate = min(pace.rate, SEEKING_GAIN * pace.growth.answer_rate)
    return flights.bound(pace.flight, rate, pace.served, least=flights.FIRST_IN_FLIGHT)


def answered(growth: Growth, now: float, *, served: int = 0, earned: float = 0.0) -> Growth:
    """Count an answer, as ``served`` in time at this rate or not, and what credit it ``earned``.

    The answers per second are those at this rate or the last one, whichever are more.
    """
    elapsed_s = 0.0 if growth.since is None else now - growth.since
    answers = growth.answers + 1
    rate = answers / elapsed_s if elapsed_s >= SHORTEST_SEEKING_S else 0.0
    return replace(
        growth,
        answer_rate=max(growth.answer_rate, rate),
        served=growth.served + served,
        answers=answers,
        credit=min(CREDIT_LIMIT, growth.credit + earned),
    )


def settled_rate(pace: Pace) -> float:
    """Return the rate at which the estimate is used: just below a figure, at the middle of bounds."""
    estimate = pace.estimate
    if estimate is None:
        return pace.rate
    share = SETTLED_SHARE if pace.stage is Stage.SETTLED else 1.0
    return min(pace.ceiling, max(LEAST_RATE, share * estimate.rate))


def spending(pace: Pace, now: float) -> Pace:
    """Return the pace with what the server saved up since it last refused spent over the next seconds."""
    estimate, emptied = pace.estimate, pace.meter.emptied
    if estimate is None or emptied is None or pace.fixed:
        return pace
    burst = burst_of(estimate) / (1.0 if estimate.opening is None else 2.0)
    saved = min(burst, estimate.rate * (now - emptied.at)) - SPEND_MARGIN
    if saved < 1.0:
        return pace
    rate = min(pace.ceiling, pace.rate + saved / SPEND_S)
    return replace(pace, rate=rate, growth=replace(pace.growth, spend_until=now + SPEND_S))


@value
class _Rise:
    """The factor by which the rate grows next, the seconds to wait for that, and the answers."""

    factor: float
    interval_s: float
    answers: int


def _step(pace: Pace) -> _Rise:
    recent_s = pace.flight.latency.recent_s
    cycle_s = pace.estimate.cycle_s if pace.estimate and pace.estimate.windowed else 0.0
    match pace.stage:
        case Stage.SEEKING:
            factor = next(factor for most, factor in SEEKING_STEPS if most is None or pace.served < most)
            usual_s = pace.flight.latency.usual_s
            quick_s = LONGEST_SEEKING_S if usual_s is None else SEEKING_LATENCIES * usual_s
            return _Rise(factor, max(SHORTEST_SEEKING_S, min(LONGEST_SEEKING_S, quick_s)), 1)
        case Stage.MEASURING:
            gap = pace.estimate.high / pace.rate if pace.estimate else 1.0
            step = min(
                LARGEST_MEASURING_STEP, max(LEAST_MEASURING_STEP, gap ** (WINDOW_GAP_SHARE if cycle_s else GAP_SHARE))
            )
            return _Rise(step, max(MEASURING_INTERVAL_S, PROBE_LATENCIES * recent_s, CYCLES * cycle_s), 1)
        case Stage.SETTLED if pace.growth.probes == 0:
            return _Rise(1.0 + FIRST_PROBE, pace.growth.quiet_s, 0)
        case Stage.SETTLED:
            step = min(LARGEST_PROBE, FIRST_PROBE * 2.0 ** min(pace.growth.probes, 16))
            return _Rise(1.0 + step, max(PROBE_INTERVAL_S, PROBE_LATENCIES * recent_s, cycle_s), PROBE_ANSWERS)


def _is_kept_back(pace: Pace) -> bool:
    """Tell whether the number in flight keeps requests back; an answer may just have left one place free."""
    return pace.in_flight >= min(pace.concurrency, bound(pace)) - 1


def _pressed(pace: Pace, now: float) -> Pace:
    """Say what kept the rate from being used, and try more in flight if that has been it for long enough."""
    unused = _restarted(pace, now)
    if not _is_kept_back(pace):
        return unused
    pressed = flights.pressed(pace.flight, pace.rate, pace.in_flight, now)
    return replace(unused, flight=pressed, binding=_what_binds(pace))


def _what_binds(pace: Pace) -> Binding:
    in_flight = pace.in_flight + 1
    borne, usual_s = pace.flight.borne.most, pace.flight.latency.shortest_s
    if borne is not None and in_flight >= borne:
        return Binding.REFUSED_IN_FLIGHT
    if usual_s is not None and in_flight >= flights.unqueued(usual_s, pace.rate):
        return Binding.SLOW_ANSWERS
    return Binding.CONCURRENCY if in_flight >= pace.concurrency else Binding.RATE


def _risen(pace: Pace, now: float, rate: float, cause: Cause) -> Pace:
    """Take up another rate, at once: the next start was due at the old one."""
    rate = min(pace.ceiling, rate)
    steps = pace.steps
    if rate != pace.rate:
        steps = (*steps, (now, pace.passed + pace.in_flight))[-KEPT_STEPS:]
    next_at = min(pace.next_at, now + 1.0 / rate)
    risen = _restarted(pace, now)
    growth = risen.growth if rate == pace.rate else replace(risen.growth, rose_at=now)
    return replace(risen, rate=rate, next_at=next_at, cause=cause, steps=steps, growth=growth)


def _restarted(pace: Pace, now: float) -> Pace:
    growth = pace.growth
    answer_rate = growth.answers / max(SHORTEST_S, now - (now if growth.since is None else growth.since))
    return replace(pace, growth=replace(growth, since=now, started=0, served=0, answers=0, answer_rate=answer_rate))


def _spent(pace: Pace, now: float) -> Pace:
    """Go on at the settled rate; it counts as tried, since a higher one was borne meanwhile."""
    spent = _risen(pace, now, settled_rate(pace), Cause.SPENT)
    return replace(spent, growth=replace(pace.growth, spend_until=None, rose_at=now))


def _slowed(pace: Pace, now: float, *, is_used: bool) -> Pace:
    """Take the answers per second as the limit of a server that slows down instead of refusing.

    Where a rate was settled and hardly anything is in flight, nothing queues: then answers take longer by themselves,
    and what they take now is the usual time.
    """
    latency, is_kept_back = pace.flight.latency, _is_kept_back(pace)
    if pace.stage is Stage.SETTLED and pace.in_flight < UNQUEUED_SHARE * bound(pace):
        usual = replace(pace.flight, latency=replace(latency, shortest_s=latency.recent_s))
        return replace(_restarted(pace, now), flight=usual)
    fastest = latency.throughput
    if pace.stage is Stage.SETTLED or fastest is None or not (is_used or is_kept_back):
        return _pressed(pace, now)
    estimate = Estimate(0.9 * fastest, fastest, 1.1 * fastest, burst=0.0, measured=fastest, is_refused=False)
    slowed = replace(pace, stage=Stage.SETTLED, estimate=estimate, growth=replace(pace.growth, quiet_s=FIRST_QUIET_S))
    return _risen(slowed, now, min(pace.rate, FILLING_SHARE * fastest), Cause.SLOWING)


def _narrowed(pace: Pace, now: float, factor: float) -> Pace:
    estimate = pace.estimate
    if estimate is None:
        return pace
    rate = pace.rate * factor
    if rate < estimate.high:
        return _risen(pace, now, rate, Cause.NARROWING)
    settled = replace(
        pace,
        stage=Stage.SETTLED,
        estimate=replace(estimate, rate=estimate.high),
        growth=replace(pace.growth, quiet_s=QUIET_AFTER_FALL_S),
    )
    return _risen(settled, now, estimate.high, Cause.NARROWING)


def _probed(pace: Pace, now: float, factor: float) -> Pace:
    growth, estimate = pace.growth, pace.estimate
    if estimate is None or (growth.probes == 0 and growth.credit < 1.0):
        return _restarted(pace, now)
    burst, rate = estimate.burst or 0.0, pace.rate * factor
    sent_beyond = excess(pace.steps, Mark(now, pace.passed + pace.in_flight), estimate.rate)
    is_bold = growth.probes > 0 and sent_beyond > BURST_MARGIN * burst + SPEND_MARGIN
    probes = growth.probes + 1
    if growth.probes > 0 and not is_bold:
        at_risk = REFUSALS_AT_RISK / max(SHORTEST_S, pace.flight.latency.recent_s)
        above = max(BOLD_SHARE * estimate.rate, min(burst / BURST_SPENT_IN_S, at_risk))
        if rate > estimate.rate + above:
            rate, probes = max(pace.rate, estimate.rate + above), growth.probes
    proven = max(growth.proven, pace.rate) if is_bold else growth.proven
    return _risen(replace(pace, growth=replace(growth, probes=probes, proven=proven)), now, rate, Cause.PROBE)
