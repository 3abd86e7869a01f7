"""Rates of a bucket from what it admitted and refused: exact buckets, and values computed by hand."""

from __future__ import annotations

import random
from bisect import bisect_left

import pytest

from orchestrator.pacing import bucket
from orchestrator.pacing.bucket import HALVINGS, NEARBY, ROUNDING, SOONEST_S

BOUNDS = (0.5, 500.0)

PRECISION = (BOUNDS[1] / BOUNDS[0]) ** (1 / 2**HALVINGS)
"""The factor by which the last halving of the search may miss a bound."""

STARTS = [0.0, 0.5, 1.0, 1.0, 1.5, 2.0]


def asked(rate: float, seconds: float, since: float = 0.0) -> list[float]:
    """Return the moments of evenly spaced requests."""
    return [since + number / rate for number in range(round(seconds * rate))]


def split(moments: list[float], rate: float, burst: float) -> tuple[list[float], list[float]]:
    """Return which requests a bucket admits and which it refuses. It begins full, with ``burst`` tokens."""
    tokens, filled_at, admitted, refused = burst, moments[0], list[float](), list[float]()
    for at in moments:
        tokens, filled_at = min(burst, tokens + (at - filled_at) * rate), at
        if tokens >= 1:
            tokens -= 1
            admitted.append(at)
        else:
            refused.append(at)
    return admitted, refused


def met_twice(rate: float, burst: float) -> tuple[list[float], list[float]]:
    """Return the starts and the refusals of a client that stops at its first refusal, waits, and is refused again."""
    admitted, refused = split(asked(2.1 * rate, 2 * (burst + 2) / rate), rate, burst)
    first = refused[0]
    resumed = first + 0.3
    again = asked(1.6 * rate, 4 * (burst + 2) / rate, since=resumed)
    kept = [at for at in admitted if at < first]
    admitted, refused = split(sorted([*kept, first, *again]), rate, burst)
    assert refused[0] == first
    second = refused[1]
    return [at for at in admitted if at < second], [first, second]


def window_of(requests: int, period_s: float, periods: int) -> tuple[list[float], list[float]]:
    """Return the starts and the refusals of a fixed window whose requests are used up in a tenth of each period."""
    starts = [nth * period_s + 0.1 * period_s * n / requests for nth in range(periods) for n in range(requests)]
    refusals = [nth * period_s + share * period_s for nth in range(periods) for share in (0.11, 0.6, 0.99)]
    return starts, refusals


# -- which rates explain everything ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1.0, 7.3, 50.0, 180.0])
@pytest.mark.parametrize("burst", [1.0, 5.0, 40.0, 200.0])
@pytest.mark.parametrize("near", [None, 1.0, 20.0])
def test_the_rate_of_a_bucket_is_within_the_bounds_that_are_found(
    rate: float, burst: float, near: float | None
) -> None:
    starts, refusals = met_twice(rate, burst)
    found = bucket.explaining(starts, refusals, 0.0, BOUNDS, near)
    assert found is not None
    assert BOUNDS[0] <= found[0] <= found[1] <= BOUNDS[1]
    assert found[0] / PRECISION <= rate <= found[1] * PRECISION


@pytest.mark.parametrize(("rate", "burst"), [(50.0, 40.0), (50.0, 200.0), (180.0, 40.0)])
def test_a_second_refusal_makes_the_bounds_close(rate: float, burst: float) -> None:
    starts, refusals = met_twice(rate, burst)
    found = bucket.explaining(starts, refusals, 0.0, BOUNDS, None)
    assert found is not None
    assert found[1] / found[0] < PRECISION


def test_one_refusal_of_evenly_spaced_requests_leaves_the_bounds_far_apart() -> None:
    admitted, refused = split(asked(100.0, 10.0), 50.0, 100.0)
    found = bucket.explaining([at for at in admitted if at < refused[0]], refused[:1], 0.0, BOUNDS, None)
    assert found is not None
    assert found[1] / found[0] > 1.5


