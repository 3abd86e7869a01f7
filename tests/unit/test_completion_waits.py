"""Accepted backups are polled, requested once more, or given up, in virtual time."""

from __future__ import annotations

import asyncio
import signal
from bisect import bisect_left
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from engine_bench import (
    ABORT,
    ACCEPT,
    BEGAN_S,
    CANCEL,
    COMPLETE,
    EXHAUST,
    HELD_S,
    INCOMPLETE,
    INTERVAL_S,
    REJECT,
    REPEAT,
    SECOND,
    TIMEOUT_S,
    UNKNOWN,
    WAIT,
    Bench,
    status,
)
from fakes import (
    ACCEPTED,
    DISCONNECTED,
    GARBAGE,
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
    error_of,
    install_id,
    listing,
    planned,
    shown,
)

from orchestrator.engine.completion import LAST_POLL_S
from orchestrator.engine.pending import CompletionWait, PendingBackup
from orchestrator.engine.queues import POLL_SHARE
from orchestrator.marker import marker, second
from orchestrator.model import (
    AttemptResult,
    Backup,
    Checkpoint,
    ErrorKind,
    Made,
    Outcome,
    OutcomeKind,
)

ANOTHER = status("completed", "b-2")
FIRST = "b-1"
AGAIN = "b-1.1"
RATE = 10.0
"""The rate of a ``FakeThrottle`` with spaced starts."""


waiting = partial(Bench, wait=WAIT)
"""A bench that waits for accepted backups."""


def assert_incomplete(outcome: Outcome, kind: ErrorKind = ErrorKind.TIMEOUT) -> None:
    assert (outcome.kind, error_of(outcome).kind) == (INCOMPLETE, kind)
    assert outcome.backup


def aborting(*, times: int = 1, **fields: Any) -> Bench:
    """Return a bench of one install whose first ``times`` backups are aborted after a minute."""
    bench = Bench(**{"wait": REPEAT} | fields)
    bench.api.ends_as = lambda backup_id: "aborted" if backup_id in [FIRST, AGAIN][:times] else "completed"
    return bench


# -- polled until it has ended -----------------------------------------------------------------------------------------


def test_an_accepted_backup_is_polled_until_it_is_completed() -> None:
    bench = waiting()
    bench.run()
    assert (bench.only.kind, bench.only.error, bench.only.earlier) == (COMPLETE, None, ())
    assert (backup_of(bench.only).id, backup_of(bench.only).status) == (FIRST, "completed")
    polls = bench.polled()
    assert polls[0] >= INTERVAL_S
    assert all(later - earlier >= INTERVAL_S for earlier, later in pairwise(polls))
    assert len(polls) == 4
    assert bench.only.spent.attempts == len(bench.posted()) == 1


def test_an_aborted_backup_has_no_error_and_is_not_requested_again_by_default() -> None:
    bench = waiting()
    bench.api.ends_as = lambda _: "aborted"
    bench.run()
    assert (bench.only.kind, bench.only.error, bench.only.earlier) == (ABORT, None, ())
    assert len(bench.posted()) == 1


@pytest.mark.parametrize("found", [False, True], ids=["answered", "found"])
@pytest.mark.parametrize(("name", "kind"), [("completed", COMPLETE), ("aborted", ABORT)])
def test_a_backup_that_has_already_ended_is_not_polled(name: str, kind: OutcomeKind, found: bool) -> None:  # noqa: FBT001 - a column
    bench = waiting()
    if found:
        bench.api.lose(0, GATEWAY_TIMEOUT)
        bench.api.script_listing(0, listing(shown("made-0", status=name)))
    else:
        bench.api.script(0, AttemptResult(status=202, backup=Backup("b", name)))
    bench.run()
    assert (bench.only.kind, bench.polled(), bench.only.reconciled) == (kind, [], found)
    assert bench.seconds < 1


