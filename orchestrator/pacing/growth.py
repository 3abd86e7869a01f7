"""Decide when the rate grows, and by how much: to seek a limit, to measure it, to probe whether it has risen.

The rate grows only if it was really used and a request that started at this rate was served in time. An unused rate
proves nothing. If answers take a second, the next step waits for the answers to the last one. While answers slow down,
the rate does not grow.
"""

from __future__ import annotations

from orchestrator.pacing import bucket as buckets
from orchestrator.pacing import flight as flights
from orchestrator.pacing import share
from orchestrator.pacing.capacity import LEAST_RATE, SHORTEST_S, Estimate
from orchestrator.pacing.state import Binding, Cause, Growth, Pace, Phase, Stage
from orchestrator.value import replace, value

USED_SHARE = 0.8
"""A rate counts as used if at least this share of its requests started."""

SHORTEST_SEEKING_S, LONGEST_SEEKING_S, SEEKING_LATENCIES = 0.12, 0.25, 2.5
SEEKING_STEPS = ((20, 2.0), (80, 1.5), (None, 1.2))
"""Factors of growth by the number of requests served so far. Doubling finds the order of magnitude. The smaller factors
apply while a burst is being spent: they keep the rate low at the first 429, so that fewer requests are refused."""

SEEKING_GAIN = 2.0
"""While seeking, the bound on the number in flight follows from a rate of at most this multiple of the answers per
second."""

ANSWERED_SHARE = 0.45
"""If the rate doubles once per latency, answers come at this share of the rate. If fewer answers come, requests
queue."""

BLIND = 16
"""With at most this many requests in flight, seeking goes on without answers, so that slow answers do not delay the
start."""

MEASURING_INTERVAL_S, GAP_SHARE = 0.5, 1 / 8
LEAST_MEASURING_STEP, LARGEST_MEASURING_STEP = 1.02, 1.5
"""Between bounds, each step goes an eighth of the way to the upper bound, on a logarithmic scale."""

SETTLED_SHARE = 0.99
"""Share of the measured limit that is used. The count of served requests is exact to one, so little is left unused."""

FIRST_QUIET_S, LONGEST_QUIET_S, QUIET_REMEMBERED_S = 8.0, 240.0, 30.0
"""Seconds from a hold to the first probe. Each failed probe doubles them, up to the second number. The third is for a
remembered limit, which is trusted longer."""

QUIET_AFTER_FALL_S, FALLEN_SHARE = 3.0, 0.7
"""Seconds from a hold to the first probe after the limit fell below this share of its peak: it may soon come back."""

UNCERTAIN = 2.0
"""Requests by which a burst may be wrong."""

FIRST_PROBE, LARGEST_PROBE = 0.02, 0.5
PROBE_INTERVAL_S, PROBE_LATENCIES, PROBE_ANSWERS = 0.5, 2.0, 3
"""Each step of a probe lasts at least this many seconds, latencies and answers."""

BOLD_SHARE, BURST_SPENT_IN_S, REFUSALS_AT_RISK, BURST_MARGIN = 0.04, 2.5, 4.0, 1.1
"""Probes go up by 2%, 4%, 8% … But a bucket that has saved up its burst admits any rate until the burst is spent. So a
probe stays low until more was sent than limit and burst explain. Until then, it exceeds the limit by at most the larger
of two amounts: 4%, or the rate that spends the burst in 2.5 s and risks at most four 429s in one latency."""

UNQUEUED_SHARE = 0.5
"""If fewer requests than this share of the bound are in flight, slow answers do not come from a queue."""

FILLING_SHARE = 1.05
"""Rate for a server that slows down, as a multiple of its answers per second: enough to keep it busy."""

CREDIT_PER_SERVED, CREDIT_LIMIT = 0.008, 3.0
"""A probe may cost a 429. 125 served requests earn the credit for one, and at most three credits are saved up."""

SPREAD = 1.08
"""Bounds within this ratio of each other count as a figure."""


def grown(pace: Pace, now: float) -> Pace:
    """Return the pace with the rate that follows from the results of the present rate up to ``now``."""
    growth = pace.growth
    if pace.window is not None or pace.fixed or pace.phase is not Phase.FLOWING or growth.since is None:
        return pace
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
    pace = replace(pace, binding=Binding.RATE)
    return _shared(pace, now, step.factor) if pace.shared else _stepped(pace, now, step.factor)


def _is_unanswered(pace: Pace, step: _Rise, elapsed_s: float) -> bool:
    """Tell whether too few requests at the present rate were served, or far fewer answers come than requests start."""
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


def _shared(pace: Pace, now: float, factor: float) -> Pace:
    if pace.estimate is None:
        return pace
    rate = share.rate(pace.estimate.rate, now - pace.meter.resumed_at)
    return _risen(pace, now, max(pace.rate, min(factor * pace.rate, rate)), Cause.SHARED)


def bound(pace: Pace) -> int:
    """Return how many requests may be in flight, apart from ``concurrency``.

    While seeking, the rate grows quickly and does not show what the server serves. Then the bound depends on twice the
    answers per second at the last step (the gain of BBR's start-up is 2.89, ours 2 · 1.5).
    """
    if pace.stage is not Stage.SEEKING:
        return flights.bound(pace.flight, pace.rate, pace.served)
    rate = min(pace.rate, SEEKING_GAIN * pace.growth.answer_rate)
    return flights.bound(pace.flight, rate, pace.served, least=flights.FIRST_IN_FLIGHT)


