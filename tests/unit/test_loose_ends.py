"""What an answer tells the limiter apart from the rate: late ``Retry-After``s, 503s, quotas, 404s, pages of a proxy."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import asyncio_throttle.throttler
import pytest
from engine_bench import ACCEPT, BEGAN_S, COMPLETE, GRACE_S, Bench
from fakes import (
    ACCEPTED,
    NOT_FOUND,
    QUOTA,
    THROTTLED,
    FakeApi,
    FakeThrottle,
    ListLog,
    install_id,
)

from orchestrator.model import AttemptResult, BackupRequest
from orchestrator.outcome import Answer, classify
from orchestrator.pacing import (
    Effect,
    Feedback,
    Observation,
    Pace,
    Phase,
    Ticket,
    held_s,
    learned,
    next_pace,
    opening,
    ready_at,
    started,
)
from orchestrator.pacing.law import FAILURES_THAT_HOLD
from orchestrator.policies import RetryPolicy, ThrottlePolicy, WaitPolicy
from orchestrator.session.narration import PaceNarrator
from orchestrator.throttle.gate import Gate
from orchestrator.value import replace
from orchestrator.wpengine.answers import Received, read_backup

ACCEPTED_POST = Feedback(Effect.SERVED, accepted=True)
LET_IN = Feedback(Effect.SERVED)
REFUSED = Feedback(Effect.THROTTLED)
FAILED = Feedback(Effect.FAILED)

NOON = 100.0
"""The start of a test; any moment would do."""

OPEN = opening(ThrottlePolicy(start_rate=10.0, ceiling=10.0))
UNAVAILABLE = AttemptResult(status=503, message="Service Unavailable")


@pytest.fixture(autouse=True)
def _virtual_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give asyncio-throttle the loop's time, because it takes no clock as an argument."""
    clock = SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time())
    monkeypatch.setattr(asyncio_throttle.throttler, "time", clock)


def named(seconds: float, effect: Effect = Effect.THROTTLED) -> Feedback:
    return Feedback(effect, retry_after_s=seconds)


def heard(pace: Pace, ticket: Ticket, feedback: Feedback, at: float) -> Pace:
    return next_pace(pace, Observation(ticket, feedback, at, 0.0))


def ready(pace: Pace) -> float:
    at = ready_at(pace)
    assert at is not None
    return at


def several(pace: Pace, count: int, now: float = NOON) -> tuple[Pace, list[Ticket]]:
    """Start ``count`` requests, each as soon as possible."""
    tickets = []
    for _ in range(count):
        now = max(now, ready(pace))
        pace, ticket = started(pace, now)
        tickets.append(ticket)
    return pace, tickets


def answered(pace: Pace, feedback: Feedback) -> Pace:
    """Return the pace after one more request was answered 0.1 s after its start."""
    pace, ticket = started(pace, ready(pace))
    return heard(pace, ticket, feedback, ticket.started_at + 0.1)


def failed(pace: Pace) -> Pace:
    for _ in range(FAILURES_THAT_HOLD):
        pace = answered(pace, FAILED)
    assert pace.phase is Phase.HELD
    return pace


class RealThrottle(FakeThrottle):
    """The real gate under the bench, which tells a narrator of each change."""

    def __init__(self, policy: ThrottlePolicy) -> None:
        super().__init__()
        self.log = ListLog()
        self.paces: list[Pace] = []
        self._policy = policy
        self._gate: Gate | None = None

    @property
    def gate(self) -> Gate:
        if self._gate is None:
            narrate = PaceNarrator("default", self.log, lambda *_: None)

            def on_change(before: Pace, after: Pace, observation: Observation | None) -> None:
                self.paces.append(after)
                narrate(before, after, observation)

            self._gate = Gate(self._policy, lambda: 0.0, on_change)
        return self._gate

    def admit_at_once(self) -> Ticket | None:
        return self.gate.admit_at_once()

    async def admit(self) -> Ticket:
        return await self.gate.admit()

    def observe(self, ticket: Ticket, feedback: Feedback) -> None:
        self.words.append(feedback)
        self.gate.observe(ticket, feedback)

    def release(self, ticket: Ticket) -> None:
        self.released += 1
        self.gate.release(ticket)

    def rate(self) -> float:
        return self.gate.rate()

    def held_s(self) -> float:
        return self.gate.held_s()

    def logged(self, event: str) -> list[dict[str, object]]:
        return [fields for name, fields in self.log.events if name == event]


def bench_of(policy: ThrottlePolicy, **rules: Any) -> tuple[Bench, RealThrottle]:
    throttle = RealThrottle(policy)
    return Bench(throttle=throttle, **rules), throttle


# -- a Retry-After that comes late -------------------------------------------------------------------------------------