@pytest.mark.parametrize("name", ["in_progress", "initiated", "paused", "COMPLETED", "", "abort"])
def test_any_other_status_means_under_way_whatever_the_complete_time(name: str) -> None:
    bench = waiting()
    bench.api.on_poll = lambda *_: status(name, complete_time="2026-01-01T00:00:00Z")
    bench.run()
    assert_incomplete(bench.only)
    assert bench.only.backup == Backup(FIRST, name, complete_time="2026-01-01T00:00:00Z")
    assert f"still {name or 'unfinished'} after the wait of 10m" in error_of(bench.only).message
    assert len(bench.posted()) == 1
    assert TIMEOUT_S <= bench.seconds < TIMEOUT_S + 1


def test_an_answer_with_fewer_fields_forgets_nothing() -> None:
    bench = waiting()
    bench.api.script(0, AttemptResult(status=202, backup=Backup(FIRST, "requested", "x", "T1", None, "6.8")))
    bench.api.on_poll = lambda *_: AttemptResult(status=200, backup=Backup(FIRST, "completed"))
    bench.run()
    assert bench.only.backup == Backup(FIRST, "completed", "x", "T1", None, "6.8")


FAILURES = {
    "500": AttemptResult(status=500, message="oops"),
    "504": GATEWAY_TIMEOUT,
    "reset": DISCONNECTED,
    "refused": REFUSED,
    "404": NOT_FOUND,
    "302": replace(NOT_FOUND, status=302),
    "garbage": GARBAGE,
    "another": ANOTHER,
    "401": UNAUTHORIZED,
    "429": THROTTLED,
    "429 named": replace(THROTTLED, retry_after_s=30.0),
    "429 too long": replace(THROTTLED, retry_after_s=1e6),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_failed_polls_are_repeated(failure: AttemptResult) -> None:
    bench = waiting(installs=2)
    bench.api.on_poll = lambda *_: failure if _[0] == install_id(0) and _[2] <= 6 else None
    end = bench.run()
    assert bench.kinds() == {COMPLETE: 2}
    assert end.stops == {}
    assert (len(bench.polled(0)) >= 7, len(bench.posted(0))) == (True, 1)
    assert bench.seconds < 200


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_polls_that_always_fail_end_with_the_wait_and_keep_the_id(failure: AttemptResult) -> None:
    bench = waiting()
    bench.api.on_poll = lambda *_: failure
    end = bench.run()
    assert_incomplete(bench.only)
    assert (bench.only.backup and bench.only.backup.id, end.stops) == (FIRST, {})
    assert TIMEOUT_S <= bench.seconds < TIMEOUT_S + LAST_POLL_S + 1
    if failure.status != 429:
        assert 10 < len(bench.polled()) <= TIMEOUT_S / INTERVAL_S + 1
        assert "; the last poll failed: " in error_of(bench.only).message
        assert not error_of(bench.only).message.endswith(": ")


@pytest.mark.parametrize("failure", [UNAUTHORIZED, QUOTA], ids=["credentials", "quota"])
def test_an_account_that_stops_during_the_wait_has_incomplete_backups_and_others_go_on(
    failure: AttemptResult,
) -> None:
    bench = waiting(installs=5, others=5)
    bench.api.checks = [OK, UNAUTHORIZED]
    bench.api.on_poll = lambda install, _, nth: failure if (install, nth) == (install_id(3), 2) else None
    end = bench.run()
    kind = ErrorKind.QUOTA if failure is QUOTA else ErrorKind.CREDENTIALS
    assert {name: stop.kind for name, stop in end.stops.items()} == {"default": kind}
    for number in range(5):
        assert_incomplete(bench.sink.of(number))
        assert "the wait was cut short: account default stopped" in error_of(bench.sink.of(number)).message
        assert bench.sink.of(100 + number).kind is COMPLETE
    assert max(max(bench.polled(number)) for number in range(5)) < 3 * INTERVAL_S


def test_backups_of_a_stopped_account_do_not_count_as_waiting() -> None:
    bench = waiting(installs=20, others=2)
    bench.api.on_poll = lambda *_: QUOTA
    bench.run()
    assert [account.watched for account in bench.accounts] == [0, 0]


# -- the end of the wait -----------------------------------------------------------------------------------------------


def test_a_server_that_hangs_does_not_delay_the_end_of_the_wait() -> None:
    bench = waiting(installs=3)
    bench.api.ends_after_s = 1e6

    def on_poll(*_: object) -> None:
        bench.api.poll_takes_s = (
            45.0 if asyncio.get_running_loop().time() > BEGAN_S + TIMEOUT_S - 2 * INTERVAL_S else 0.1
        )

    bench.api.on_poll = on_poll
    bench.run()
    assert bench.kinds() == {INCOMPLETE: 3}
    assert bench.throttle.released >= 3
    assert bench.seconds < TIMEOUT_S + LAST_POLL_S + 1


@pytest.mark.parametrize("after_s", [0.3, 30.0, TIMEOUT_S - 1], ids=["immediately", "early", "late"])
def test_a_held_limiter_does_not_delay_the_end_of_the_wait(after_s: float) -> None:
    bench = waiting(installs=3, held_after_s=after_s)
    bench.api.ends_after_s = 1e6
    bench.run()
    assert bench.kinds() == {INCOMPLETE: 3}
    assert bench.seconds < TIMEOUT_S + LAST_POLL_S + 1


def test_a_backup_behind_a_check_of_credentials_is_given_up_in_time() -> None:
    bench = waiting()
    bench.api.on_poll = lambda *_: UNAUTHORIZED
    bench.api.checks = [OK, THROTTLED]
    bench.api.check_takes_s = 10.0
    bench.run()
    assert_incomplete(bench.only)
    assert bench.seconds < TIMEOUT_S + LAST_POLL_S + 21


def test_a_backup_of_an_earlier_process_is_given_up_in_time_even_if_the_limiter_is_held() -> None:
    pending = [
        PendingBackup(planned(n), made=Made(Backup(FIRST)), state=CompletionWait(Backup(FIRST), BEGAN_S + TIMEOUT_S))
        for n in range(2)
    ]
    bench = waiting(pending=pending)
    bench.throttle.held_until = BEGAN_S + HELD_S
    bench.run()
    assert bench.kinds() == {INCOMPLETE: 2}
    assert bench.seconds < TIMEOUT_S + LAST_POLL_S + 1


def test_many_backups_given_up_at_the_same_time_are_recorded_together() -> None:
    pending = [
        PendingBackup(planned(n), made=Made(Backup(FIRST)), state=CompletionWait(Backup(FIRST), BEGAN_S + TIMEOUT_S))
        for n in range(300)
    ]
    bench = waiting(pending=pending, sink=ListSink(takes_s=lambda _: 0.1), throttle=FakeThrottle(spaced=True))
    bench.api.on_poll = lambda *_: status("in_progress")
    bench.run()
    assert bench.kinds() == {INCOMPLETE: 300}
    assert bench.seconds < TIMEOUT_S + LAST_POLL_S + 300 / RATE + 1


# -- polled once -------------------------------------------------------------------------------------------------------


def polled_once(*answers: AttemptResult, **fields: Any) -> Bench:
    """Return a bench of one backup of an earlier run, which is polled once."""
    backup = Backup(FIRST, "in_progress")
    pending = PendingBackup(
        planned(0), made=Made(backup), state=CompletionWait(backup, BEGAN_S, may_repeat=False, is_polled_once=True)
    )
    bench = Bench(pending=[pending], **fields)
    bench.api.on_poll = lambda *_: answers[min(_[2], len(answers)) - 1]
    return bench


@pytest.mark.parametrize(
    ("name", "kind"), [("in_progress", INCOMPLETE), ("completed", COMPLETE), ("aborted", ABORT), ("odd", INCOMPLETE)]
)
def test_a_backup_to_poll_once_is_polled_once_and_never_requested(name: str, kind: OutcomeKind) -> None:
    bench = polled_once(status(name))
    bench.run()
    assert (bench.only.kind, len(bench.polled()), bench.posted()) == (kind, 1, [])
    if kind is INCOMPLETE:
        assert error_of(bench.only).message == f"still {name}"


@pytest.mark.parametrize("failure", [each for each in FAILURES.values() if each.status != 429])
def test_failed_polls_of_a_backup_to_poll_once_stop_at_max_attempts(failure: AttemptResult) -> None:
    bench = polled_once(failure)
    bench.run()
    assert_incomplete(bench.only)
    assert (len(bench.polled()), bench.seconds < 100) == (3, True)
    bench = polled_once(failure, failure, status("completed"))
    bench.run()
    assert bench.only.kind is COMPLETE


def test_a_server_that_always_throttles_is_given_up_even_if_there_are_only_polls() -> None:
    bench = polled_once(THROTTLED, give_up_s=300.0)
    bench.api.poll_takes_s = 10.0
    end = bench.run()
    assert end.stops["default"].kind is ErrorKind.THROTTLED
    assert_incomplete(bench.only)
    assert 300 <= bench.seconds < 330


# -- requested once more -----------------------------------------------------------------------------------------------


def test_an_aborted_backup_is_requested_once_more_under_a_second_marker() -> None:
    bench = aborting()
    bench.run()
    assert (bench.only.kind, bench.only.error, len(bench.posted())) == (COMPLETE, None, 2)
    assert backup_of(bench.only).id == AGAIN
    assert [(each.id, each.status) for each in bench.only.earlier] == [(FIRST, "aborted")]
    assert bench.requested() == [f"x {marker(RUN_ID)}", f"x {SECOND}"]
    assert (bench.only.spent.attempts, bench.only.reconciled) == (2, False)
    assert bench.only.planned.request.description == f"x {SECOND}"


def test_a_second_abort_is_final() -> None:
    bench = aborting(times=2)
    bench.run()
    assert (bench.only.kind, len(bench.posted())) == (ABORT, 2)
    assert (backup_of(bench.only).id, [each.id for each in bench.only.earlier]) == (AGAIN, [FIRST])


def test_the_second_request_keeps_to_the_longest_description() -> None:
    long = planned(0)
    text = "é" * (255 - len(marker(RUN_ID)) - 1)
    description = f"{text} {marker(RUN_ID)}"
    pending = PendingBackup(replace(long, request=replace(long.request, description=description)))
    bench = aborting(pending=[pending])
    bench.run()
    assert bench.only.kind is COMPLETE
    first, again = bench.requested()
    assert len(first) == len(again) == 255
    assert again == f"{text[:-3]}… {SECOND}"


def test_the_second_backup_has_its_own_wait() -> None:
    bench = aborting()
    bench.api.ends_after_s = TIMEOUT_S - 100
    bench.run()
    assert (bench.only.kind, len(bench.posted())) == (COMPLETE, 2)
    bench = aborting()
    bench.api.ends_after_s = 60.0
    bench.api.on_poll = lambda _install, backup_id, _nth: status("slow", AGAIN) if backup_id == AGAIN else None
    bench.run()
    assert_incomplete(bench.only)
    assert [each.id for each in bench.only.earlier] == [FIRST]
    assert 60 + TIMEOUT_S <= bench.seconds < 60 + TIMEOUT_S + INTERVAL_S + LAST_POLL_S


def test_the_second_request_has_all_its_attempts() -> None:
    bench = aborting()
    bench.api.script(0, REFUSED, REFUSED, ACCEPTED, REFUSED, REFUSED, ACCEPTED)
    bench.api.ends_as = lambda backup_id: "aborted" if backup_id == FIRST else "completed"
    bench.run()
    assert (bench.only.kind, bench.only.spent.attempts, len(bench.posted())) == (COMPLETE, 2, 6)


@pytest.mark.parametrize("is_made", [True, False], ids=["made", "not made"])
@pytest.mark.parametrize("lost", [GATEWAY_TIMEOUT, DISCONNECTED, UNREADABLE], ids=["504", "reset", "202"])
def test_a_lost_answer_to_the_second_request_is_looked_up_by_the_second_marker(
    lost: AttemptResult,
    is_made: bool,  # noqa: FBT001 - a column
) -> None:
    bench = aborting()
    bench.api.script(0, ACCEPTED, replace(lost, backup=None), ACCEPTED)
    bench.api.ends_as = lambda backup_id: "aborted" if backup_id == FIRST else "completed"
    bench.api.on_post = lambda: bench.api.makes.update([install_id(0)] if is_made else [])
    bench.run()
    if is_made:
        assert (bench.only.kind, bench.only.reconciled, len(bench.posted())) == (COMPLETE, True, 2)
        assert backup_of(bench.only).id == "made-1"
    elif lost is UNREADABLE:
        assert (bench.only.kind, bench.only.sought, len(bench.posted())) == (UNKNOWN, (second(RUN_ID),), 2)
    else:
        assert (bench.only.kind, bench.only.reconciled, len(bench.posted())) == (COMPLETE, False, 3)
        _, again, third = bench.posted()
        assert third - again >= 20.0
        assert bench.requested()[1:] == [f"x {SECOND}"]
    assert [each.id for each in bench.only.earlier] == [FIRST]
    assert {each.sought for each in bench.journal.noted if each.made.is_second} <= {(second(RUN_ID),), ()}


def test_an_aborted_backup_found_in_the_listing_is_also_requested_once_more() -> None:
    bench = aborting()
    bench.api.lose(0, GATEWAY_TIMEOUT, ACCEPTED)
    bench.api.ends_as = lambda backup_id: "aborted" if backup_id == "made-0" else "completed"
    bench.run()
    assert (bench.only.kind, bench.only.reconciled, len(bench.posted())) == (COMPLETE, False, 2)
    assert [each.id for each in bench.only.earlier] == ["made-0"]


def test_after_the_deadline_there_is_no_second_request() -> None:
    bench = aborting(deadline_s=30.0)
    end = bench.run()
    assert (bench.only.kind, bench.only.error, end.deadline_passed) == (ABORT, None, False)
    assert (backup_of(bench.only).id, bench.only.earlier, len(bench.posted())) == (FIRST, (), 1)


def test_after_a_signal_there_is_no_second_request() -> None:
    """The limiter holds back the second request until the signal comes."""
    bench = aborting(held_after_s=45.0, signals=((HELD_S - 100, signal.SIGTERM),), wait=replace(REPEAT, timeout_s=9e3))
    bench.api.ends_after_s, bench.api.poll_takes_s = 35.0, 10.0
    bench.run()
    assert (bench.only.kind, bench.only.error) == (ABORT, None)
    assert (backup_of(bench.only).id, bench.only.earlier, len(bench.posted())) == (FIRST, (), 1)


def test_a_stopped_account_sends_no_second_request() -> None:
    bench = aborting(installs=2)
    bench.api.poll_takes_s = 1.0
    bench.api.on_poll = lambda install, _, nth: (
        (status("aborted") if install == install_id(0) else QUOTA) if nth == 2 else status("slow")
    )
    bench.run()
    assert {bench.sink.of(0).kind, bench.sink.of(1).kind} <= {ABORT, INCOMPLETE}
    assert bench.sink.of(0).kind is ABORT
    assert bench.sink.of(0).error is None
    assert sum(bench.api.posts.values()) == 2


@pytest.mark.parametrize(
    "answer", [QUOTA, UNAUTHORIZED, replace(THROTTLED, retry_after_s=1e6)], ids=["quota", "credentials", "max_pause"]
)
def test_an_account_that_stops_at_the_second_request_keeps_the_outcome_aborted(answer: AttemptResult) -> None:
    bench = aborting()
    bench.api.script(0, ACCEPTED, answer)
    bench.api.checks = [OK, UNAUTHORIZED]
    end = bench.run()
    assert list(end.stops) == ["default"]
    assert (bench.only.kind, bench.only.earlier, bench.only.error) == (ABORT, (), None)
    assert (backup_of(bench.only).id, backup_of(bench.only).status) == (FIRST, "aborted")


def test_a_signal_while_the_second_intent_is_stored_keeps_the_outcome_aborted() -> None:
    class Slow(FakeJournal):
        async def note(self, checkpoint: Checkpoint) -> None:
            self.takes_s = 20.0 if checkpoint.made.is_second else 0.0
            await super().note(checkpoint)

    bench = aborting(journal=Slow(), signals=((70.0, signal.SIGINT),))
    bench.run()
    assert (bench.only.kind, len(bench.posted())) == (ABORT, 1)
    assert backup_of(bench.only).id == FIRST


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(NOT_FOUND, REJECT), (REFUSED, EXHAUST), (UNAUTHORIZED, REJECT)],
)
def test_the_outcome_of_a_failed_second_request_names_the_aborted_backup(
    answer: AttemptResult, kind: OutcomeKind
) -> None:
    bench = aborting()
    bench.api.script(0, ACCEPTED, answer)
    bench.run()
    assert (bench.only.kind, bench.only.backup) == (kind, None)
    assert [each.id for each in bench.only.earlier] == [FIRST]


