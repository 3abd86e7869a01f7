"""The control law: when the next request may start, and how each answer changes the pace."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from orchestrator.model import Learned
from orchestrator.pacing import capacity
from orchestrator.pacing import flight as flights
from orchestrator.pacing.capacity import Estimate, Mark
from orchestrator.pacing.growth import (
    CREDIT_PER_SERVED,
    FALLEN_SHARE,
    FIRST_QUIET_S,
    LONGEST_QUIET_S,
    QUIET_AFTER_FALL_S,
    QUIET_REMEMBERED_S,
    SETTLED_SHARE,
    SPREAD,
    answered,
    bound,
    grown,
    settled_rate,
    spending,
)
from orchestrator.pacing.latency import is_prompt
from orchestrator.pacing.state import Binding, Cause, Effect, Growth, Pace, Phase, Stage, Ticket
from orchestrator.value import replace

if TYPE_CHECKING:
    from orchestrator.pacing.state import Observation
    from orchestrator.policies import ThrottlePolicy

FIRST_HOLD_S, HOLD_INTERVALS, HOLD_FACTOR, LONGEST_HOLD_S = 0.5, 1.5, 1.6, 60.0
"""A hold lasts half a second or 1.5 intervals between starts, and 1.6 times longer for each hold since a POST was last
accepted. A factor of 2 would overshoot the end of a window further, and save no canary in windows of up to 5 s."""

CYCLE_SHARE = 1 / 16
"""The first hold lasts at least this share of a window's cycle. With shorter holds, a long window would refuse many
canaries."""

CATCHING_UP_SHARE = 0.5
"""After a late start, the next one waits at least this share of the interval. If it came sooner, a bucket without a
burst would refuse more."""

JITTER_SHARE, LONGEST_JITTER_S = 0.1, 1.0
FAILURES_THAT_HOLD = 10

NEW_RATE_S, NEW_RATE_LATENCIES = 0.5, 2.0
"""A rate is new for half a second or for two latencies, whichever is longer. Until then, the number in flight has not
settled."""

INNOCENT_SHARE, INNOCENT_HIGH = 0.9, 2.0
"""The rate and its upper bound as multiples of the refused rate, if the number in flight may be the reason for the 429.
The number is bounded from then on. If the rate was the reason after all, the next 429 comes soon and measures it."""

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
    spread = REMEMBERED_SPREAD * learned.rate
    estimate = Estimate(learned.rate - spread, learned.rate, learned.rate + spread, burst=learned.burst)
    return replace(
        pace,
        rate=min(policy.ceiling, SETTLED_SHARE * learned.rate),
        cause=Cause.REMEMBERED,
        spare=max(0, int(REMEMBERED_BURST_SHARE * learned.burst) - 1),
        stage=Stage.SETTLED,
        estimate=estimate,
        growth=Growth(quiet_s=QUIET_REMEMBERED_S),
        flight=flights.remembered(learned.in_flight, learned.latency_s, learned.burst),
    )


def learned(pace: Pace) -> Learned | None:
    """Return what to remember for the next run, ``None`` if no limit was met.

    A rate that the server sustained beyond the known limit counts half, since a burst may explain it. The number in
    flight is remembered if it kept requests back at the end, or if nothing was refused.
    """
    estimate = pace.estimate
    if estimate is None or pace.fixed or not estimate.is_refused:
        return None
    rate = math.sqrt(estimate.rate * max(estimate.rate, pace.growth.proven))
    is_borne_out = pace.binding is Binding.REFUSED_IN_FLIGHT or not pace.evidence.refused
    borne = pace.flight.borne.most if is_borne_out else None
    return Learned(rate, capacity.burst_of(estimate), borne, pace.flight.latency.shortest_s)


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
    return pace.hold.not_before if pace.spare else max(pace.hold.not_before, pace.next_at)


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
        ordinal=pace.passed + pace.in_flight,
        cohort=0 if is_canary else pace.flight.latency.next_cohort,
    )
    if is_canary:
        return replace(pace, phase=Phase.CANARY, in_flight=in_flight), ticket
    growth = pace.growth
    if growth.since is None:
        pace = replace(pace, next_at=now, steps=((now, 0),), meter=capacity.begun(now))
        growth = replace(growth, since=now, rose_at=now)
    is_spare = pace.spare > 0
    begun = replace(
        pace,
        next_at=_next_at(pace, now),
        spare=pace.spare - is_spare,
        in_flight=in_flight,
        growth=replace(growth, started=growth.started + 1),
        flight=flights.started(pace.flight),
    )
    return (begun if is_spare else grown(begun, now)), ticket


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
    pace = replace(pace, in_flight=pace.in_flight - 1, flight=flight)
    if not ticket.canary or pace.phase is not Phase.CANARY:
        return pace
    return replace(pace, phase=Phase.HELD, hold=replace(pace.hold, until=now))


def held_s(pace: Pace, now: float) -> float:
    """Return for how many seconds the budget has been held up to ``now``, including the waits for canaries."""
    running = 0.0 if pace.phase is Phase.FLOWING else now - pace.hold.since
    return pace.hold.before_s + running


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
    if feedback.effect is Effect.THROTTLED:
        return _noted_refusal(pace, observation)
    if feedback.effect is not Effect.SERVED:
        flight = flights.unanswered(pace.flight, ticket.cohort, observation.at)
        return replace(pace, in_flight=pace.in_flight - 1, passed=pace.passed + feedback.sent, flight=flight)
    seconds = observation.at - ticket.started_at
    hold, growth = pace.hold, pace.growth
    if ticket.epoch == pace.epoch:
        if hold.failures or (hold.row and feedback.accepted):
            hold = replace(hold, failures=0, row=0 if feedback.accepted else hold.row)
        is_of_this_rate = growth.since is not None and ticket.started_at >= growth.since
        counts = is_of_this_rate and is_prompt(pace.flight.latency, seconds)
        growth = answered(growth, observation.at, served=counts, earned=CREDIT_PER_SERVED)
    return replace(
        pace,
        in_flight=pace.in_flight - 1,
        served=pace.served + 1,
        passed=pace.passed + 1,
        hold=hold,
        growth=growth,
        flight=flights.answered(pace.flight, ticket.cohort, seconds, ticket.in_flight, observation.at),
    )


def _noted_refusal(pace: Pace, observation: Observation) -> Pace:
    feedback, evidence = observation.feedback, pace.evidence
    named = feedback.retry_after_s is not None
    evidence = replace(evidence, refused=evidence.refused + 1, named_moments=evidence.named_moments + named)
    flight = flights.unanswered(pace.flight, observation.ticket.cohort, observation.at)
    pace = replace(pace, in_flight=pace.in_flight - 1, evidence=evidence, flight=flight)
    if feedback.retry_after_s is None:
        return pace
    named_at = observation.at + feedback.retry_after_s + _jitter(feedback.retry_after_s, observation.draw)
    hold = replace(pace.hold, not_before=max(pace.hold.not_before, named_at))
    return replace(pace, hold=hold, next_at=max(pace.next_at, named_at))


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
    flight = pace.flight if pace.fixed else flights.met(pace.flight, ticket.in_flight, is_new=is_new)
    return replace(
        pace,
        evidence=evidence,
        meter=capacity.refused(pace.meter, Mark(ticket.started_at, ticket.ordinal)),
        flight=flight,
        growth=replace(growth, credit=growth.credit - (growth.probes > 0 and not flight.borne.is_to_blame)),
    )


def _of_an_older_epoch(pace: Pace, observation: Observation) -> Pace:
    """Return the pace after an answer of an older epoch.

    A late 429 does not reduce the rate. It corrects the measurement if its request started before the first refused
    one.
    """
    ticket = observation.ticket
    if observation.feedback.effect is Effect.THROTTLED and pace.meter.refused is not None:
        return replace(pace, meter=capacity.refused(pace.meter, Mark(ticket.started_at, ticket.ordinal)))
    return pace


def _held(pace: Pace, observation: Observation) -> Pace:
    hold = pace.hold
    cycle_s = pace.estimate.cycle_s if pace.estimate is not None and pace.estimate.windowed else 0.0
    first_s = max(FIRST_HOLD_S, HOLD_INTERVALS / pace.rate, CYCLE_SHARE * cycle_s)
    own_s = min(LONGEST_HOLD_S, first_s * HOLD_FACTOR ** min(hold.row, 32))
    held = replace(
        hold,
        since=observation.at if pace.phase is Phase.FLOWING else hold.since,
        until=observation.at + own_s + _jitter(own_s, observation.draw),
        row=hold.row + 1,
        failures=0,
        read_only=observation.feedback.effect is Effect.FAILED,
    )
    return replace(pace, phase=Phase.HELD, epoch=pace.epoch + 1, hold=held, spare=0)


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
    if pace.meter.refused is None:
        return pace
    flight = flights.acquitted(pace.flight) if ticket.in_flight == 1 else pace.flight
    return replace(pace, meter=capacity.canary_refused(pace.meter, ticket.started_at), flight=flight)


def _resumed(pace: Pace, observation: Observation) -> Pace:
    """Let requests flow again, evenly spaced, at the rate that follows from the meeting with the limit."""
    now = observation.at
    if pace.meter.refused is not None and not pace.fixed:
        pace = _unchanged(pace, observation) if pace.flight.borne.is_to_blame else _learned(pace, observation)
    hold = replace(pace.hold, before_s=held_s(pace, now), failures=0)
    pace = replace(
        pace,
        phase=Phase.FLOWING,
        hold=hold,
        growth=replace(pace.growth, since=now, rose_at=now, started=0, served=0, answers=0),
        flight=flights.resumed(pace.flight, now),
        steps=((now, pace.passed + pace.in_flight),),
    )
    return replace(pace, next_at=max(hold.not_before, now + 1.0 / pace.rate))


def _unchanged(pace: Pace, observation: Observation) -> Pace:
    ticket = observation.ticket
    meter = capacity.closed(pace.meter, Mark(ticket.started_at, ticket.ordinal), observation.at)
    return replace(pace, meter=meter, growth=replace(pace.growth, probes=0, spend_until=None))


def _learned(pace: Pace, observation: Observation) -> Pace:
    ticket, now = observation.ticket, observation.at
    canary = Mark(ticket.started_at, ticket.ordinal)
    meter = capacity.closed(pace.meter, canary, now)
    known, refused_rate = pace.estimate, pace.evidence.last_refused_rate
    estimate = capacity.estimated(known, pace.meter, pace.steps, canary, refused_rate)
    if pace.flight.borne.is_found:
        rate = max(estimate.rate, INNOCENT_SHARE * refused_rate)
        high = max(rate, INNOCENT_HIGH * refused_rate)
        estimate = replace(estimate, low=min(estimate.low, rate), rate=rate, high=high)
    is_figure = estimate.high < SPREAD * estimate.low or (estimate.windowed and estimate.measured > 0.0)
    quiet_s = max(FIRST_QUIET_S, estimate.cycle_s) if estimate.windowed else FIRST_QUIET_S
    if estimate.rate < FALLEN_SHARE * pace.growth.peak:
        quiet_s = QUIET_AFTER_FALL_S
    if known is not None and estimate.agrees and pace.stage is Stage.SETTLED and pace.growth.probes:
        quiet_s = min(LONGEST_QUIET_S, 2.0 * pace.growth.quiet_s)
    peak = max(pace.growth.peak, estimate.rate) if is_figure else pace.growth.peak
    taught = replace(
        pace,
        stage=Stage.SETTLED if is_figure else Stage.MEASURING,
        cause=Cause.FIRST_REFUSAL if known is None else Cause.MEASURED,
        estimate=estimate,
        meter=meter,
        growth=replace(pace.growth, probes=0, quiet_s=quiet_s, peak=peak, proven=0.0, spend_until=None),
    )
    return spending(replace(taught, rate=settled_rate(taught)), now)