def answered(growth: Growth, now: float, *, served: int = 0, earned: float = 0.0) -> Growth:
    """Count an answer and the credit that it ``earned``. ``served`` is 1 if it came in time at this rate, else 0.

    The answers per second are those at this rate or at the last one, whichever are more.
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
    """Return the rate to use with the estimate: just below a figure, or the middle of bounds."""
    estimate = pace.estimate
    if estimate is None:
        return pace.rate
    share = SETTLED_SHARE if pace.stage is Stage.SETTLED else 1.0
    return min(pace.ceiling, max(LEAST_RATE, share * estimate.rate))


@value
class _Rise:
    """The next step of growth: its factor, and the seconds and served requests to wait for first."""

    factor: float
    interval_s: float
    answers: int


def _step(pace: Pace) -> _Rise:
    recent_s = pace.flight.latency.recent_s
    if pace.shared:
        return _Rise(LARGEST_MEASURING_STEP, MEASURING_INTERVAL_S, 1)
    match pace.stage:
        case Stage.SEEKING:
            factor = next(factor for most, factor in SEEKING_STEPS if most is None or pace.served < most)
            usual_s = pace.flight.latency.usual_s
            quick_s = LONGEST_SEEKING_S if usual_s is None else SEEKING_LATENCIES * usual_s
            return _Rise(factor, max(SHORTEST_SEEKING_S, min(LONGEST_SEEKING_S, quick_s)), 1)
        case Stage.MEASURING:
            gap = pace.estimate.high / pace.rate if pace.estimate else 1.0
            step = min(LARGEST_MEASURING_STEP, max(LEAST_MEASURING_STEP, gap**GAP_SHARE))
            return _Rise(step, max(MEASURING_INTERVAL_S, PROBE_LATENCIES * recent_s), 1)
        case Stage.SETTLED if pace.growth.probes == 0:
            return _Rise(1.0 + FIRST_PROBE, pace.growth.quiet_s, 0)
        case Stage.SETTLED:
            step = min(LARGEST_PROBE, FIRST_PROBE * 2.0 ** min(pace.growth.probes, 16))
            return _Rise(1.0 + step, max(PROBE_INTERVAL_S, PROBE_LATENCIES * recent_s), PROBE_ANSWERS)


def _is_kept_back(pace: Pace) -> bool:
    """Tell whether the number in flight keeps requests back. An answer may just have freed one place."""
    return pace.in_flight >= min(pace.concurrency, bound(pace)) - 1


def _pressed(pace: Pace, now: float) -> Pace:
    """Note what kept the rate from being used. If it was the number in flight for long enough, try a higher one."""
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
    """Change the rate. The next start was planned at the old rate, and may come sooner now."""
    rate = min(pace.ceiling, rate)
    next_at = min(pace.next_at, now + 1.0 / rate)
    risen = _restarted(pace, now)
    growth = risen.growth if rate == pace.rate else replace(risen.growth, rose_at=now)
    return replace(risen, rate=rate, next_at=next_at, cause=cause, growth=growth)


def _restarted(pace: Pace, now: float) -> Pace:
    growth = pace.growth
    answer_rate = growth.answers / max(SHORTEST_S, now - (now if growth.since is None else growth.since))
    return replace(pace, growth=replace(growth, since=now, started=0, served=0, answers=0, answer_rate=answer_rate))


def _slowed(pace: Pace, now: float, *, is_used: bool) -> Pace:
    """Take the answers per second as the limit of a server that slows down instead of refusing.

    If the rate is settled and little is in flight, nothing queues. Then answers take longer for another reason, and the
    present latency becomes the usual one.
    """
    latency, is_kept_back = pace.flight.latency, _is_kept_back(pace)
    if pace.stage is Stage.SETTLED and pace.in_flight < UNQUEUED_SHARE * bound(pace):
        usual = replace(pace.flight, latency=replace(latency, shortest_s=latency.recent_s))
        return replace(_restarted(pace, now), flight=usual)
    fastest = latency.throughput
    if pace.stage is Stage.SETTLED or fastest is None or not (is_used or is_kept_back):
        return _pressed(pace, now)
    estimate = Estimate(0.9 * fastest, fastest, 1.1 * fastest, burst=0.0, is_refused=False)
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
    sent = pace.history.starts.since(pace.meter.resumed_at)
    is_bold = growth.probes > 0 and buckets.excess(sent, now, estimate.rate) > BURST_MARGIN * burst + UNCERTAIN
    probes = growth.probes + 1
    if growth.probes > 0 and not is_bold:
        at_risk = REFUSALS_AT_RISK / max(SHORTEST_S, pace.flight.latency.recent_s)
        above = max(BOLD_SHARE * estimate.rate, min(burst / BURST_SPENT_IN_S, at_risk))
        if rate > estimate.rate + above:
            rate, probes = max(pace.rate, estimate.rate + above), growth.probes
    proven = max(growth.proven, pace.rate) if is_bold else growth.proven
    return _risen(replace(pace, growth=replace(growth, probes=probes, proven=proven)), now, rate, Cause.PROBE)