# -- many of them ------------------------------------------------------------------------------------------------------


def most_within(times: list[float], seconds: float) -> int:
    """Return the largest number of ``times`` (sorted) within any ``seconds`` seconds."""
    return max(bisect_left(times, at + seconds) - index for index, at in enumerate(times))


def test_the_polls_of_thousands_of_backups_keep_to_their_share_of_the_rate() -> None:
    until = BEGAN_S + 600.0
    pending = [
        PendingBackup(
            planned(n), made=Made(Backup(FIRST)), state=CompletionWait(Backup(FIRST), until, may_repeat=False)
        )
        for n in range(4_000)
    ]
    bench = waiting(pending=pending, throttle=FakeThrottle(spaced=True))
    bench.api.on_poll = lambda *_: status("in_progress")
    bench.run()
    times = sorted(at for each in bench.api.polls.values() for at in each if at < until - 15)
    assert 0.9 * POLL_SHARE * RATE < len(times) / 585 <= POLL_SHARE * RATE * 1.01
    assert most_within(times, 10.0) <= 10 * POLL_SHARE * RATE + 1
    assert {len(polls) for polls in bench.api.polls.values()} <= {1, 2}


def test_posts_keep_nine_of_ten_turns_while_polls_are_due() -> None:
    bench = waiting(installs=1200, throttle=FakeThrottle(spaced=True), wait=replace(WAIT, timeout_s=7200.0))
    bench.api.ends_after_s = 1e6
    bench.api.on_poll = lambda *_: status("completed") if asyncio.get_running_loop().time() > BEGAN_S + 250 else None
    bench.run()
    posted = sorted(at for each in bench.api.post_times.values() for at in each)
    polled = sorted(at for each in bench.api.polls.values() for at in each)
    during = bisect_left(polled, posted[-1])
    assert 100 < during <= 1200 / 9 + 1
    assert most_within(polled[:during], 1.0) <= 2
    after = [at for at in polled if at > posted[-1] + 1]
    assert most_within(after, 10.0) <= 10 * POLL_SHARE * RATE + 1
    assert bench.kinds() == {COMPLETE: 1200}


