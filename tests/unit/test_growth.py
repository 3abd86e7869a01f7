"""How the rate grows: step by step, and against small servers in virtual time."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest

from orchestrator.pacing import (
    Binding,
    Cause,
    Effect,
    Feedback,
    Observation,
    Pace,
    Phase,
    Stage,
    Ticket,
    in_flight_bound,
    learned,
    next_pace,
    opening,
    ready_at,
    started,
)
from orchestrator.pacing.capacity import Estimate
from orchestrator.pacing.flight import FIRST_IN_FLIGHT, Borne, unqueued
from orchestrator.pacing.growth import (
    ANSWERED_SHARE,
    BLIND,
    BOLD_SHARE,
    BURST_MARGIN,
    BURST_SPENT_IN_S,
    CREDIT_LIMIT,
    CREDIT_PER_SERVED,
    FALLEN_SHARE,
    FILLING_SHARE,
    FIRST_PROBE,
    FIRST_QUIET_S,
    LARGEST_MEASURING_STEP,
    LARGEST_PROBE,
    LEAST_MEASURING_STEP,
    LONGEST_QUIET_S,
    MEASURING_INTERVAL_S,
    PROBE_ANSWERS,
    PROBE_INTERVAL_S,
    PROBE_LATENCIES,
    QUIET_AFTER_FALL_S,
    REFUSALS_AT_RISK,
    SEEKING_GAIN,
    SEEKING_STEPS,
    SETTLED_SHARE,
    SHORTEST_SEEKING_S,
    UNCERTAIN,
    answered,
    grown,
)
from orchestrator.pacing.latency import Latency
from orchestrator.pacing.state import Growth
from orchestrator.policies import ThrottlePolicy

NOON = 1000.0
"""The start of a test; any moment would do."""

ACCEPTED, REFUSED = Feedback(Effect.SERVED, accepted=True), Feedback(Effect.THROTTLED)


@dataclass
class Server:
    """A server in virtual time, and a client that always has more to send.

    With a ``rate`` it has a bucket of ``rate`` and ``burst``. With ``slots`` each slot works ``latency_s`` on one
    request after the other. ``log`` has the moment and the pace after each start and each answer.
    """

    rate: float | None = None
    burst: float = 1.0
    latency_s: tuple[float, float] = (0.05, 0.05)
    slots: int | None = None
    seed: int = 0
    now: float = NOON
    log: list[tuple[float, Pace]] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    refused_at: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.tokens, self.filled_at = self.burst, self.now
        self.free_at = [0.0] * (self.slots or 0)
        self.under_way: list[tuple[float, int, Ticket, Feedback]] = []

    def serve(self, pace: Pace, seconds: float) -> Pace:
        """Run for so many seconds, and return the pace."""
        until = self.now + seconds
        while True:
            at = ready_at(pace)
            starts_at = math.inf if at is None else max(self.now, at)
            answered_at = self.under_way[0][0] if self.under_way else math.inf
            if min(starts_at, answered_at) > until:
                self.now = until
                return pace
            self.now = min(starts_at, answered_at)
            pace = self._start(pace) if starts_at <= answered_at else self._answer(pace)
            self.log.append((self.now, pace))

    def _start(self, pace: Pace) -> Pace:
        pace, ticket = started(pace, self.now)
        self.starts.append(self.now)
        seconds = self.chance.uniform(*self.latency_s)
        feedback = self._word(self.now + (0.0 if self.slots else seconds / 2))
        if self.slots and feedback is ACCEPTED:
            seconds += max(0.0, heapq.heappop(self.free_at) - self.now)
            heapq.heappush(self.free_at, self.now + seconds)
        heapq.heappush(self.under_way, (self.now + seconds, len(self.starts), ticket, feedback))
        return pace

    def _word(self, arrived_at: float) -> Feedback:
        if self.rate is None:
            return ACCEPTED
        passed_s = max(0.0, arrived_at - self.filled_at)
        self.tokens, self.filled_at = min(self.burst, self.tokens + passed_s * self.rate), self.filled_at + passed_s
        if self.tokens < 1:
            self.refused_at.append(arrived_at)
            return REFUSED
        self.tokens -= 1
        return ACCEPTED

    def _answer(self, pace: Pace) -> Pace:
        at, _, ticket, feedback = heapq.heappop(self.under_way)
        return next_pace(pace, Observation(ticket, feedback, at, self.chance.random()))

    @property
    def paces(self) -> list[Pace]:
        return [pace for _, pace in self.log]

    def changes(self) -> list[tuple[float, Pace]]:
        """Return the moment and the new pace of each change of the rate."""
        return [
            (at, after) for (_, before), (at, after) in pairwise(self.log) if before.rate != after.rate
        ]  # fmt: skip


def settled(rate: float = 50.0, burst: float = 100.0, ceiling: float = 1000.0) -> Pace:
    """Return the first pace of a run that knows its limit."""
    estimate = Estimate(0.99 * rate, rate, 1.01 * rate, burst=burst)
    begun = opening(ThrottlePolicy(ceiling=ceiling, concurrency=1000))
    return replace(begun, rate=SETTLED_SHARE * rate, stage=Stage.SETTLED, estimate=estimate)


def measuring(rate: float, high: float) -> Pace:
    """Return a pace whose bounds are far apart."""
    return replace(settled(), rate=rate, stage=Stage.MEASURING, estimate=Estimate(rate, rate, high))


def quick(pace: Pace, latency_s: float = 0.05) -> Pace:
    return replace(pace, flight=replace(pace.flight, latency=Latency(shortest_s=latency_s, recent_s=latency_s)))


SEEKING = opening(ThrottlePolicy(start_rate=5.0, ceiling=1000.0, concurrency=1000))


# -- conditions of any growth ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pace", [replace(SEEKING, rate=10.0), measuring(10.0, 40.0), settled(10.0)])
def test_an_unused_rate_does_not_grow(pace: Pace) -> None:
    rate, now = pace.rate, NOON
    for _ in range(60):
        pace, ticket = started(pace, now)
        pace = next_pace(pace, Observation(ticket, ACCEPTED, now + 0.05))
        now += 0.4
    assert pace.rate == rate


@pytest.mark.parametrize("pace", [replace(SEEKING, rate=10.0), measuring(10.0, 40.0), settled(10.0)])
def test_a_fully_used_rate_grows(pace: Pace) -> None:
    assert Server().serve(replace(pace, ceiling=40.0), 20.0).rate > pace.rate


@pytest.mark.parametrize("pace", [replace(SEEKING, rate=10.0), measuring(10.0, 40.0), settled(10.0)])
def test_no_rate_grows_while_answers_slow_down(pace: Pace) -> None:
    slow = Latency(shortest_s=0.1, recent_s=0.5, throughputs=(30.0,))
    server = Server(latency_s=(0.45, 0.55))
    server.serve(replace(pace, flight=replace(pace.flight, latency=slow)), 1.5)
    assert all(after.rate <= pace.rate for after in server.paces)


def test_answers_that_became_slower_for_other_reasons_stop_the_growth_only_for_a_time() -> None:
    slow = Latency(shortest_s=0.05, recent_s=0.16, throughputs=(10.0,))
    pace = settled(10.0)
    server = Server(latency_s=(0.15, 0.17))
    after = server.serve(replace(pace, flight=replace(pace.flight, latency=slow)), 25.0)
    assert after.rate > 2 * pace.rate


@pytest.mark.parametrize("pace", [replace(SEEKING, rate=20.0), measuring(20.0, 80.0)])
def test_the_growth_waits_for_an_answer_at_the_current_rate(pace: Pace) -> None:
    server = Server(latency_s=(1.5, 1.5))
    server.serve(replace(pace, served=100), 1.4)
    assert len(server.starts) > BLIND
    steps = [after for _, after in server.changes() if after.in_flight > BLIND]
    assert steps == []


def test_seeking_goes_on_while_few_requests_are_unanswered() -> None:
    server = Server(latency_s=(9.0, 9.0))
    assert server.serve(SEEKING, 2.0).rate > SEEKING.rate


def test_the_rate_never_exceeds_the_ceiling() -> None:
    server = Server()
    server.serve(replace(SEEKING, ceiling=30.0), 20.0)
    assert max(pace.rate for pace in server.paces) == 30.0


# -- seeking -----------------------------------------------------------------------------------------------------------


def test_seeking_raises_the_rate_in_smaller_and_smaller_steps_with_a_least_interval() -> None:
    server = Server()
    server.serve(SEEKING, 2.0)
    changes = server.changes()
    rates = [SEEKING.rate, *(pace.rate for _, pace in changes)]
    served = [pace.served for _, pace in changes]
    for (before, after), count in list(zip(pairwise(rates), served, strict=True))[:-1]:
        allowed = next(factor for most, factor in SEEKING_STEPS if most is None or count < most)
        assert after / before == pytest.approx(allowed)
    assert {pace.cause for _, pace in changes} == {Cause.NOT_REFUSED}
    assert all(later - first >= SHORTEST_SEEKING_S for (first, _), (later, _) in pairwise(changes))
    assert rates[-1] > 8 * rates[0]


def test_a_steady_rate_of_answers_stops_seeking() -> None:
    server = Server(slots=4, latency_s=(0.1, 0.1))
    server.serve(SEEKING, 30.0)
    assert max(pace.rate for pace in server.paces) <= 3 * 40.0
    at, slowed = next((at, pace) for at, pace in server.changes() if pace.cause is Cause.SLOWING)
    assert slowed.stage is Stage.SETTLED
    assert slowed.rate <= FILLING_SHARE * 1.1 * 40.0
    assert at - NOON < 10.0


def sought(answers: int, served: int = 10, in_flight: int = BLIND + 1) -> Pace:
    """Return the pace while seeking at 100 requests a second, 0.3 s after the last step."""
    growth = Growth(since=NOON, started=30, served=served, answers=answers, answer_rate=7.0)
    return grown(replace(SEEKING, rate=100.0, in_flight=in_flight, growth=growth), NOON + 0.3)


@pytest.mark.parametrize(
    ("pace", "is_higher"),
    [
        (sought(math.floor(ANSWERED_SHARE * 30) + 1), True),
        (sought(math.floor(ANSWERED_SHARE * 30)), False),
        (sought(30, served=1), True),
        (sought(30, served=0), False),
        (sought(0, served=0, in_flight=BLIND), True),
    ],
    ids=["answers keep up", "far fewer answers than starts", "one in time", "none in time", "few in flight"],
)
def test_seeking_goes_on_while_answers_keep_up_or_few_requests_are_in_flight(pace: Pace, *, is_higher: bool) -> None:
    assert (pace.rate > 100.0) is is_higher


def test_the_answer_rate_is_the_higher_of_the_current_and_the_last_step() -> None:
    begun = Growth(since=NOON, answers=9, answer_rate=15.0)
    assert answered(begun, NOON + 0.5) == replace(begun, answers=10, answer_rate=20.0)
    assert answered(begun, NOON + 2.0) == replace(begun, answers=10)
    assert answered(begun, NOON + 0.9 * SHORTEST_SEEKING_S) == replace(begun, answers=10)
    assert answered(replace(begun, since=None), NOON) == replace(begun, since=None, answers=10)
    assert sought(15).growth.answer_rate == pytest.approx(15 / 0.3)


@pytest.mark.parametrize("answer_rate", [1.0, 400.0, 1e6])
def test_while_seeking_the_answer_rate_bounds_the_number_in_flight(answer_rate: float) -> None:
    growth = Growth(since=NOON, answer_rate=answer_rate)
    pace = replace(quick(SEEKING, 0.1), rate=1000.0, served=100_000, growth=growth)
    rate = min(1000.0, SEEKING_GAIN * answer_rate)
    assert in_flight_bound(pace) == max(FIRST_IN_FLIGHT, unqueued(0.1, rate))
    known = replace(settled(1000.0), rate=1000.0, flight=pace.flight, served=100_000)
    assert in_flight_bound(known) == unqueued(0.1, 1000.0)


# -- measuring ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("high", "factors"),
    [
        (1e6, (LARGEST_MEASURING_STEP, LARGEST_MEASURING_STEP)),
        (21.0, (LEAST_MEASURING_STEP,) * 2),
        (80.0, (1.05, 1.35)),
    ],
)
def test_between_bounds_the_rate_rises_in_partial_steps(high: float, factors: tuple[float, float]) -> None:
    server = Server()
    server.serve(measuring(20.0, high), 2 * MEASURING_INTERVAL_S)
    at, pace = server.changes()[0]
    assert at - NOON >= MEASURING_INTERVAL_S
    assert factors[0] - 1e-9 <= pace.rate / 20.0 <= factors[1] + 1e-9
    assert (pace.cause, pace.stage) == (Cause.NARROWING, Stage.MEASURING)


def test_a_rate_that_reaches_the_upper_bound_is_settled_there() -> None:
    server = Server()
    server.serve(measuring(20.0, 22.0), 20.0)
    _, pace = next(change for change in server.changes() if change[1].stage is Stage.SETTLED)
    assert (pace.rate, pace.limit, pace.growth.quiet_s) == (22.0, 22.0, QUIET_AFTER_FALL_S)
    assert max(each.rate for each in server.paces if each.stage is Stage.MEASURING) < 22.0


@pytest.mark.parametrize(
    ("latency_s", "least_s"),
    [(0.05, MEASURING_INTERVAL_S), (1.0, PROBE_LATENCIES * 1.0)],
)
def test_a_step_between_bounds_waits_for_answers(latency_s: float, least_s: float) -> None:
    pace, server = measuring(20.0, 80.0), Server(latency_s=(latency_s, latency_s))
    latency = Latency(shortest_s=latency_s, recent_s=latency_s)
    server.serve(replace(pace, flight=replace(pace.flight, latency=latency)), 5 * least_s)
    moments = [at for at, _ in server.changes()]
    assert len(moments) >= 2
    assert all(later - first >= least_s - 1e-9 for first, later in pairwise([NOON, *moments]))


# -- probing -----------------------------------------------------------------------------------------------------------


def test_the_first_probe_is_small_and_comes_after_a_quiet_time() -> None:
    server = Server()
    pace = quick(settled())
    server.serve(pace, FIRST_QUIET_S + 1.0)
    at, probe = server.changes()[0]
    assert at - NOON == pytest.approx(FIRST_QUIET_S, abs=0.2)
    assert probe.rate == pytest.approx(pace.rate * (1 + FIRST_PROBE))
    assert (probe.cause, probe.growth.probes) == (Cause.PROBE, 1)


def test_a_probe_needs_credit_which_served_requests_earn() -> None:
    server = Server()
    pace = quick(settled())
    pace = replace(pace, growth=replace(pace.growth, credit=-1.5))
    server.serve(replace(pace, ceiling=60.0), 60.0)
    at, probe = server.changes()[0]
    needed = 2.5 / CREDIT_PER_SERVED
    assert probe.served >= needed - 1
    assert at - NOON >= needed / 50.0
    assert at - NOON <= needed / 50.0 + 2 * FIRST_QUIET_S
    assert server.paces[-1].growth.credit <= CREDIT_LIMIT


def test_credit_has_a_limit() -> None:
    server = Server()
    server.serve(quick(settled(ceiling=50.0)), 30.0)
    assert max(pace.growth.credit for pace in server.paces) == CREDIT_LIMIT


def probed(burst: float, latency_s: float, seconds: float) -> list[tuple[float, float]]:
    """Return each rate from the first probe on, with the number of requests sent beyond a limit of 50 a second."""
    server = Server(latency_s=(latency_s, latency_s))
    server.serve(quick(settled(burst=burst, ceiling=300.0), latency_s), FIRST_QUIET_S + seconds)
    begun_at, begun = server.changes()[0]
    sent_before = begun.served + begun.in_flight
    return [
        (pace.rate, pace.served + pace.in_flight - sent_before - 50.0 * (at - begun_at))
        for at, pace in server.log
        if at >= begun_at
    ]


@pytest.mark.parametrize(
    ("burst", "latency_s", "above"),
    [
        (4.0, 0.05, BOLD_SHARE * 50),
        (20.0, 0.05, 20 / BURST_SPENT_IN_S),
        (100.0, 0.2, REFUSALS_AT_RISK / 0.2),
    ],
)
def test_probes_stay_small_until_the_burst_is_spent_and_then_grow(burst: float, latency_s: float, above: float) -> None:
    seen = probed(burst, latency_s, 12.0)
    beyond = BURST_MARGIN * burst + UNCERTAIN
    assert max(rate for rate, sent in seen if sent < beyond - 1) == pytest.approx(50.0 + above)
    assert max(rate for rate, sent in seen if sent > beyond + 1) > 100.0


@pytest.mark.parametrize(("burst", "latency_s"), [(400.0, 0.2), (200.0, 1.0)])
def test_probes_grow_even_if_the_burst_takes_long_to_spend(burst: float, latency_s: float) -> None:
    above = max(BOLD_SHARE * 50, min(burst / BURST_SPENT_IN_S, REFUSALS_AT_RISK / latency_s))
    assert max(rate for rate, _ in probed(burst, latency_s, 1.5 * burst / above)) > 100.0


def test_later_probes_grow_up_to_a_limit_and_wait_for_answers() -> None:
    server = Server()
    server.serve(quick(settled(burst=0.0)), FIRST_QUIET_S + 8.0)
    changes = server.changes()
    factors = [after.rate / before.rate for (_, before), (_, after) in pairwise(changes)]
    bold = factors[-5:-1]
    assert all(later >= first - 1e-9 for first, later in pairwise(bold))
    assert max(factors) == pytest.approx(1 + LARGEST_PROBE)
    for (first, _), (later, pace) in pairwise(changes):
        assert later - first >= PROBE_INTERVAL_S
        assert pace.served >= PROBE_ANSWERS


def refused_at(pace: Pace, now: float) -> Pace:
    """Return the pace after a 429 and a canary that was served after the hold."""
    pace, ticket = started(pace, max(now, ready_at(pace) or 0.0))
    pace = next_pace(pace, Observation(ticket, REFUSED, ticket.started_at + 0.05))
    pace, canary = started(pace, ready_at(pace) or 0.0)
    return next_pace(pace, Observation(canary, ACCEPTED, canary.started_at + 0.05))


def test_a_refused_probe_costs_credit_and_doubles_the_quiet_time_up_to_a_limit() -> None:
    server = Server(rate=50.0, burst=50.0, latency_s=(0.02, 0.06))
    server.serve(SEEKING, 600.0)
    pairs = list(itertools.pairwise(server.paces))
    refused = [pair for pair in pairs if pair[1].epoch > pair[0].epoch and pair[0].growth.probes]
    assert refused
    for before, after in refused:
        assert after.growth.credit == pytest.approx(before.growth.credit - 1.0)
    concluded = [
        pair
        for pair in pairs
        if (pair[0].phase, pair[1].phase) == (Phase.CANARY, Phase.FLOWING) and pair[0].growth.probes
    ]
    doubled = [
        (before.growth.quiet_s, after.growth.quiet_s)
        for before, after in concluded
        if after.estimate is not None and after.estimate.agrees and before.stage is Stage.SETTLED
    ]
    assert doubled
    for quiet_s, longer_s in doubled:
        assert longer_s == min(LONGEST_QUIET_S, 2.0 * quiet_s)
    assert all(after.growth.probes == 0 for _, after in concluded)


def test_after_a_fall_of_the_limit_the_quiet_time_is_short() -> None:
    server = Server(rate=50.0, burst=50.0, latency_s=(0.02, 0.06))
    pace = server.serve(SEEKING, 60.0)
    assert pace.growth.peak == pytest.approx(50.0, rel=0.1)
    server.rate = 50.0 * FALLEN_SHARE * 0.5
    server.serve(pace, 60.0)
    assert QUIET_AFTER_FALL_S in {each.growth.quiet_s for each in server.paces}
    assert server.paces[-1].limit == pytest.approx(server.rate, rel=0.1)


# -- binding limits ----------------------------------------------------------------------------------------------------


def with_flight(pace: Pace, most: int | None, shortest_s: float | None) -> Pace:
    latency = Latency(shortest_s=shortest_s, recent_s=shortest_s or 0.0)
    return replace(pace, flight=replace(pace.flight, borne=Borne(most=most, raised_at=NOON), latency=latency))


@pytest.mark.parametrize(
    ("pace", "binding"),
    [
        (with_flight(settled(), 3, None), Binding.REFUSED_IN_FLIGHT),
        (with_flight(settled(), None, 0.1), Binding.SLOW_ANSWERS),
        (replace(settled(), concurrency=3), Binding.CONCURRENCY),
        (settled(1.0), Binding.RATE),
    ],
)
def test_the_reason_why_the_rate_is_not_used_is_reported(pace: Pace, binding: Binding) -> None:
    server = Server(latency_s=(0.9, 1.1))
    pace = server.serve(replace(pace, growth=replace(pace.growth, quiet_s=2.0)), 4.0)
    assert pace.binding is binding
    freed = replace(pace, concurrency=1000, flight=settled().flight)
    server.latency_s = (0.05, 0.05)
    assert server.serve(freed, 6.0).binding is Binding.RATE


@pytest.mark.parametrize("pace", [replace(SEEKING, rate=40.0), measuring(40.0, 90.0)])
def test_the_answer_rate_of_a_server_that_slows_down_is_its_limit(pace: Pace) -> None:
    server = Server(slots=4, latency_s=(0.2, 0.2))
    server.serve(with_flight(pace, None, 0.2), 10.0)
    slowed = next(each for _, each in server.changes() if each.cause is Cause.SLOWING)
    assert slowed.estimate is not None
    assert slowed.stage is Stage.SETTLED
    assert slowed.limit == pytest.approx(20.0, rel=0.3)
    assert slowed.estimate.low < slowed.estimate.rate < slowed.estimate.high
    assert slowed.rate == pytest.approx(min(pace.rate, FILLING_SHARE * slowed.estimate.rate))
    assert slowed.growth.quiet_s == FIRST_QUIET_S


@pytest.mark.parametrize("pace", [replace(SEEKING, rate=10.0), measuring(10.0, 40.0)])
def test_slow_answers_to_an_unused_rate_do_not_change_it(pace: Pace) -> None:
    rate, now = pace.rate, NOON
    for number in range(60):
        pace, ticket = started(pace, now)
        pace = next_pace(pace, Observation(ticket, ACCEPTED, now + (0.05 if number < 30 else 0.25)))
        now += 0.4
    assert pace.rate == rate


# -- servers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("rate", "burst", "seconds"), [(5.0, 5.0, 240), (20.0, 20.0, 120), (50.0, 100.0, 60)])
def test_a_bucket_is_almost_fully_used_with_few_429s_and_the_right_limit_is_learned(
    rate: float, burst: float, seconds: float, seed: int
) -> None:
    server = Server(rate, burst, (0.02, 0.08), seed=seed)
    pace = server.serve(SEEKING, seconds)
    assert pace.served / (burst + rate * seconds) > 0.93
    assert len(server.refused_at) <= max(6, 0.02 * len(server.starts))
    found = learned(pace)
    assert found is not None
    assert found.rate == pytest.approx(rate, rel=0.05)
    again = Server(rate, burst, (0.02, 0.08), seed=seed + 100)
    second = again.serve(opening(ThrottlePolicy(ceiling=1000.0), found), seconds / 2)
    assert len(again.refused_at) <= max(12, 0.02 * len(again.starts))
    assert second.served / (burst + rate * seconds / 2) > 0.95


def test_a_limit_that_rose_fourfold_is_found_within_ten_seconds_of_the_first_probe() -> None:
    server = Server(50.0, 100.0, (0.02, 0.08))
    pace = server.serve(SEEKING, 30.0)
    server.rate, server.burst = 200.0, 400.0
    began = len(server.log)
    server.serve(pace, 30.0)
    later = server.log[began:]
    probed_at = next(at for at, each in later if each.growth.probes)
    found_at = next(at for at, each in later if each.rate >= 180.0)
    assert found_at - probed_at <= 10.0


def test_a_limit_that_fell_to_a_quarter_is_followed_within_15_seconds() -> None:
    server = Server(20.0, 20.0, (0.02, 0.08))
    pace = server.serve(SEEKING, 60.0)
    server.rate, server.burst, fell_at, refused = 5.0, 5.0, server.now, len(server.refused_at)
    server.tokens = min(5.0, server.tokens)
    pace = server.serve(pace, 40.0)
    assert pace.limit == pytest.approx(5.0, rel=0.15)
    assert next(at for at, each in server.log if at > fell_at and each.rate < 7.0) - fell_at < 15.0
    assert len(server.refused_at) - refused <= 12


def test_with_answers_after_a_second_the_number_in_flight_does_not_limit_the_rate() -> None:
    server = Server(40.0, 40.0, (0.6, 1.4))
    pace = server.serve(replace(SEEKING, ceiling=50.0, concurrency=200), 60.0)
    assert pace.served > 0.8 * 40 * 60
    known = [each for each in server.paces if each.stage is not Stage.SEEKING and each.phase is Phase.FLOWING]
    assert all(in_flight_bound(each) > 1.2 * each.rate * 1.0 for each in known if each.rate <= 50.0)
    assert {each.binding for each in known} == {Binding.RATE}


def test_a_server_that_slows_down_is_kept_busy_with_short_queues() -> None:
    server = Server(slots=8, latency_s=(0.25, 0.25))
    pace = server.serve(SEEKING, 60.0)
    assert pace.served > 0.85 * 32 * 60
    assert not server.refused_at
    late = [each for at, each in server.log if at > NOON + 10.0]
    assert max(each.in_flight for each in late) <= 3 * 8