def test_a_rate_within_the_bounds_explains_and_one_outside_does_not() -> None:
    starts, refusals = met_twice(50.0, 40.0)
    found = bucket.explaining(starts, refusals, 0.0, BOUNDS, None)
    assert found is not None
    for rate, explains in ((found[0] * 1.001, True), (found[1] * 0.999, True), (45.0, False), (56.0, False)):
        only = bucket.explaining(starts, refusals, 0.0, (rate * 0.9999, rate * 1.0001), None)
        assert (only is not None) is explains, rate


def test_no_bucket_explains_a_window_that_stays_shut_although_its_requests_are_soon_used_up() -> None:
    starts, refusals = window_of(30, 10.0, 4)
    assert bucket.explaining(starts, refusals, 0.0, BOUNDS, None) is None
    assert bucket.explaining(starts, refusals, 0.0, BOUNDS, 3.0) is None


@pytest.mark.parametrize(
    ("starts", "refusals"),
    [([], [1.0]), ([1.0], []), ([], []), ([1.0], [0.5]), ([1.0], [1.0])],
    ids=["no starts", "no refusals", "neither", "refused before the first start", "refused at the first start"],
)
def test_without_starts_before_the_refusals_nothing_is_found(starts: list[float], refusals: list[float]) -> None:
    assert bucket.explaining(starts, refusals, 0.0, BOUNDS, None) is None


def test_the_bounds_of_the_search_bound_what_is_found() -> None:
    starts, refusals = met_twice(50.0, 40.0)
    assert bucket.explaining(starts, refusals, 0.0, (60.0, 90.0), None) is None
    found = bucket.explaining(starts, refusals, 0.0, (50.0, 90.0), None)
    assert found is not None
    assert found[0] == 50.0


def test_requests_that_overtake_each_other_are_explained_only_with_their_blur() -> None:
    chance = random.Random(3)
    moments = asked(110.0, 20.0)
    arrivals = sorted((at + chance.uniform(0.0, 0.2), at) for at in moments)
    admitted, refused = split([arrived for arrived, _ in arrivals], 50.0, 40.0)
    sent = dict(arrivals)
    starts, refusals = sorted(sent[at] for at in admitted), sorted(sent[at] for at in refused)
    last = bisect_left(starts, refusals[20])
    assert bucket.explaining(starts[:last], refusals[:20], 0.0, BOUNDS, None) is None
    found = bucket.explaining(starts[:last], refusals[:20], 0.2, BOUNDS, None)
    assert found is not None
    assert found[0] / PRECISION <= 50.0 <= found[1] * PRECISION


def test_more_blur_never_narrows_the_bounds() -> None:
    starts, refusals = met_twice(50.0, 40.0)
    exact = bucket.explaining(starts, refusals, 0.0, BOUNDS, 50.0)
    blurred = bucket.explaining(starts, refusals, 0.05, BOUNDS, 50.0)
    assert exact is not None
    assert blurred is not None
    assert blurred[0] <= exact[0] * (1 + 1e-9)
    assert blurred[1] >= exact[1] * (1 - 1e-9)


@pytest.mark.parametrize("share", NEARBY)
def test_a_known_rate_nearby_leads_to_the_same_bounds_as_the_whole_search(share: float) -> None:
    starts, refusals = met_twice(50.0, 40.0)
    whole = bucket.explaining(starts, refusals, 0.0, BOUNDS, None)
    near = bucket.explaining(starts, refusals, 0.0, BOUNDS, 50.0 / share)
    assert whole is not None
    assert near is not None
    assert near == pytest.approx(whole, rel=0.02)


@pytest.mark.parametrize("near", [0.001, 20.0, 1e6])
def test_a_known_rate_that_is_wrong_does_not_prevent_the_search(near: float) -> None:
    starts, refusals = met_twice(50.0, 40.0)
    assert bucket.explaining(starts, refusals, 0.0, BOUNDS, near) == bucket.explaining(
        starts, refusals, 0.0, BOUNDS, None
    )