def test_the_last_backups_are_polled_as_often_as_a_few_would_be() -> None:
    bench = waiting(installs=1000, throttle=FakeThrottle(spaced=True), wait=replace(WAIT, timeout_s=7200.0))
    bench.api.on_poll = lambda install, *_: status("slow") if install == install_id(0) else None
    slow_until = 600.0
    bench.api.on_poll = lambda install, *_: (
        status("slow")
        if install == install_id(0) and asyncio.get_running_loop().time() < BEGAN_S + slow_until
        else None
    )
    bench.run()
    assert bench.kinds() == {COMPLETE: 1000}
    assert bench.seconds < slow_until + 2 * INTERVAL_S


def test_a_fleet_that_takes_longer_than_the_wait_marks_no_completed_backup_incomplete() -> None:
    wait = replace(WAIT, timeout_s=60.0)
    bench = waiting(installs=1500, throttle=FakeThrottle(spaced=True), wait=wait)
    bench.api.ends_after_s = 30.0
    bench.run()
    assert bench.kinds() == {COMPLETE: 1500}
    assert max(len(polls) for polls in bench.api.polls.values()) <= 4


def test_a_last_poll_removes_the_backup_from_its_old_queue() -> None:
    bench = waiting(installs=40, throttle=FakeThrottle(spaced=True), wait=replace(REPEAT, timeout_s=10.0))
    bench.api.ends_after_s = 9.0
    bench.api.ends_as = lambda backup_id: "aborted" if backup_id in {made[0] for made in firsts()} else "completed"

    def firsts() -> list[list[str]]:
        return [made for number in range(40) if (made := bench.api.made(number))]

    bench.run()
    assert bench.kinds() == {COMPLETE: 40}
    assert {len(bench.api.made(number)) for number in range(40)} == {2}


