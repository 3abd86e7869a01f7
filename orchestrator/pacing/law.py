"""The control law: when the next request may start, and how each answer changes the pace."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from orchestrator.model import Learned, LearnedWindow
from orchestrator.pacing import bucket as buckets
from orchestrator.pacing import capacity, meeting
from orchestrator.pacing import flight as flights
from orchestrator.pacing import window as windows
from orchestrator.pacing.capacity import Estimate, Meter
from orchestrator.pacing.growth import (
    CREDIT_PER_SERVED,
    FIRST_QUIET_S,
    QUIET_REMEMBERED_S,
    SETTLED_SHARE,
    SPREAD,
    answered,
    bound,
    grown,
)
from orchestrator.pacing.latency import is_prompt
from orchestrator.pacing.state import Binding, Cause, Effect, Growth, Pace, Phase, Stage, Ticket
from orchestrator.value import replace

if TYPE_CHECKING:
    from orchestrator.pacing.state import Hold, Observation
    from orchestrator.policies import ThrottlePolicy

FIRST_HOLD_S, HOLD_INTERVALS, HOLD_FACTOR, LONGEST_HOLD_S = 0.5, 1.5, 1.6, 60.0
"""A hold lasts half a second or 1.5 intervals between starts, and 1.6 times longer for each hold in a row."""

LEAST_HOLDING_RATE = 1.0
"""Requests per second that a window's rate counts as at least, so that its first hold is short."""

MOST_ROWS = 32

CATCHING_UP_SHARE = 0.5
"""After a late start, the next one waits at least this share of the interval. If it came sooner, a bucket without a
burst would refuse more."""

JITTER_SHARE, LONGEST_JITTER_S = 0.1, 1.0
FAILURES_THAT_HOLD = 10

NEW_RATE_S, NEW_RATE_LATENCIES = 0.5, 2.0
"""A rate is new for half a second or for two latencies, whichever is longer. Until then, the number in flight has not
settled."""

SURELY_SHARE = 1.02
"""A burst is remembered as if the rate were this multiple of the estimate. It is then rather too low."""

REMEMBERED_SPREAD, REMEMBERED_BURST_SHARE = 0.03, 0.95
"""A remembered limit may be wrong by 3%, and 5% of its burst is not used."""


def opening(policy: ThrottlePolicy, learned: Learned | None = None) -> Pace:
    """Return the pace at the start of a run: the fixed rate, the limit learned before, or the policy's start rate."""
    start = policy.start_rate if policy.fixed_rate is None else policy.fixed_rate
    pace = Pace(
        rate=min(policy.ceiling, start),
        ceiling=policy.ceiling,
        concurrency=policy.concurrency,
        fixed=policy.fixed_rate is not None,
        growth=Growth(quiet_s=FIRST_QUIET_S),
    )
    if learned is None or pace.fixed:
        return pace
    flight = flights.remembered(learned.in_flight, learned.latency_s, learned.burst)
    pace = replace(pace, cause=Cause.REMEMBERED, flight=flight, growth=Growth(quiet_s=QUIET_REMEMBERED_S))
    if learned.window is None:
        return _opening_with_a_bucket(pace, learned)
    return _opening_with_a_window(pace, learned, learned.window)


def _opening_with_a_bucket(pace: Pace, learned: Learned) -> Pace:
    """Return the pace of a run that begins with what was learned of a bucket.

    Its burst is spent no faster than the bucket can have filled since then.
    """
    spread = REMEMBERED_SPREAD * learned.rate
    low = min(learned.rate - spread, learned.rate if learned.low is None else learned.low)
    high = max(learned.rate + spread, learned.rate if learned.high is None else learned.high)
    burst = min(learned.burst, learned.rate * learned.age_s)
    is_figure = high < SPREAD * low
    return replace(
        pace,
        rate=min(pace.ceiling, (SETTLED_SHARE if is_figure else 1.0) * learned.rate),
        spare=max(0, int(REMEMBERED_BURST_SHARE * burst) - 1),
        stage=Stage.SETTLED if is_figure else Stage.MEASURING,
        estimate=capacity.in_order(Estimate(low, learned.rate, high, burst=burst)),
    )


