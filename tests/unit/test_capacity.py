"""The rate of a limit between two refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.pacing import capacity
from orchestrator.pacing.capacity import FEW, LEAST_RATE, Estimate, Meter
from orchestrator.pacing.history import History, Starts

KNOWN = Estimate(9.0, 10.0, 11.0, burst=20.0)


def history(*instants: float) -> History:
    return History(starts=Starts(list(instants), len(instants)))


def evenly(since: float, rate: float, count: int) -> list[float]:
    return [since + number / rate for number in range(count)]


def test_the_first_refusal_of_a_meeting_and_the_last_one_are_noted() -> None:
    meter = capacity.refused(Meter(canary_at=1.0), 5.0)
    assert (meter.refused_at, meter.last_at) == (5.0, 5.0)
    assert capacity.refused(meter, 6.0) == meter
    assert capacity.refused(meter, 0.5) == meter
    earlier = capacity.refused(meter, 4.0)
    assert (earlier.refused_at, earlier.last_at) == (4.0, 5.0)
    again = capacity.canary_refused(earlier, 7.0)
    assert (again.canaries, again.last_at) == (1, 7.0)
    assert capacity.closed(again, 8.0, 8.1) == Meter(emptied_at=4.0, canary_at=8.0, resumed_at=8.1)


def test_an_estimate_is_put_in_order() -> None:
    found = capacity.in_order(Estimate(-1.0, 50.0, 20.0))
    assert (found.low, found.rate, found.high) == (LEAST_RATE, 20.0, 20.0)


def test_the_first_guess_is_between_next_to_nothing_and_the_refused_rate() -> None:
    found = capacity.guessed(history(*evenly(0.0, 40.0, 40)), 1.0, 40.0)
    assert found.low == LEAST_RATE < found.rate < found.high == 40.0
    assert capacity.guessed(history(), 1.0, 5.0).rate > LEAST_RATE


def test_the_rate_between_two_refusals_is_what_was_served_over_the_time() -> None:
    meter = Meter(emptied_at=0.0, canary_at=0.5, resumed_at=0.6, refused_at=10.0)
    found = capacity.measured(KNOWN, history(*evenly(0.6, 10.0, 94)), meter, 12.0)
    assert found.rate == pytest.approx(9.4)
    assert found.agrees


def test_the_tokens_that_a_long_hold_loses_raise_the_rate() -> None:
    meter = Meter(emptied_at=0.0, canary_at=5.0, resumed_at=5.0, refused_at=10.0)
    known = replace(KNOWN, burst=0.0)
    found = capacity.measured(known, history(*evenly(5.0, 10.0, 50)), meter, 12.0)
    assert found.rate > 8.0


def test_a_rate_is_measured_between_two_refusals_only() -> None:
    with pytest.raises(ValueError, match="between two refusals"):
        capacity.measured(KNOWN, history(), Meter(refused_at=1.0), 12.0)


def test_an_early_refusal_of_a_remembered_bucket_casts_doubt_on_rate_and_burst() -> None:
    meter = Meter(canary_at=0.0, resumed_at=0.0, refused_at=0.5)
    found = capacity.of_a_remembered_one(KNOWN, history(*evenly(0.0, 40.0, FEW)), meter, 12.0)
    assert found.burst is None
    assert found.low < found.rate < KNOWN.rate
    late = replace(meter, refused_at=20.0)
    solved = capacity.of_a_remembered_one(KNOWN, history(*evenly(0.0, 10.0, 200)), late, 12.0)
    assert solved.rate == pytest.approx(9.0)
    assert solved.burst == 20.0


def test_bounds_that_agree_are_narrowed_and_others_replace_the_known_ones() -> None:
    narrower = capacity.narrowed(Estimate(10.0, 10.5, 12.0), KNOWN)
    assert (narrower.low, narrower.high, narrower.agrees) == (10.0, 11.0, True)
    other = Estimate(20.0, 21.0, 22.0)
    assert capacity.narrowed(other, KNOWN) == other


def test_a_measured_limit_that_serves_almost_nothing_for_long_was_suspended() -> None:
    meter = Meter(emptied_at=0.0, canary_at=0.0, resumed_at=0.0, refused_at=10.0, canaries=3)
    served = history(*evenly(0.0, 10.0, 100))
    assert capacity.was_away(KNOWN, served, meter, 60.0)
    assert not capacity.was_away(KNOWN, served, meter, 11.0)
    assert not capacity.was_away(KNOWN, served, replace(meter, canaries=0), 60.0)
