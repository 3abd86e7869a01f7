"""The bound in flight and the time of answers: tables, and their effect on the control law."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from orchestrator.model import Learned
from orchestrator.pacing import (
    Effect,
    Feedback,
    Observation,
    Pace,
    Phase,
    Stage,
    Ticket,
    flight,
    in_flight_bound,
    latency,
    next_pace,
    opening,
    ready_at,
    started,
)
from orchestrator.pacing.flight import (
    FIRST_IN_FLIGHT,
    FIRST_TRIAL_AFTER_S,
    JUDGED_COHORTS,
    LATENCY_FACTOR,
    LATENCY_MARGIN,
    LEAST_BORNE,
    LEAST_EVIDENCE,
    LEAST_FLIGHT,
    LONGEST_TRIAL_AFTER_S,
    RAISE_SHARE,
    SOONEST_RAISE_S,
    TRIAL_COHORTS,
    TRIAL_FACTOR,
    TRIAL_SUCCESS,
    Borne,
    Flight,
    Trial,
)
from orchestrator.pacing.growth import CREDIT_PER_SERVED
from orchestrator.pacing.latency import (
    COHORT,
    KEPT_THROUGHPUTS,
    LATE_FACTOR,
    LATE_IN_A_ROW,
    LEAST_ANSWERS,
    PROMPT_FACTOR,
    SLOW_FACTOR,
    SLOW_MARGIN_S,
    Cohort,
    Latency,
)
from orchestrator.pacing.law import NEW_RATE_LATENCIES, NEW_RATE_S
from orchestrator.policies import ThrottlePolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVED, THROTTLED = Feedback(Effect.SERVED, accepted=True), Feedback(Effect.THROTTLED)
QUICK = Latency(shortest_s=0.1, recent_s=0.1)
SLOW = Latency(shortest_s=0.1, recent_s=0.4, throughputs=(20.0,), cohort=Cohort(5))
SERVED_WITH_9 = Flight(served=2 * LEAST_EVIDENCE, most_served=9)


def answer_all(subject: Latency, latencies_s: Sequence[float], began_at: float = 0.0) -> Latency:
    """Start a request for each of ``latencies_s`` at the same time, answer them in order, and return the latency."""
    numbers = []
    for _ in latencies_s:
        numbers.append(subject.next_cohort)
        subject = latency.started(subject)
    for seconds, number in sorted(zip(latencies_s, numbers, strict=True)):
        subject = latency.answered(subject, number, seconds, began_at + seconds)
    return subject


# -- how long answers take ---------------------------------------------------------------------------------------------


def test_a_cohort_is_ten_requests_in_a_row_and_its_mean_waits_for_all_of_them() -> None:
    subject = Latency()
    for number in range(COHORT):
        assert subject.next_cohort == 1, number
        subject = latency.started(subject)
    assert subject.next_cohort == 0
    for number in range(COHORT - 1):
        subject = latency.answered(subject, 1, 0.1, 1.0 + number)
        assert (subject.recent_s, subject.shortest_s) == (0.0, None)
    subject = latency.answered(subject, 1, 2.0, 20.0)
    mean_s = (0.1 * (COHORT - 1) + 2.0) / COHORT
    assert (subject.recent_s, subject.shortest_s) == pytest.approx((mean_s, mean_s))
    assert subject.next_cohort == 2


def test_the_mean_of_a_cohort_stays_right_if_the_rate_doubles_meanwhile() -> None:
    latencies_s = [0.2 + 0.2 * number for number in range(COHORT)]
    starts = [(0.1 * number, seconds) for number, seconds in enumerate(latencies_s)]
    starts += [(1.0 + 0.05 * number, 0.2 + 0.05 * (number % 20)) for number in range(40)]
    subject, numbers = Latency(), []
    for _ in starts:
        numbers.append(subject.next_cohort)
        subject = latency.started(subject)
    answers = sorted((at + seconds, seconds, number) for (at, seconds), number in zip(starts, numbers, strict=True))
    so_far = [seconds for _, seconds, _ in answers[: answers.index((2.9, 2.0, 1)) + 1]]
    for at, seconds, number in answers:
        subject = latency.answered(subject, number, seconds, at)
    assert subject.recent_s == pytest.approx(math.fsum(latencies_s) / COHORT)
    assert math.fsum(so_far) / len(so_far) < 0.8 * subject.recent_s


def test_the_mean_of_many_cohorts_is_the_mean_of_the_answers_at_any_rate() -> None:
    chance, subject, means = random.Random(7), Latency(), []
    for _ in range(300):
        subject = answer_all(subject, [chance.uniform(0.5, 1.5) for _ in range(3 * COHORT)])
        means.append(subject.recent_s)
    assert math.fsum(means) / len(means) == pytest.approx(1.0, abs=0.03)


def test_the_shortest_mean_is_kept_and_the_last_one_is_recent() -> None:
    subject = Latency()
    for seconds in (0.5, 0.2, 0.8):
        subject = answer_all(subject, [seconds] * COHORT)
    assert (subject.shortest_s, subject.recent_s) == pytest.approx((0.2, 0.8))


@pytest.mark.parametrize(("unanswered", "is_worth_a_mean"), [(COHORT // 2, True), (COHORT // 2 + 1, False)])
def test_a_cohort_with_few_answers_gives_no_mean(unanswered: int, *, is_worth_a_mean: bool) -> None:
    subject = Latency()
    for _ in range(COHORT):
        subject = latency.started(subject)
    for _ in range(COHORT - unanswered):
        subject = latency.answered(subject, 1, 0.3, 1.0)
    for _ in range(unanswered):
        subject = latency.unanswered(subject, 1, 1.1)
    assert subject.next_cohort == 2
    assert subject.shortest_s == (pytest.approx(0.3) if is_worth_a_mean else None)


def test_a_request_of_another_cohort_or_of_none_does_not_count_in_the_current_one() -> None:
    begun = latency.started(Latency(cohort=Cohort(3)))
    for number in (0, 2):
        assert latency.unanswered(begun, number, 1.0) == begun
        assert latency.answered(begun, number, 9.0, 1.0).cohort == begun.cohort


def test_throughput_is_the_best_of_the_last_few_answer_rates() -> None:
    subject = answer_all(Latency(), [0.5] * COHORT, began_at=10.0)
    assert subject.throughput == pytest.approx(COHORT / 0.5)
    for number in range(1, 1 + KEPT_THROUGHPUTS):
        assert subject.throughput == pytest.approx(COHORT / 0.5), number
        subject = answer_all(subject, [1.0] * COHORT, began_at=9.5 + number)
    assert subject.throughputs == pytest.approx((COHORT,) * KEPT_THROUGHPUTS)
    assert Latency().throughput is None


def test_answers_of_no_cohort_count_for_the_throughput() -> None:
    subject = Latency()
    for _ in range(2 * COHORT):
        subject = latency.started(subject)
    for _ in range(COHORT):
        subject = latency.answered(subject, 0, 0.5, 10.5)
    for _ in range(COHORT):
        subject = latency.answered(subject, 1, 1.0, 11.0)
    assert subject.throughput == pytest.approx(2 * COHORT / 1.0)


def test_answers_that_take_no_time_have_a_finite_throughput() -> None:
    subject = answer_all(Latency(), [0.0] * COHORT)
    assert subject.shortest_s == 0.0
    assert math.isfinite(subject.throughput or math.inf)


def test_answers_that_come_together_count_over_the_time_that_they_took() -> None:
    subject = answer_all(Latency(since=9.0), [1.0] * COHORT, began_at=8.0)
    assert subject.throughput == pytest.approx(COHORT / 1.0)


def test_late_answers_in_a_row_mean_slow_even_before_a_cohort_is_complete() -> None:
    late_s = LATE_FACTOR * 0.1 + SLOW_MARGIN_S
    subject = QUICK
    for number in range(2 * LATE_IN_A_ROW):
        is_timely = number == LATE_IN_A_ROW - 1
        subject = latency.answered(subject, 0, late_s if is_timely else late_s + 1.0, 1.0)
        if number < 2 * LATE_IN_A_ROW - 1:
            assert subject.recent_s == QUICK.recent_s, number
    assert subject.recent_s == pytest.approx(late_s + 1.0)
    assert subject.is_slow
    assert latency.answered(Latency(), 0, 99.0, 1.0).late == 0


def test_the_current_cohort_is_forgotten_at_a_hold() -> None:
    begun = latency.begun_anew(latency.answered(latency.started(QUICK), 1, 0.3, 5.0))
    assert (begun.cohort, begun.answers, begun.since) == (Cohort(2), 0, None)
    assert (begun.shortest_s, begun.recent_s) == (QUICK.shortest_s, QUICK.recent_s)
    assert latency.answered(begun, 1, 9.0, 6.0).cohort == Cohort(2)


@pytest.mark.parametrize(
    ("subject", "usual_s"),
    [
        (Latency(), None),
        (Latency(cohort=Cohort(answered=LEAST_ANSWERS - 1, total_s=2.0)), None),
        (Latency(cohort=Cohort(answered=LEAST_ANSWERS, total_s=1.5)), 1.5 / LEAST_ANSWERS),
        (Latency(shortest_s=0.1, cohort=Cohort(answered=9, total_s=9.0)), 0.1),
    ],
)
def test_the_usual_time_is_the_shortest_mean_or_the_mean_of_the_first_answers(
    subject: Latency, usual_s: float | None
) -> None:
    assert subject.usual_s == usual_s


def test_slow_and_prompt_are_relative_to_the_usual_time() -> None:
    slow_s, prompt_s = SLOW_FACTOR * 0.1 + SLOW_MARGIN_S, PROMPT_FACTOR * 0.1 + SLOW_MARGIN_S
    assert not replace(QUICK, recent_s=slow_s).is_slow
    assert replace(QUICK, recent_s=slow_s + 1e-9).is_slow
    assert latency.is_prompt(QUICK, prompt_s)
    assert not latency.is_prompt(QUICK, prompt_s + 1e-9)
    assert not Latency(recent_s=9.0).is_slow
    assert latency.is_prompt(Latency(), 9.0)


# -- how many may be in flight -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "rate", "served", "requests"),
    [
        (Flight(), 5.0, 0, FIRST_IN_FLIGHT),
        (Flight(), 5.0, 10, FIRST_IN_FLIGHT + 10),
        (Flight(latency=QUICK), 40.0, 1000, math.ceil(LATENCY_FACTOR * 40 * 0.1) + LATENCY_MARGIN),
        (Flight(latency=QUICK), 1.0, 1000, LEAST_FLIGHT),
        (Flight(latency=QUICK), 1000.0, 3, FIRST_IN_FLIGHT + 3),
        (Flight(latency=QUICK, borne=Borne(most=6)), 40.0, 1000, 6),
        (Flight(latency=QUICK, borne=Borne(most=60)), 40.0, 1000, math.ceil(LATENCY_FACTOR * 4) + LATENCY_MARGIN),
        (Flight(borne=Borne(most=0)), 40.0, 1000, 1),
    ],
)
def test_the_lowest_of_three_bounds_holds(subject: Flight, rate: float, served: int, requests: int) -> None:
    assert flight.bound(subject, rate, served) == requests


def test_while_seeking_the_bound_is_at_least_the_first_bound() -> None:
    assert flight.bound(Flight(latency=QUICK), 1.0, 1000, least=50) == 50
    assert flight.bound(Flight(latency=QUICK), 1000.0, 1000, least=50) == flight.unqueued(0.1, 1000.0)


@pytest.mark.parametrize("rate", [0.1, 1.0, 5.0, 40.0, 500.0])
@pytest.mark.parametrize("latency_s", [0.001, 0.05, 1.0, 1.4, 20.0])
def test_the_bound_in_flight_does_not_limit_a_rate_without_queues(latency_s: float, rate: float) -> None:
    assert flight.unqueued(latency_s, rate) >= max(LEAST_FLIGHT, 1.4 * rate * latency_s)


def test_a_run_starts_with_the_remembered_bounds_and_burst() -> None:
    pace = opening(ThrottlePolicy(ceiling=100.0), Learned(40.0, 20.0, in_flight=None, latency_s=1.0))
    assert in_flight_bound(pace) == FIRST_IN_FLIGHT + 20 + pace.spare
    assert (pace.flight.latency.shortest_s, pace.flight.latency.recent_s) == (1.0, 1.0)
    unknown = opening(ThrottlePolicy(), Learned(40.0, 20.0)).flight.latency
    assert (unknown.shortest_s, unknown.recent_s) == (None, 0.0)
    pace = opening(ThrottlePolicy(ceiling=100.0), Learned(40.0, 0.0, in_flight=8, latency_s=1.0))
    assert in_flight_bound(pace) == 8


def test_a_remembered_burst_does_not_exceed_the_remembered_number_in_flight() -> None:
    assert in_flight_bound(opening(ThrottlePolicy(), Learned(40.0, 30.0, in_flight=8))) == 8


def test_concurrency_is_an_upper_limit_of_every_bound() -> None:
    assert in_flight_bound(opening(ThrottlePolicy(concurrency=3))) == 3
    assert in_flight_bound(opening(ThrottlePolicy(concurrency=3), Learned(40.0, 90.0))) == 3
    assert in_flight_bound(opening(ThrottlePolicy(concurrency=3), Learned(40.0, 90.0, in_flight=8))) == 3
    assert in_flight_bound(opening(ThrottlePolicy(fixed_rate=5.0))) == ThrottlePolicy().concurrency


def test_bounds_from_refusals_and_latency_do_not_limit_a_fixed_rate() -> None:
    pace = replace(opening(ThrottlePolicy(fixed_rate=5.0)), flight=Flight(latency=QUICK, borne=Borne(most=2)))
    assert in_flight_bound(pace) == ThrottlePolicy().concurrency


# -- a server that refuses above a number ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "in_flight", "most"),
    [
        (replace(SERVED_WITH_9, served=LEAST_EVIDENCE), 10, 9),
        (SERVED_WITH_9, 20, 19),
        (SERVED_WITH_9, 9, None),
        (replace(SERVED_WITH_9, served=LEAST_EVIDENCE - 1), 10, None),
        (replace(SERVED_WITH_9, most_served=1), LEAST_BORNE - 1, None),
        (replace(SERVED_WITH_9, most_served=1), LEAST_BORNE, LEAST_BORNE - 1),
        (replace(SERVED_WITH_9, borne=Borne(most=12)), 9, None),
        (replace(SERVED_WITH_9, borne=Borne(most=12)), 11, 10),
        (replace(SERVED_WITH_9, borne=Borne(most=12, before=11)), 11, 10),
    ],
    ids=[
        "one more than served",
        "far more than served",
        "as many as served",
        "too few served to tell",
        "too few in flight",
        "just enough in flight",
        "bound, as many as served: bound dropped",
        "below the bound: bound lowered",
        "at the bound before a raise: bound lowered",
    ],
)
def test_a_refusal_is_blamed_on_a_number_in_flight_that_was_never_served(
    subject: Flight, in_flight: int, most: int | None
) -> None:
    met = flight.met(subject, in_flight, is_new=True)
    is_found = most is not None and subject.borne.most is None
    assert met.borne.before is None
    assert (met.borne.most, met.borne.is_to_blame, met.borne.is_found) == (most, False, is_found)


def test_at_a_rate_that_has_lasted_a_refusal_is_not_blamed_on_the_number_in_flight() -> None:
    assert flight.met(SERVED_WITH_9, 10, is_new=False) == SERVED_WITH_9
    assert flight.met(replace(SERVED_WITH_9, borne=Borne(most=12)), 9, is_new=False).borne == Borne()


def test_served_and_unanswered_requests_are_counted() -> None:
    subject = flight.started(flight.started(Flight()))
    subject = flight.answered(subject, 1, 0.1, 5, 100.0)
    subject = flight.answered(subject, 0, 0.1, 3, 100.0)
    assert (subject.served, subject.most_served, subject.latency.cohort.left) == (2, 5, 1)
    assert flight.unanswered(subject, 1, 100.0).latency.cohort.left == 0


def test_an_acquittal_removes_the_bound_and_the_blame() -> None:
    accused = Flight(borne=Borne(9, 8, is_to_blame=True, is_found=True))
    assert flight.acquitted(accused) == Flight()


def test_a_bound_that_is_reached_is_raised_by_one_or_an_eighth_after_a_wait() -> None:
    subject = flight.resumed(Flight(borne=Borne(most=8)), 100.0)
    early = flight.pressed(subject, 40.0, 8, 100.0 + FIRST_TRIAL_AFTER_S - 0.1)
    unpressed = flight.pressed(subject, 40.0, 6, 100.0 + FIRST_TRIAL_AFTER_S)
    assert early == unpressed == subject
    raised = flight.pressed(subject, 40.0, 8, 100.0 + FIRST_TRIAL_AFTER_S)
    assert flight.pressed(subject, 40.0, 7, 100.0 + FIRST_TRIAL_AFTER_S) == raised
    assert (raised.borne.most, raised.borne.before) == (8 + max(1, int(8 * RAISE_SHARE)), 8)
    large = replace(subject, borne=replace(subject.borne, most=80))
    assert flight.pressed(large, 40.0, 80, 200.0).borne.most == 80 + int(80 * RAISE_SHARE)


def test_after_a_successful_raise_the_next_comes_sooner() -> None:
    subject, now, most = flight.resumed(Flight(borne=Borne(most=3)), 100.0), 100.0, 3
    waits = []
    for _ in range(8):
        since = now
        while subject.borne.most == most:
            now += 0.125
            subject = flight.pressed(subject, 1000.0, most, now)
        waits.append(now - since)
        assert subject.borne.most is not None
        most = subject.borne.most
    assert waits[:2] == [FIRST_TRIAL_AFTER_S, FIRST_TRIAL_AFTER_S]
    assert all(later == max(SOONEST_RAISE_S, first / 2) for first, later in pairwise(waits[1:]))


def test_a_refused_raise_is_taken_back_and_tried_again_later() -> None:
    raised = replace(SERVED_WITH_9, borne=Borne(most=9, before=8, raised_at=100.0))
    met = flight.met(raised, 9, is_new=False)
    assert met.borne == Borne(8, None, is_to_blame=True, raised_at=100.0, after_s=2 * FIRST_TRIAL_AFTER_S)
    for _ in range(20):
        met = flight.met(replace(met, borne=replace(met.borne, before=8, most=9)), 9, is_new=False)
    assert met.borne.after_s == LONGEST_TRIAL_AFTER_S


def test_a_refusal_within_the_bound_before_a_raise_is_not_blamed_on_the_raise() -> None:
    met = flight.met(replace(SERVED_WITH_9, borne=Borne(most=9, before=8)), 8, is_new=True)
    assert met.borne == Borne()


def test_a_hold_resets_the_evidence_and_keeps_the_bound() -> None:
    subject = replace(SERVED_WITH_9, borne=Borne(9, 8, is_to_blame=True, is_found=True), latency=QUICK)
    resumed = flight.resumed(subject, 50.0)
    assert resumed.borne == Borne(most=9, before=8, is_to_blame=False, raised_at=50.0)
    assert (resumed.served, resumed.most_served, resumed.latency.cohort.number) == (0, 0, 2)


def in_flight_server(pace: Pace, most: int, answers: int, seed: int = 1) -> tuple[Pace, int, float]:
    """Return the pace, the number of 429s and the first refused rate. A server takes ``most`` in flight, 0.4 s each."""
    chance, now, under_way = random.Random(seed), 1000.0, list[tuple[float, Ticket, Feedback]]()
    inside = refused = served = 0
    first_rate = 0.0
    while served < answers:
        at = ready_at(pace)
        if at is not None and (not under_way or max(now, at) <= under_way[0][0]):
            now = max(now, at)
            pace, ticket = started(pace, now)
            feedback = SERVED if inside < most else THROTTLED
            inside += feedback is SERVED
            refused += feedback is THROTTLED
            first_rate = first_rate or (pace.rate if feedback is THROTTLED else 0.0)
            seconds = chance.uniform(0.35, 0.45) if feedback is SERVED else 0.01
            under_way = sorted([*under_way, (now + seconds, ticket, feedback)], key=lambda each: each[0])
            continue
        now, ticket, feedback = under_way.pop(0)
        inside -= feedback is SERVED
        served += feedback is SERVED
        pace = next_pace(pace, Observation(ticket, feedback, now))
    return pace, refused, first_rate


@pytest.mark.parametrize("most", [4, 8, 30])
def test_a_limit_in_flight_is_found_and_kept_to(most: int) -> None:
    pace, refused, _ = in_flight_server(opening(ThrottlePolicy(ceiling=1000.0)), most, 40 * most)
    assert pace.flight.borne.most is not None
    assert most - 1 <= pace.flight.borne.most <= most + max(1, int(RAISE_SHARE * most))
    assert refused <= 0.05 * 40 * most


@pytest.mark.parametrize(
    ("latency_s", "since_s", "is_laid_to_it"),
    [
        (0.05, 0.9 * NEW_RATE_S, True),
        (0.05, 1.1 * NEW_RATE_S, False),
        (2.0, 0.9 * NEW_RATE_LATENCIES * 2.0, True),
        (2.0, 1.1 * NEW_RATE_LATENCIES * 2.0, False),
    ],
)
def test_a_refusal_is_blamed_on_the_number_in_flight_only_while_the_rate_is_new(
    latency_s: float, since_s: float, *, is_laid_to_it: bool
) -> None:
    pace = opening(ThrottlePolicy(start_rate=20.0, ceiling=20.0))
    pace = replace(pace, growth=replace(pace.growth, since=100.0 - since_s, rose_at=100.0 - since_s), in_flight=9)
    pace = replace(pace, flight=replace(SERVED_WITH_9, latency=Latency(shortest_s=latency_s, recent_s=latency_s)))
    pace, ticket = started(pace, 100.0)
    after = next_pace(pace, Observation(ticket, THROTTLED, 100.0))
    assert after.flight.borne.is_found is is_laid_to_it


def refused_at_the_raise(probes: int) -> Pace:
    """Return the pace after a 429 that a raise of the bound caused, and after its canary."""
    pace, now = opening(ThrottlePolicy(start_rate=40.0, ceiling=40.0)), 100.0
    pace = replace(pace, growth=replace(pace.growth, probes=probes))
    pace = replace(pace, flight=replace(SERVED_WITH_9, borne=Borne(most=4, before=3)))
    tickets = []
    for _ in range(4):
        now = max(now, ready_at(pace) or 0.0)
        pace, ticket = started(pace, now)
        tickets.append(ticket)
    held = next_pace(pace, Observation(tickets[3], THROTTLED, now + 0.1))
    assert (held.phase, held.rate, in_flight_bound(held)) == (Phase.HELD, pace.rate, 3)
    canary_out, canary = started(held, ready_at(held) or 0.0)
    return next_pace(canary_out, Observation(canary, SERVED, canary.started_at + 0.1))


def test_a_raise_of_the_bound_is_taken_back_without_touching_the_rate() -> None:
    resumed = refused_at_the_raise(0)
    assert (resumed.rate, resumed.estimate, resumed.stage) == (40.0, None, Stage.SEEKING)
    assert not resumed.flight.borne.is_to_blame
    assert resumed.meter.emptied_at is not None
    assert in_flight_bound(resumed) == 3


def test_the_count_of_probes_restarts_after_a_refused_raise() -> None:
    resumed = refused_at_the_raise(2)
    assert resumed.growth.probes == 0
    assert resumed.growth.credit == pytest.approx(1.0 + CREDIT_PER_SERVED)


def test_bounds_stay_in_order_if_the_limit_in_flight_makes_a_remembered_rate_impossible() -> None:
    pace, now = opening(ThrottlePolicy(ceiling=5.0), Learned(50.0, 0.0)), 100.0
    pace = replace(pace, flight=replace(SERVED_WITH_9, most_served=1))
    tickets = []
    for _ in range(LEAST_BORNE):
        now = max(now, ready_at(pace) or 0.0)
        pace, ticket = started(pace, now)
        tickets.append(ticket)
    pace = next_pace(pace, Observation(tickets[-1], THROTTLED, now + 0.01))
    assert pace.flight.borne.is_found
    pace, canary = started(pace, ready_at(pace) or 0.0)
    estimate = next_pace(pace, Observation(canary, SERVED, canary.started_at + 0.1)).estimate
    assert estimate is not None
    assert estimate.low <= estimate.rate <= estimate.high


def refused_canary(in_flight: int) -> Pace:
    """Return the pace after a 429 with 10 in flight, and a canary refused with ``in_flight`` (itself too) in flight."""
    pace, now, tickets = replace(opening(ThrottlePolicy(start_rate=50.0)), flight=SERVED_WITH_9), 100.0, []
    for _ in range(10):
        now = max(now, ready_at(pace) or 0.0)
        pace, ticket = started(pace, now)
        tickets.append(ticket)
    pace = next_pace(pace, Observation(tickets.pop(), THROTTLED, now + 0.01))
    assert pace.flight.borne.most == 9
    for ticket in tickets[in_flight - 1 :]:
        pace = next_pace(pace, Observation(ticket, SERVED, now + 0.02))
    pace, canary = started(pace, ready_at(pace) or 0.0)
    assert canary.in_flight == in_flight
    return next_pace(pace, Observation(canary, THROTTLED, canary.started_at + 0.01))


def test_the_number_in_flight_is_acquitted_when_a_lone_canary_is_refused() -> None:
    assert refused_canary(1).flight.borne == Borne()


def test_a_canary_that_is_not_alone_does_not_acquit_the_number_in_flight() -> None:
    assert refused_canary(10).flight.borne.most == 9


# -- a server that slows down ------------------------------------------------------------------------------------------


SLOWED = Flight(latency=SLOW)


def trial_begun(subject: Flight = SLOWED, now: float = 100.0, in_flight: int = 1000) -> Flight:
    return flight.pressed(subject, 40.0, in_flight, now)


def test_a_higher_bound_is_tried_if_answers_are_slow_and_requests_wait() -> None:
    begun = trial_begun()
    assert begun.trial == Trial(20.0, 0.1, 5)
    assert begun.latency.shortest_s == pytest.approx(TRIAL_FACTOR * 0.1)
    assert trial_begun(in_flight=flight.unqueued(0.1, 40.0) - 1) == begun


@pytest.mark.parametrize(
    ("subject", "in_flight"),
    [
        (Flight(latency=SLOW), flight.unqueued(0.1, 40.0) - 2),
        (Flight(latency=replace(SLOW, recent_s=0.1)), 1000),
        (Flight(latency=replace(SLOW, throughputs=())), 1000),
        (Flight(latency=replace(SLOW, shortest_s=None)), 1000),
        (Flight(latency=SLOW, trial=Trial(1.0, 0.1, 4)), 1000),
        (Flight(latency=SLOW, tried_at=100.0 - FIRST_TRIAL_AFTER_S + 0.1), 1000),
    ],
    ids=["no requests wait", "not slow", "no throughput", "no latency", "during a trial", "just after a trial"],
)
def test_otherwise_no_higher_bound_is_tried(subject: Flight, in_flight: int) -> None:
    assert trial_begun(subject, in_flight=in_flight) == subject


def tried(throughput: float, *, cohorts: int = TRIAL_COHORTS) -> Flight:
    """Return the state of a trial after ``cohorts`` cohorts; the judged ones have ``throughput`` answers per second."""
    subject, now = trial_begun(), 100.0
    for number in range(COHORT * cohorts):
        cohort = subject.latency.next_cohort
        subject = flight.started(subject)
        is_judged = number >= COHORT * (TRIAL_COHORTS - JUDGED_COHORTS)
        now += 1.0 / throughput if is_judged else 0.5
        subject = flight.answered(subject, cohort, 0.4, 5, now)
    return subject


def test_a_trial_runs_for_several_cohorts() -> None:
    assert tried(40.0, cohorts=TRIAL_COHORTS - 1).trial is not None


def test_a_trial_with_more_throughput_is_kept_and_the_next_follows() -> None:
    kept = tried(20.0 * TRIAL_SUCCESS * 1.01)
    assert kept.trial is None
    assert kept.latency.shortest_s == pytest.approx(TRIAL_FACTOR * 0.1)
    assert (kept.tried_at > 101.0, kept.trial_after_s) == (True, 0.0)
    assert trial_begun(kept, now=kept.tried_at).latency.shortest_s == pytest.approx(TRIAL_FACTOR**2 * 0.1)


def test_a_trial_with_only_slower_answers_is_taken_back_and_the_next_waits() -> None:
    back = tried(20.0 * TRIAL_SUCCESS * 0.99)
    assert back.trial is None
    assert back.latency.shortest_s == pytest.approx(0.1)
    assert (back.tried_at > 101.0, back.trial_after_s) == (True, 2 * FIRST_TRIAL_AFTER_S)
    assert trial_begun(back, now=back.tried_at + back.trial_after_s - 0.1) == back
    assert trial_begun(back, now=back.tried_at + back.trial_after_s).trial is not None


@pytest.mark.parametrize(
    ("before_s", "after_s"),
    [(0.0, FIRST_TRIAL_AFTER_S), (20.0, 40.0), (0.9 * LONGEST_TRIAL_AFTER_S, LONGEST_TRIAL_AFTER_S)],
)
def test_the_wait_for_the_next_trial_doubles_within_limits(before_s: float, after_s: float) -> None:
    subject = replace(trial_begun(), trial=Trial(1e6, 0.1, 5 - TRIAL_COHORTS), trial_after_s=before_s)
    assert flight.answered(subject, 0, 0.4, 5, 100.0).trial_after_s == after_s


def test_a_trial_that_is_taken_back_keeps_a_shorter_measured_latency() -> None:
    subject = replace(trial_begun(), latency=replace(trial_begun().latency, throughputs=(1e6,)))
    subject = replace(subject, trial=Trial(1e6, 0.5, subject.latency.cohort.number - TRIAL_COHORTS))
    subject = replace(subject, latency=replace(subject.latency, recent_s=0.3, throughputs=(1.0,)))
    assert flight.answered(subject, 0, 0.3, 5, 100.0).latency.shortest_s == 0.3


def test_a_trial_that_a_hold_interrupts_is_taken_back() -> None:
    resumed = flight.resumed(trial_begun(), 101.0)
    assert resumed.trial is None
    assert resumed.latency.shortest_s == 0.1