def _opening_with_a_window(pace: Pace, learned: Learned, window: LearnedWindow) -> Pace:
    """Return the pace of a run that begins with what was learned of a window."""
    rate = learned.rate
    remembered = windows.remembered(window.requests, window.low_s, window.high_s, fixed=window.fixed)
    estimate = Estimate(rate, rate, max(rate, window.requests / window.low_s), burst=0.0)
    return replace(pace, rate=pace.ceiling, stage=Stage.SETTLED, estimate=estimate, window=remembered)


def learned(pace: Pace) -> Learned | None:
    """Return what to remember for the next run, ``None`` if no limit was met.

    A rate that the server sustained beyond the known limit counts half, since a burst may explain it. The number in
    flight is remembered if it kept requests back at the end, or if nothing was refused.
    """
    estimate = pace.estimate
    if estimate is None or pace.fixed or not estimate.is_refused:
        return None
    is_borne_out = pace.binding is Binding.REFUSED_IN_FLIGHT or not pace.evidence.refused
    borne = pace.flight.borne.most if is_borne_out else None
    latency_s, window = pace.flight.latency.shortest_s, pace.window
    if window is not None:
        seen = LearnedWindow(window.requests, window.low_s, window.high_s, window.fixed)
        return Learned(window.rate, 0.0, borne, latency_s, estimate.low, estimate.high, seen)
    rate = estimate.low if pace.shared else math.sqrt(estimate.rate * max(estimate.rate, pace.growth.proven))
    burst = buckets.burst(pace.history.taken, SURELY_SHARE * rate)
    if estimate.burst is not None:
        burst = min(burst, estimate.burst) if pace.evidence.refused else estimate.burst
    return Learned(rate, burst, borne, latency_s, min(rate, estimate.low), max(rate, estimate.high))


def in_flight_bound(pace: Pace) -> int:
    """Return how many requests may be in flight."""
    if pace.fixed:
        return pace.concurrency
    borne = pace.flight.borne.most
    most = pace.concurrency if borne is None else min(borne, pace.concurrency)
    return min(most, bound(pace) + pace.spare)


def ready_at(pace: Pace) -> float | None:
    """Return the instant from which the next request may start, ``None`` if it must wait for an answer."""
    if pace.phase is Phase.CANARY:
        return None
    if pace.phase is Phase.HELD:
        return max(pace.hold.not_before, pace.hold.until)
    if pace.in_flight >= in_flight_bound(pace):
        return None
    at = pace.hold.not_before if pace.spare else max(pace.hold.not_before, pace.next_at)
    opening = None if pace.window is None else windows.opens(pace.window, pace.history.starts)
    return at if opening is None else max(at, opening[1])


def started(pace: Pace, now: float) -> tuple[Pace, Ticket]:
    """Return the pace after one request started at ``now``, which ``ready_at`` allowed, and its ticket.

    Starts are spaced evenly. After a late start, the next ones come sooner, to catch up by at most one interval. A
    fixed rate does not catch up.
    """
    in_flight = pace.in_flight + 1
    is_canary = pace.phase is Phase.HELD
    ticket = Ticket(
        started_at=now,
        epoch=pace.epoch,
        canary=is_canary,
        read_only=is_canary and pace.hold.read_only,
        rate=pace.rate,
        in_flight=in_flight,
        cohort=0 if is_canary else pace.flight.latency.next_cohort,
    )
    pace = replace(pace, history=pace.history.started(now))
    if is_canary:
        return replace(pace, phase=Phase.CANARY, in_flight=in_flight), ticket
    pace = _begun(pace, now) if pace.growth.since is None else pace
    growth = pace.growth
    if pace.window is not None:
        pace = replace(pace, window=windows.advanced(pace.window, now))
    is_spare = pace.spare > 0
    begun = replace(
        pace,
        next_at=_next_at(pace, now),
        spare=pace.spare - is_spare,
        in_flight=in_flight,
        growth=replace(growth, started=growth.started + 1),
        flight=flights.started(pace.flight),
    )
    begun = begun if is_spare else grown(begun, now)
    return _filled(begun, now), ticket


