"""A limit that counts in windows: when it opens, when to try, and what each answer teaches."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from orchestrator.pacing import window as windows
from orchestrator.pacing.history import Starts
from orchestrator.pacing.window import (
    CERTAIN_SHARE,
    LEAST_PERIOD_S,
    LEAST_REQUESTS,
    REFUSAL_S,
    Window,
)

SLIDING = Window(3, 9.0, 11.0, since_low=100.0, since_high=100.0)
"""3 requests in 9 to 11 s. It counts as sliding until it opens earlier than a sliding window could."""

FIXED = Window(3, 9.0, 11.0, since_low=99.0, since_high=100.0, fixed=True)
"""The same number, in periods that follow each other; the present one began between 99 and 100."""

REMEMBERED = replace(windows.begun(windows.remembered(3, 9.0, 11.0, fixed=None), 100.0), extra=0)

FULL = Starts([100.0, 101.0, 102.0], 3)


def starts(*instants: float) -> Starts:
    return Starts(sorted(instants), len(instants))


# -- when a window opens -----------------------------------------------------------------------------------------------


def test_the_rate_that_a_window_sustains_is_the_one_of_its_longest_period() -> None:
    assert SLIDING.rate == pytest.approx(3 / 11)


@pytest.mark.parametrize("window", [SLIDING, FIXED, REMEMBERED])
def test_a_window_with_room_in_it_is_open(window: Window) -> None:
    assert windows.opens(window, starts()) is None
    assert windows.opens(window, starts(100.0, 101.0)) is None


def test_a_sliding_window_opens_a_period_after_the_first_of_its_requests() -> None:
    assert windows.opens(SLIDING, FULL) == (109.0, 111.0)
    assert windows.opens(SLIDING, FULL.added(103.0)) == (110.0, 112.0)


def test_a_fixed_window_opens_a_period_after_its_beginning() -> None:
    assert windows.opens(FIXED, FULL) == (99.0 + 9.0, 100.0 + 11.0)
    assert windows.opens(FIXED, FULL.added(103.0)) == (99.0 + 9.0, 100.0 + 11.0)


def test_requests_of_an_earlier_period_do_not_fill_a_fixed_window() -> None:
    assert windows.opens(FIXED, starts(99.9, 101.0, 102.0)) is None
    assert windows.opens(SLIDING, starts(99.9, 101.0, 102.0)) is not None


def test_a_window_whose_phase_is_unknown_may_open_immediately() -> None:
    assert windows.opens(REMEMBERED, FULL) == (100.0, 111.0)


def test_requests_tried_beyond_the_known_number_keep_a_window_open() -> None:
    assert windows.opens(replace(SLIDING, extra=1), FULL) is None
    assert windows.opens(replace(SLIDING, extra=1), FULL.added(103.0)) == (109.0, 111.0)


def test_only_starts_before_an_instant_count() -> None:
    assert windows.opens(SLIDING, FULL, until=102.0) is None
    assert windows.opens(SLIDING, FULL, until=102.1) == (109.0, 111.0)


# -- remembered, begun, advanced ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fixed", "cycles"), [(True, 0), (None, 0), (False, 1)])
def test_the_phase_of_a_remembered_window_is_unknown_unless_it_slides(fixed: bool | None, cycles: int) -> None:  # noqa: FBT001 - a table
    window = windows.remembered(3, 9.0, 11.0, fixed=fixed)
    assert (window.fixed, window.cycles) == (fixed, cycles)
    begun = windows.begun(window, 100.0)
    assert (begun.since_low, begun.since_high) == (100.0 - 11.0, 100.0)
    assert (begun.requests, begun.low_s, begun.high_s, begun.extra) == (3, 9.0, 11.0, 1)


def test_a_sliding_window_sees_another_period_when_one_has_passed() -> None:
    assert windows.advanced(SLIDING, 110.9) == SLIDING
    assert windows.advanced(SLIDING, 111.0) == replace(SLIDING, since_low=111.0, since_high=111.0, cycles=2)


def test_the_periods_of_fixed_and_remembered_windows_are_counted_by_canaries_only() -> None:
    assert windows.advanced(FIXED, 500.0) == FIXED
    assert windows.advanced(REMEMBERED, 500.0) == REMEMBERED


# -- how many it admitted ----------------------------------------------------------------------------------------------


def test_a_fixed_window_has_admitted_what_started_since_its_period_began() -> None:
    assert windows.admitted(FIXED, starts(99.9, 100.0, 101.0, 108.0), 105.0, 108.0) == 2
    assert windows.admitted(REMEMBERED, starts(99.9, 100.0, 101.0), 105.0, 109.0) == 2


def test_a_sliding_window_has_admitted_what_started_in_the_period_before_the_refusal() -> None:
    assert windows.admitted(SLIDING, starts(95.9, 96.0, 100.0, 106.0), 105.0, 107.0) == 3


# -- when to try -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opening", "now", "is_waited_out"),
    [
        ((109.0, 109.0 + 2 * REFUSAL_S), 100.0, True),
        ((109.0, 109.1 + 2 * REFUSAL_S), 100.0, False),
        ((109.0, 120.0), 120.0 - REFUSAL_S, True),
        ((109.0, 120.0), 119.9 - REFUSAL_S, False),
    ],
    ids=["known well enough", "not known well enough", "soon certain", "not soon certain"],
)
def test_a_sliding_window_is_waited_out_if_waiting_costs_less_than_a_429(
    opening: tuple[float, float], now: float, *, is_waited_out: bool
) -> None:
    assert windows.is_waited_out(SLIDING, opening, now) is is_waited_out


def test_a_sliding_window_with_a_long_period_is_waited_out_if_a_small_share_of_it_is_unknown() -> None:
    window = replace(SLIDING, low_s=960.0, high_s=1000.0)
    assert windows.is_waited_out(window, (500.0, 500.0 + CERTAIN_SHARE * 1000.0), 100.0)
    assert not windows.is_waited_out(window, (500.0, 501.0 + CERTAIN_SHARE * 1000.0), 100.0)


def test_a_fixed_window_is_tried_early_even_if_little_is_unknown() -> None:
    assert not windows.is_waited_out(FIXED, (109.0, 110.9), 100.0)
    assert windows.is_waited_out(FIXED, (109.0, 110.9), 109.9)


def test_a_429_is_worth_less_the_more_periods_it_can_help() -> None:
    assert [windows.refusal_s(replace(FIXED, cycles=cycles)) for cycles in (0, 1, 4)] == [
        REFUSAL_S,
        REFUSAL_S,
        REFUSAL_S / 4,
    ]


def test_the_next_try_is_between_the_earliest_and_the_latest_opening() -> None:
    opening = (109.0, 141.0)
    assert windows.try_at(FIXED, opening, 100.0) == pytest.approx(109.0 + math.sqrt(2 * REFUSAL_S * 32.0))
    assert windows.try_at(FIXED, opening, 123.0) == pytest.approx(123.0 + math.sqrt(2 * REFUSAL_S * 18.0))
    assert windows.try_at(replace(FIXED, cycles=4), opening, 100.0) == pytest.approx(109.0 + 4.0)


def test_a_window_that_is_waited_out_is_tried_at_its_latest_opening() -> None:
    assert windows.try_at(SLIDING, (109.0, 111.0), 100.0) == 111.0
    assert windows.try_at(SLIDING, (109.0, 111.0), 115.0) == 115.0


def test_tries_come_to_an_end_at_the_latest_opening() -> None:
    now, tries = 100.0, 0
    while now < 141.0:
        now, tries = windows.try_at(FIXED, (109.0, 141.0), now), tries + 1
        assert tries < 20
    assert now == 141.0
    assert tries > 2


@pytest.mark.parametrize(("shut_s", "wait_s"), [(-1.0, 0.0), (0.0, 0.0), (8.0, 4.0), (50.0, 10.0)])
def test_the_longer_a_limit_is_shut_the_longer_is_the_next_wait(shut_s: float, wait_s: float) -> None:
    assert windows.search_s(shut_s) == pytest.approx(wait_s * math.sqrt(REFUSAL_S))


# -- what a refused canary teaches -------------------------------------------------------------------------------------


def test_a_refused_canary_shows_that_the_period_of_a_sliding_window_is_longer_than_the_age_of_its_first_request() -> (
    None
):
    assert windows.refused(SLIDING, FULL, 110.0) == replace(SLIDING, low_s=10.0)
    assert windows.refused(SLIDING, FULL, 108.0) == SLIDING


def test_a_refused_canary_shows_that_the_period_of_a_fixed_window_is_longer_than_its_age() -> None:
    assert windows.refused(FIXED, FULL, 110.0) == replace(FIXED, low_s=10.0)
    assert windows.refused(FIXED, FULL, 108.5) == FIXED


def test_a_window_that_should_have_opened_has_a_longer_period_and_twice_the_doubt() -> None:
    late = windows.refused(replace(SLIDING, cycles=3), FULL, 112.0)
    assert (late.low_s, late.high_s) == (12.0, 12.0 + 2 * 2.0)
    assert late.fixed is None
    again = windows.refused(late, FULL, 117.0)
    assert (again.low_s, again.high_s) == (17.0, 17.0 + 2 * 4.0)


@pytest.mark.parametrize(
    ("window", "refused_at", "is_later"),
    [
        (Window(3, 10.0, 12.0, 0.0, 0.0), 112.5, True),
        (Window(3, 10.0, 12.0, 0.0, 0.0), 111.0, True),
        (Window(3, 10.0, 12.0, 0.0, 0.0), 109.0, False),
        (Window(3, 10.0, 12.0, 0.0, 0.0), 116.0, False),
        (Window(4, 10.0, 12.0, 0.0, 0.0), 112.5, False),
    ],
    ids=["after-it-should-have-opened", "when-it-may-have-opened", "before-that", "much-later", "with-room"],
)
def test_the_first_request_after_a_full_window_shows_that_it_opens_later(
    window: Window, refused_at: float, *, is_later: bool
) -> None:
    assert windows.opens_later(window, starts(100.0, 100.1, 100.2), refused_at) is is_later


def test_a_second_request_after_the_opening_does_not_show_that_it_opens_later() -> None:
    assert not windows.opens_later(Window(3, 10.0, 12.0, 0.0, 0.0), starts(100.0, 100.1, 100.2, 110.5), 112.5)


def test_the_doubt_about_a_period_that_seemed_exact_begins_with_a_small_share_of_it() -> None:
    exact = replace(SLIDING, low_s=10.0, high_s=10.0, cycles=3)
    late = windows.refused(exact, FULL, 112.0)
    assert (late.low_s, late.high_s) == pytest.approx((12.0, 12.0 + 2 * CERTAIN_SHARE * 12.0))


def test_a_window_that_opens_late_in_its_first_period_is_fixed() -> None:
    assert windows.refused(SLIDING, FULL, 112.0).fixed is True


def test_a_refused_canary_ends_the_trial_of_more_requests() -> None:
    tried = replace(SLIDING, extra=1)
    assert windows.refused(tried, FULL, 103.0).extra == 0
    assert windows.refused(tried, FULL.added(103.0), 108.0).extra == 0


def test_an_early_refusal_teaches_nothing_about_a_window_whose_phase_is_unknown() -> None:
    assert windows.refused(REMEMBERED, FULL, 110.0) == REMEMBERED
    late = windows.refused(REMEMBERED, FULL, 112.0)
    assert (late.low_s, late.high_s) == (12.0, 16.0)


# -- what a served canary teaches --------------------------------------------------------------------------------------


def test_a_sliding_window_that_opened_has_at_most_the_period_that_has_passed() -> None:
    after = windows.served(SLIDING, FULL, 110.0, 108.0)
    assert (after.low_s, after.high_s, after.fixed) == (9.0, 10.0, None)
    assert (after.since_low, after.since_high, after.cycles) == (110.0, 110.0, 2)


def test_a_period_is_never_shorter_than_its_lower_bound() -> None:
    after = windows.served(SLIDING, FULL, 108.9, 108.0)
    assert (after.low_s, after.high_s, after.fixed) == (9.0, 9.0, None)


def test_a_window_that_opens_earlier_than_a_sliding_one_could_is_fixed() -> None:
    after = windows.served(SLIDING, FULL, 106.0, 105.0)
    assert after.fixed is True
    assert (after.since_low, after.since_high) == (105.0, 106.0)
    assert (after.low_s, after.high_s) == (9.0, 11.0)


def test_the_next_period_of_a_fixed_window_began_after_the_last_moment_when_it_was_shut() -> None:
    after = windows.served(FIXED, FULL, 110.0, 109.5)
    assert (after.since_low, after.since_high, after.cycles, after.fixed) == (109.5, 110.0, 2, True)
    assert (after.low_s, after.high_s) == (9.0, 11.0)


def test_the_next_period_of_a_fixed_window_began_no_earlier_than_the_last_one_can_have_ended() -> None:
    after = windows.served(FIXED, FULL, 109.5, 102.0)
    assert (after.since_low, after.since_high) == (108.0, 109.5)
    assert after.high_s == pytest.approx(109.5 - 99.0)


def test_a_remembered_window_that_opens_before_a_period_has_passed_is_fixed() -> None:
    after = windows.served(REMEMBERED, FULL, 104.0, 103.0)
    assert (after.fixed, after.since_low, after.since_high) == (True, 103.0, 104.0)
    assert (after.low_s, after.high_s) == (9.0, 11.0)


def test_a_remembered_window_that_opens_after_a_period_may_be_of_either_kind() -> None:
    after = windows.served(REMEMBERED, FULL, 110.0, 109.5)
    assert (after.fixed, after.since_low, after.since_high) == (None, 110.0, 110.0)


def test_a_canary_soon_after_the_last_opening_is_in_the_same_period() -> None:
    sliding = windows.served(replace(SLIDING, since_high=106.0, extra=1), FULL.added(103.0), 109.0, 108.0)
    assert (sliding.cycles, sliding.since_high, sliding.extra, sliding.requests) == (1, 106.0, 1, 4)


def test_more_requests_are_tried_in_ever_rarer_periods_and_doubled_while_they_are_admitted() -> None:
    tried = [windows.served(replace(FIXED, cycles=cycles), FULL, 110.0, 109.0).extra for cycles in range(1, 18)]
    assert [cycles for cycles, extra in enumerate(tried, 1) if extra] == [2, 4, 8, 16]
    assert set(tried) == {0, 1}
    more = windows.served(replace(FIXED, extra=2), FULL.added(103.0).added(104.0), 110.0, 109.0)
    assert (more.requests, more.extra) == (5, 4)


# -- which window explains everything ----------------------------------------------------------------------------------


def seen(requests: int, period_s: float, periods: int, *, sliding: bool) -> tuple[list[float], list[float]]:
    """Return the starts and the refusals of a client that uses up each period, and is refused soon, half-way and late.

    In each period it takes a little longer, so that a sliding window opens for one request after the other.
    """
    admitted, refused, at = list[float](), list[float](), 0.0
    for nth in range(periods):
        for _ in range(requests):
            admitted.append(at)
            at += (nth + 1) * period_s / (20 * requests)
        opens_at = admitted[-requests] + period_s if sliding else (nth + 1) * period_s
        refused += [at, (at + opens_at) / 2, opens_at - 0.02 * period_s]
        at = opens_at + 0.001 * period_s
    return admitted, refused


@pytest.mark.parametrize("requests", [3, 10, 250])
@pytest.mark.parametrize("period_s", [5.0, 60.0])
@pytest.mark.parametrize("sliding", [False, True], ids=["fixed", "sliding"])
def test_a_window_is_found_with_its_exact_number_and_close_bounds_of_its_period(
    requests: int, period_s: float, *, sliding: bool
) -> None:
    starts_seen, refusals = seen(requests, period_s, 3, sliding=sliding)
    window = windows.explaining(starts_seen, refusals, 0.0, 0.0)
    assert window is not None
    assert window.requests == requests
    assert window.low_s <= period_s <= window.high_s + 1e-9
    assert window.high_s - window.low_s < 0.1 * period_s
    assert (window.since_low, window.since_high) == (refusals[-1], refusals[-1])
    assert (window.fixed, window.cycles, window.extra) == (None, 1, 0)


def test_no_window_explains_a_bucket() -> None:
    tokens, filled_at, admitted, refused = 20.0, 0.0, list[float](), list[float]()
    for number in range(400):
        at = number / 40
        tokens, filled_at = min(20.0, tokens + 10.0 * (at - filled_at)), at
        tokens -= tokens >= 1
        (refused if tokens < 1 and number % 4 else admitted).append(at)
    assert len(refused) > 20
    assert windows.explaining(admitted, refused[-20:], 0.0, 0.0) is None


@pytest.mark.parametrize(
    ("starts_seen", "refusals"),
    [([], []), ([1.0, 2.0, 3.0, 9.0], []), ([], [5.0]), ([5.0, 6.0, 7.0, 8.0], [4.0])],
)
def test_without_starts_before_each_refusal_there_is_no_window(starts_seen: list[float], refusals: list[float]) -> None:
    assert windows.explaining(starts_seen, refusals, 0.0, 0.0) is None


def test_a_window_of_very_few_requests_is_not_believed_in() -> None:
    for requests, is_found in ((LEAST_REQUESTS - 1, False), (LEAST_REQUESTS, True)):
        starts_seen, refusals = seen(requests, 5.0, 2, sliding=True)
        first = refusals.index(next(at for at in refusals if at > 5.0))
        found = windows.explaining(starts_seen, refusals[:first], 0.0, 0.0)
        assert (found is not None) is is_found, requests


def test_a_very_short_period_is_not_believed_in() -> None:
    starts_seen, refusals = seen(5, 0.9 * LEAST_PERIOD_S, 3, sliding=True)
    assert windows.explaining(starts_seen, refusals, 0.0, 0.0) is None
    starts_seen, refusals = seen(5, 1.5 * LEAST_PERIOD_S, 3, sliding=True)
    assert windows.explaining(starts_seen, refusals, 0.0, 0.0) is not None


def test_a_period_that_a_few_latencies_explain_is_not_believed_in() -> None:
    starts_seen, refusals = seen(10, 5.0, 3, sliding=True)
    assert windows.explaining(starts_seen, refusals, 0.0, 4.9) is not None
    assert windows.explaining(starts_seen, refusals, 0.0, 5.1) is None


def test_requests_that_overtake_each_other_are_explained_only_with_their_blur() -> None:
    starts_seen, refusals = seen(10, 5.0, 3, sliding=True)
    early = [at - (0.2 if number == 10 else 0.0) for number, at in enumerate(starts_seen)]
    assert windows.explaining(early, refusals, 0.0, 0.0) != windows.explaining(starts_seen, refusals, 0.0, 0.0)
    window = windows.explaining(early, refusals, 0.3, 0.0)
    assert window is not None
    assert window.requests == 10
    assert window.low_s <= window.high_s
