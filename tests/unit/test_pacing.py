"""Starts of requests, holds, and the resumption after them: tables and short scenarios in virtual time."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from orchestrator.model import Learned
from orchestrator.pacing import (
    Cause,
    Effect,
    Feedback,
    Observation,
    Pace,
    Phase,
    Stage,
    Ticket,
    held_s,
    in_flight_bound,
    learned,
    next_pace,
    opening,
    ready_at,
    released,
    started,
)
from orchestrator.pacing.capacity import LEAST_RATE, Meter
from orchestrator.pacing.flight import Flight
from orchestrator.pacing.growth import FIRST_QUIET_S, QUIET_REMEMBERED_S, SETTLED_SHARE
from orchestrator.pacing.law import (
    CATCHING_UP_SHARE,
    FAILURES_THAT_HOLD,
    FIRST_HOLD_S,
    HOLD_INTERVALS,
    JITTER_SHARE,
    LONGEST_HOLD_S,
    LONGEST_JITTER_S,
    REMEMBERED_BURST_SHARE,
    REMEMBERED_SPREAD,
)
from orchestrator.pacing.state import Evidence, Hold
from orchestrator.policies import ThrottlePolicy

OPEN = opening(ThrottlePolicy(start_rate=10.0, ceiling=10.0))
"""A pace at its ceiling, so that only a 429 changes the rate."""

FIXED = opening(ThrottlePolicy(fixed_rate=10.0))
WARM = opening(ThrottlePolicy(ceiling=200.0), Learned(50.0, 100.0))

ACCEPTED = Feedback(Effect.SERVED, accepted=True)
READ = Feedback(Effect.SERVED)
REFUSED = Feedback(Effect.THROTTLED)
FAILED = Feedback(Effect.FAILED)

NOON = 100.0
"""The start of a test; any moment would do."""


def named(seconds: float) -> Feedback:
    return Feedback(Effect.THROTTLED, retry_after_s=seconds)


def heard(pace: Pace, ticket: Ticket, feedback: Feedback, at: float, draw: float = 0.0) -> Pace:
    return next_pace(pace, Observation(ticket, feedback, at, draw))


def ready(pace: Pace) -> float:
    at = ready_at(pace)
    assert at is not None
    return at


def several(pace: Pace, count: int, now: float = NOON) -> tuple[Pace, list[Ticket]]:
    """Start ``count`` requests, each as soon as possible."""
    tickets = []
    for _ in range(count):
        now = max(now, ready(pace))
        pace, ticket = started(pace, now)
        tickets.append(ticket)
    return pace, tickets


def held(pace: Pace = OPEN, feedback: Feedback = REFUSED, now: float = NOON, draw: float = 0.0) -> Pace:
    """Return the pace after one request that started at ``now`` and was refused immediately."""
    pace, ticket = started(pace, now)
    return heard(pace, ticket, feedback, now, draw)


def after_canary(pace: Pace, feedback: Feedback = ACCEPTED) -> Pace:
    """Return the pace after the canary of a held pace was answered, 0.1 s after its start."""
    pace, canary = started(pace, ready(pace))
    assert canary.canary
    return heard(pace, canary, feedback, canary.started_at + 0.1)


def failed(pace: Pace = OPEN, now: float = NOON) -> Pace:
    """Return the pace after enough failures in a row to hold it."""
    pace, tickets = several(pace, FAILURES_THAT_HOLD, now)
    for number, ticket in enumerate(tickets):
        assert pace.phase is Phase.FLOWING, number
        pace = heard(pace, ticket, FAILED, tickets[-1].started_at)
    return pace


def starts_of(tickets: list[Ticket]) -> list[float]:
    return [ticket.started_at for ticket in tickets]


def gaps(tickets: list[Ticket]) -> list[float]:
    return [later - first for first, later in pairwise(starts_of(tickets))]


# -- how a run begins --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "known", "rate", "cause"),
    [
        (ThrottlePolicy(start_rate=5.0, ceiling=50.0), None, 5.0, Cause.START),
        (ThrottlePolicy(start_rate=5.0, ceiling=2.0), None, 2.0, Cause.START),
        (ThrottlePolicy(fixed_rate=7.0), None, 7.0, Cause.START),
        (ThrottlePolicy(fixed_rate=7.0), Learned(40.0, 40.0), 7.0, Cause.START),
        (ThrottlePolicy(), Learned(40.0, 40.0), SETTLED_SHARE * 40.0, Cause.REMEMBERED),
        (ThrottlePolicy(ceiling=20.0), Learned(40.0, 40.0), 20.0, Cause.REMEMBERED),
    ],
)
def test_a_run_begins_at_the_configured_or_the_remembered_rate(
    policy: ThrottlePolicy, known: Learned | None, rate: float, cause: Cause
) -> None:
    pace = opening(policy, known)
    assert (pace.rate, pace.cause, pace.phase) == (rate, cause, Phase.FLOWING)
    assert ready(pace) <= 0.0


def test_a_remembered_limit_has_close_bounds_and_a_longer_quiet_time() -> None:
    assert WARM.estimate is not None
    spread = REMEMBERED_SPREAD * 50.0
    assert (WARM.estimate.low, WARM.estimate.rate, WARM.estimate.high) == (50.0 - spread, 50.0, 50.0 + spread)
    assert (WARM.stage, WARM.growth.quiet_s) == (Stage.SETTLED, QUIET_REMEMBERED_S)
    assert (OPEN.stage, OPEN.growth.quiet_s) == (Stage.SEEKING, FIRST_QUIET_S)


def test_counting_begins_with_the_first_start() -> None:
    pace, _ = several(OPEN, 1)
    assert (pace.meter, pace.growth.since) == (Meter(canary_at=NOON, resumed_at=NOON), NOON)
    assert pace.history.taken == [NOON]


@pytest.mark.parametrize("burst", [0.0, 1.0, 2.0, 10.0, 20.0])
def test_a_run_spends_the_remembered_burst_immediately_and_then_keeps_to_the_rate(burst: float) -> None:
    pace = opening(ThrottlePolicy(ceiling=200.0), Learned(50.0, burst))
    at_once = max(1, int(REMEMBERED_BURST_SHARE * burst))
    pace, tickets = several(pace, at_once + 10)
    assert starts_of(tickets[:at_once]) == [NOON] * at_once
    assert gaps(tickets[at_once - 1 :]) == pytest.approx([1.0 / (SETTLED_SHARE * 50.0)] * 10)
    assert pace.spare == 0


@pytest.mark.parametrize("known", [Learned(40.0, 12.0), Learned(40.0, 0.0, in_flight=8, latency_s=0.3)])
def test_a_run_that_meets_no_limit_remembers_the_limits_that_it_began_with(known: Learned) -> None:
    again = learned(opening(ThrottlePolicy(), known))
    assert again is not None
    assert replace(again, low=None, high=None) == known


def test_nothing_is_learned_before_the_first_429_or_at_a_fixed_rate() -> None:
    pace, tickets = several(OPEN, 5)
    for ticket in tickets:
        pace = heard(pace, ticket, ACCEPTED, tickets[-1].started_at + 0.1)
    assert learned(pace) is None
    assert pace.limit is None
    assert learned(after_canary(failed())) is None
    assert learned(after_canary(held(FIXED))) is None


def test_the_measured_limit_is_learned() -> None:
    pace = after_canary(held(several(OPEN, 9)[0], now=NOON + 0.9))
    found = learned(pace)
    assert found is not None
    assert found.rate == pace.limit
    assert 0 < found.rate <= 10.0
    assert found.burst >= 0


# -- when requests start -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pace", [OPEN, FIXED])
def test_starts_are_spaced_evenly(pace: Pace) -> None:
    assert gaps(several(pace, 5)[1]) == pytest.approx([0.1] * 4)


def test_a_late_start_is_made_up_but_idle_time_is_not_saved() -> None:
    pace, _ = started(OPEN, NOON)
    late, _ = started(pace, NOON + 0.13)
    assert ready(late) == pytest.approx(NOON + 0.2)
    idle, _ = started(late, NOON + 50.0)
    assert ready(idle) == pytest.approx(NOON + 50.0 + CATCHING_UP_SHARE * 0.1)
    again, _ = started(idle, ready(idle))
    assert ready(again) == pytest.approx(ready(idle) + 0.1)


def test_two_starts_keep_part_of_the_interval_even_after_a_late_start() -> None:
    pace, _ = started(OPEN, NOON)
    late, _ = started(pace, NOON + 0.19)
    assert ready(late) == pytest.approx(NOON + 0.19 + CATCHING_UP_SHARE * 0.1)


def test_a_fixed_rate_does_not_make_up_late_starts() -> None:
    pace, _ = started(FIXED, NOON)
    late, _ = started(pace, NOON + 0.13)
    assert ready(late) == pytest.approx(NOON + 0.23)


def test_a_ticket_has_the_state_of_the_pace_at_its_start() -> None:
    pace, tickets = several(OPEN, 3)
    assert [ticket.in_flight for ticket in tickets] == [1, 2, 3]
    assert {(ticket.epoch, ticket.rate, ticket.canary, ticket.cohort) for ticket in tickets} == {(0, 10.0, False, 1)}
    pace = heard(pace, tickets[1], ACCEPTED, tickets[2].started_at)
    pace, fourth = started(pace, ready(pace))
    assert (fourth.in_flight, pace.served, len(pace.history.starts)) == (3, 1, 4)


def test_at_the_bound_in_flight_only_an_answer_lets_the_next_one_start() -> None:
    pace, tickets = several(opening(ThrottlePolicy(fixed_rate=10.0, concurrency=3)), 3)
    assert ready_at(pace) is None
    for after in (heard(pace, tickets[0], ACCEPTED, NOON + 1), released(pace, tickets[0], NOON + 1)):
        assert after.in_flight == 2
        assert ready(after) == pytest.approx(NOON + 0.3)


# -- holds -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "feedback", "draw", "seconds"),
    [
        (10.0, REFUSED, 0.0, FIRST_HOLD_S),
        (10.0, REFUSED, 1.0, FIRST_HOLD_S * (1 + JITTER_SHARE)),
        (0.5, REFUSED, 0.0, HOLD_INTERVALS / 0.5),
        (0.02, REFUSED, 0.0, LONGEST_HOLD_S),
        (0.02, REFUSED, 1.0, LONGEST_HOLD_S + LONGEST_JITTER_S),
        (10.0, named(7.0), 0.0, 7.0),
        (10.0, named(7.0), 1.0, 7.0 * (1 + JITTER_SHARE)),
        (10.0, named(100.0), 1.0, 100.0 + LONGEST_JITTER_S),
        (10.0, named(0.0), 0.0, FIRST_HOLD_S),
    ],
)
def test_each_429_holds_for_the_right_time(rate: float, feedback: Feedback, draw: float, seconds: float) -> None:
    pace = held(opening(ThrottlePolicy(start_rate=rate)), feedback, draw=draw)
    assert (pace.phase, pace.rate, pace.epoch) == (Phase.HELD, rate, 1)
    assert ready(pace) == pytest.approx(NOON + seconds)


def own_hold_s(row: int) -> float:
    pace, ticket = started(replace(OPEN, hold=Hold(row=row)), NOON)
    long_since = replace(pace.meter, canary_at=NOON - 1e6)
    after = heard(replace(pace, meter=long_since), ticket, REFUSED, NOON)
    assert after.hold.row == row + 1
    return after.hold.until - NOON


def test_holds_without_an_accepted_post_between_them_grow_by_a_factor_up_to_a_limit() -> None:
    factor = own_hold_s(1) / own_hold_s(0)
    assert 1.5 <= factor <= 2.0
    assert [own_hold_s(row) for row in range(6)] == pytest.approx([FIRST_HOLD_S * factor**row for row in range(6)])
    assert own_hold_s(40) == own_hold_s(100_000) == LONGEST_HOLD_S


def test_after_a_hold_only_one_canary_goes_out_before_its_answer() -> None:
    pace, others = several(OPEN, 4)
    pace = heard(pace, others.pop(), REFUSED, NOON + 0.4)
    pace, canary = started(pace, ready(pace))
    assert (canary.canary, canary.read_only, canary.epoch, canary.cohort) == (True, False, 1, 0)
    assert (pace.phase, ready_at(pace)) == (Phase.CANARY, None)
    for ticket, feedback in zip(others, (ACCEPTED, FAILED, named(0.0)), strict=True):
        pace = heard(pace, ticket, feedback, canary.started_at + 99.0)
        assert (pace.phase, ready_at(pace)) == (Phase.CANARY, None)


def test_a_refused_canary_causes_a_longer_hold_at_the_same_rate() -> None:
    first = held()
    pace, canary = started(first, ready(first))
    again = heard(pace, canary, REFUSED, canary.started_at)
    assert (again.phase, again.rate, again.epoch) == (Phase.HELD, first.rate, 2)
    assert ready(again) - canary.started_at > ready(first) - NOON
    assert (again.meter.canaries, again.meter.last_at) == (1, canary.started_at)


def test_after_an_answered_canary_starts_are_even_and_no_faster_than_before() -> None:
    pace = after_canary(held(several(OPEN, 9)[0], now=NOON + 0.9))
    assert (pace.phase, pace.epoch) == (Phase.FLOWING, 1)
    assert pace.rate <= OPEN.rate
    answered_at = pace.meter.resumed_at
    pace, tickets = several(pace, 4, now=0.0)
    interval = 1.0 / pace.rate
    assert tickets[0].started_at == pytest.approx(answered_at + interval)
    assert gaps(tickets) == pytest.approx([interval] * 3)


def test_a_hold_restarts_the_counts() -> None:
    pace, tickets = several(OPEN, 9)
    for ticket in tickets[:5]:
        pace = heard(pace, ticket, ACCEPTED, NOON + 0.8)
    held_pace = heard(pace, tickets[5], REFUSED, NOON + 0.85)
    canary_out, canary = started(held_pace, ready(held_pace))
    at = canary.started_at + 0.1
    growth = heard(canary_out, canary, ACCEPTED, at).growth
    assert (growth.since, growth.rose_at, growth.started, growth.served, growth.answers) == (at, at, 0, 0, 0)


def test_a_hold_ends_the_remembered_burst() -> None:
    pace = after_canary(held(WARM))
    assert pace.spare == 0
    assert gaps(several(pace, 3, now=ready(pace))[1]) == pytest.approx([1.0 / pace.rate] * 2)


def test_a_hold_after_failures_ends_the_remembered_burst_too() -> None:
    pace = after_canary(failed(WARM), READ)
    assert pace.spare == 0
    assert gaps(several(pace, 3, now=ready(pace))[1]) == pytest.approx([1.0 / pace.rate] * 2)


@pytest.mark.parametrize(
    ("feedback", "row"),
    [(ACCEPTED, 0), (READ, 0), (REFUSED, 2), (FAILED, 2)],
    ids=["accepted", "read", "429", "failed"],
)
def test_a_served_canary_resets_the_length_of_holds(feedback: Feedback, row: int) -> None:
    assert after_canary(held(), feedback).hold.row == row


# -- epochs, and moments of Retry-After --------------------------------------------------------------------------------


def two_in_flight_one_refused() -> tuple[Pace, Ticket]:
    """Return a held pace, and the ticket of a request that started after the refused one."""
    pace, (refused, late) = several(OPEN, 2)
    return heard(pace, refused, REFUSED, NOON + 0.15), late


@pytest.mark.parametrize("is_resumed", [False, True], ids=["while held", "after the recovery"])
def test_a_429_of_an_older_epoch_does_not_change_the_rate(*, is_resumed: bool) -> None:
    pace, late = two_in_flight_one_refused()
    pace = after_canary(pace) if is_resumed else pace
    after = heard(pace, late, REFUSED, NOON + 2.0)
    assert after.evidence == replace(pace.evidence, refused=2)
    assert after.in_flight == pace.in_flight - 1
    assert late.started_at not in after.history.taken
    unrecorded = replace(after, evidence=pace.evidence, in_flight=pace.in_flight, flight=pace.flight)
    assert replace(unrecorded, history=pace.history) == pace


def test_a_late_429_of_an_earlier_start_only_corrects_the_measurement() -> None:
    pace, (early, refused) = several(OPEN, 2)
    pace = heard(pace, refused, REFUSED, NOON + 0.15)
    after = heard(pace, early, REFUSED, NOON + 0.16)
    assert pace.meter.refused_at == refused.started_at
    assert after.meter.refused_at == early.started_at
    assert (after.hold, after.rate, after.epoch, after.phase) == (pace.hold, pace.rate, pace.epoch, pace.phase)


def test_a_late_answer_that_is_no_429_corrects_nothing() -> None:
    pace, (early, refused) = several(OPEN, 2)
    pace = heard(pace, refused, REFUSED, NOON + 0.15)
    for feedback in (ACCEPTED, FAILED):
        assert heard(pace, early, feedback, NOON + 0.16).meter == pace.meter


def test_a_late_429_during_a_hold_after_failures_does_not_measure_the_limit() -> None:
    pace, tickets = several(OPEN, FAILURES_THAT_HOLD + 1)
    for ticket in tickets[:-1]:
        pace = heard(pace, ticket, FAILED, NOON + 2)
    pace = heard(pace, tickets[-1], REFUSED, NOON + 2.1)
    assert pace.meter.refused_at is None
    assert after_canary(pace, READ).estimate is None


def test_a_late_retry_after_may_lengthen_the_hold_but_never_shorten_it() -> None:
    pace, tickets = several(OPEN, 3)
    pace = heard(pace, tickets[0], named(5.0), NOON + 1)
    longer = heard(pace, tickets[1], named(9.0), NOON + 2)
    shorter = heard(longer, tickets[2], named(1.0), NOON + 3)
    assert (ready(pace), ready(longer), ready(shorter)) == (NOON + 6, NOON + 11, NOON + 11)


def test_the_retry_after_of_a_late_429_is_always_obeyed() -> None:
    pace, late = two_in_flight_one_refused()
    named_while_held = heard(pace, late, named(30.0), NOON + 2.0)
    canary_out, canary = started(pace, ready(pace))
    named_meanwhile = heard(canary_out, late, named(30.0), NOON + 2.0)
    named_before = heard(named_meanwhile, canary, ACCEPTED, NOON + 2.1)
    named_after = heard(heard(canary_out, canary, ACCEPTED, NOON + 1.9), late, named(30.0), NOON + 2.0)
    assert ready(named_while_held) == NOON + 32.0
    for each in (named_before, named_after):
        assert (each.phase, ready(each)) == (Phase.FLOWING, NOON + 32.0)
        assert gaps(several(each, 3, now=ready(each))[1]) == pytest.approx([1 / each.rate] * 2)


def test_after_a_lost_canary_the_next_one_obeys_a_later_retry_after() -> None:
    pace, late = two_in_flight_one_refused()
    pace, canary = started(pace, ready(pace))
    pace = heard(pace, late, named(30.0), NOON + 2.0)
    assert ready(released(pace, canary, NOON + 3.0)) == NOON + 32.0


def test_the_evidence_counts_every_429_and_the_rates_at_which_holds_began() -> None:
    assert held().evidence == Evidence(1, 10.0, 10.0, 10.0, 0)
    pace, late = two_in_flight_one_refused()
    pace = heard(pace, late, named(1.0), NOON + 0.3)
    assert pace.evidence == Evidence(2, 10.0, 10.0, 10.0, 1)
    for rate in (8.0, 9.0):
        pace = held(replace(after_canary(pace), rate=rate), now=ready(pace) + 5.0)
    assert pace.evidence == Evidence(4, 9.0, 8.0, 10.0, 1)
    assert after_canary(pace, REFUSED).evidence == Evidence(5, 9.0, 8.0, 10.0, 1)


# -- failures, and requests without an answer --------------------------------------------------------------------------


def test_ten_failures_in_a_row_hold_until_a_read_only_canary_is_served() -> None:
    pace = failed()
    assert (pace.phase, pace.hold.row) == (Phase.HELD, 1)
    again = after_canary(pace, FAILED)
    assert (again.phase, again.hold.row) == (Phase.HELD, 2)
    for each in (pace, again):
        assert started(each, ready(each))[1].read_only
        resumed = after_canary(each, READ)
        assert (resumed.phase, resumed.rate, resumed.estimate, resumed.hold.failures) == (Phase.FLOWING, 10.0, None, 0)


def test_the_canary_after_a_429_may_be_a_post_again() -> None:
    pace = after_canary(failed(), REFUSED)
    assert not started(pace, ready(pace))[1].read_only


def test_a_served_request_ends_a_row_of_failures_and_failures_of_an_older_epoch_do_not_count() -> None:
    pace, tickets = several(OPEN, FAILURES_THAT_HOLD + 1)
    for ticket in tickets[1:-1]:
        pace = heard(pace, ticket, FAILED, NOON + 2)
    assert heard(pace, tickets[0], READ, NOON + 2).hold.failures == 0
    refused = heard(pace, tickets[0], REFUSED, NOON + 2)
    assert heard(refused, tickets[-1], FAILED, NOON + 2).hold == refused.hold


def test_a_canary_refused_after_failures_does_not_count_for_the_next_measurement() -> None:
    pace = after_canary(after_canary(failed(), REFUSED))
    assert pace.phase is Phase.FLOWING
    assert pace.meter.canaries == 0
    pace = after_canary(held(several(pace, 9, now=ready(pace))[0], now=ready(pace) + 20.0))
    assert pace.window is None
    assert pace.estimate is not None


def test_after_a_lost_canary_another_one_may_go() -> None:
    pace, canary = started(held(), NOON + 1)
    lost = released(pace, canary, NOON + 1.5)
    assert (lost.phase, ready_at(lost), lost.in_flight, lost.epoch) == (Phase.HELD, NOON + 1.5, 0, 1)
    assert started(lost, NOON + 1.5)[1].canary


def test_a_failed_or_lost_request_no_longer_counts_as_unanswered() -> None:
    pace, (ticket, _) = several(OPEN, 2)
    for after in (released(pace, ticket, NOON + 1), heard(pace, ticket, FAILED, NOON + 1)):
        assert (pace.flight.latency.cohort.left, after.flight.latency.cohort.left) == (2, 1)


def test_an_answer_counts_only_if_it_is_in_time_and_its_request_started_at_the_current_rate() -> None:
    pace, (first, second) = several(OPEN, 2)
    pace = replace(pace, growth=replace(pace.growth, since=second.started_at), rate=20.0, ceiling=20.0)
    usual = replace(pace.flight.latency, shortest_s=0.1)
    pace = replace(pace, flight=replace(pace.flight, latency=usual))
    at = second.started_at + 0.1
    assert heard(pace, first, ACCEPTED, at).growth.served == 0
    assert heard(pace, second, ACCEPTED, at).growth.served == 1
    assert heard(pace, second, ACCEPTED, at + 5.0).growth.served == 0


def test_a_lost_request_frees_its_place_and_changes_nothing_else() -> None:
    pace, tickets = several(OPEN, 2)
    lost = released(pace, tickets[0], NOON + 1)
    assert lost.history.taken == [tickets[1].started_at]
    assert replace(lost, in_flight=2, flight=pace.flight, history=pace.history) == pace
    pace, late = two_in_flight_one_refused()
    pace, _ = started(pace, ready(pace))
    assert released(pace, late, NOON + 2).phase is Phase.CANARY


def test_the_held_time_includes_the_canaries_and_adds_up() -> None:
    assert held_s(OPEN, NOON) == 0.0
    pace = held()
    assert held_s(pace, NOON + 0.4) == pytest.approx(0.4)
    pace, canary = started(pace, NOON + 1.0)
    pace = heard(pace, canary, REFUSED, NOON + 2.0)
    assert held_s(pace, NOON + 3.0) == pytest.approx(3.0)
    pace, canary = started(pace, NOON + 9.0)
    pace = heard(pace, canary, ACCEPTED, NOON + 10.0)
    assert held_s(pace, NOON + 99.0) == pytest.approx(10.0)
    assert held_s(held(pace, now=NOON + 100.0), NOON + 101.0) == pytest.approx(11.0)


# -- fixed and very low rates ------------------------------------------------------------------------------------------


def test_a_fixed_rate_neither_grows_nor_falls_nor_learns() -> None:
    pace, now = FIXED, NOON
    for number in range(300):
        now = max(now, ready(pace))
        pace, ticket = started(pace, now)
        feedback = REFUSED if number % 50 in {40, 41, 42} else ACCEPTED
        pace = heard(pace, ticket, feedback, now + (2.0 if number > 200 else 0.01))
        assert (pace.rate, pace.estimate, pace.stage, learned(pace)) == (10.0, None, Stage.SEEKING, None)
        assert in_flight_bound(pace) == ThrottlePolicy().concurrency
    assert pace.evidence.refused > 10
    busy = replace(several(FIXED, 9)[0], flight=Flight(served=50, most_served=1))
    assert held(busy, now=NOON + 0.9).flight.borne.most is None


@pytest.mark.parametrize("rate", [1.0, 2.5, 7.0, 40.0])
@pytest.mark.parametrize("lateness_s", [0.0, 0.001, 0.02, 0.3, 1.7])
def test_no_second_has_more_starts_than_a_fixed_rate_allows(rate: float, lateness_s: float) -> None:
    pace, starts = opening(ThrottlePolicy(fixed_rate=rate, concurrency=10_000)), list[float]()
    for number in range(200):
        pace, ticket = started(pace, max(NOON, ready(pace)) + lateness_s * (number % 3 == 0))
        starts.append(ticket.started_at)
    for first in starts:
        assert sum(first <= start < first + 1.0 - 1e-9 for start in starts) <= math.ceil(rate)


def test_a_ceiling_below_the_least_rate_is_kept_after_a_429() -> None:
    ceiling = LEAST_RATE / 2
    pace = after_canary(held(opening(ThrottlePolicy(start_rate=ceiling, ceiling=ceiling))))
    assert pace.rate <= ceiling
    assert pace.estimate is not None
    assert pace.estimate.low <= pace.estimate.rate <= pace.estimate.high


def test_a_remembered_rate_above_the_ceiling_is_not_forgotten_at_an_early_429() -> None:
    pace = after_canary(held(opening(ThrottlePolicy(ceiling=50.0), Learned(60.0, 0.0))))
    assert pace.rate > 10.0


def test_requests_that_failed_between_two_429s_count_for_the_limit() -> None:
    """A gateway counts requests on which its backend fails: a rate from the good answers alone would be near 0."""
    pace, tickets = several(OPEN, 12)
    for ticket in tickets[:4]:
        pace = heard(pace, ticket, ACCEPTED, ticket.started_at + 0.02)
    pace = heard(pace, tickets[11], REFUSED, tickets[11].started_at + 0.02)
    for ticket in tickets[4:11]:
        pace = heard(pace, ticket, FAILED, tickets[11].started_at + 0.03)
    pace, tickets = several(after_canary(pace), 5)
    pace = heard(pace, tickets[4], REFUSED, tickets[4].started_at + 0.02)
    for ticket in tickets[:4]:
        pace = heard(pace, ticket, FAILED, tickets[4].started_at + 0.03)
    resumed = after_canary(pace)
    assert resumed.rate > tickets[4].rate / 4
    assert resumed.history.starts.between(NOON, tickets[4].started_at) == 11 + 1 + 4


def test_a_request_that_was_not_sent_does_not_count_for_the_limit() -> None:
    pace, tickets = several(OPEN, 3)
    for ticket in tickets[:2]:
        pace = heard(pace, ticket, Feedback(Effect.FAILED, sent=False), NOON + 1)
    assert pace.history.taken == [tickets[2].started_at]