def _begun(pace: Pace, now: float) -> Pace:
    """Return the pace at the first start of a run."""
    meter = Meter(canary_at=now, resumed_at=now)
    window = None if pace.window is None else windows.begun(pace.window, now)
    growth = replace(pace.growth, since=now, rose_at=now)
    return replace(pace, next_at=now, meter=meter, window=window, growth=growth)


def _filled(pace: Pace, now: float) -> Pace:
    """Return the pace after a start: held if the window is full now, and it is uncertain when it opens."""
    window = pace.window
    opening = None if window is None else windows.opens(window, pace.history.starts)
    if window is None or opening is None or windows.is_waited_out(window, opening, now):
        return pace
    hold = _counted(pace, now).hold
    until = windows.try_at(window, opening, now)
    return replace(pace, phase=Phase.HELD, hold=replace(hold, until=until, row=hold.failed_row, read_only=False))


def _next_at(pace: Pace, now: float) -> float:
    """Return the earliest start of the next request, after one that starts at ``now``."""
    if pace.spare:
        return max(pace.next_at, now)
    interval = 1.0 / pace.rate
    if pace.fixed:
        return max(pace.next_at, now) + interval
    return max(max(pace.next_at, now - interval) + interval, now + CATCHING_UP_SHARE * interval)


def released(pace: Pace, ticket: Ticket, now: float) -> Pace:
    """Return the pace after a request ended without a usable answer. If it was a canary, another one may start."""
    flight = flights.unanswered(pace.flight, ticket.cohort, now)
    history = pace.history.unsent(ticket.started_at)
    pace = replace(pace, in_flight=pace.in_flight - 1, flight=flight, history=history)
    if not ticket.canary or pace.phase is not Phase.CANARY:
        return pace
    return replace(pace, phase=Phase.HELD, hold=replace(pace.hold, until=now))


def held_s(pace: Pace, now: float) -> float:
    """Return for how many seconds the budget has been held up to ``now``, including the waits for canaries.

    The wait that a ``Retry-After`` names counts even if it does not begin a hold.
    """
    hold = pace.hold
    until = min(now, hold.not_before) if pace.phase is Phase.FLOWING else now
    return hold.before_s + max(0.0, until - hold.since)


def _counted(pace: Pace, now: float) -> Pace:
    """Return the pace that has added up, if requests flow, for how long it has been held up to ``now``."""
    if pace.phase is not Phase.FLOWING:
        return pace
    return replace(pace, hold=replace(pace.hold, before_s=held_s(pace, now), since=now))


def next_pace(pace: Pace, observation: Observation) -> Pace:
    """Return the pace after ``observation``: the whole control law."""
    ticket, feedback = observation.ticket, observation.feedback
    pace = _noted(pace, observation)
    if ticket.canary:
        return _after_canary(pace, observation)
    if ticket.epoch != pace.epoch:
        return _of_an_older_epoch(pace, observation)
    match feedback.effect:
        case Effect.SERVED:
            return grown(pace, observation.at)
        case Effect.THROTTLED:
            return _held(_met_the_limit(pace, ticket), observation)
        case Effect.FAILED:
            failures = pace.hold.failures + 1
            if failures >= FAILURES_THAT_HOLD:
                return _held(pace, observation)
            return replace(pace, hold=replace(pace.hold, failures=failures))


