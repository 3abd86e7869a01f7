"""Properties of the control law that hold for any server."""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.model import Learned
from orchestrator.pacing import (
    Effect,
    Feedback,
    Observation,
    Pace,
    Phase,
    Ticket,
    in_flight_bound,
    learned,
    next_pace,
    opening,
    ready_at,
    released,
    started,
)
from orchestrator.pacing.capacity import LEAST_RATE
from orchestrator.policies import ThrottlePolicy

ROUNDING = 1e-9
"""The tolerance for sums of floats."""

REQUESTS = 150

LONGEST_WAIT_S = 402.0
"""The longest ``Retry-After`` of the server, and a little more."""


@dataclass(frozen=True)
class Nature:
    """How a server behaves, and how chance affects its answers.

    Its bucket has ``rate`` and ``burst``; half-way the rate is multiplied by ``change``. It takes ``most`` requests in
    flight. ``failing``, ``lost`` and ``moody`` are the shares of requests that fail, are lost or are refused at random.
    ``naming`` is the share of 429s that name a moment. Every ``idle``-th request comes late.
    """

    rate: float
    burst: float
    change: float
    most: int
    latency_s: tuple[float, float]
    failing: float
    lost: float
    moody: float
    naming: float
    idle: int
    seed: int


@dataclass
class Story:
    """The events of a simulation, and how the control law reacted.

    ``heard`` has, for each answer, the pace before it, the observation and the pace after it. ``paces`` has, for each
    event, its moment, the pace after it and the number of open tickets. ``starts`` has, for each start, its moment, the
    latest moment that a 429 had named, the pace before it and the ticket.
    """

    heard: list[tuple[Pace, Observation, Pace]] = field(default_factory=list)
    paces: list[tuple[float, Pace, int]] = field(default_factory=list)
    starts: list[tuple[float, float, Pace, Ticket]] = field(default_factory=list)


class Server:
    """A server with the bucket, the limit in flight and the random faults of a ``Nature``."""

    def __init__(self, nature: Nature, now: float) -> None:
        self.nature, self.chance = nature, random.Random(nature.seed)
        self.tokens, self.filled_at, self.inside = nature.burst, now, 0

    def answer(self, ticket: Ticket, now: float, *, is_changed: bool) -> Feedback | None:
        """Return the answer to a request that arrives at ``now``, or ``None`` if it is lost."""
        nature, chance = self.nature, self.chance
        rate = nature.rate * (nature.change if is_changed else 1.0)
        self.tokens, self.filled_at = min(nature.burst, self.tokens + (now - self.filled_at) * rate), now
        if chance.random() < nature.lost:
            return None
        if chance.random() < nature.failing:
            return Feedback(Effect.FAILED)
        if self.tokens < 1 or self.inside >= nature.most or chance.random() < nature.moody:
            named = chance.random() < nature.naming
            return Feedback(Effect.THROTTLED, retry_after_s=chance.choice([0.0, 0.3, 7.0, 400.0]) if named else None)
        self.tokens, self.inside = self.tokens - 1, self.inside + 1
        return Feedback(Effect.SERVED, accepted=not ticket.read_only)


def told(nature: Nature, pace: Pace, requests: int = REQUESTS) -> Story:
    """Simulate ``requests`` requests, and return each start and each answer in order."""
    story, now, named_at = Story(), 1000.0, 0.0
    server = Server(nature, now)
    chance, under_way = server.chance, list[tuple[float, int, Ticket, Feedback | None]]()
    while len(story.starts) < requests or under_way:
        at = ready_at(pace) if len(story.starts) < requests else None
        if at is None and not under_way:
            return story
        if at is not None and (not under_way or max(now, at) <= under_way[0][0]):
            number = len(story.starts) + 1
            now = max(now, at) + (chance.uniform(0.0, 30.0) if nature.idle and number % nature.idle == 0 else 0.0)
            before = pace
            pace, ticket = started(pace, now)
            story.starts.append((now, named_at, before, ticket))
            feedback = server.answer(ticket, now, is_changed=number > requests / 2)
            heapq.heappush(under_way, (now + chance.uniform(*nature.latency_s), number, ticket, feedback))
        else:
            answered_at, _, ticket, feedback = heapq.heappop(under_way)
            now = max(now, answered_at)
            if feedback is None:
                pace = released(pace, ticket, now)
            else:
                before, observation = pace, Observation(ticket, feedback, now, chance.random())
                pace = next_pace(pace, observation)
                story.heard.append((before, observation, pace))
                server.inside -= feedback.effect is Effect.SERVED
                named_at = named_at if feedback.retry_after_s is None else max(named_at, now + feedback.retry_after_s)
        story.paces.append((now, pace, len(under_way)))
    return story


SHARES = st.sampled_from([0.0, 0.0, 0.02, 0.3, 1.0])
RATES = st.sampled_from([LEAST_RATE, 0.3, 5.0, 50.0, 1000.0])
NATURES = st.builds(
    Nature,
    rate=RATES,
    burst=st.sampled_from([1.0, 5.0, 100.0]),
    change=st.sampled_from([0.0, 0.25, 1.0, 4.0]),
    most=st.sampled_from([1, 4, 10_000]),
    latency_s=st.sampled_from([(0.0, 0.0), (0.02, 0.08), (0.1, 3.0), (5.0, 40.0)]),
    failing=SHARES,
    lost=SHARES,
    moody=SHARES,
    naming=SHARES,
    idle=st.sampled_from([0, 0, 7, 40]),
    seed=st.integers(0, 10_000),
)
PACES = st.builds(
    opening,
    st.builds(
        ThrottlePolicy,
        fixed_rate=st.sampled_from([None, None, None, 0.5, 20.0]),
        start_rate=RATES,
        ceiling=RATES,
        concurrency=st.sampled_from([1, 3, 64]),
    ),
    st.none()
    | st.builds(
        Learned,
        rate=RATES,
        burst=st.sampled_from([0.0, 1.0, 90.0]),
        in_flight=st.sampled_from([None, 1, 8]),
        latency_s=st.sampled_from([None, 0.05, 2.0]),
    ),
)


