"""The deadline and the failure limit: installs not yet requested are cancelled, requested ones finish."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Any

import pytest
from engine_bench import ABORT, ACCEPT, BEGAN_S, CANCEL, COMPLETE, INCOMPLETE, REJECT, REPEAT, WAIT, Bench, status
from fakes import (
    ACCEPTED,
    DISCONNECTED,
    GATEWAY_TIMEOUT,
    NOT_FOUND,
    REFUSED,
    THROTTLED,
    UNAUTHORIZED,
    FakeApi,
    FakeJournal,
    FakeThrottle,
    ListSink,
    error_of,
    install_id,
)

from orchestrator.model import Checkpoint, ErrorKind, OutcomeKind
from orchestrator.summary import LEAST_FOR_A_SHARE, FailureLimit


def errors_of(bench: Bench, kind: OutcomeKind = CANCEL) -> set[ErrorKind]:
    return {each.error.kind for each in bench.sink.outcomes if each.kind is kind and each.error}


# -- the deadline ------------------------------------------------------------------------------------------------------


def test_after_the_deadline_nothing_is_requested_and_the_rest_is_cancelled() -> None:
    bench = Bench(installs=50, deadline_s=1.05, throttle=FakeThrottle(concurrency=1))
    end = bench.run()
    assert end.deadline_passed
    assert bench.kinds() == {ACCEPT: sum(bench.api.posts.values()), CANCEL: 50 - sum(bench.api.posts.values())}
    assert max(at[0] for at in bench.api.post_times.values()) <= BEGAN_S + 1.05
    assert errors_of(bench) == {ErrorKind.DEADLINE}
    assert not end.interrupted
    assert bench.seconds < 1.2
    assert bench.log.names.count("run.closed") == 1


@pytest.mark.parametrize("deadline_s", [0.0, 0.05])
def test_a_deadline_that_passes_before_the_first_request_cancels_everything(deadline_s: float) -> None:
    bench = Bench(installs=5, wait=WAIT, deadline_s=deadline_s)
    assert bench.run().deadline_passed
    assert (bench.kinds(), sum(bench.api.posts.values())) == ({CANCEL: 5}, 0)


def test_a_deadline_after_the_end_changes_nothing() -> None:
    bench = Bench(installs=5, deadline_s=10.0)
    assert not bench.run().deadline_passed
    assert (bench.kinds(), bench.seconds < 1) == ({ACCEPT: 5}, True)


def test_requests_in_flight_at_the_deadline_finish_and_are_not_repeated() -> None:
    bench = Bench(installs=4, deadline_s=5.0, api=FakeApi(takes_s=3.0))
    bench.api.script(1, NOT_FOUND)
    bench.api.script(2, THROTTLED)
    bench.api.script(3, REFUSED)
    end = bench.run()
    assert [bench.sink.of(number).kind for number in range(4)] == [ACCEPT, REJECT, CANCEL, CANCEL]
    assert errors_of(bench) == {ErrorKind.DEADLINE}
    assert end.deadline_passed
    assert sum(bench.api.posts.values()) == 4
    assert (bench.sink.of(2).spent.throttled, bench.sink.of(3).spent.tries) == (1, 1)


def test_the_wait_for_backups_goes_on_after_the_deadline() -> None:
    bench = Bench(installs=10, wait=WAIT, deadline_s=0.35, throttle=FakeThrottle(concurrency=1))
    end = bench.run()
    assert end.deadline_passed
    assert bench.kinds() == {COMPLETE: 3, CANCEL: 7}
    assert bench.seconds > 60


@pytest.mark.parametrize("is_made", [True, False])
@pytest.mark.parametrize("lost", [GATEWAY_TIMEOUT, DISCONNECTED])
def test_doubts_are_settled_after_the_deadline_and_absent_backups_are_not_requested_again(
    lost: object,
    is_made: bool,  # noqa: FBT001 - a column
) -> None:
    assert lost in {GATEWAY_TIMEOUT, DISCONNECTED}
    bench = Bench(deadline_s=5.0)
    bench.api.lists_after_s = 10.0
    (bench.api.lose if is_made else bench.api.script)(0, GATEWAY_TIMEOUT if lost is GATEWAY_TIMEOUT else DISCONNECTED)
    end = bench.run()
    assert len(bench.posted()) == 1
    assert bench.only.kind is (ACCEPT if is_made else CANCEL)
    assert bench.only.reconciled is is_made
    assert end.deadline_passed is not is_made
    assert errors_of(bench) == (set() if is_made else {ErrorKind.DEADLINE})
    assert bench.seconds >= 20


def test_a_deadline_while_an_intent_is_stored_sends_nothing() -> None:
    bench = Bench(installs=3, deadline_s=3.0, journal=FakeJournal(takes_s=5.0))
    bench.run()
    assert (bench.kinds(), sum(bench.api.posts.values())) == ({CANCEL: 3}, 0)
    assert [bench.journal.of(number)[-1].sought for number in range(3)] == [()] * 3


def test_an_install_that_waits_for_a_check_of_credentials_is_not_requested_after_the_deadline() -> None:
    bench = Bench(installs=2, deadline_s=5.0, throttle=FakeThrottle(concurrency=1))
    bench.api.script(0, UNAUTHORIZED)
    bench.api.check_takes_s = 4.0
    bench.run()
    assert [bench.sink.of(number).kind for number in range(2)] == [REJECT, CANCEL]
    assert len(bench.posted(1)) == 0


def test_a_deadline_while_the_limiter_is_held_ends_the_run_immediately() -> None:
    bench = Bench(installs=20, deadline_s=5.0, held_after_s=0.35, throttle=FakeThrottle(concurrency=1))
    assert bench.run().deadline_passed
    assert bench.seconds < 6


def test_a_signal_after_the_deadline_ends_the_wait() -> None:
    bench = Bench(installs=3, wait=WAIT, deadline_s=5.0, signals=((30.0, signal.SIGTERM),))
    assert bench.run().interrupted
    assert (bench.kinds(), bench.seconds < 31) == ({INCOMPLETE: 3}, True)


# -- failures ----------------------------------------------------------------------------------------------------------


def failing(failure_limit: FailureLimit, *bad: int, **fields: Any) -> Bench:
    """Return a bench of a hundred installs, one at a time; the installs ``bad`` are rejected."""
    hundred: dict[str, Any] = {"installs": 100, "throttle": FakeThrottle(concurrency=1)}
    bench = Bench(failure_limit=failure_limit, **hundred | fields)
    for number in bad:
        bench.api.script(number, NOT_FOUND)
    return bench


def test_fail_fast_stops_at_the_first_failure() -> None:
    bench = failing(FailureLimit(failures=1), 7)
    end = bench.run()
    assert bench.kinds() == {ACCEPT: 7, REJECT: 1, CANCEL: 92}
    assert errors_of(bench) == {ErrorKind.STOPPED}
    assert (end.deadline_passed, end.stops, end.interrupted) == (False, {}, False)
    assert sum(bench.api.posts.values()) == 8
    assert error_of(bench.sink.of(50)).message == "the run stopped requesting: 1 of 8 installs failed (failure_limit 1)"


def test_a_failure_limit_stops_the_run_when_it_is_reached() -> None:
    assert failing(FailureLimit(failures=3), 1, 2).run().stops == {}
    bench = failing(FailureLimit(failures=3), 1, 2, 30)
    bench.run()
    assert bench.kinds() == {ACCEPT: 28, REJECT: 3, CANCEL: 69}


def test_a_failure_limit_in_percent_counts_from_twenty_outcomes_on() -> None:
    bench = failing(FailureLimit(percent=10.0), 0, 1, 2)
    bench.run()
    assert bench.kinds() == {ACCEPT: LEAST_FOR_A_SHARE - 3, REJECT: 3, CANCEL: 100 - LEAST_FOR_A_SHARE}
    bench = failing(FailureLimit(percent=10.0), 0, *range(50, 60))
    bench.run()
    assert (bench.kinds()[REJECT], bench.kinds()[CANCEL]) == (6, 45)


def test_requests_in_flight_when_the_run_stops_finish_and_are_not_repeated() -> None:
    bench = failing(FailureLimit(failures=1), 1, throttle=FakeThrottle(concurrency=10), api=FakeApi(takes_s=1.0))
    bench.api.lose(2, GATEWAY_TIMEOUT)
    bench.api.script(3, THROTTLED, ACCEPTED)
    bench.api.script(4, GATEWAY_TIMEOUT, ACCEPTED)
    bench.run()
    assert [bench.sink.of(number).kind for number in range(5)] == [ACCEPT, REJECT, ACCEPT, CANCEL, CANCEL]
    assert bench.sink.of(2).reconciled
    assert bench.kinds() == {ACCEPT: 7, REJECT: 1, CANCEL: 92}
    assert (len(bench.posted(3)), len(bench.posted(4))) == (1, 1)


@pytest.mark.parametrize("kind", [ABORT, INCOMPLETE])
def test_a_backup_that_fails_during_the_wait_stops_further_requests(kind: OutcomeKind) -> None:
    bench = Bench(
        installs=40,
        failure_limit=FailureLimit(1),
        throttle=FakeThrottle(concurrency=1),
        wait=replace(WAIT, timeout_s=70.0),
    )
    bench.api.post_takes_s = 5.0
    bench.api.on_poll = lambda *_: status("aborted" if kind is ABORT else "slow")
    bench.run()
    kinds = bench.kinds()
    assert (set(kinds), kinds[CANCEL] > 20) == ({kind, CANCEL}, True)
    first = min(each.finished_at for each in bench.sink.outcomes if each.kind is kind)
    started = [each.spent.started_at for each in bench.sink.outcomes if each.spent.started_at]
    assert max(started) <= first
    assert len(started) == kinds[kind]


def test_a_backup_aborted_after_the_stop_is_not_requested_once_more() -> None:
    bench = Bench(installs=30, wait=REPEAT, failure_limit=FailureLimit(1), throttle=FakeThrottle(concurrency=1))
    bench.api.script(20, NOT_FOUND)
    bench.api.ends_as = lambda _: "aborted"
    bench.run()
    assert bench.kinds() == {ABORT: 20, REJECT: 1, CANCEL: 9}
    assert all(each.error is None and each.backup and not each.earlier for each in bench.sink.outcomes[9 + 1 :])


def test_cancelled_installs_do_not_count_for_the_failure_limit() -> None:
    bench = Bench(installs=30, others=30, failure_limit=FailureLimit(failures=2), throttle=FakeThrottle(concurrency=2))
    bench.api.checks = [UNAUTHORIZED]
    bench.run()
    assert bench.kinds() == {CANCEL: 30, ACCEPT: 30}


def test_the_first_rule_that_stops_the_run_gives_the_reason() -> None:
    bench = failing(FailureLimit(failures=1), 5, deadline_s=1.0)
    end = bench.run()
    assert (errors_of(bench), end.deadline_passed) == ({ErrorKind.STOPPED}, False)
    bench = failing(FailureLimit(failures=1), 50, deadline_s=1.0)
    end = bench.run()
    assert (errors_of(bench), end.deadline_passed) == ({ErrorKind.DEADLINE}, True)


def test_a_stop_while_an_intent_is_stored_sends_nothing_more() -> None:
    class Slow(FakeJournal):
        async def note(self, checkpoint: Checkpoint) -> None:
            self.takes_s = 0.0 if checkpoint.planned.position == 0 else 5.0
            await super().note(checkpoint)

    bench = failing(FailureLimit(failures=1), 0, journal=Slow(), throttle=FakeThrottle(concurrency=8))
    bench.run()
    assert bench.kinds() == {REJECT: 1, CANCEL: 99}
    assert bench.api.posts == {install_id(0): 1}


@pytest.mark.parametrize(
    ("failure_limit", "failed", "settled", "holds"),
    [
        (FailureLimit(1), 0, 100, False),
        (FailureLimit(1), 1, 1, True),
        (FailureLimit(3), 2, 2, False),
        (FailureLimit(3), 3, 1000, True),
        (FailureLimit(3), 5, 1000, True),
        (FailureLimit(percent=10), 19, 19, False),
        (FailureLimit(percent=10), 1, 20, False),
        (FailureLimit(percent=10), 2, 20, True),
        (FailureLimit(percent=10), 9, 91, False),
        (FailureLimit(percent=100), 99, 100, False),
        (FailureLimit(percent=100), 100, 100, True),
        (FailureLimit(percent=0.1), 1, 1000, True),
        (FailureLimit(percent=0.1), 1, 1001, False),
        (FailureLimit(), 50, 50, False),
    ],
)
def test_a_failure_limit_holds_at_the_right_counts(
    failure_limit: FailureLimit,
    failed: int,
    settled: int,
    holds: bool,  # noqa: FBT001 - a column of the table
) -> None:
    assert failure_limit.holds(failed, settled) is holds


def test_a_failure_limit_is_shown_as_it_was_set() -> None:
    rules = (
        FailureLimit(3),
        FailureLimit(percent=12.5, option="--max-failures"),
        FailureLimit(1, None, "-x", is_first=True),
    )
    assert [str(rule) for rule in rules] == ["failure_limit 3", "--max-failures 12.5%", "-x"]


def slow_sink() -> ListSink:
    """Return a sink that takes 0.5 s for each cancelled outcome."""
    return ListSink(takes_s=lambda outcome: 0.5 if outcome.kind is CANCEL else 0.0)


@pytest.mark.parametrize("signals", [(), ((0.35, signal.SIGTERM),)], ids=["deadline alone", "deadline and signal"])
def test_the_end_of_a_large_run_loses_no_outcome(signals: tuple[tuple[float, int], ...]) -> None:
    bench = Bench(installs=3001, wait=WAIT, deadline_s=0.3, sink=slow_sink(), signals=signals)
    end = bench.run()
    assert len(bench.sink.outcomes) == 3001
    assert end.deadline_passed


def test_a_signal_that_also_reaches_the_failure_limit_loses_no_outcome() -> None:
    bench = Bench(
        installs=55,
        others=2600,
        wait=WAIT,
        failure_limit=FailureLimit(failures=1),
        sink=slow_sink(),
        signals=((0.35, signal.SIGTERM),),
    )
    bench.run()
    assert len(bench.sink.outcomes) == 55 + 2600
    assert bench.kinds()[INCOMPLETE]
