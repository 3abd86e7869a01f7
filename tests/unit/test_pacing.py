"""The control law, as tables and in virtual time."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest

from orchestrator.pacing import (
    FAILURES_THAT_HOLD,
    Effect,
    Observation,
    Pace,
    Phase,
    Ticket,
    Word,
    canary_lost,
    held_s,
    next_pace,
    ready_at,
    started,
)

OPEN = Pace(rate=10.0, ceiling=50.0)


def said(
    effect: Effect, at: float, ticket: Ticket, *, retry_after_s: float | None = None, draw: float = 0.0
) -> Observation:
    return Observation(ticket, Word(effect, effect is Effect.SERVED, retry_after_s), at, draw)


def ticket_of(pace: Pace, started_at: float = 0.0) -> Ticket:
    return Ticket(started_at, pace.epoch)


def held(pace: Pace = OPEN, *, at: float = 0.0, retry_after_s: float | None = None, draw: float = 0.0) -> Pace:
    return next_pace(pace, said(Effect.THROTTLED, at, ticket_of(pace), retry_after_s=retry_after_s, draw=draw))


def test_starts_are_spaced_evenly() -> None:
    pace, starts, now = OPEN, [], 100.0
    for _ in range(5):
        now = max(now, ready_at(pace) or 0.0)
        pace, _ = started(pace, now)
        starts.append(now)
    assert [round(later - first, 6) for first, later in pairwise(starts)] == [0.1, 0.1, 0.1, 0.1]


def test_a_late_timer_is_made_up_for_but_an_idle_time_saves_nothing_up() -> None:
    pace, _ = started(OPEN, 100.0)
    late, _ = started(pace, 100.13)
    assert ready_at(late) == pytest.approx(100.2)
    idle, _ = started(late, 200.0)
    assert ready_at(idle) == pytest.approx(200.0)
    again, _ = started(idle, 200.0)
    assert ready_at(again) == pytest.approx(200.1)


@pytest.mark.parametrize(
    ("rate", "holds", "retry_after_s", "draw", "seconds"),
    [
        (10.0, 0, None, 0.0, 0.5),
        (10.0, 0, None, 1.0, 0.55),
        (1.0, 0, None, 0.0, 1.5),
        (10.0, 3, None, 0.0, 4.0),
        (10.0, 30, None, 0.0, 60.0),
        (10.0, 30, None, 1.0, 61.0),
        (10.0, 0, 7.0, 0.0, 7.0),
        (10.0, 0, 7.0, 1.0, 7.7),
        (10.0, 0, 100.0, 1.0, 101.0),
        (10.0, 0, 0.0, 0.0, 0.5),
    ],
)
def test_a_429_holds_for_as_long_as_it_should(
    rate: float, holds: int, retry_after_s: float | None, draw: float, seconds: float
) -> None:
    pace = held(replace(OPEN, rate=rate, holds=holds), at=50.0, retry_after_s=retry_after_s, draw=draw)
    assert pace.phase is Phase.HELD
    assert ready_at(pace) == pytest.approx(50.0 + seconds)
    assert pace.holds == holds + 1


def test_after_a_hold_one_canary_goes_out_and_nothing_else_before_its_answer() -> None:
    pace, canary = started(held(), 1.0)
    assert canary.canary
    assert not canary.read_only
    assert ready_at(pace) is None


def test_a_refused_canary_holds_twice_as_long_at_the_same_rate() -> None:
    pace, canary = started(held(), 1.0)
    again = next_pace(pace, said(Effect.THROTTLED, 1.1, canary))
    assert (again.phase, again.rate) == (Phase.HELD, pace.rate)
    assert again.held_until == pytest.approx(2.1)


def test_an_answered_canary_resumes_below_the_limit_with_no_credit() -> None:
    pace, canary = started(held(), 1.0)
    resumed = next_pace(pace, said(Effect.SERVED, 1.1, canary))
    assert resumed.phase is Phase.OPEN
    assert resumed.rate < OPEN.rate
    assert ready_at(resumed) == pytest.approx(1.1 + 1 / resumed.rate)
    assert resumed.holds == 0


def test_a_429_of_an_older_epoch_cuts_nothing() -> None:
    pace = held()
    late = next_pace(pace, said(Effect.THROTTLED, 0.1, ticket_of(OPEN)))
    assert late == pace


def test_a_late_retry_after_may_lengthen_the_hold_but_never_shorten_it() -> None:
    pace = held(retry_after_s=5.0)
    longer = next_pace(pace, said(Effect.THROTTLED, 1.0, ticket_of(OPEN), retry_after_s=9.0))
    shorter = next_pace(longer, said(Effect.THROTTLED, 1.0, ticket_of(OPEN), retry_after_s=1.0))
    assert (ready_at(pace), ready_at(longer), ready_at(shorter)) == (5.0, 10.0, 10.0)


def test_a_late_429_after_the_recovery_starts_no_new_hold() -> None:
    pace, canary = started(held(), 1.0)
    resumed = next_pace(pace, said(Effect.SERVED, 1.1, canary))
    assert next_pace(resumed, said(Effect.THROTTLED, 1.2, ticket_of(OPEN))) == resumed


def test_a_moment_that_a_late_429_names_is_obeyed_whatever_happened_meanwhile() -> None:
    pace, canary = started(held(), 1.0)
    named = said(Effect.THROTTLED, 1.05, ticket_of(OPEN), retry_after_s=30.0)
    resumed = next_pace(next_pace(pace, named), said(Effect.SERVED, 1.1, canary))
    later = next_pace(next_pace(pace, said(Effect.SERVED, 1.1, canary)), named)
    for each in (resumed, later):
        assert each.phase is Phase.OPEN
        assert ready_at(each) == pytest.approx(31.05)
        after, _ = started(each, 31.05)
        assert ready_at(after) == pytest.approx(31.05 + 1 / each.rate)


def test_ten_failures_in_a_row_hold_and_the_canary_is_a_read() -> None:
    pace = OPEN
    for number in range(FAILURES_THAT_HOLD):
        assert pace.phase is Phase.OPEN, number
        pace = next_pace(pace, said(Effect.FAILED, 1.0, ticket_of(pace)))
    assert pace.phase is Phase.HELD
    _, canary = started(pace, 9.0)
    assert canary.read_only


def test_a_served_request_ends_a_row_of_failures() -> None:
    pace = OPEN
    for _ in range(3):
        for _ in range(FAILURES_THAT_HOLD - 1):
            pace = next_pace(pace, said(Effect.FAILED, 1.0, ticket_of(pace)))
        pace = next_pace(pace, said(Effect.SERVED, 1.0, ticket_of(pace)))
    assert pace.phase is Phase.OPEN


def test_a_hold_from_failures_resumes_at_the_rate_it_had_and_its_length_falls_back_with_a_post_only() -> None:
    pace = replace(OPEN, failures=FAILURES_THAT_HOLD - 1)
    pace = next_pace(pace, said(Effect.FAILED, 1.0, ticket_of(pace)))
    pace, canary = started(pace, 2.0)
    pace = next_pace(pace, Observation(canary, Word(Effect.SERVED), 2.1))
    assert (pace.phase, pace.rate, pace.holds) == (Phase.OPEN, OPEN.rate, 1)
    pace = next_pace(pace, said(Effect.SERVED, 2.2, ticket_of(pace)))
    assert pace.holds == 0


def test_a_lost_canary_lets_another_one_go() -> None:
    pace, _ = started(held(), 1.0)
    lost = canary_lost(pace, 1.5)
    assert (lost.phase, ready_at(lost)) == (Phase.HELD, 1.5)
    assert canary_lost(OPEN, 1.5) == OPEN


def test_held_seconds_count_the_canary_and_add_up() -> None:
    pace = held(at=10.0)
    assert held_s(pace, 10.4) == pytest.approx(0.4)
    pace, canary = started(pace, 10.5)
    pace = next_pace(pace, said(Effect.SERVED, 11.0, canary))
    assert held_s(pace, 99.0) == pytest.approx(1.0)
    assert held_s(held(pace, at=100.0), 101.0) == pytest.approx(2.0)


def test_a_fixed_rate_neither_grows_nor_falls() -> None:
    pace = replace(OPEN, fixed=True)
    for _ in range(50):
        pace, ticket = started(pace, ready_at(pace) or 0.0)
        pace = next_pace(pace, said(Effect.SERVED, ticket.started_at + 0.01, ticket))
    assert pace.rate == OPEN.rate
    pace, canary = started(held(pace), 100.0)
    assert next_pace(pace, said(Effect.SERVED, 101.0, canary)).rate == OPEN.rate


def test_an_unused_rate_does_not_grow() -> None:
    pace = OPEN
    for second in range(1, 20):
        pace, ticket = started(pace, float(second))
        pace = next_pace(pace, said(Effect.SERVED, second + 0.1, ticket))
    assert pace.rate == OPEN.rate


@dataclass
class Bucket:
    """A token bucket server in virtual time."""

    rate: float
    burst: float
    latency_s: tuple[float, float] = (0.02, 0.08)

    def serve(self, pace: Pace, batch: int, seed: int) -> tuple[float, int, Pace]:
        """Return the seconds, the rejections and the last pace of a batch."""
        chance, tokens, filled_at = random.Random(seed), self.burst, 0.0
        now, left, served, rejected = 0.0, batch, 0, 0
        answers: list[tuple[float, int, float, Ticket]] = []
        number = 0
        while served < batch:
            at = ready_at(pace)
            starts_at = max(now, at) if at is not None and left else None
            if starts_at is not None and (not answers or starts_at <= answers[0][0]):
                now = starts_at
                pace, ticket = started(pace, now)
                left, number = left - 1, number + 1
                latency = chance.uniform(*self.latency_s)
                heapq.heappush(answers, (now + latency, number, now + latency / 2, ticket))
                continue
            now, _, arrived, ticket = heapq.heappop(answers)
            if arrived > filled_at:
                tokens, filled_at = min(self.burst, tokens + (arrived - filled_at) * self.rate), arrived
            if tokens >= 1:
                tokens, served, effect = tokens - 1, served + 1, Effect.SERVED
            else:
                left, rejected, effect = left + 1, rejected + 1, Effect.THROTTLED
            pace = next_pace(pace, said(effect, now, ticket, draw=chance.random()))
        return now, rejected, pace


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ceiling", [50.0, 200.0])
def test_a_batch_of_120_at_40_a_second_sees_at_most_one_rejection_in_ten(ceiling: float, seed: int) -> None:
    _, rejected, _ = Bucket(40.0, 10.0).serve(Pace(rate=5.0, ceiling=ceiling), 120, seed)
    assert rejected <= 12


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rate", "burst"), [(5.0, 5.0), (20.0, 20.0), (50.0, 100.0)])
def test_a_long_batch_uses_most_of_a_bucket_and_rejects_little(rate: float, burst: float, seed: int) -> None:
    seconds, rejected, _ = Bucket(rate, burst).serve(Pace(rate=5.0, ceiling=500.0), 2000, seed)
    assert (2000 - burst) / rate / seconds > 0.9
    assert rejected / 2000 < 0.03


@pytest.mark.parametrize("seed", range(3))
def test_the_rate_comes_back_after_the_limit_rose(seed: int) -> None:
    _, _, slow = Bucket(5.0, 5.0).serve(Pace(rate=5.0, ceiling=50.0), 100, seed)
    slow = replace(slow, next_at=0.0, grown_at=None, resumed_at=None)
    _, _, fast = Bucket(40.0, 10.0).serve(slow, 1500, seed)
    assert fast.rate > 2 * slow.rate