def test_the_wait_that_a_late_429_names_counts_as_held_in_every_phase() -> None:
    pace, (first, late) = several(opening(ThrottlePolicy(fixed_rate=10.0)), 2)
    held = heard(pace, first, REFUSED, NOON + 1.0)
    canary_out, canary = started(held, ready(held))
    before = heard(heard(canary_out, late, named(30.0), NOON + 2.0), canary, ACCEPTED_POST, NOON + 3.0)
    after = heard(heard(canary_out, canary, ACCEPTED_POST, NOON + 3.0), late, named(30.0), NOON + 4.0)
    assert (before.phase, after.phase) == (Phase.FLOWING, Phase.FLOWING)
    assert (ready(before), ready(after)) == pytest.approx((NOON + 32.0, NOON + 34.0))
    assert [held_s(before, NOON + at) for at in (3, 10, 32, 50)] == pytest.approx([2.0, 9.0, 31.0, 31.0])
    assert [held_s(after, NOON + at) for at in (4, 10, 34, 50)] == pytest.approx([2.0, 8.0, 32.0, 32.0])


def test_a_wait_that_overlaps_a_hold_counts_once() -> None:
    pace, tickets = several(OPEN, 3)
    pace = heard(pace, tickets[0], named(20.0, Effect.FAILED), NOON + 1.0)
    pace = heard(pace, tickets[1], named(10.0), NOON + 5.0)
    assert (pace.phase, ready(pace)) == (Phase.HELD, NOON + 21.0)
    assert held_s(pace, NOON + 11.0) == 10.0
    pace = answered(pace, ACCEPTED_POST)
    assert held_s(pace, NOON + 60.0) == pytest.approx(20.1)


class LateApi(FakeApi):
    """Refuse the first POSTs of installs 0 and 1. The answer to 1 takes ``late_s`` and names a wait of 50 s."""

    def __init__(self, late_s: float) -> None:
        super().__init__()
        self._late_s = late_s
        self.script(0, THROTTLED, ACCEPTED)
        self.script(1, replace(THROTTLED, retry_after_s=50.0), ACCEPTED)

    async def create_backup(self, request: BackupRequest) -> AttemptResult:
        is_late = request.install_id == install_id(1) and not self.posts[request.install_id]
        self.post_takes_s = self._late_s if is_late else 0.1
        return await super().create_backup(request)


@pytest.mark.parametrize("late_s", [0.2, 3.0])
def test_a_late_retry_after_holds_the_whole_pool_is_logged_and_costs_no_install_its_deadline(late_s: float) -> None:
    policy = ThrottlePolicy(fixed_rate=20.0)
    bench, throttle = bench_of(policy, installs=90, api=LateApi(late_s), retry=RetryPolicy(3, 40.0))
    bench.run()
    assert bench.kinds() == {ACCEPT: 90}
    named_at = bench.posted(1)[0] + late_s + 50.0
    (told,) = throttle.logged("throttle.held_longer")
    assert (told["why"], told["for_s"], told["retry_after_s"]) == ("429", 50.0, 50.0)
    others = [at for number in range(90) for at in bench.posted(number)]
    assert not [at for at in others if named_at - 50.0 + 1e-6 < at < named_at - 1e-6]
    assert any(at >= named_at - 1e-6 for at in others)


def test_429s_that_come_one_after_another_do_not_log_each_of_their_moments() -> None:
    log = ListLog()
    say = PaceNarrator("default", log, lambda *_: None)
    pace, tickets = several(OPEN, 8)
    for number, ticket in enumerate(tickets):
        feedback = named(7.0 if number < 7 else 8.0)
        observation = Observation(ticket, feedback, NOON + 1.0 + 0.02 * number, 0.0)
        before, pace = pace, next_pace(pace, observation)
        say(before, pace, observation)
    assert log.names == ["throttle.held", "throttle.held_longer"]
    assert (log.events[1][1]["for_s"], log.events[1][1]["retry_after_s"]) == (8.0, 8.0)


# -- a Retry-After of a 503 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 503, 408])
def test_no_request_of_the_budget_comes_before_the_moment_that_an_ambiguous_answer_names(status: int) -> None:
    bench, throttle = bench_of(ThrottlePolicy(fixed_rate=10.0), installs=20, retry=RetryPolicy(3, GRACE_S - 40.0))
    bench.api.script(5, replace(UNAVAILABLE, status=status, retry_after_s=45.0), ACCEPTED)
    bench.run()
    assert bench.kinds() == {ACCEPT: 20}
    answered_at = bench.posted(5)[0] + 0.1
    requests = [at for number in range(20) for at in (*bench.posted(number), *bench.looked(number))]
    assert not [at for at in requests if answered_at + 1e-6 < at < answered_at + 45.0 - 1e-6]
    assert held_s(throttle.gate.pace, BEGAN_S + bench.seconds) == pytest.approx(45.0)
    (told,) = throttle.logged("throttle.held_longer")
    assert (told["why"], told["for_s"]) == ("failed request", 45.0)


def test_the_retry_after_of_a_served_answer_holds_nothing() -> None:
    pace = answered(OPEN, named(45.0, Effect.SERVED))
    assert (ready(pace), pace.hold) == (ready(answered(OPEN, LET_IN)), OPEN.hold)