def test_a_refusal_that_even_a_burst_of_one_would_have_admitted_is_not_explained() -> None:
    starts, refusals = asked(1.0, 10.0), [9.95]
    found = bucket.explaining(starts, refusals, 0.0, BOUNDS, None)
    assert found is not None
    assert found[1] < (1.0 + ROUNDING) / 0.95 + 0.01


# -- burst, excess, least rate -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "burst"), [(1.0, 3.0), (2.0, 1.0), (4.0, 1.0), (100.0, 1.0)])
def test_a_bucket_needs_the_burst_and_one_request_more_to_admit_the_starts(rate: float, burst: float) -> None:
    assert bucket.burst(STARTS, rate) == pytest.approx(burst)
    assert split(STARTS, rate, burst + 1.0)[1] == []
    assert split(STARTS, rate, burst + 0.99)[1] != []


def test_no_start_needs_a_burst() -> None:
    assert bucket.burst([], 3.0) == 0.0
    assert bucket.burst([5.0], 3.0) == 0.0


@pytest.mark.parametrize(
    ("until", "rate", "requests"),
    [
        (2.0, 1.0, 5 - 2.0),
        (1.5, 1.0, 4 - 1.5),
        (1.5, 4.0, 2 - 4 * 0.5),
        (3.0, 1.0, 6 - 3.0),
        (3.0, 100.0, 0.0),
        (0.0, 1.0, 0.0),
        (2.0, 0.0, 5.0),
    ],
)
def test_the_excess_is_what_started_beyond_the_rate_in_the_worst_time_before(
    until: float, rate: float, requests: float
) -> None:
    assert bucket.excess(STARTS, until, rate) == pytest.approx(requests)


def test_without_starts_there_is_no_excess_and_no_least_rate() -> None:
    assert bucket.excess([], 9.0, 1.0) == 0.0
    assert bucket.least_rate([], 9.0) == 0.0


@pytest.mark.parametrize(
    ("burst", "burst_s", "rate"),
    [
        (0.0, 0.0, max(6 / 2.5, 5 / 2.0, 4 / 1.5, 2 / 1.0, 1 / 0.5)),
        (3.0, 0.0, max(3 / 2.5, 2 / 2.0, 1 / 1.5)),
        (0.0, 1.0, max(6 / 3.5, 5 / 3.0, 4 / 2.5)),
        (100.0, 0.0, 0.0),
    ],
)
def test_the_least_rate_is_the_lowest_of_a_bucket_that_admits_the_starts(
    burst: float, burst_s: float, rate: float
) -> None:
    assert bucket.least_rate(STARTS, 2.5, burst=burst, burst_s=burst_s) == pytest.approx(rate)


def test_a_bucket_of_the_least_rate_has_no_excess_beyond_its_burst() -> None:
    starts = sorted([*asked(20.0, 3.0), *asked(50.0, 1.0, since=1.0)])
    rate = bucket.least_rate(starts, 3.0, burst=10.0)
    assert bucket.excess([at for at in starts if at <= 3.0 - SOONEST_S], 3.0, rate) <= 10.0
    assert bucket.excess(starts, 3.0, 0.9 * rate) > 10.0


def test_a_time_too_short_to_show_a_rate_proves_nothing() -> None:
    near, far = 9.0 - 0.9 * SOONEST_S, 9.0 - SOONEST_S
    assert bucket.least_rate([near] * 40, 9.0) == 0.0
    assert bucket.least_rate([far] * 40, 9.0) == pytest.approx(40 / SOONEST_S)
    assert bucket.least_rate([near] * 40, 9.0, burst_s=SOONEST_S) == pytest.approx(40 / (1.9 * SOONEST_S))


def test_starts_at_or_after_the_moment_do_not_count() -> None:
    assert bucket.excess([*STARTS, 2.5, 3.0], 2.5, 1.0) == bucket.excess(STARTS, 2.5, 1.0)
    assert bucket.least_rate([*STARTS, 2.5, 3.0], 2.5) == bucket.least_rate(STARTS, 2.5)