def test_lookups_go_before_posts_and_polls() -> None:
    bench = waiting(installs=400, throttle=FakeThrottle(concurrency=1))
    bench.api.ends_after_s = 1e6
    for number in range(0, 100, 10):
        bench.api.lose(number, GATEWAY_TIMEOUT)
    bench.run()
    for number in range(0, 100, 10):
        assert bench.api.looks[install_id(number)][0][0] - BEGAN_S - bench.posted(number)[0] <= 0.31


# -- the journal, signals ----------------------------------------------------------------------------------------------


def test_an_accepted_backup_is_on_disk_before_it_is_polled() -> None:
    bench = waiting(installs=3, journal=FakeJournal(takes_s=40.0))
    bench.run()
    assert bench.kinds() == {COMPLETE: 3}
    assert min(bench.polled(0)) >= 80.0
    noted = [each.made.backup and each.made.backup.id for each in bench.journal.noted]
    assert sorted(noted, key=str) == [None] * 3 + [FIRST] * 3 or sorted(noted, key=str) == [FIRST] * 3 + [None] * 3


def test_a_journal_that_fails_during_the_wait_ends_the_run_and_every_id_is_reported() -> None:
    bench = waiting(installs=6, journal=FakeJournal(full_after=9), throttle=FakeThrottle(concurrency=1))
    end = bench.run()
    assert str(end.write_error) == "the journal's disk is full"
    kinds = bench.kinds()
    assert kinds.pop(ACCEPT) == 1
    assert sum(kinds.get(kind, 0) for kind in (INCOMPLETE, CANCEL)) == 5
    made = sum(len(bench.api.made(number)) for number in range(6))
    assert kinds[INCOMPLETE] == made - 1
    assert {each.error.kind for each in bench.sink.outcomes if each.error} <= {ErrorKind.STOPPED, ErrorKind.TIMEOUT}
    assert not bench.api.polls


