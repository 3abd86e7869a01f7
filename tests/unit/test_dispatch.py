"""The dispatcher against fakes in virtual time: one outcome for each planned backup, whatever happens."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field, replace

import pytest
from fakes import (
    ACCEPTED,
    GATEWAY_TIMEOUT,
    NOT_FOUND,
    OK,
    REFUSED,
    THROTTLED,
    UNAUTHORIZED,
    FakeApi,
    FakeClock,
    FakeThrottle,
    ListLog,
    ListSink,
    counted,
    install_id,
    planned,
)
from virtual import run_virtual

from orchestrator.engine.dispatch import DispatchEnd, Dispatcher, Limits, Surroundings
from orchestrator.engine.lanes import MOST_RATE_HEADERS, Budget, Effort, Lane
from orchestrator.engine.stop import StopSwitch
from orchestrator.model import AttemptResult, BackupRequest, ErrorKind, Fault, OutcomeKind, RetryPolicy
from orchestrator.pacing import Effect, Ticket

ACCEPT, REJECT, CANCEL = OutcomeKind.ACCEPTED, OutcomeKind.REJECTED, OutcomeKind.CANCELLED


@dataclass
class Bench:
    """A dispatcher of one account, ``default``, and one more, ``other``, if that has installs."""

    installs: int = 3
    others: int = 0
    limits: Limits = field(default_factory=lambda: Limits(RetryPolicy(3, 100.0), 60.0, 300.0))
    api: FakeApi = field(default_factory=FakeApi)
    other_api: FakeApi = field(default_factory=FakeApi)
    throttle: FakeThrottle = field(default_factory=FakeThrottle)
    sink: ListSink = field(default_factory=ListSink)
    log: ListLog = field(default_factory=ListLog)
    signals: tuple[tuple[float, int], ...] = ()

    def run(self) -> DispatchEnd:
        return run_virtual(self._run())

    async def _run(self) -> DispatchEnd:
        self.stop = StopSwitch()
        for after_s, signum in self.signals:
            asyncio.get_running_loop().call_later(after_s, self.stop.press, signum)
        lanes = [Lane("default", self.api)]
        lanes[0].fresh.extend(Effort(planned(number)) for number in range(self.installs))
        if self.others:
            lanes.append(Lane("other", self.other_api))
            lanes[1].fresh.extend(Effort(planned(100 + number, "other")) for number in range(self.others))
        self.lanes = lanes
        around = Surroundings(self.sink, FakeClock(), self.log, self.stop)
        began = asyncio.get_running_loop().time()
        end = await Dispatcher([Budget(self.throttle, lanes)], self.limits, around).run()
        self.seconds = asyncio.get_running_loop().time() - began
        assert self.throttle.out == 0, "a ticket was not given back"
        assert len(asyncio.all_tasks()) == 1, "a task was left behind"
        return end

    def kinds(self) -> dict[object, int]:
        return counted(outcome.kind for outcome in self.sink.outcomes)


def test_every_install_is_requested_once_after_one_check_of_the_credentials() -> None:
    bench = Bench(installs=20)
    end = bench.run()
    assert bench.kinds() == {ACCEPT: 20}
    assert set(bench.api.posts.values()) == {1}
    assert bench.api.checked == 1
    assert (end.stops, end.interrupted, end.crash) == ({}, False, None)


def test_an_outcome_tells_what_it_took() -> None:
    bench = Bench(installs=1)
    bench.api.script(0, THROTTLED, REFUSED, ACCEPTED)
    bench.run()
    outcome = bench.sink.of(0)
    assert (outcome.kind, outcome.attempts, outcome.throttled) == (ACCEPT, 1, 1)
    assert (outcome.backup, outcome.request_id, outcome.error) == (ACCEPTED.backup, "r-1", None)
    assert outcome.duration_s == pytest.approx(3 * 0.1 + 0.375)
    assert outcome.started_at is not None
    assert (outcome.finished_at - outcome.started_at).total_seconds() == pytest.approx(outcome.duration_s)


def test_a_permanent_answer_is_one_installs_own_affair() -> None:
    bench = Bench(installs=5)
    bench.api.script(2, NOT_FOUND)
    bench.run()
    assert bench.kinds() == {ACCEPT: 4, REJECT: 1}
    error = bench.sink.of(2).error
    assert error is not None
    assert (error.kind, error.status) == (ErrorKind.REJECTED, 404)


@pytest.mark.parametrize(
    "result",
    [
        GATEWAY_TIMEOUT,
        AttemptResult(status=500),
        AttemptResult(fault=Fault.DISCONNECTED, sent=True),
        AttemptResult(status=202, fault=Fault.UNREADABLE),
    ],
)
def test_an_ambiguous_post_is_never_sent_again(result: AttemptResult) -> None:
    bench = Bench()
    bench.api.script(1, result, ACCEPTED)
    bench.run()
    assert bench.sink.of(1).kind is OutcomeKind.UNCONFIRMED
    assert bench.api.posts[install_id(1)] == 1


def test_what_was_not_sent_is_tried_again_with_backoff_and_then_exhausted() -> None:
    bench = Bench(installs=1)
    bench.api.script(0, REFUSED)
    bench.run()
    assert bench.sink.of(0).kind is OutcomeKind.EXHAUSTED
    assert bench.sink.of(0).attempts == 0
    assert bench.lanes[0].requests == 1
    first, second, third = bench.api.post_times[install_id(0)]
    assert second - first == pytest.approx(0.475)
    assert third - second == pytest.approx(0.85)


def test_a_throttled_install_comes_back_and_no_429_counts_as_an_attempt() -> None:
    bench = Bench(installs=1)
    bench.api.script(0, *[THROTTLED] * 20, ACCEPTED)
    bench.run()
    assert (bench.sink.of(0).kind, bench.sink.of(0).attempts, bench.sink.of(0).throttled) == (ACCEPT, 1, 20)
    assert bench.throttle.effects[Effect.THROTTLED] == 20


def test_retries_and_fresh_installs_take_turns() -> None:
    bench = Bench(installs=30, throttle=FakeThrottle(concurrency=1))
    for number in range(3):
        bench.api.script(number, *[THROTTLED] * 8, ACCEPTED)
    bench.run()
    order = [outcome.planned.install.id for outcome in bench.sink.outcomes]
    assert bench.kinds() == {ACCEPT: 30}
    assert order.index(install_id(0)) < 29
    assert order.index(install_id(10)) < order.index(install_id(0))


def test_a_quota_stops_its_account_at_once() -> None:
    bench = Bench(installs=10, throttle=FakeThrottle(concurrency=1))
    bench.api.script(3, AttemptResult(status=429, message="Limit Exceeded"))
    end = bench.run()
    assert bench.kinds() == {ACCEPT: 3, CANCEL: 7}
    assert end.stops["default"].kind is ErrorKind.QUOTA
    assert bench.sink.of(3).throttled == 1
    assert all(each.error and each.error.kind is ErrorKind.QUOTA for each in bench.sink.outcomes if each.error)


def test_refused_credentials_send_nothing_and_cancel_everything() -> None:
    bench = Bench()
    bench.api.checks = [UNAUTHORIZED]
    end = bench.run()
    assert not bench.api.posts
    assert bench.kinds() == {CANCEL: 3}
    assert end.stops["default"].kind is ErrorKind.CREDENTIALS
    assert "Bad Credentials" in end.stops["default"].message


def test_a_check_that_fails_is_retried_and_then_stops_the_account() -> None:
    bench = Bench()
    bench.api.checks = [REFUSED]
    end = bench.run()
    assert bench.api.checked == 3
    assert end.stops["default"].kind is ErrorKind.NETWORK
    bench = Bench()
    bench.api.checks = [REFUSED, GATEWAY_TIMEOUT, OK]
    bench.run()
    assert bench.kinds() == {ACCEPT: 3}


def test_a_401_in_the_middle_is_confirmed_before_the_account_stops() -> None:
    bench = Bench(installs=10, throttle=FakeThrottle(concurrency=1))
    bench.api.script(4, UNAUTHORIZED)
    bench.api.checks = [OK, UNAUTHORIZED]
    end = bench.run()
    assert bench.kinds() == {ACCEPT: 4, CANCEL: 6}
    assert bench.api.checked == 2
    assert sum(bench.api.posts.values()) == 5
    assert end.stops["default"].kind is ErrorKind.CREDENTIALS


def test_a_401_of_one_install_alone_is_rejected_and_the_account_goes_on() -> None:
    bench = Bench(installs=10)
    bench.api.script(4, UNAUTHORIZED)
    end = bench.run()
    assert bench.kinds() == {ACCEPT: 9, REJECT: 1}
    assert bench.sink.of(4).kind is REJECT
    error = bench.sink.of(4).error
    assert error is not None
    assert (error.kind, error.status, error.message) == (ErrorKind.REJECTED, 401, "Bad Credentials")
    assert (bench.api.checked, end.stops) == (2, {})


def test_several_401s_at_once_are_confirmed_together() -> None:
    bench = Bench(installs=4)
    for number in range(4):
        bench.api.script(number, UNAUTHORIZED)
    bench.run()
    assert bench.kinds() == {REJECT: 4}
    assert bench.api.checked <= 3


def test_a_bad_certificate_stops_the_account() -> None:
    bench = Bench(installs=5, throttle=FakeThrottle(concurrency=1))
    bench.api.script(1, AttemptResult(fault=Fault.CERTIFICATE, sent=False, message="expired"))
    end = bench.run()
    assert bench.kinds() == {ACCEPT: 1, CANCEL: 4}
    assert end.stops["default"].kind is ErrorKind.NETWORK


def test_accounts_fail_alone_though_they_share_a_budget() -> None:
    bench = Bench(installs=5, others=5)
    bench.api.checks = [UNAUTHORIZED]
    end = bench.run()
    assert bench.kinds() == {CANCEL: 5, ACCEPT: 5}
    assert set(end.stops) == {"default"}


def test_accounts_take_turns() -> None:
    bench = Bench(installs=5, others=5, throttle=FakeThrottle(concurrency=1))
    bench.run()
    accounts = [outcome.planned.install.account for outcome in bench.sink.outcomes]
    assert accounts[:6] == ["default", "other"] * 3


def test_a_longer_retry_after_than_max_pause_stops_the_account() -> None:
    bench = Bench(installs=3, throttle=FakeThrottle(concurrency=1))
    bench.api.script(1, AttemptResult(status=429, retry_after_s=61.0))
    end = bench.run()
    assert bench.kinds() == {ACCEPT: 1, CANCEL: 2}
    assert end.stops["default"].kind is ErrorKind.THROTTLED
    assert "max_pause" in end.stops["default"].message
    assert bench.throttle.words[-1].retry_after_s is None


def test_a_server_that_never_accepts_is_given_up() -> None:
    bench = Bench(installs=2, api=FakeApi(THROTTLED, takes_s=10.0), limits=Limits(RetryPolicy(3, 1e9), 60.0, 300.0))
    end = bench.run()
    assert bench.kinds() == {CANCEL: 2}
    assert end.stops["default"].kind is ErrorKind.THROTTLED
    assert "give_up" in end.stops["default"].message


def test_a_served_post_starts_the_time_to_give_up_anew() -> None:
    bench = Bench(installs=40, api=FakeApi(takes_s=10.0), throttle=FakeThrottle(concurrency=1))
    for number in range(0, 40, 2):
        bench.api.script(number, THROTTLED, ACCEPTED)
    assert bench.run().stops == {}


def test_a_canary_after_failures_asks_for_the_user() -> None:
    bench = Bench(installs=3, throttle=FakeThrottle(concurrency=1))
    bench.api.on_post = lambda: setattr(bench.throttle, "read_only_once", bench.api.checked < 2)
    bench.run()
    assert bench.api.checked == 2
    assert bench.kinds() == {ACCEPT: 3}


@pytest.mark.parametrize(
    ("result", "effect", "stopped"),
    [
        (OK, Effect.SERVED, False),
        (REFUSED, Effect.FAILED, False),
        (NOT_FOUND, Effect.FAILED, False),
        (AttemptResult(status=200, fault=Fault.UNREADABLE), Effect.FAILED, False),
        (THROTTLED, Effect.THROTTLED, False),
        (UNAUTHORIZED, Effect.SERVED, True),
    ],
)
def test_what_a_canary_that_reads_tells(result: AttemptResult, effect: Effect, stopped: bool) -> None:  # noqa: FBT001 - a column of the table
    bench = Bench(installs=2, throttle=FakeThrottle(concurrency=1))
    bench.api.checks = [OK, result, OK]
    bench.api.on_post = lambda: setattr(bench.throttle, "read_only_once", bench.api.checked < 2)
    end = bench.run()
    assert bench.throttle.words[2].effect is effect
    assert bool(end.stops) is stopped


def test_the_first_signal_drains() -> None:
    bench = Bench(installs=50, signals=((0.55, signal.SIGTERM),))
    end = bench.run()
    assert end.interrupted
    assert bench.kinds()[ACCEPT] == sum(bench.api.posts.values())
    assert len(bench.sink.outcomes) == 50
    error = bench.sink.outcomes[-1].error
    assert error is not None
    assert error.kind is ErrorKind.INTERRUPTED


def test_what_waits_for_a_retry_when_a_signal_comes_is_cancelled() -> None:
    bench = Bench(installs=1, signals=((0.3, signal.SIGINT),))
    bench.api.script(0, REFUSED)
    bench.run()
    assert (bench.sink.of(0).kind, bench.api.posts[install_id(0)]) == (CANCEL, 1)


def test_the_second_signal_breaks_off_what_is_in_flight() -> None:
    bench = Bench(installs=10, api=FakeApi(takes_s=30.0), signals=((31.0, signal.SIGINT), (32.0, signal.SIGINT)))
    end = bench.run()
    assert end.interrupted
    assert bench.kinds() == {OutcomeKind.UNCONFIRMED: 4, CANCEL: 6}
    assert bench.throttle.released == 4


def test_what_is_broken_off_before_it_was_sent_is_cancelled_and_not_exhausted() -> None:
    class NeverSent(FakeApi):
        async def create_backup(self, request: BackupRequest) -> AttemptResult:
            result = await super().create_backup(request)
            return replace(result, sent=result.fault is not Fault.INTERRUPTED)

    bench = Bench(api=NeverSent(takes_s=30.0), signals=((31.0, signal.SIGINT), (32.0, signal.SIGINT)))
    bench.limits = Limits(RetryPolicy(1, 100.0), 60.0, 300.0)
    bench.run()
    assert bench.kinds() == {CANCEL: 3}
    assert {(each.attempts, each.error.kind) for each in bench.sink.outcomes if each.error} == {
        (0, ErrorKind.INTERRUPTED)
    }


def test_a_cancelled_install_keeps_the_request_id_of_its_own_answer() -> None:
    bench = Bench(installs=1)
    bench.api.script(0, replace(UNAUTHORIZED, request_id="own"))
    bench.api.checks = [OK, replace(UNAUTHORIZED, request_id="of the check")]
    bench.run()
    assert (bench.sink.of(0).kind, bench.sink.of(0).request_id) == (CANCEL, "own")


def test_a_check_in_flight_is_not_waited_for() -> None:
    bench = Bench(api=FakeApi(takes_s=30.0), signals=((1.0, signal.SIGINT),))
    bench.run()
    assert bench.kinds() == {CANCEL: 3}
    assert {each.error.kind for each in bench.sink.outcomes if each.error} == {ErrorKind.INTERRUPTED}


def test_an_account_that_stops_while_its_budget_is_held_ends_the_run_at_once() -> None:
    class Held(FakeThrottle):
        async def admit(self) -> Ticket:
            await asyncio.sleep(600 if Effect.THROTTLED in self.effects else 0.05)
            return await super().admit()

    bench = Bench(installs=5, throttle=Held())
    bench.api.script(0, THROTTLED)
    bench.api.script(1, AttemptResult(status=429, message="Limit Exceeded"))
    assert bench.run().stops["default"].kind is ErrorKind.QUOTA
    assert bench.kinds() == {CANCEL: 4, ACCEPT: 1}
    assert bench.seconds < 10


@pytest.mark.parametrize("turns", range(6))
def test_two_signals_at_once_break_off_even_what_is_being_admitted(turns: int) -> None:
    class Signalling(FakeThrottle):
        """Press twice, ``turns`` turns of the loop after the fifth ticket."""

        async def admit(self) -> Ticket:
            await asyncio.sleep(0.01)
            ticket = await super().admit()
            if self.out == 5:
                self._press_after(turns)
            return ticket

        def _press_after(self, left: int) -> None:
            loop = asyncio.get_running_loop()
            if left:
                loop.call_soon(self._press_after, left - 1)
            else:
                bench.stop.press(signal.SIGINT)
                bench.stop.press(signal.SIGTERM)

    bench = Bench(installs=20, api=FakeApi(takes_s=3600.0), throttle=Signalling(concurrency=300))
    bench.api.check_takes_s = 0.0
    assert bench.run().interrupted
    assert bench.seconds < 10
    assert len(bench.sink.outcomes) == 20


def test_a_sink_that_fails_lets_what_is_in_flight_end_and_loses_no_id() -> None:
    bench = Bench(installs=20, sink=ListSink(full_after=5))
    end = bench.run()
    assert end.write_error is not None
    posted = sum(bench.api.posts.values())
    assert posted < 20
    assert len(bench.sink.outcomes) + len(end.unwritten) == 20
    assert sum(1 for outcome in end.unwritten if outcome.kind is ACCEPT) == posted - 5


class _Buggy(FakeApi):
    async def create_backup(self, request: BackupRequest) -> AttemptResult:
        if request.install_id == install_id(3):
            message = "a bug"
            raise RuntimeError(message)
        return await super().create_backup(request)


def test_a_bug_costs_no_install_its_line() -> None:
    bench = Bench(installs=10, api=_Buggy())
    end = bench.run()
    assert isinstance(end.crash, RuntimeError)
    assert len(bench.sink.outcomes) == 10
    assert bench.sink.of(3).kind is OutcomeKind.UNCONFIRMED


def test_a_bug_in_the_limiter_costs_no_install_its_line() -> None:
    class Broken(FakeThrottle):
        async def admit(self) -> Ticket:
            raise ZeroDivisionError

    bench = Bench(throttle=Broken())
    end = bench.run()
    assert isinstance(end.crash, ZeroDivisionError)
    assert bench.kinds() == {CANCEL: 3}


def test_headers_about_rates_are_kept_and_said_once() -> None:
    bench = Bench(installs=3)
    bench.api.script(0, replace(ACCEPTED, rate_headers=(("x-ratelimit-remaining", "7"),)))
    bench.api.script(1, replace(ACCEPTED, rate_headers=(("x-ratelimit-remaining", "6"), ("ratelimit", "x"))))
    bench.run()
    assert bench.lanes[0].rate_headers == {"x-ratelimit-remaining": "6", "ratelimit": "x"}
    assert bench.log.names.count("throttle.headers") == 1


def test_a_server_that_makes_up_headers_does_not_fill_the_memory() -> None:
    lane = Lane("default", FakeApi())
    for number in range(10 * MOST_RATE_HEADERS):
        lane.notes_headers(replace(OK, rate_headers=((f"x-ratelimit-{number}", "1"),)))
    lane.notes_headers(replace(OK, rate_headers=(("x-ratelimit-0", "2"),)))
    assert len(lane.rate_headers) == MOST_RATE_HEADERS
    assert lane.rate_headers["x-ratelimit-0"] == "2"
