"""Conclusions from the requests served between two refusals, compared with values computed by hand.

Unless a test says otherwise, the server is a bucket of 50 requests a second and a burst of 100.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from orchestrator.pacing import capacity
from orchestrator.pacing.capacity import (
    AMBIGUOUS_SHARE,
    AWAY_SHARE,
    BELOW_SHARE,
    CHANGED_SHARE,
    CONTRADICTED_SHARE,
    LARGEST_RETREAT,
    LEAST_RATE,
    LONGEST_CYCLE_S,
    MEASURED_SPREAD,
    OVERSHOOT_SHARE,
    PASSED_SHARE,
    REFILLED,
    RISE_SEEN_S,
    SHORTEST_S,
    TRUSTED,
    CoursePoint,
    Estimate,
    Mark,
    Meter,
    Opening,
    burst_at,
    burst_of,
    estimated,
    excess,
    least_rate,
    trailing_rate,
)

STEPS: tuple[CoursePoint, ...] = ((0.0, 0), (1.0, 10), (2.0, 30))
UNTIL = Mark(4.0, 160)

CLIMB: tuple[CoursePoint, ...] = ((0.0, 0), (1.0, 10), (2.0, 30), (3.0, 70), (4.0, 150))
"""10, 20, 40, 80 and then 150 requests a second. At 4 s the bucket has 70 tokens left and loses 100 a second."""
EMPTY = Mark(4.7, 255)
"""So the bucket of ``CLIMB`` is empty 0.7 s later, after 105 more requests."""

OPENED = Estimate(LEAST_RATE, 90.0, 150.0, opening=Opening(CLIMB, EMPTY))
MEASURED = Estimate(49.5, 50.0, 50.5, burst=100.0, measured=50.0)
WINDOW = Estimate(9.0, 9.7, 10.0, burst=0.0, windowed=True, cycle_s=2.0)


def met_again(refusal: Mark, *, emptied: Mark = EMPTY, resumed_at: float = 5.3) -> Meter:
    """Return the meter of a second meeting with the limit, without a refused canary."""
    canary = Mark(resumed_at - 0.05, emptied.ordinal)
    return Meter(emptied=emptied, last_refused_at=emptied.at, canary=canary, resumed_at=resumed_at, refused=refusal)


def concluded(
    known: Estimate | None, meter: Meter, refused_rate: float, steps: tuple[CoursePoint, ...] = ()
) -> Estimate:
    refused_at = meter.refused.at if meter.refused else 0.0
    return estimated(known, meter, steps, Mark(max(refused_at, meter.refused_last_at) + 0.5, 0), refused_rate)


def in_order(estimate: Estimate) -> bool:
    return estimate.low <= estimate.rate <= estimate.high


@pytest.mark.parametrize(
    ("rate", "requests"),
    [
        (50.0, max(160 - 200, 150 - 150, 130 - 100)),
        (20.0, max(160 - 80, 150 - 60, 130 - 40)),
        (100.0, 0.0),
        (0.0, 160.0),
    ],
)
def test_the_excess_is_the_least_burst_that_allows_the_admissions(rate: float, requests: float) -> None:
    assert excess(STEPS, UNTIL, rate) == requests


def test_the_excess_ignores_later_admissions() -> None:
    assert excess((*STEPS, (5.0, 0)), UNTIL, 50.0) == 30.0
    assert excess((), UNTIL, 50.0) == 0.0


def test_the_excess_at_the_first_refusal_is_the_burst() -> None:
    assert excess(CLIMB, EMPTY, 50.0) == pytest.approx(100.0)


@pytest.mark.parametrize(
    ("burst", "burst_s", "rate"),
    [
        (0.0, 0.0, max(160 / 4, 150 / 3, 130 / 2)),
        (100.0, 0.0, max(60 / 4, 50 / 3, 30 / 2)),
        (0.0, 1.0, max(160 / 5, 150 / 4, 130 / 3)),
        (1000.0, 0.0, LEAST_RATE),
    ],
)
def test_the_least_rate_is_the_lowest_rate_of_a_bucket_that_allows_the_admissions(
    burst: float, burst_s: float, rate: float
) -> None:
    assert least_rate(STEPS, UNTIL, burst=burst, burst_s=burst_s) == pytest.approx(rate)


def test_a_step_too_recent_to_show_a_rise_proves_nothing() -> None:
    near, far = UNTIL.at - 0.9 * RISE_SEEN_S, UNTIL.at - RISE_SEEN_S
    assert least_rate(((near, 0),), UNTIL) == LEAST_RATE
    assert least_rate(((far, 0),), UNTIL) == pytest.approx(160 / RISE_SEEN_S)


@pytest.mark.parametrize(
    ("seconds", "rate"),
    [(1.0, 130 / 2), (2.0, 130 / 2), (2.5, 140 / 2.5), (4.0, 160 / 4), (4.5, None)],
)
def test_the_trailing_rate_interpolates_between_steps(seconds: float, rate: float | None) -> None:
    assert trailing_rate(STEPS, UNTIL, seconds) == (rate if rate is None else pytest.approx(rate))


def test_an_unknown_burst_is_solved_from_the_opening() -> None:
    assert burst_at(OPENED, 50.0) == pytest.approx(100.0)
    assert burst_at(OPENED, 70.0) == pytest.approx(185 - 1.7 * 70)
    assert burst_of(replace(OPENED, rate=50.0)) == pytest.approx(100.0)
    assert burst_of(MEASURED) == 100.0
    assert burst_of(Estimate(1.0, 1.0, 1.0)) == 0.0


def test_the_earliest_start_of_a_group_of_refusals_counts() -> None:
    first = capacity.refused(capacity.begun(100.0), Mark(103.0, 7))
    assert (first.refused, first.refused_last_at) == (Mark(103.0, 7), 103.0)
    assert capacity.refused(first, Mark(102.9, 6)).refused == Mark(102.9, 6)
    assert capacity.refused(first, Mark(102.9, 6)).refused_last_at == 103.0
    assert capacity.refused(first, Mark(103.1, 8)).refused == Mark(103.0, 7)
    assert capacity.refused(first, Mark(99.0, 0)).refused == Mark(103.0, 7)


def test_a_refusal_of_a_request_from_before_the_counting_is_ignored() -> None:
    assert capacity.refused(capacity.begun(100.0), Mark(99.0, 7)) == capacity.begun(100.0)


def test_a_meeting_that_has_ended_becomes_the_previous_one() -> None:
    meter = capacity.canary_refused(capacity.refused(capacity.begun(100.0), Mark(103.0, 7)), 103.6)
    assert (meter.refused_canaries, meter.refused_last_at) == (1, 103.6)
    closed = capacity.closed(meter, Mark(105.0, 7), 105.1)
    assert closed == Meter(emptied=Mark(103.0, 7), last_refused_at=103.6, canary=Mark(105.0, 7), resumed_at=105.1)


def test_nothing_is_learned_without_a_refusal() -> None:
    with pytest.raises(ValueError, match="refusal"):
        estimated(None, capacity.begun(0.0), (), Mark(1.0, 0), 10.0)


def test_the_first_refusal_gives_two_bounds_a_guess_between_them_and_the_opening() -> None:
    usual = 185 / (1.7 + 1.0)
    found = concluded(None, capacity.refused(capacity.begun(0.0), EMPTY), 150.0, CLIMB)
    assert (found.low, found.high) == (LEAST_RATE, 150.0)
    assert found.rate == pytest.approx(math.sqrt(usual * OVERSHOOT_SHARE * 150.0))
    assert found.opening == Opening(CLIMB, EMPTY)
    assert found.burst is None
    assert not found.windowed


def test_the_first_refusal_of_a_steady_rate_gives_at_least_the_served_rate() -> None:
    steady: tuple[CoursePoint, ...] = ((0.0, 0),)
    found = concluded(None, capacity.refused(capacity.begun(0.0), Mark(99.0, 4000)), 40.0, steady)
    assert found.rate == pytest.approx(4000 / 100)


def test_between_two_refusals_a_bucket_serves_its_refill() -> None:
    found = concluded(OPENED, met_again(Mark(6.7, 355)), 90.0, ((5.3, 257),))
    assert (found.low, found.rate, found.high) == pytest.approx((99 / 2, 100 / 2, 101 / 2))
    assert found.burst == pytest.approx(100.0)
    assert (found.measured, found.opening) == (50.0, None)
    assert found.agrees


@pytest.mark.parametrize(("served", "retreat"), [(40, LARGEST_RETREAT), (1000, 2 / 1000)])
def test_the_new_rate_is_below_the_refused_rate(served: int, retreat: float) -> None:
    resumed_at, seconds = EMPTY.at + 0.6, served / 50
    refusal = Mark(EMPTY.at + seconds, EMPTY.ordinal + served)
    found = concluded(MEASURED, met_again(refusal, resumed_at=resumed_at), 50.0)
    assert found.rate == pytest.approx(max(MEASURED.low, 50.0 * (1 - retreat)))


def test_a_hold_longer_than_the_fill_time_of_the_bucket_loses_the_overflow() -> None:
    refusal = Mark(EMPTY.at + 10.0, EMPTY.ordinal + 300)
    found = concluded(MEASURED, met_again(refusal, resumed_at=EMPTY.at + 6.0), 75.0)
    assert found.rate == pytest.approx((300 - 101) / 4, abs=0.3)
    assert found.burst == 100.0
    assert found.agrees


def test_after_a_long_hold_an_unknown_burst_leaves_bounds() -> None:
    refusal = Mark(EMPTY.at + 10.0, EMPTY.ordinal + 300)
    found = concluded(OPENED, met_again(refusal, resumed_at=EMPTY.at + 6.0), 75.0)
    plain, solved = 30.0, (300 - 185 - 1) / (4 - 1.7)
    assert solved > AMBIGUOUS_SHARE * plain
    assert found.low == pytest.approx(plain)
    assert found.high == pytest.approx(solved, rel=0.03)
    assert found.rate == pytest.approx(plain ** (2 / 3) * found.high ** (1 / 3))
    assert found.opening == OPENED.opening
    assert found.burst is None


def test_few_requests_between_two_refusals_leave_bounds() -> None:
    refusal = Mark(EMPTY.at + 1.0, EMPTY.ordinal + TRUSTED)
    found = concluded(OPENED, met_again(refusal, resumed_at=EMPTY.at + 0.6), 90.0)
    assert (found.low, found.high) == pytest.approx((TRUSTED / 1.0, TRUSTED / 0.4))
    assert found.rate == pytest.approx(TRUSTED * (1 / 0.4) ** (1 / 3))
    assert found.opening == OPENED.opening


def test_few_requests_after_a_hold_that_lost_refill_leave_bounds() -> None:
    known = replace(MEASURED, burst=2.0)
    refusal = Mark(EMPTY.at + 2.0, EMPTY.ordinal + TRUSTED)
    found = concluded(known, met_again(refusal, resumed_at=EMPTY.at + 1.0), 20.0)
    plain, below = TRUSTED / 2.0, 20.0 * (1 - LARGEST_RETREAT)
    assert (found.low, found.rate, found.high) == pytest.approx((plain, math.sqrt(plain * below), below))
    assert found.burst == 2.0
    assert found.measured == pytest.approx(below)


def test_few_requests_after_a_hold_that_lost_no_refill_are_a_measurement() -> None:
    known = replace(MEASURED, burst=25.0)
    refusal = Mark(EMPTY.at + 2.0, EMPTY.ordinal + TRUSTED)
    found = concluded(known, met_again(refusal, resumed_at=EMPTY.at + 1.0), 20.0)
    assert (found.low, found.rate, found.high) == pytest.approx((4 / 2, 5 / 2, 6 / 2))


def test_a_limit_that_rose_fourfold_is_found_by_the_served_requests() -> None:
    steps: tuple[CoursePoint, ...] = ((100.0, 1), (108.0, 401), (110.0, 521), (111.0, 641))
    refusal = Mark(112.5, 971)
    least = max((970 - 100) / 12.5, (570 - 100) / 4.5, (450 - 100) / 2.5, (330 - 100) / 1.5)
    assert least > CHANGED_SHARE * 972 / 13.5
    found = concluded(MEASURED, met_again(refusal, emptied=Mark(99.0, 0), resumed_at=100.0), 220.0, steps)
    assert (found.low, found.rate, found.high) == pytest.approx((least, 1.1 * least, 220.0))
    assert not found.agrees


def test_a_limit_that_fell_to_a_quarter_is_the_served_rate_even_outside_the_bounds() -> None:
    refusal = Mark(EMPTY.at + 2.0, EMPTY.ordinal + 25)
    found = concluded(MEASURED, met_again(refusal), 49.5)
    assert CONTRADICTED_SHARE * MEASURED.measured > 49.5
    assert (found.low, found.rate, found.high) == pytest.approx((24 / 2, 25 / 2, 26 / 2))
    assert found.measured == 12.5
    assert not found.agrees


def test_a_refusal_below_the_measured_rate_is_not_explained_by_an_overflow() -> None:
    refusal = Mark(EMPTY.at + 10.0, EMPTY.ordinal + 300)
    found = concluded(MEASURED, met_again(refusal, resumed_at=EMPTY.at + 6.0), 50.0)
    assert found.rate == pytest.approx(300 / 10)


def test_a_late_refusal_with_an_earlier_start_does_not_mean_a_window() -> None:
    meter = capacity.refused(capacity.refused(met_again(Mark(6.7, 355)), Mark(6.0, 320)), Mark(6.5, 345))
    assert meter.refused == Mark(6.0, 320)
    assert not concluded(replace(OPENED, high=89.0), replace(meter, refused_last_at=6.7), 90.0).windowed


def test_a_canary_refused_soon_after_a_remembered_burst_is_judged_by_the_served_rate() -> None:
    meter = capacity.refused(capacity.begun(0.0), Mark(2.0, 200))
    steps: tuple[CoursePoint, ...] = ((0.0, 0),)
    soon, late = (REFILLED / (200 / 3.0) * share for share in (0.99, 1.01))
    for later_s, windowed in ((soon, False), (late, True)):
        refused = capacity.canary_refused(meter, 2.0 + later_s)
        assert estimated(REMEMBERED, refused, steps, Mark(2.5, 200), 60.0).windowed is windowed


def test_a_refusal_below_the_average_served_rate_leaves_bounds_in_order() -> None:
    refusal = Mark(EMPTY.at + 1.0, EMPTY.ordinal + TRUSTED)
    found = concluded(OPENED, met_again(refusal, resumed_at=EMPTY.at + 0.6), 2.0)
    assert found.low == found.rate == found.high == 2.0


def test_a_measurement_within_the_bounds_narrows_them() -> None:
    wide = replace(MEASURED, low=49.9, high=60.0)
    found = concluded(wide, met_again(Mark(EMPTY.at + 2.0, EMPTY.ordinal + 100)), 90.0)
    assert (found.low, found.high) == pytest.approx((49.9, 50.5))
    assert found.agrees


def test_a_measurement_is_kept_within_the_earlier_bounds() -> None:
    known = replace(MEASURED, low=50.2, high=60.0)
    found = concluded(known, met_again(Mark(EMPTY.at + 2.0, EMPTY.ordinal + 100)), 90.0)
    assert (found.low, found.rate) == (50.2, 50.2)


def test_the_possible_times_of_the_refill_bound_a_window() -> None:
    meter = capacity.refused(capacity.begun(0.0), Mark(1.2, 20))
    meter = capacity.canary_refused(meter, 1.7)
    found = estimated(None, meter, STEPS, Mark(2.75, 20), 40.0)
    low, high = 20 / 2.75, 21 / 1.7
    assert (found.low, found.high) == pytest.approx((low, high))
    assert in_order(found)
    assert found.windowed
    assert (found.cycle_s, found.burst, found.measured) == (2.75, 0.0, 0.0)


def test_the_refill_of_a_window_comes_after_the_last_refusal() -> None:
    meter = Meter(None, last_refused_at=1.5, canary=Mark(2.0, 20), resumed_at=2.1, refused=Mark(3.0, 40))
    meter = capacity.canary_refused(meter, 3.5)
    low, high = 20 / (4.5 - 1.5), 21 / (3.5 - 2.0)
    for known in (None, replace(MEASURED, high=99.0)):
        first = estimated(known, meter, STEPS, Mark(4.5, 40), 40.0)
        assert first.windowed
        assert (first.low, first.high) == pytest.approx((low, high))
    found = estimated(WINDOW, meter, (), Mark(4.5, 40), 40.0)
    assert low < WINDOW.low
    assert found.low == WINDOW.low
    assert found.high == WINDOW.high < high
    assert found.cycle_s == pytest.approx(4.5 - 2.0)


@pytest.mark.parametrize(
    ("known", "emptied", "refilled_s"),
    [
        (None, None, REFILLED / (185 / 2.7)),
        (OPENED, Mark(2.7, 55), REFILLED / (200 / 2.0)),
        (replace(MEASURED, high=99.0), EMPTY, REFILLED / 50.0),
    ],
    ids=["by the least rate of the opening", "by the rate served since the last meeting", "by the measured rate"],
)
def test_a_canary_refused_before_a_bucket_could_refill_does_not_mean_a_window(
    known: Estimate | None, emptied: Mark | None, refilled_s: float
) -> None:
    begun = replace(capacity.begun(0.0), emptied=emptied)
    for later_s, windowed in ((0.99 * refilled_s, False), (1.01 * refilled_s, True)):
        meter = capacity.canary_refused(capacity.refused(begun, EMPTY), EMPTY.at + later_s)
        assert estimated(known, meter, CLIMB, Mark(EMPTY.at + 9.0, 255), 150.0).windowed is windowed


def test_the_lower_bound_of_a_window_is_below_its_refused_rate() -> None:
    meter = Meter(None, 10.0, Mark(10.0, 0), 10.1, refused=Mark(20.0, 120))
    found = concluded(replace(WINDOW, low=9.9), meter, 10.0, ((10.1, 1), (16.0, 64), (19.0, 106)))
    assert found.agrees
    assert found.low == pytest.approx(BELOW_SHARE * 10.0)


def test_a_window_with_a_known_cycle_gets_the_rate_of_its_last_cycle() -> None:
    meter = Meter(None, 10.0, Mark(10.0, 0), 10.1, refused=Mark(20.0, 120))
    found = concluded(WINDOW, meter, 15.0, ((10.1, 1), (16.0, 64), (19.0, 112)))
    passed = (120 - (64 + 48 * 2 / 3)) / 2.0
    assert passed == 12.0
    assert (found.low, found.rate, found.high) == pytest.approx((BELOW_SHARE * 12, PASSED_SHARE * 12, 12.0))
    assert found.windowed
    assert (found.cycle_s, found.measured, found.burst) == (WINDOW.cycle_s, found.rate, 0.0)


def test_the_rate_of_a_slow_window_is_measured_over_more_than_one_cycle() -> None:
    meter = Meter(None, 0.0, Mark(0.0, 0), 0.1, refused=Mark(100.0, 40))
    found = concluded(WINDOW, meter, 0.5, ((0.1, 1), (80.0, 31), (98.0, 40)))
    seconds = TRUSTED / 0.5
    assert found.high == pytest.approx((40 - (31 + 9 * (100 - seconds - 80) / 18)) / seconds)


def test_a_known_cycle_is_kept_if_the_course_is_shorter() -> None:
    meter = Meter(None, last_refused_at=1.5, canary=Mark(2.0, 20), resumed_at=2.1, refused=Mark(3.0, 40))
    found = estimated(replace(WINDOW, cycle_s=9.0), meter, ((2.1, 21),), Mark(4.5, 40), 40.0)
    assert found.cycle_s == 9.0


def test_the_rate_of_a_window_is_at_most_the_refused_rate() -> None:
    meter = Meter(None, 10.0, Mark(10.0, 0), 10.1, refused=Mark(20.0, 120))
    found = concluded(replace(WINDOW, high=20.0), meter, 11.0, ((10.1, 1), (16.0, 64), (19.0, 112)))
    assert (found.rate, found.high) == pytest.approx((PASSED_SHARE * 11.0, 11.0))


def test_a_cycle_has_an_upper_bound() -> None:
    meter = capacity.canary_refused(capacity.refused(capacity.begun(0.0), Mark(1.2, 20)), 1.7)
    assert estimated(None, meter, STEPS, Mark(1000.0, 20), 40.0).cycle_s == LONGEST_CYCLE_S


AWAY = capacity.canary_refused(met_again(Mark(7.3, 355)), 7.9)
"""After the canary at 5.25 s, 100 requests were served; one was refused at 7.3 s, and a canary at 7.9 s."""


def test_a_measured_limit_stays_after_canaries_are_refused_for_long() -> None:
    known = replace(MEASURED, agrees=True)
    for canary_at in (60.0, 5.25 + 1.01 * 100 / (AWAY_SHARE * 50)):
        assert estimated(known, AWAY, (), Mark(canary_at, 355), 49.5) == replace(known, agrees=False)


@pytest.mark.parametrize(
    ("known", "canary_at"),
    [
        (replace(MEASURED, opening=OPENED.opening), 60.0),
        (replace(MEASURED, high=MEASURED_SPREAD * 49.5), 60.0),
        (replace(MEASURED, windowed=True), 60.0),
        (MEASURED, 5.25 + 0.99 * 100 / (AWAY_SHARE * 50)),
    ],
    ids=["unknown burst", "bounds far apart", "a window", "a short time"],
)
def test_without_a_sure_measurement_a_refused_canary_means_a_window(known: Estimate, canary_at: float) -> None:
    assert estimated(known, AWAY, (), Mark(canary_at, 355), 49.5).windowed


REMEMBERED = Estimate(48.5, 50.0, 51.5, burst=100.0)


@pytest.mark.parametrize(
    ("refusal", "burst"),
    [(Mark(0.2, 80), 80 - 0.2 * 50), (Mark(1.0, 120), 120 - 50.0), (Mark(0.01, 100 + TRUSTED), 100.0)],
    ids=["before it was spent", "after some refill", "just after it was spent"],
)
def test_a_refusal_near_the_end_of_a_remembered_burst_lowers_the_burst_and_the_rate(
    refusal: Mark, burst: float
) -> None:
    meter = capacity.refused(capacity.begun(0.0), refusal)
    found = concluded(REMEMBERED, meter, 49.5, ((0.0, 0),))
    assert found.burst == pytest.approx(burst)
    assert found.rate < REMEMBERED.rate
    assert found.high == REMEMBERED.rate
    assert concluded(REMEMBERED, meter, 60.0, ((0.0, 0),)).high == REMEMBERED.high


def test_a_later_refusal_keeps_the_remembered_burst() -> None:
    meter = capacity.refused(capacity.begun(0.0), Mark(10.0, 601))
    found = concluded(REMEMBERED, meter, 60.0, ((0.0, 0),))
    assert found.rate == pytest.approx((601 - 100) / 10)
    assert (found.low, found.high, found.burst) == (48.5, 51.5, 100.0)
    more = concluded(REMEMBERED, capacity.refused(capacity.begun(0.0), Mark(10.0, 640)), 40.0, ((0.0, 0),))
    assert 48.5 < more.low < more.rate == more.high == 51.5


@pytest.mark.parametrize("lost", [0, 1, 20])
@pytest.mark.parametrize("seconds", [0.0, SHORTEST_S / 10, 1.0, 1e5])
@pytest.mark.parametrize("held_s", [0.0, 0.6, 1e4])
@pytest.mark.parametrize("known", [OPENED, MEASURED, replace(MEASURED, burst=0.0)])
def test_bounds_stay_in_order_if_almost_nothing_was_served(
    known: Estimate, held_s: float, seconds: float, lost: int
) -> None:
    resumed_at = EMPTY.at + held_s
    found = concluded(known, met_again(Mark(resumed_at + seconds, 255 - lost), resumed_at=resumed_at), 50.0)
    assert found.rate >= LEAST_RATE
    assert in_order(found)


def test_an_unused_window_keeps_its_bounds_in_order() -> None:
    meter = Meter(None, 10.0, Mark(10.0, 0), 10.1, refused=Mark(20.0, 1))
    found = concluded(WINDOW, meter, 9.6, ((10.1, 1),))
    assert found.rate >= LEAST_RATE
    assert in_order(found)
