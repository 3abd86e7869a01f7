"""The dispatcher against fakes in virtual time: each planned backup has one outcome in every case."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pytest
from engine_bench import ACCEPT, CANCEL, EXHAUST, FAILS, GRACE_S, REJECT, UNKNOWN, Bench
from fakes import (
    ACCEPTED,
    DISCONNECTED,
    GATEWAY_TIMEOUT,
    NOT_FOUND,
    OK,
    QUOTA,
    REFUSED,
    RUN_ID,
    THROTTLED,
    UNAUTHORIZED,
    UNREADABLE,
    FakeApi,
    FakeJournal,
    FakeThrottle,
    ListSink,
    backup_of,
    counted,
    error_of,
    install_id,
)

from orchestrator.engine.queues import MOST_RATE_HEADERS, AccountQueue
from orchestrator.model import AttemptResult, BackupRequest, Checkpoint, ErrorKind, Fault, Spent
from orchestrator.pacing import Effect, Ticket
from orchestrator.policies import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.model import Outcome


def test_every_install_is_requested_once_after_one_check_of_the_credentials() -> None:
    bench = Bench(installs=20)
    end = bench.run()
    assert bench.kinds() == {ACCEPT: 20}
    assert set(bench.api.posts.values()) == {1}
    assert bench.api.checked == 1
    assert (end.stops, end.interrupted, end.crash) == ({}, False, None)


def test_an_outcome_has_its_attempts_and_its_duration() -> None:
    bench = Bench(installs=1)
    bench.api.script(0, THROTTLED, REFUSED, ACCEPTED)
    bench.run()
    outcome = bench.sink.of(0)
    assert outcome.kind is ACCEPT
    assert (outcome.spent.tries, outcome.spent.attempts, outcome.spent.throttled) == (2, 1, 1)
    assert not outcome.reconciled
    assert (outcome.backup, outcome.request_id, outcome.error) == (ACCEPTED.backup, "r-1", None)
    assert outcome.duration_s == pytest.approx(3 * 0.1 + 0.375)
    assert outcome.spent.started_at is not None
    assert (outcome.finished_at - outcome.spent.started_at).total_seconds() == pytest.approx(outcome.duration_s)


def test_a_permanent_answer_rejects_only_its_own_install() -> None:
    bench = Bench(installs=5)
    bench.api.script(2, NOT_FOUND)
    bench.run()
    assert bench.kinds() == {ACCEPT: 4, REJECT: 1}
    error = error_of(bench.sink.of(2))
    assert (error.kind, error.status) == (ErrorKind.REJECTED, 404)


AMBIGUOUS = [GATEWAY_TIMEOUT, AttemptResult(status=500, message="oops"), DISCONNECTED]


@pytest.mark.parametrize("is_made", [True, False])
@pytest.mark.parametrize("result", [*AMBIGUOUS, UNREADABLE])
def test_without_lookups_an_ambiguous_post_is_unconfirmed_immediately_and_never_sent_again(
    result: AttemptResult,
    is_made: bool,  # noqa: FBT001 - a column of the table
) -> None:
    bench = Bench(installs=3, reconcile=FAILS)
    (bench.api.lose if is_made else bench.api.script)(1, result, ACCEPTED)
    bench.run()
    assert bench.kinds() == {ACCEPT: 2, UNKNOWN: 1}
    outcome = bench.sink.of(1)
    assert (outcome.kind, outcome.backup, outcome.reconciled) == (UNKNOWN, None, False)
    assert error_of(outcome).status == result.status
    assert error_of(outcome).message == f"{result.message}; not looked up (on_ambiguous: fail)"
    assert len(bench.posted(1)) == 1
    assert not bench.api.looks
    assert bench.seconds < 1


@pytest.mark.parametrize("lag_s", [0.0, GRACE_S / 2])
@pytest.mark.parametrize("result", [*AMBIGUOUS, UNREADABLE])
def test_an_ambiguous_post_whose_backup_is_listed_is_accepted_and_not_sent_again(
    result: AttemptResult, lag_s: float
) -> None:
    bench = Bench(installs=3)
    bench.api.lose(1, result)
    bench.api.lists_after_s = lag_s
    bench.run()
    outcome = bench.sink.of(1)
    assert bench.kinds() == {ACCEPT: 3}
    assert outcome.reconciled
    assert ([backup_of(outcome).id], outcome.error) == (bench.api.made(1), None)
    assert (outcome.spent.attempts, bench.api.posts[install_id(1)]) == (1, 1)
    assert [each.reconciled for each in bench.sink.outcomes].count(True) == 1
    assert set(bench.api.looks) == {install_id(1)}


@pytest.mark.parametrize("result", AMBIGUOUS)
def test_an_ambiguous_post_without_a_backup_is_sent_again_after_the_grace(result: AttemptResult) -> None:
    bench = Bench(installs=3)
    bench.api.script(1, result, ACCEPTED)
    bench.run()
    outcome = bench.sink.of(1)
    assert bench.kinds() == {ACCEPT: 3}
    assert (outcome.spent.attempts, outcome.reconciled, outcome.backup) == (2, False, ACCEPTED.backup)
    first, second = bench.api.post_times[install_id(1)]
    assert GRACE_S <= second - first < GRACE_S + 2
    looks = [at for at, _ in bench.api.looks[install_id(1)]]
    assert looks[0] < first + 1
    assert looks[-1] >= first + GRACE_S


def test_a_2xx_that_cannot_be_read_is_never_sent_again() -> None:
    bench = Bench(installs=3)
    bench.api.script(1, UNREADABLE, ACCEPTED)
    bench.run()
    outcome = bench.sink.of(1)
    assert (outcome.kind, bench.api.posts[install_id(1)]) == (UNKNOWN, 1)
    assert error_of(outcome).message == "no JSON; its listing does not show the backup"
    assert not bench.journal.of(1)[-1].may_repeat


def test_an_install_without_a_backup_after_max_attempts_is_exhausted() -> None:
    bench = Bench(installs=1)
    bench.api.script(0, GATEWAY_TIMEOUT)
    bench.run()
    outcome = bench.sink.of(0)
    assert (outcome.kind, outcome.spent.attempts, bench.api.posts[install_id(0)]) == (EXHAUST, 3, 3)
    assert (error_of(outcome).kind, error_of(outcome).status) == (ErrorKind.UNAVAILABLE, 504)


def test_as_many_requests_are_in_flight_as_the_limiter_allows() -> None:
    class SlowApi(FakeApi):
        under_way = most = 0

        async def create_backup(self, request: BackupRequest) -> AttemptResult:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            await asyncio.sleep(1.0)
            self.under_way -= 1
            return await super().create_backup(request)

    api = SlowApi()
    bench = Bench(installs=40, api=api, throttle=FakeThrottle(concurrency=8))
    bench.run()
    assert (api.most, bench.kinds()) == (8, {ACCEPT: 40})
    assert bench.seconds < 40 / 8 + 1


def test_an_outage_during_the_run_fails_no_install() -> None:
    bench = Bench(installs=30, throttle=FakeThrottle(concurrency=3))
    for number in range(10, 20):
        (bench.api.lose if number % 2 else bench.api.script)(number, GATEWAY_TIMEOUT, ACCEPTED)
    bench.run()
    assert bench.kinds() == {ACCEPT: 30}
    assert sum(each.reconciled for each in bench.sink.outcomes) == 5
    assert sum(bench.api.posts.values()) == 35


def test_each_step_of_an_install_is_in_the_journal_before_the_next_one() -> None:
    bench = Bench(installs=1)
    bench.api.script(0, GATEWAY_TIMEOUT, THROTTLED, ACCEPTED)
    bench.run()
    told = [(each.sought, each.error and each.error.status, each.spent.attempts) for each in bench.journal.of(0)]
    intent, known = (RUN_ID,), ()
    assert [step for step, _ in groupby(told)] == [
        (intent, None, 0),
        (intent, 504, 1),
        (known, None, 1),
        (intent, None, 1),
        (known, None, 1),
        (intent, None, 1),
    ]
    assert [each.sought for each in bench.journal.noted] == [intent] * 3
    assert {each.spent.started_at for each in bench.journal.of(0)} == {bench.sink.of(0).spent.started_at}


def test_a_request_that_was_not_sent_is_tried_again_with_backoff_and_then_exhausted() -> None:
    bench = Bench(installs=1)
    bench.api.script(0, REFUSED)
    bench.run()
    assert bench.sink.of(0).kind is EXHAUST
    assert (bench.sink.of(0).spent.tries, bench.sink.of(0).spent.attempts) == (3, 0)
    assert not bench.api.looks
    assert bench.accounts[0].requests == 1
    first, second, third = bench.api.post_times[install_id(0)]
    assert second - first == pytest.approx(0.475)
    assert third - second == pytest.approx(0.85)


def test_a_throttled_install_is_tried_again_and_no_429_counts_as_an_attempt() -> None:
    bench = Bench(installs=1)
    bench.api.script(0, *[THROTTLED] * 20, ACCEPTED)
    bench.run()
    outcome = bench.sink.of(0)
    assert (outcome.kind, outcome.spent.attempts, outcome.spent.throttled) == (ACCEPT, 1, 20)
    assert not bench.api.looks
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


def test_a_quota_stops_its_account_immediately() -> None:
    bench = Bench(installs=10, throttle=FakeThrottle(concurrency=1))
    bench.api.script(3, QUOTA)
    end = bench.run()
    assert bench.kinds() == {ACCEPT: 3, CANCEL: 7}
    assert end.stops["default"].kind is ErrorKind.QUOTA
    assert bench.sink.of(3).spent.throttled == 1
    assert all(each.error and each.error.kind is ErrorKind.QUOTA for each in bench.sink.outcomes if each.error)


def test_refused_credentials_send_nothing_and_cancel_everything() -> None:
    bench = Bench(installs=3)
    bench.api.checks = [UNAUTHORIZED]
    end = bench.run()
    assert not bench.api.posts
    assert bench.kinds() == {CANCEL: 3}
    assert end.stops["default"].kind is ErrorKind.CREDENTIALS
    assert "Bad Credentials" in end.stops["default"].message


@pytest.mark.parametrize("late", [REFUSED, GATEWAY_TIMEOUT, DISCONNECTED])
def test_the_run_waits_for_an_api_that_cannot_be_reached_yet(late: AttemptResult) -> None:
    bench = Bench(installs=3, retry=RetryPolicy(1, 10.0))
    bench.api.checks = [*[late] * 20, OK]
    end = bench.run()
    assert (bench.kinds(), end.stops) == ({ACCEPT: 3}, {})
    assert 200 < bench.seconds < 600, "twenty failures, half a minute apart at last"
    said = [name for name in bench.log.names if name.startswith("account.")]
    assert said == ["account.not_reached", *["account.check_again"] * 19, "account.reached"]


@pytest.mark.parametrize(("late", "kind"), [(REFUSED, ErrorKind.NETWORK), (GATEWAY_TIMEOUT, ErrorKind.UNAVAILABLE)])
def test_an_api_that_is_never_reached_is_given_up(late: AttemptResult, kind: ErrorKind) -> None:
    bench = Bench(installs=3, give_up_s=300.0)
    bench.api.checks = [late]
    end = bench.run()
    assert bench.kinds() == {CANCEL: 3}
    assert end.stops["default"].kind is kind
    assert "no request was accepted for" in end.stops["default"].message
    assert 300 <= bench.seconds <= 340


@pytest.mark.parametrize(
    ("ends", "kind"),
    [
        ({"deadline_s": 50.0}, ErrorKind.DEADLINE),
        ({"signals": ((50.0, signal.SIGTERM),)}, ErrorKind.INTERRUPTED),
    ],
)
def test_a_deadline_and_a_signal_end_the_wait_for_an_api(ends: dict[str, Any], kind: ErrorKind) -> None:
    bench = Bench(installs=3, **ends)
    bench.api.checks = [REFUSED]
    bench.run()
    assert {each.error and each.error.kind for each in bench.sink.outcomes} == {kind}
    assert bench.seconds <= 51


def test_a_failed_check_of_credentials_is_retried() -> None:
    bench = Bench(installs=3)
    bench.api.checks = [REFUSED, GATEWAY_TIMEOUT, OK]
    bench.run()
    assert bench.kinds() == {ACCEPT: 3}


def test_a_401_during_the_run_is_confirmed_before_the_account_stops() -> None:
    bench = Bench(installs=10, throttle=FakeThrottle(concurrency=1))
    bench.api.script(4, UNAUTHORIZED)
    bench.api.checks = [OK, UNAUTHORIZED]
    end = bench.run()
    assert bench.kinds() == {ACCEPT: 4, CANCEL: 6}
    assert bench.api.checked == 2
    assert sum(bench.api.posts.values()) == 5
    assert end.stops["default"].kind is ErrorKind.CREDENTIALS


def test_a_401_of_a_single_install_rejects_it_and_the_account_goes_on() -> None:
    bench = Bench(installs=10)
    bench.api.script(4, UNAUTHORIZED)
    end = bench.run()
    assert bench.kinds() == {ACCEPT: 9, REJECT: 1}
    assert bench.sink.of(4).kind is REJECT
    error = error_of(bench.sink.of(4))
    assert (error.kind, error.status, error.message) == (ErrorKind.REJECTED, 401, "Bad Credentials")
    assert (bench.api.checked, end.stops) == (2, {})


def test_several_401s_at_the_same_time_are_confirmed_together() -> None:
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


def test_each_account_fails_alone_even_in_a_shared_budget() -> None:
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
    bench = Bench(installs=2, api=FakeApi(THROTTLED, takes_s=10.0), retry=RetryPolicy(3, 1e9), give_up_s=300.0)
    end = bench.run()
    assert bench.kinds() == {CANCEL: 2}
    assert end.stops["default"].kind is ErrorKind.THROTTLED
    assert "give_up" in end.stops["default"].message


def test_a_server_that_accepts_no_post_is_given_up_even_if_it_serves_listings() -> None:
    bench = Bench(installs=200, api=FakeApi(GATEWAY_TIMEOUT, takes_s=2.0), throttle=FakeThrottle(concurrency=1))
    bench.retry, bench.give_up_s = RetryPolicy(30, 1e9), 300.0
    end = bench.run()
    assert len(bench.api.looks) > 10
    assert set(bench.kinds()) == {CANCEL, UNKNOWN}
    tried = [bench.sink.of(number) for number in range(200) if bench.journal.of(number)]
    assert len(tried) == len(bench.api.posts) < 200
    for outcome in tried:
        is_open = bool(bench.journal.of(outcome.planned.position)[-1].sought)
        assert outcome.kind is (UNKNOWN if is_open else CANCEL)
    assert end.stops["default"].kind is ErrorKind.UNAVAILABLE
    assert "give_up" in end.stops["default"].message
    assert 300 <= bench.seconds < 300 + 2 * GRACE_S


def test_the_last_installs_in_doubt_end_at_their_own_limits_while_listings_are_served() -> None:
    bench = Bench(installs=2, api=FakeApi(GATEWAY_TIMEOUT), retry=RetryPolicy(50, 900.0))
    end = bench.run()
    assert bench.kinds() == {EXHAUST: 2}
    assert end.stops == {}
    assert 900 <= bench.seconds < 900 + 2 * GRACE_S


def test_an_install_in_doubt_when_its_account_stops_is_unconfirmed() -> None:
    bench = Bench(installs=4, throttle=FakeThrottle(concurrency=1))
    bench.api.script(1, GATEWAY_TIMEOUT)
    bench.api.script(2, QUOTA)
    bench.run()
    assert [bench.sink.of(number).kind for number in range(4)] == [ACCEPT, UNKNOWN, CANCEL, CANCEL]
    error = error_of(bench.sink.of(1))
    assert (error.kind, error.status) == (ErrorKind.UNAVAILABLE, 504)
    assert bench.seconds < GRACE_S


def test_an_account_that_stops_while_an_intent_is_stored_sends_no_request() -> None:
    class Slow(FakeJournal):
        async def note(self, checkpoint: Checkpoint) -> None:
            self.takes_s = 1.0 if checkpoint.planned.position == 1 else 0.0
            await super().note(checkpoint)

    bench = Bench(installs=3, journal=Slow(), throttle=FakeThrottle(concurrency=2))
    bench.api.script(0, QUOTA)
    bench.run()
    assert bench.api.posts == {install_id(0): 1}
    assert bench.kinds() == {CANCEL: 3}
    assert bench.sink.of(1).spent == Spent()
    assert bench.journal.of(1)[-1].sought == ()


def test_a_served_post_restarts_the_time_until_the_run_gives_up() -> None:
    bench = Bench(installs=40, api=FakeApi(takes_s=10.0), throttle=FakeThrottle(concurrency=1))
    for number in range(0, 40, 2):
        bench.api.script(number, THROTTLED, ACCEPTED)
    assert bench.run().stops == {}


def test_a_canary_after_failures_checks_the_credentials() -> None:
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
def test_each_answer_to_a_read_only_canary_has_its_effect(result: AttemptResult, effect: Effect, stopped: bool) -> None:  # noqa: FBT001 - a column of the table
    bench = Bench(installs=2, throttle=FakeThrottle(concurrency=1))
    bench.api.checks = [OK, result, OK]
    bench.api.on_post = lambda: setattr(bench.throttle, "read_only_once", bench.api.checked < 2)
    end = bench.run()
    assert bench.throttle.words[2].effect is effect
    assert bool(end.stops) is stopped


def test_after_the_first_signal_requests_in_flight_finish() -> None:
    bench = Bench(installs=50, signals=((0.55, signal.SIGTERM),))
    end = bench.run()
    assert end.interrupted
    assert bench.kinds()[ACCEPT] == sum(bench.api.posts.values())
    assert len(bench.sink.outcomes) == 50
    error = error_of(bench.sink.outcomes[-1])
    assert error.kind is ErrorKind.INTERRUPTED


def test_an_install_that_waits_for_a_retry_is_cancelled_by_a_signal() -> None:
    bench = Bench(installs=1, signals=((0.3, signal.SIGINT),))
    bench.api.script(0, REFUSED)
    bench.run()
    assert (bench.sink.of(0).kind, bench.api.posts[install_id(0)]) == (CANCEL, 1)


@pytest.mark.parametrize(
    "after_s", [0.15, 0.25, 5.0], ids=["in flight", "while its listing is read", "within the grace"]
)
def test_an_install_in_doubt_when_a_signal_comes_is_unconfirmed_immediately(after_s: float) -> None:
    bench = Bench(installs=1, signals=((after_s, signal.SIGTERM),))
    bench.api.script(0, GATEWAY_TIMEOUT)
    end = bench.run()
    assert end.interrupted
    assert (bench.sink.of(0).kind, bench.api.posts[install_id(0)]) == (UNKNOWN, 1)
    error = error_of(bench.sink.of(0))
    assert (error.kind, error.status) == (ErrorKind.UNAVAILABLE, 504)
    assert error.message == (f"{GATEWAY_TIMEOUT.message}; the lookup was cut short: the run was stopped by SIGTERM")
    assert bench.journal.of(0)[-1].sought == (RUN_ID,)
    assert bench.journal.of(0)[-1].error is not None
    assert bench.seconds < after_s + 1


def test_a_signal_while_an_intent_is_stored_sends_nothing() -> None:
    bench = Bench(installs=3, journal=FakeJournal(takes_s=5.0), signals=((3.0, signal.SIGINT),))
    end = bench.run()
    assert end.interrupted
    assert not bench.api.posts
    assert bench.kinds() == {CANCEL: 3}
    assert {each.spent for each in bench.sink.outcomes} == {Spent()}
    assert len(bench.journal.noted) == 3
    assert [bench.journal.of(number)[-1].sought for number in range(3)] == [()] * 3


def test_the_second_signal_cancels_requests_in_flight() -> None:
    bench = Bench(installs=10, api=FakeApi(takes_s=30.0), signals=((31.0, signal.SIGINT), (32.0, signal.SIGINT)))
    end = bench.run()
    assert end.interrupted
    assert bench.kinds() == {UNKNOWN: 4, CANCEL: 6}
    assert bench.throttle.released == 4
    assert bench.seconds < 33
    errors = [each.error for each in bench.sink.outcomes if each.kind is UNKNOWN]
    assert {error.kind for error in errors if error} == {ErrorKind.INTERRUPTED}
    assert not bench.api.looks


def test_a_request_broken_off_before_it_was_sent_is_cancelled_and_not_exhausted() -> None:
    class NeverSent(FakeApi):
        async def create_backup(self, request: BackupRequest) -> AttemptResult:
            result = await super().create_backup(request)
            self.unmake(request.install_id)
            return replace(result, sent=result.fault is not Fault.INTERRUPTED)

    bench = Bench(installs=3, api=NeverSent(takes_s=30.0), signals=((31.0, signal.SIGINT), (32.0, signal.SIGINT)))
    bench.retry = RetryPolicy(1, 100.0)
    bench.run()
    assert bench.kinds() == {CANCEL: 3}
    assert {(each.spent.attempts, each.error.kind) for each in bench.sink.outcomes if each.error} == {
        (0, ErrorKind.INTERRUPTED)
    }
    assert [bench.journal.of(number)[-1].sought for number in range(3)] == [()] * 3


def test_a_cancelled_install_keeps_the_request_id_of_its_own_answer() -> None:
    bench = Bench(installs=1)
    bench.api.script(0, replace(UNAUTHORIZED, request_id="own"))
    bench.api.checks = [OK, replace(UNAUTHORIZED, request_id="of the check")]
    bench.run()
    assert (bench.sink.of(0).kind, bench.sink.of(0).request_id) == (CANCEL, "own")


def test_a_signal_does_not_wait_for_a_check_in_flight() -> None:
    bench = Bench(installs=3, api=FakeApi(takes_s=30.0), signals=((1.0, signal.SIGINT),))
    bench.run()
    assert bench.kinds() == {CANCEL: 3}
    assert {each.error.kind for each in bench.sink.outcomes if each.error} == {ErrorKind.INTERRUPTED}


def test_an_account_that_stops_while_its_budget_is_held_ends_the_run_immediately() -> None:
    class Held(FakeThrottle):
        always_waits = True

        async def admit(self) -> Ticket:
            await asyncio.sleep(600 if Effect.THROTTLED in self.effects else 0.04)
            return await super().admit()

    bench = Bench(installs=5, throttle=Held())
    bench.api.script(0, THROTTLED)
    bench.api.script(1, QUOTA)
    assert bench.run().stops["default"].kind is ErrorKind.QUOTA
    assert bench.kinds() == {CANCEL: 4, ACCEPT: 1}
    assert bench.seconds < 10


@pytest.mark.parametrize("turns", range(6))
def test_two_signals_at_the_same_time_also_cancel_requests_being_admitted(turns: int) -> None:
    class Signalling(FakeThrottle):
        """Send two signals ``turns`` turns of the loop after the fifth ticket."""

        always_waits = True

        async def admit(self) -> Ticket:
            await asyncio.sleep(0.01)
            ticket = await super().admit()
            if self.out == 5:
                bench.press_after(turns, signal.SIGINT, signal.SIGTERM)
            return ticket

    bench = Bench(installs=20, api=FakeApi(takes_s=3600.0), throttle=Signalling(concurrency=300))
    bench.api.check_takes_s = 0.0
    assert bench.run().interrupted
    assert bench.seconds < 10
    assert len(bench.sink.outcomes) == 20


def test_a_sink_that_fails_lets_requests_in_flight_finish_and_loses_no_id() -> None:
    bench = Bench(installs=20, sink=ListSink(full_after=5))
    end = bench.run()
    assert end.write_error is not None
    posted = sum(bench.api.posts.values())
    assert posted < 20
    assert len(bench.sink.outcomes) + len(end.unwritten) == 20
    assert sum(1 for outcome in end.unwritten if outcome.kind is ACCEPT) == posted - 5


@pytest.mark.parametrize("full_after", [0, 1, 5, 12])
def test_a_journal_that_fails_ends_the_run_and_nothing_is_sent_without_an_intent(full_after: int) -> None:
    bench = Bench(installs=20, journal=FakeJournal(full_after=full_after))
    end = bench.run()
    assert str(end.write_error) == "the journal's disk is full"
    assert sum(bench.api.posts.values()) == full_after
    assert bench.kinds() == counted([ACCEPT] * full_after + [CANCEL] * (20 - full_after))
    errors = [each.error for each in bench.sink.outcomes if each.error]
    assert {error.kind for error in errors} == {ErrorKind.STOPPED}
    assert (end.unwritten, end.crash, end.interrupted) == ([], None, False)


def test_a_journal_that_fails_leaves_an_install_in_doubt_unconfirmed() -> None:
    bench = Bench(installs=3, journal=FakeJournal(full_after=2), throttle=FakeThrottle(concurrency=1))
    bench.api.script(0, GATEWAY_TIMEOUT)
    bench.run()
    assert [bench.sink.of(number).kind for number in range(3)] == [UNKNOWN, CANCEL, CANCEL]


class _Buggy(FakeApi):
    async def create_backup(self, request: BackupRequest) -> AttemptResult:
        if request.install_id == install_id(3):
            message = "a bug"
            raise RuntimeError(message)
        return await super().create_backup(request)


def test_a_bug_loses_no_outcome() -> None:
    bench = Bench(installs=10, api=_Buggy())
    end = bench.run()
    assert isinstance(end.crash, RuntimeError)
    assert len(bench.sink.outcomes) == 10
    assert bench.sink.of(3).kind is UNKNOWN


def test_a_bug_while_an_intent_is_stored_loses_no_outcome() -> None:
    class Broken(FakeJournal):
        async def note(self, checkpoint: Checkpoint) -> None:
            if checkpoint.planned.position == 3:
                raise ZeroDivisionError
            await super().note(checkpoint)

    bench = Bench(installs=10, journal=Broken())
    end = bench.run()
    assert isinstance(end.crash, ZeroDivisionError)
    assert len(bench.sink.outcomes) == 10
    assert bench.api.posts[install_id(3)] == 0
    assert bench.sink.of(3).kind is not ACCEPT


def test_a_bug_in_the_limiter_loses_no_outcome() -> None:
    class Broken(FakeThrottle):
        always_waits = True

        async def admit(self) -> Ticket:
            raise ZeroDivisionError

    bench = Bench(installs=3, throttle=Broken())
    end = bench.run()
    assert isinstance(end.crash, ZeroDivisionError)
    assert bench.kinds() == {CANCEL: 3}


def test_a_bug_in_the_limiter_inside_a_worker_loses_no_outcome() -> None:
    class Broken(FakeThrottle):
        def admit_at_once(self) -> Ticket | None:
            if self.words:
                raise ZeroDivisionError
            return super().admit_at_once()

    bench = Bench(installs=3, throttle=Broken())
    end = bench.run()
    assert isinstance(end.crash, ZeroDivisionError)
    assert len(bench.sink.outcomes) == 3


@pytest.mark.parametrize("when", ["while an outcome is kept", "after it was kept"])
def test_a_bug_in_the_sink_ends_the_run_as_a_crash_and_loses_no_outcome(when: str) -> None:
    class Broken(ListSink):
        def record(self, outcome: Outcome, on_failure: Callable[[Outcome, Exception], None]) -> None:
            if outcome.planned.position == 1 and when == "while an outcome is kept":
                on_failure(outcome, ZeroDivisionError())
            else:
                super().record(outcome, on_failure)

        async def drain(self) -> None:
            await super().drain()
            if when == "after it was kept":
                raise ZeroDivisionError

    bench = Bench(installs=5, sink=Broken())
    end = bench.run()
    assert isinstance(end.crash, ZeroDivisionError)
    assert end.write_error is None
    assert len(bench.sink.outcomes) + len(end.unwritten) == 5


def test_headers_about_rates_are_kept_and_logged_once() -> None:
    bench = Bench(installs=3)
    bench.api.script(0, replace(ACCEPTED, rate_headers=(("x-ratelimit-remaining", "7"),)))
    bench.api.script(1, replace(ACCEPTED, rate_headers=(("x-ratelimit-remaining", "6"), ("ratelimit", "x"))))
    bench.run()
    assert bench.accounts[0].rate_headers == {"x-ratelimit-remaining": "6", "ratelimit": "x"}
    assert bench.log.names.count("throttle.headers") == 1


def test_a_server_that_invents_headers_does_not_fill_the_memory() -> None:
    account = AccountQueue("default", FakeApi())
    for number in range(10 * MOST_RATE_HEADERS):
        account.notes_headers(replace(OK, rate_headers=((f"x-ratelimit-{number}", "1"),)))
    account.notes_headers(replace(OK, rate_headers=(("x-ratelimit-0", "2"),)))
    assert len(account.rate_headers) == MOST_RATE_HEADERS
    assert account.rate_headers["x-ratelimit-0"] == "2"
