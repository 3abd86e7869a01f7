"""What holds for the control law whatever the server does."""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.model import Learned, ThrottlePolicy
from orchestrator.pacing import (
    Effect,
    Observation,
    Pace,
    Phase,
    Ticket,
    Word,
    in_flight_bound,
    learned,
    next_pace,
    opening,
    ready_at,
    released,
    started,
)
from orchestrator.pacing.capacity import LEAST_RATE, SHORTEST_S
from orchestrator.pacing.growth import SPEND_S

ROUNDING_S = 1e-9
"""What sums of floats may be off by."""


@dataclass(frozen=True)
class Nature:
    """What a server is like, and what chance does to its answers.

    ``rate`` and ``burst`` of a bucket, which change by ``change`` half-way; ``most`` in flight; shares of the requests
    that fail, are lost, are refused out of the blue, whose 429 names a moment. Every ``idle``-th request comes late.
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
    """What happened, and what the law made of it: ``before``, the observation if there was an answer, ``after``."""

    heard: list[tuple[Pace, Observation, Pace]] = field(default_factory=list)
    paces: list[tuple[float, Pace, int]] = field(default_factory=list)
    starts: list[tuple[float, float, Pace, Ticket]] = field(default_factory=list)
    stuck: bool = False


def told(nature: Nature, pace: Pace, requests: int = 150) -> Story:
    """Return the story of so many requests: each start and each answer, one after the other."""
    chance, story, now, named_at = random.Random(nature.seed), Story(), 1000.0, 0.0
    tokens, filled_at, inside = nature.burst, now, 0
    under_way: list[tuple[float, int, Ticket, Word | None]] = []
    number = 0
    while number < requests or under_way:
        at = ready_at(pace) if number < requests else None
        if at is None and not under_way:
            story.stuck = True
            return story
        if at is not None and (not under_way or max(now, at) <= under_way[0][0]):
            now, number = max(now, at), number + 1
            now += chance.uniform(0.0, 30.0) if nature.idle and number % nature.idle == 0 else 0.0
            before = pace
            pace, ticket = started(pace, now)
            story.starts.append((now, named_at, before, ticket))
            rate = nature.rate * (nature.change if number > requests / 2 else 1.0)
            tokens, filled_at = min(nature.burst, tokens + (now - filled_at) * rate), now
            word: Word | None = Word(Effect.SERVED, accepted=not ticket.read_only)
            if chance.random() < nature.lost:
                word = None
            elif chance.random() < nature.failing:
                word = Word(Effect.FAILED)
            elif tokens < 1 or inside >= nature.most or chance.random() < nature.moody:
                names = chance.random() < nature.naming
                word = Word(Effect.THROTTLED, retry_after_s=chance.choice([0.0, 0.3, 7.0, 400.0]) if names else None)
            else:
                tokens, inside = tokens - 1, inside + 1
            heapq.heappush(under_way, (now + chance.uniform(*nature.latency_s), number, ticket, word))
        else:
            now, _, ticket, word = heapq.heappop(under_way)
            if word is None:
                pace = released(pace, ticket, now)
            else:
                observation = Observation(ticket, word, now, chance.random())
                after = next_pace(pace, observation)
                story.heard.append((pace, observation, after))
                pace, inside = after, inside - (word.effect is Effect.SERVED)
                if word.retry_after_s is not None:
                    named_at = max(named_at, now + word.retry_after_s)
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

whatever_happens = given(nature=NATURES, pace=PACES)
pytestmark = pytest.mark.filterwarnings("error")
settings.register_profile("pacing", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pacing")