def test_a_failed_canary_obeys_its_retry_after() -> None:
    pace = answered(failed(OPEN), named(45.0, Effect.FAILED))
    assert (pace.phase, ready(pace)) == (Phase.HELD, pace.hold.not_before)
    assert ready(pace) > pace.hold.until


# -- quotas ------------------------------------------------------------------------------------------------------------


def test_a_used_up_quota_stops_its_account_and_teaches_the_limiter_nothing() -> None:
    bench, throttle = bench_of(ThrottlePolicy(ceiling=20.0), installs=60, others=60)
    bench.api.script(20, replace(QUOTA, retry_after_s=50.0))
    end = bench.run()
    assert list(end.stops) == ["default"]
    assert bench.sink.of(20).spent.throttled == 1
    assert bench.accounts[0].throttled == 1
    assert all(bench.sink.of(100 + number).kind is ACCEPT for number in range(60))
    pace = throttle.gate.pace
    assert (pace.estimate, learned(pace), pace.epoch) == (None, None, 0)
    assert pace.evidence == OPEN.evidence
    assert throttle.logged("throttle.held") == []
    assert bench.seconds < 20


# -- holds that do not grow --------------------------------------------------------------------------------------------


def test_a_canary_that_is_served_without_being_accepted_makes_the_next_hold_short_again() -> None:
    pace = OPEN
    for _ in range(8):
        pace = answered(pace, REFUSED)
        assert pace.hold.row == 1
        pace = answered(answered(pace, LET_IN), LET_IN)
    grown = answered(answered(answered(OPEN, REFUSED), REFUSED), REFUSED)
    assert (grown.hold.row, answered(grown, LET_IN).hold.row) == (3, 0)


def test_holds_after_failures_grow_until_a_post_is_accepted() -> None:
    pace = failed(OPEN)
    assert (pace.hold.row, pace.hold.failed_row) == (1, 1)
    pace = failed(answered(pace, LET_IN))
    assert (pace.hold.row, pace.hold.failed_row) == (2, 2)
    pace = answered(answered(pace, LET_IN), LET_IN)
    assert pace.hold.row == 2
    pace = answered(answered(pace, REFUSED), REFUSED)
    assert (pace.hold.row, answered(pace, LET_IN).hold.row) == (4, 2)
    pace = answered(pace, ACCEPTED_POST)
    assert (pace.hold.row, pace.hold.failed_row) == (0, 0)


def test_404s_between_429s_keep_the_holds_short_in_a_run() -> None:
    api = FakeApi(default=NOT_FOUND)
    for number in range(0, 120, 10):
        api.script(number, THROTTLED, NOT_FOUND)
    bench, throttle = bench_of(ThrottlePolicy(fixed_rate=20.0, concurrency=1), installs=120, api=api)
    bench.run()
    holds = [fields["for_s"] for fields in throttle.logged("throttle.held")]
    assert holds == [0.5] * 12


# -- a 429 of a proxy --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"<html><head><title>429 Too Many Requests</title></head><body>Limit Exceeded</body></html>",
        b"Limit Exceeded",
        b"",
        b"[]",
        b"\xff\xfe",
    ],
)
def test_a_429_without_json_is_a_429(body: bytes) -> None:
    result = read_backup(Received(AttemptResult(status=429, retry_after_s=3.0), body, str))
    assert (classify(result), result.retry_after_s) == (Answer.THROTTLED, 3.0)


def test_only_the_message_of_a_json_body_tells_of_a_quota() -> None:
    result = read_backup(Received(AttemptResult(status=429), json.dumps({"message": "Limit Exceeded"}).encode(), str))
    assert classify(result) is Answer.QUOTA


# -- a limit for GETs beside the one for POSTs -------------------------------------------------------------------------


class Bucket:
    """A bucket that refuses what exceeds it."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst, self._level, self._at = rate, burst, 0.0, 0.0
        self.refused = 0

    def refuses(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._level, self._at = max(0.0, self._level - self._rate * (now - self._at)), now
        if self._level + 1 > self._burst:
            self.refused += 1
            return True
        self._level += 1
        return False


def test_refused_polls_come_again_and_do_not_keep_posts_back() -> None:
    gets = Bucket(2.0, 2.0)
    bench, throttle = bench_of(ThrottlePolicy(ceiling=20.0), installs=90, wait=WaitPolicy(3000.0, 1.0))
    bench.api.ends_after_s = 5.0
    bench.api.on_poll = lambda *_: THROTTLED if gets.refuses() else None
    bench.run()
    assert gets.refused > 0
    assert bench.kinds() == {COMPLETE: 90}
    last = max(bench.posted(number)[-1] for number in range(90))
    assert last < 90 / 5.0
    assert max(float(str(fields["for_s"])) for fields in throttle.logged("throttle.held")) < 3.0
    assert bench.sink.of(0).spent.throttled == 0
