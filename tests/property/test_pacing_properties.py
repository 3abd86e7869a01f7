"""What holds for the control law whatever the server does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.pacing import Effect, Observation, Pace, Phase, Word, next_pace, ready_at, started

EFFECTS = st.sampled_from(list(Effect))
STEPS = st.lists(
    st.tuples(
        st.floats(0.0, 5.0),
        EFFECTS,
        st.one_of(st.none(), st.floats(0.0, 100.0)),
        st.floats(0.0, 0.999),
        st.integers(0, 3),
    ),
    max_size=120,
)


@given(STEPS, st.floats(0.01, 500.0), st.floats(0.01, 500.0))
def test_the_pace_stays_within_bounds_and_a_429_never_raises_the_rate(
    steps: list[tuple[float, Effect, float | None, float, int]], start: float, ceiling: float
) -> None:
    pace = Pace(rate=min(start, ceiling), ceiling=ceiling)
    now, tickets = 0.0, []
    for wait_s, effect, retry_after_s, draw, more in steps:
        now += wait_s
        for _ in range(1 + more):
            at = ready_at(pace)
            if at is None:
                break
            now = max(now, at)
            pace, ticket = started(pace, now)
            tickets.append(ticket)
        if not tickets:
            continue
        ticket = tickets.pop(0)
        word = Word(effect, effect is Effect.SERVED, retry_after_s)
        after = next_pace(pace, Observation(ticket, word, now, draw))
        assert 0 < after.rate <= ceiling
        assert after.epoch >= pace.epoch
        if effect is Effect.THROTTLED:
            assert after.rate <= pace.rate
            if retry_after_s is not None:
                assert (ready_at(after) or after.not_before) >= now + retry_after_s
        if pace.phase is Phase.CANARY and not ticket.canary:
            assert after.phase is Phase.CANARY
        pace = after


@given(st.lists(st.floats(0.0, 0.3), min_size=2, max_size=200), st.floats(0.5, 100.0))
def test_no_window_of_a_second_holds_more_starts_than_the_rate_and_two(waits: list[float], rate: float) -> None:
    pace, now, starts = Pace(rate=rate, ceiling=rate, fixed=True), 10.0, []
    for wait_s in waits:
        now = max(now + wait_s, ready_at(pace) or 0.0)
        pace, _ = started(pace, now)
        starts.append(now)
    for first in starts:
        assert sum(first <= start < first + 1.0 for start in starts) <= rate + 2