def _noted(pace: Pace, observation: Observation) -> Pace:
    """Note what counts in any epoch: one request less in flight, the answer, its latency, its ``Retry-After``."""
    ticket, feedback = observation.ticket, observation.feedback
    pace = _obedient(pace, observation)
    if feedback.effect is Effect.THROTTLED:
        return _noted_refusal(pace, observation)
    if feedback.effect is not Effect.SERVED:
        flight = flights.unanswered(pace.flight, ticket.cohort, observation.at)
        history = pace.history if feedback.sent else pace.history.unsent(ticket.started_at)
        return replace(pace, in_flight=pace.in_flight - 1, flight=flight, history=history)
    seconds = observation.at - ticket.started_at
    hold, growth = pace.hold, pace.growth
    if ticket.epoch == pace.epoch:
        hold = _let_in(hold, ticket, accepted=feedback.accepted) if hold.failures or hold.row else hold
        is_of_this_rate = growth.since is not None and ticket.started_at >= growth.since
        counts = is_of_this_rate and is_prompt(pace.flight.latency, seconds)
        growth = answered(growth, observation.at, served=counts, earned=CREDIT_PER_SERVED)
    return replace(
        pace,
        in_flight=pace.in_flight - 1,
        served=pace.served + 1,
        hold=hold,
        growth=growth,
        flight=flights.answered(pace.flight, ticket.cohort, seconds, ticket.in_flight, observation.at),
    )


def _let_in(hold: Hold, ticket: Ticket, *, accepted: bool) -> Hold:
    """Return ``hold`` after a request was served: the next hold is short again.

    Holds after failures stay in the row until a POST is accepted. The answer to a harmless read changes no row.
    """
    if accepted:
        return replace(hold, failures=0, row=0, failed_row=0)
    return replace(hold, failures=0, row=hold.row if ticket.read_only else hold.failed_row)


def _obedient(pace: Pace, observation: Observation) -> Pace:
    """Return the pace that obeys the ``Retry-After`` of a request that was refused or failed, whatever its epoch."""
    feedback, at = observation.feedback, observation.at
    if feedback.retry_after_s is None or feedback.effect is Effect.SERVED:
        return pace
    named_at = at + feedback.retry_after_s + _jitter(feedback.retry_after_s, observation.draw)
    hold = _counted(pace, at).hold
    hold = replace(hold, not_before=max(hold.not_before, named_at))
    return replace(pace, hold=hold, next_at=max(pace.next_at, named_at))


def _noted_refusal(pace: Pace, observation: Observation) -> Pace:
    ticket, feedback, evidence, at = observation.ticket, observation.feedback, pace.evidence, observation.at
    named = feedback.retry_after_s is not None
    evidence = replace(evidence, refused=evidence.refused + 1, named_moments=evidence.named_moments + named)
    since = pace.meter.canary_at
    return replace(
        pace,
        in_flight=pace.in_flight - 1,
        evidence=evidence,
        flight=flights.refused(pace.flight, ticket.cohort, at - ticket.started_at, at),
        history=pace.history.refused(ticket.started_at, canary=ticket.canary, meeting_since=since),
    )


def _met_the_limit(pace: Pace, ticket: Ticket) -> Pace:
    """Note the first 429 of an epoch as a meeting with the limit."""
    lowest, highest = pace.evidence.lowest_refused_rate, pace.evidence.highest_refused_rate
    evidence = replace(
        pace.evidence,
        last_refused_rate=ticket.rate,
        lowest_refused_rate=ticket.rate if lowest is None else min(lowest, ticket.rate),
        highest_refused_rate=ticket.rate if highest is None else max(highest, ticket.rate),
    )
    growth = pace.growth
    new_s = max(NEW_RATE_S, NEW_RATE_LATENCIES * pace.flight.latency.recent_s)
    is_new = ticket.started_at - growth.rose_at <= new_s
    flight = pace.flight if pace.fixed or pace.window else flights.met(pace.flight, ticket.in_flight, is_new=is_new)
    return replace(
        pace,
        evidence=evidence,
        meter=capacity.refused(pace.meter, ticket.started_at),
        flight=flight,
        growth=replace(growth, credit=growth.credit - (growth.probes > 0 and not flight.borne.is_to_blame)),
    )


