"""The stand-in's limits are exact in virtual time, and its random draws are the same everywhere."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.simulator.chance import between, draw
from orchestrator.simulator.limits import Limits
from orchestrator.simulator.scenario import Scenario


def limits(*wanted: dict[str, Any], **more: Any) -> Limits:
    return Limits(Scenario.model_validate({"limits": wanted} | more))


def flood(at_work: Limits, until: float, *, inside_s: float = 0.0, step_s: float = 0.001) -> list[float]:
    """Send a request every ``step_s``; each admitted one stays ``inside_s``. Return the times of the admitted ones."""
    let_in: list[float] = []
    leaving: list[float] = []
    for tick in range(round(until / step_s)):
        now = tick * step_s
        while leaving and leaving[0] <= now + 1e-9:
            leaving.pop(0)
            at_work.leave()
        if at_work.enter(now) <= 0:
            let_in.append(now)
            leaving.append(now + inside_s)
    return let_in


def counted(let_in: list[float], begin: float, end: float) -> int:
    return sum(begin <= moment < end for moment in let_in)


def test_a_bucket_lets_its_burst_through_and_then_its_rate() -> None:
    let_in = flood(limits({"kind": "bucket", "rate": 50, "burst": 100}), 10.0)
    assert len(let_in) == pytest.approx(100 + 50 * 10, abs=1)
    assert counted(let_in, 5.0, 10.0) == pytest.approx(250, abs=1)
    quiet = limits({"kind": "bucket", "rate": 10, "burst": 5})
    flood(quiet, 1.0)
    assert sum(quiet.enter(100.0) <= 0 for _ in range(20)) == 5


def test_a_fixed_window_lets_its_number_through_in_each_period() -> None:
    let_in = flood(limits({"kind": "fixed_window", "requests": 20, "per": "2s"}), 10.0)
    assert [counted(let_in, begin, begin + 2.0) for begin in (0, 2, 4, 6, 8)] == [20] * 5


def test_a_sliding_window_lets_no_more_than_its_number_through_in_any_period() -> None:
    let_in = flood(limits({"kind": "sliding_window", "requests": 50, "per": "5s"}), 16.0)
    assert len(let_in) == 200
    assert min(later - before for before, later in zip(let_in, let_in[50:], strict=False)) >= 5.0


def test_a_limit_in_flight_counts_the_requests_in_flight() -> None:
    let_in = flood(limits({"kind": "in_flight", "requests": 8}), 3.0, inside_s=0.1)
    assert len(let_in) == 8 * 30


@pytest.mark.parametrize(
    "limit",
    [
        {"kind": "bucket", "rate": 0.5, "burst": 1},
        {"kind": "fixed_window", "requests": 1, "per": "2s"},
        {"kind": "sliding_window", "requests": 1, "per": "2s"},
    ],
)
def test_after_the_named_wait_the_next_request_is_admitted(limit: dict[str, Any]) -> None:
    at_work = limits(limit)
    assert at_work.enter(0.0) == 0.0
    wait_s = at_work.enter(0.5)
    assert wait_s == pytest.approx(1.5)
    assert at_work.enter(0.5 + wait_s - 0.01) > 0
    assert at_work.enter(0.5 + wait_s + 0.001) == 0.0


def test_limits_change_on_schedule_and_a_bucket_keeps_its_tokens() -> None:
    slow = {"kind": "bucket", "rate": 5, "burst": 5}
    fast = {"kind": "bucket", "rate": 20, "burst": 20}
    at_work = limits(fast, schedule=[{"at": "4s", "limits": [fast]}, {"at": "1s", "limits": [slow]}])
    let_in = flood(at_work, 6.0)
    found = [counted(let_in, *span) for span in ((0.0, 1.0), (1.0, 4.0), (4.0, 6.0))]
    assert found == [pytest.approx(40, abs=1), pytest.approx(15, abs=1), pytest.approx(40, abs=1)]


def test_a_sliding_window_keeps_its_count_when_the_limits_change() -> None:
    wide = {"kind": "sliding_window", "requests": 50, "per": "5s"}
    at_work = limits(wide, schedule=[{"at": "1s", "limits": [wide | {"requests": 25}]}])
    let_in = flood(at_work, 7.0)
    assert counted(let_in, 0.0, 5.0) == 50
    assert counted(let_in, 5.0, 7.0) == 25


def test_without_limits_every_request_is_admitted() -> None:
    assert len(flood(limits(), 1.0)) == 1000


def test_random_draws_are_the_same_in_every_process() -> None:
    assert [round(draw(seed, name), 6) for seed, name in ((0, "a"), (1, "a"), (0, "b"))] == DRAWN
    assert between(1.0, 1.0, 0, "a") == 1.0
    assert 1.0 < between(1.0, 3.0, 0, "a") < 3.0
    assert between(1.0, 3.0, 0, "a") != between(1.0, 3.0, 0, "b")


DRAWN = [0.810266, 0.153165, 0.515866]
