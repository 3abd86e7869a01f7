"""The stand-in's limits are exact in virtual time, and its random draws are the same everywhere."""

from __future__ import annotations

from math import inf, nextafter
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


def on_time(at_work: Limits, count: int, *, pause_s: float = 0.0) -> list[float]:
    """Send requests until ``count`` are admitted, and return the times of those.

    After a refusal, the next request arrives exactly when the refusal named. Else it arrives after ``pause_s``.
    """
    let_in: list[float] = []
    now = 0.0
    while len(let_in) < count:
        wait_s = at_work.enter(now)
        if wait_s > 0:
            assert now + wait_s > now
            now += wait_s
        else:
            let_in.append(now)
            now += pause_s
    return let_in


def admitted(at_work: Limits, now: float, *, read_only: bool = False) -> int:
    """Send 50 requests at ``now`` and return how many are admitted."""
    return sum(at_work.enter(now, read_only=read_only) <= 0 for _ in range(50))


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


def test_each_of_many_uneven_periods_admits_exactly_its_number() -> None:
    """Requests arrive exactly at the boundaries of the periods, where a quotient may be rounded down."""
    let_in = on_time(limits({"kind": "fixed_window", "requests": 7, "per": "7.99s"}), 7 * 50)
    assert let_in == [pytest.approx(period * 7.99) for period in range(50) for _ in range(7)]


@pytest.mark.parametrize("begun", [0.0, 0.05, 0.37, 0.99])
@pytest.mark.parametrize("per", [0.1, 0.3, 1.1, 7.99, 13.37])
def test_periods_follow_the_phase_and_are_exact(per: float, begun: float) -> None:
    """Each period admits its number at its boundary. A full period admits nothing just before its boundary."""
    wanted = {"kind": "fixed_window", "requests": 7, "per": per, "phase": begun * per}
    let_in = on_time(limits(wanted), 7 * 200)
    boundaries = [0.0] + [(period - begun) * per for period in range(1, 200)]
    assert let_in == [pytest.approx(boundary) for boundary in boundaries for _ in range(7)]

    at_work = limits(wanted)
    for moment in let_in[::7]:
        assert moment == 0 or at_work.enter(nextafter(moment, -inf)) > 0
        assert admitted(at_work, moment) == 7


def test_the_phase_of_a_scheduled_window_counts_from_the_change() -> None:
    window = {"kind": "fixed_window", "requests": 2, "per": "10s", "phase": "9s"}
    at_work = limits(schedule=[{"at": "100s", "limits": [window]}])
    assert admitted(at_work, 99.9) == 50
    assert [admitted(at_work, now) for now in (100.0, 100.9, 101.0, 110.9, 111.0)] == [2, 0, 2, 0, 2]


def test_an_idle_fixed_window_saves_nothing() -> None:
    at_work = limits({"kind": "fixed_window", "requests": 7, "per": "7.99s", "phase": "1s"})
    assert [admitted(at_work, now) for now in (500.0, 1000.0, 1000.1)] == [7, 7, 0]


@pytest.mark.parametrize("pause_s", [0.0, 0.013, 0.1])
@pytest.mark.parametrize("per", [0.1, 0.3, 1.1, 7.99, 13.37])
def test_a_request_may_enter_a_sliding_window_exactly_one_period_after_an_earlier_one(
    per: float, pause_s: float
) -> None:
    wanted = {"kind": "sliding_window", "requests": 7, "per": per}
    let_in = on_time(limits(wanted), 7 * 50, pause_s=pause_s)
    assert all(later >= before + per for before, later in zip(let_in, let_in[7:], strict=False))
    if pause_s == 0:
        assert let_in == [pytest.approx(period * per) for period in range(50) for _ in range(7)]


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


def test_a_change_of_the_latency_leaves_the_limits_alone() -> None:
    window = {"kind": "fixed_window", "requests": 3, "per": "10s"}
    at_work = limits(window, schedule=[{"at": "5s", "latency": "1s"}])
    assert [admitted(at_work, now) for now in (0.0, 4.9, 5.0, 9.9, 10.0)] == [3, 0, 0, 0, 3]