def test_a_sink_that_fails_during_the_wait_loses_no_id() -> None:
    bench = waiting(installs=6, sink=ListSink(full_after=2))
    bench.api.on_poll = lambda install, _, nth: status("completed") if install < install_id(4) and nth > 1 else None
    end = bench.run()
    assert end.write_error
    assert len(end.unwritten) == 4
    assert all(each.backup for each in end.unwritten)
    assert bench.seconds < 3 * INTERVAL_S


def test_a_signal_during_the_wait_leaves_backups_incomplete_and_ends_the_polls() -> None:
    bench = waiting(installs=10, signals=((40.0, signal.SIGTERM),))
    bench.api.ends_after_s = 1e6
    end = bench.run()
    assert end.interrupted
    for outcome in bench.sink.outcomes:
        assert_incomplete(outcome)
        assert "the wait was cut short: the run was stopped by SIG" in error_of(outcome).message
    assert max(max(bench.polled(number)) for number in range(10)) < 40.0
    assert bench.seconds < 41


@pytest.mark.parametrize("again_s", [None, 42.0], ids=["one signal", "two signals"])
def test_a_signal_cancels_polls_in_flight(again_s: float | None) -> None:
    bench = waiting(installs=10, signals=((40.0, signal.SIGINT), *(((again_s, signal.SIGINT),) if again_s else ())))
    bench.api.poll_takes_s = 3600.0
    bench.run()
    assert bench.kinds() == {INCOMPLETE: 10}
    assert bench.seconds < 41


def test_a_backup_accepted_after_the_signal_is_incomplete_and_not_polled() -> None:
    bench = waiting(installs=4, api=FakeApi(takes_s=10.0), signals=((15.0, signal.SIGINT),))
    bench.run()
    assert bench.kinds() == {INCOMPLETE: 4}
    assert not bench.api.polls
    assert {each.made.backup.id for each in bench.journal.noted if each.made.backup} == {FIRST}


def test_a_bug_in_a_poll_loses_no_outcome() -> None:
    bench = waiting(installs=5)

    def on_poll(install: str, _backup: str, _nth: int) -> None:
        if install == install_id(2):
            raise ZeroDivisionError

    bench.api.on_poll = on_poll
    end = bench.run()
    assert isinstance(end.crash, ZeroDivisionError)
    assert bench.sink.of(2).backup
    assert len(bench.sink.outcomes) == 5