def _of_an_older_epoch(pace: Pace, observation: Observation) -> Pace:
    """Return the pace after an answer of an older epoch.

    A late 429 does not reduce the rate. It corrects the measurement if its request started before the first refused
    one.
    """
    ticket = observation.ticket
    if observation.feedback.effect is Effect.THROTTLED and pace.meter.refused_at is not None:
        return replace(pace, meter=capacity.refused(pace.meter, ticket.started_at))
    return pace


def _held(pace: Pace, observation: Observation) -> Pace:
    hold = _counted(pace, observation.at).hold
    own_s, is_failed = _own_s(pace, observation), observation.feedback.effect is Effect.FAILED
    held = replace(
        hold,
        until=observation.at + own_s + _jitter(own_s, observation.draw),
        row=hold.row + 1,
        failed_row=hold.failed_row + is_failed,
        failures=0,
        read_only=is_failed,
    )
    return replace(pace, phase=Phase.HELD, epoch=pace.epoch + 1, hold=held, spare=0)


def _own_s(pace: Pace, observation: Observation) -> float:
    """Return how long to hold, apart from a ``Retry-After`` and jitter."""
    row, window, ticket, now = min(pace.hold.row, MOST_ROWS), pace.window, observation.ticket, observation.at
    rate = pace.rate if window is None else max(window.rate, LEAST_HOLDING_RATE)
    first_s = max(FIRST_HOLD_S, HOLD_INTERVALS / rate)
    usual_s = first_s * HOLD_FACTOR**row
    if observation.feedback.effect is Effect.FAILED or pace.fixed:
        return min(LONGEST_HOLD_S, usual_s)
    if window is None or not meeting.is_confirmed(pace, ticket):
        since = pace.meter.canary_at if window is None else window.since_high
        return min(LONGEST_HOLD_S, usual_s, max(first_s, windows.search_s(now - since)))
    window = window if ticket.canary else meeting.shut(pace, window, ticket)
    opening = windows.reopens(window, pace.history.starts, now)
    late_s = windows.search_s(now - opening[1])
    return min(LONGEST_HOLD_S, max(first_s + late_s, windows.try_at(window, opening, now) - now))


def _jitter(seconds: float, draw: float) -> float:
    return draw * min(LONGEST_JITTER_S, JITTER_SHARE * seconds)


def _after_canary(pace: Pace, observation: Observation) -> Pace:
    match observation.feedback.effect:
        case Effect.SERVED:
            return _resumed(pace, observation)
        case Effect.THROTTLED:
            return _held(_refused_canary(pace, observation.ticket), observation)
        case Effect.FAILED:
            return _held(pace, observation)


def _refused_canary(pace: Pace, ticket: Ticket) -> Pace:
    """Note a refused canary. If nothing else was in flight, the number in flight is not the reason for refusals."""
    if pace.window is not None and meeting.is_confirmed(pace, ticket):
        shut = meeting.shut(pace, pace.window, ticket)
        pace = replace(pace, window=windows.refused(shut, pace.history.starts, ticket.started_at))
    if pace.meter.refused_at is None:
        return pace
    flight = flights.acquitted(pace.flight) if ticket.in_flight == 1 else pace.flight
    return replace(pace, meter=capacity.canary_refused(pace.meter, ticket.started_at), flight=flight)


def _resumed(pace: Pace, observation: Observation) -> Pace:
    """Let requests flow again, evenly spaced, at the rate that follows from the meeting with the limit."""
    ticket, now = observation.ticket, observation.at
    if pace.meter.refused_at is not None and not pace.fixed:
        pace = meeting.concluded(pace, ticket, now)
    elif pace.window is not None:
        pace = meeting.reopened(pace, ticket, now)
    hold = replace(pace.hold, before_s=held_s(pace, now), since=now, failures=0)
    pace = replace(
        pace,
        phase=Phase.FLOWING,
        hold=hold,
        growth=replace(pace.growth, since=now, rose_at=now, started=0, served=0, answers=0),
        flight=flights.resumed(pace.flight, now),
    )
    return replace(pace, next_at=max(hold.not_before, now + 1.0 / pace.rate))