@pytest.mark.parametrize("is_first", [True, False])
def test_a_request_that_one_limit_refuses_is_counted_by_none(*, is_first: bool) -> None:
    pair = [BUCKET | {"burst": 3}, {"kind": "fixed_window", "requests": 2, "per": "10s"}]
    at_work = limits(*(pair if is_first else pair[::-1]), schedule=[{"at": "11s", "limits": pair[1:]}])
    assert admitted(at_work, 0.0) == 2  # then the window is full, and a token is left
    assert at_work.enter(1.0) == pytest.approx(9.0)
    assert admitted(at_work, 10.0) == 1  # then the bucket is empty, and the window has room
    assert at_work.enter(10.5) > 100
    assert admitted(at_work, 11.0) == 2


def test_a_refused_request_leaves_room_in_every_kind_of_limit() -> None:
    others = [{"kind": "sliding_window", "requests": 2, "per": "10s"}, {"kind": "in_flight", "requests": 2}]
    full = {"kind": "fixed_window", "requests": 1, "per": "2s"}
    at_work = limits(*others, full)
    assert [admitted(at_work, now) for now in (0.0, 1.0, 2.0)] == [1, 0, 1]
    at_work.leave()
    assert admitted(at_work, 4.0) == 0  # the sliding window is full
    assert admitted(at_work, 10.0) == 1
    assert at_work.enter(12.0) == 1.0  # two are in flight
    at_work.leave()
    assert admitted(at_work, 12.0) == 1


def test_limits_of_posts_and_of_gets_count_separately() -> None:
    at_work = limits(BUCKET | {"burst": 3, "applies_to": "posts"}, BUCKET | {"burst": 5, "applies_to": "gets"})
    assert admitted(at_work, 0.0) == 3
    assert admitted(at_work, 0.0, read_only=True) == 5
    assert admitted(limits(BUCKET | {"applies_to": "gets"}), 0.0) == 50


def test_a_post_that_its_own_limit_refuses_takes_nothing_from_the_limit_of_all_requests() -> None:
    at_work = limits(BUCKET | {"burst": 4}, BUCKET | {"burst": 1, "applies_to": "posts"})
    assert admitted(at_work, 0.0) == 1
    assert admitted(at_work, 0.0, read_only=True) == 3


def test_a_limit_in_flight_counts_only_the_requests_to_which_it_applies() -> None:
    at_work = limits({"kind": "in_flight", "requests": 2, "applies_to": "posts"})
    assert (admitted(at_work, 0.0, read_only=True), admitted(at_work, 0.0)) == (50, 2)
    at_work.leave(read_only=True)
    assert admitted(at_work, 0.0) == 0
    at_work.leave()
    assert admitted(at_work, 0.0) == 1


@pytest.mark.parametrize("kind", ["bucket", "sliding_window"])
def test_a_changed_limit_keeps_the_count_of_the_limit_that_applied_to_the_same_requests(kind: str) -> None:
    base = BUCKET | {"burst": 4} if kind == "bucket" else {"kind": kind, "requests": 4, "per": "1h"}
    posts, gets = base | {"applies_to": "posts"}, base | {"applies_to": "gets"}
    at_work = limits(posts, gets, schedule=[{"at": "1s", "limits": [gets, posts]}, {"at": "2s", "limits": [base]}])
    assert admitted(at_work, 0.0) == 4
    assert (admitted(at_work, 1.0), admitted(at_work, 1.0, read_only=True)) == (0, 4)
    assert admitted(at_work, 2.0) == 4  # no earlier limit applied to all


def test_without_limits_every_request_is_admitted() -> None:
    assert len(flood(limits(), 1.0)) == 1000


def test_random_draws_are_the_same_in_every_process() -> None:
    assert [round(draw(seed, name), 6) for seed, name in ((0, "a"), (1, "a"), (0, "b"))] == DRAWN
    assert between(1.0, 1.0, 0, "a") == 1.0
    assert 1.0 < between(1.0, 3.0, 0, "a") < 3.0
    assert between(1.0, 3.0, 0, "a") != between(1.0, 3.0, 0, "b")


BUCKET = {"kind": "bucket", "rate": 1e-6}
"""A bucket that practically never gains a token."""

DRAWN = [0.810266, 0.153165, 0.515866]