def the_rate_is_above_0_and_at_most_the_ceiling(story: Story) -> None:
    for _, after, _ in story.paces:
        assert 0 < after.rate <= after.ceiling


def a_429_changes_no_rate(story: Story) -> None:
    """A 429 causes a hold. The estimate changes only when the canary after the hold is answered."""
    for before, observation, after in story.heard:
        if observation.feedback.effect is Effect.THROTTLED:
            assert after.rate == before.rate


def after_a_hold_the_rate_is_one_that_the_server_has_borne(story: Story) -> None:
    """The rate is at most the held rate, the refused rate or the former upper bound. In a window, it may be higher."""
    for before, _, after in story.heard:
        is_end_of_hold = before.phase is not Phase.FLOWING and after.phase is Phase.FLOWING
        if not is_end_of_hold or before.window is not None or after.window is not None:
            continue
        known = 0.0 if before.estimate is None else before.estimate.high
        borne = max(before.rate, before.evidence.last_refused_rate, known, LEAST_RATE)
        assert after.rate <= borne * (1 + ROUNDING)


def the_estimate_is_within_its_bounds(story: Story) -> None:
    for _, after, _ in story.paces:
        estimate = after.estimate
        if estimate is None:
            continue
        assert 0 < estimate.low <= estimate.rate * (1 + ROUNDING)
        assert estimate.rate <= estimate.high * (1 + ROUNDING)
        assert estimate.high < math.inf
        found = learned(after)
        assert found is None or (found.rate > 0 and found.burst >= 0 and (found.in_flight or 1) >= 1)


def the_requests_in_flight_are_the_tickets_that_are_out_and_never_too_many(story: Story) -> None:
    for _, after, tickets in story.paces:
        assert after.in_flight == tickets <= after.concurrency
    for _, _, before, ticket in story.starts:
        if not ticket.canary:
            assert before.in_flight < in_flight_bound(before)


def it_never_gets_stuck(story: Story) -> None:
    assert len(story.starts) == REQUESTS
    for now, after, tickets in story.paces:
        at = ready_at(after)
        period_s = 0.0 if after.window is None else 2.0 * after.window.high_s
        assert (at is not None and at - now < LONGEST_WAIT_S + period_s + 2.0 / after.rate) or tickets > 0


def nothing_starts_before_the_latest_moment_that_was_named(story: Story) -> None:
    for now, named_at, _, _ in story.starts:
        assert now >= named_at


def after_a_hold_one_canary_is_out_and_nothing_else_starts_before_its_answer(story: Story) -> None:
    for _, _, before, ticket in story.starts:
        assert before.phase is not Phase.CANARY
        assert ticket.canary is (before.phase is Phase.HELD)
        assert not ticket.read_only or ticket.canary


def epochs_never_fall_and_begin_with_a_hold_only(story: Story) -> None:
    for before, observation, after in story.heard:
        assert after.epoch - before.epoch in {0, 1}
        is_held_anew = after.phase is Phase.HELD and before.phase is not Phase.HELD
        assert (after.epoch > before.epoch) is is_held_anew or before.window is not None
        if observation.ticket.epoch != before.epoch:
            assert (after.epoch, after.phase, after.rate) == (before.epoch, before.phase, before.rate)


PROPERTIES = (
    the_rate_is_above_0_and_at_most_the_ceiling,
    a_429_changes_no_rate,
    after_a_hold_the_rate_is_one_that_the_server_has_borne,
    the_estimate_is_within_its_bounds,
    the_requests_in_flight_are_the_tickets_that_are_out_and_never_too_many,
    it_never_gets_stuck,
    nothing_starts_before_the_latest_moment_that_was_named,
    after_a_hold_one_canary_is_out_and_nothing_else_starts_before_its_answer,
    epochs_never_fall_and_begin_with_a_hold_only,
)


@settings(max_examples=300)
@given(NATURES, PACES)
def test_every_property_holds_for_any_server(nature: Nature, pace: Pace) -> None:
    story = told(nature, pace)
    for holds in PROPERTIES:
        holds(story)


@settings(max_examples=20)
@given(NATURES, PACES)
def test_the_same_server_and_seed_give_the_same_pace(nature: Nature, pace: Pace) -> None:
    assert told(nature, pace).paces[-1] == told(nature, pace).paces[-1]


@settings(max_examples=60)
@given(NATURES, PACES)
def test_a_fixed_rate_never_changes(nature: Nature, pace: Pace) -> None:
    fixed = replace(pace, fixed=True, spare=0, estimate=None)
    assert {after.rate for _, after, _ in told(nature, fixed).paces} == {pace.rate}


@given(st.lists(st.floats(0.0, 2.0), min_size=2, max_size=100), st.floats(0.5, 100.0))
def test_no_second_has_more_starts_than_a_fixed_rate_allows(late_s: list[float], rate: float) -> None:
    pace, starts = opening(ThrottlePolicy(fixed_rate=rate, concurrency=1000)), list[float]()
    for each_s in late_s:
        pace, ticket = started(pace, max(10.0, ready_at(pace) or 0.0) + each_s)
        starts.append(ticket.started_at)
    for first in starts:
        assert sum(first <= start < first + 1.0 - ROUNDING for start in starts) <= math.ceil(rate)
