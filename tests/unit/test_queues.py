"""The order of requests: lookups, then POSTs, with a tenth of the turns for reads; polls keep to their share."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from fakes import OK, FakeApi, FakeThrottle, planned
from virtual import run_virtual

from orchestrator.engine.pending import (
    CompletionWait,
    CredentialsCheck,
    InDoubt,
    PendingBackup,
    ReadRequest,
    RecencyCheck,
    ToRequest,
    Work,
)
from orchestrator.engine.queues import POLL_SHARE, TURNS_OF_READS, AccountQueue, AccountState, Budget, DueQueue
from orchestrator.model import Backup, ErrorInfo, ErrorKind

WHY = ErrorInfo(ErrorKind.TIMEOUT, "late")
RATE = 10.0
"""The rate of a ``FakeThrottle``."""
GAP_S = 1.0 / (RATE * POLL_SHARE)


def fresh(number: int = 0) -> PendingBackup:
    return PendingBackup(planned(number))


def screened(number: int = 0) -> PendingBackup:
    return PendingBackup(planned(number), state=RecencyCheck())


def watched(number: int = 0, *, once: bool = False) -> PendingBackup:
    return PendingBackup(planned(number), state=CompletionWait(Backup("b"), 1e9, is_polled_once=once))


def doubted(number: int = 0) -> PendingBackup:
    return PendingBackup(planned(number), state=InDoubt(WHY, 0.0))


def account(name: str = "default", *, is_open: bool = True) -> AccountQueue:
    made = AccountQueue(name, FakeApi())
    made.state = AccountState.OPEN if is_open else AccountState.TO_CHECK
    return made


def budget(*accounts: AccountQueue) -> Budget:
    return Budget(FakeThrottle(), list(accounts))


def stage(work: Work) -> str:
    if not isinstance(work, PendingBackup):
        return type(work).__name__
    return {CompletionWait: "poll", RecencyCheck: "screen", InDoubt: "look", ToRequest: "post"}[type(work.state)]


def taken(subject: Budget, count: int, gap_s: float = 1 / RATE) -> list[str]:
    """Take the next work ``count`` times, ``gap_s`` apart. Return the names; ``-`` means none."""
    got = []
    for nth in range(count):
        each = subject.take(1000.0 + nth * gap_s, read_only=False)
        got.append("-" if each is None else stage(each[1]))
    return got


def read() -> ReadRequest:
    async def made() -> ReadRequest:
        return ReadRequest(lambda api: api.list_accounts(0), asyncio.get_running_loop().create_future())

    return run_virtual(made())


# -- turns -------------------------------------------------------------------------------------------------------------


def test_credentials_are_checked_before_anything_else() -> None:
    subject = account(is_open=False)
    for work in (doubted(), watched(), screened()):
        subject.queue(work, 0.0)
    subject.fresh.append(fresh())
    assert taken(budget(subject), 3) == ["CredentialsCheck", "-", "-"]


def test_lookups_go_before_posts_and_reads_come_last() -> None:
    subject = account()
    subject.queue(watched(), 0.0)
    subject.queue(screened(), 0.0)
    subject.queue(fresh(), 0.0)
    subject.fresh.append(fresh())
    subject.queue(doubted(), 0.0)
    assert taken(budget(subject), 6) == ["look", "post", "post", "poll", "screen", "-"]


@pytest.mark.parametrize("read", [watched, screened])
def test_reads_get_a_tenth_of_the_turns_while_there_are_posts(read: type) -> None:
    subject = account()
    subject.fresh.extend(fresh(number) for number in range(900))
    for number in range(200):
        subject.queue(read(number), 0.0)
    order = taken(budget(subject), 1000)
    name = stage(read())
    assert Counter(order) == {"post": 900, name: 100}
    assert {index % TURNS_OF_READS for index, each in enumerate(order) if each == name} == {TURNS_OF_READS - 1}


def test_polls_and_other_reads_share_the_tenth_of_reads() -> None:
    subject = account()
    subject.fresh.extend(fresh(number) for number in range(900))
    for number in range(200):
        subject.queue(watched(number), 0.0)
        subject.queue(screened(number), 0.0)
    assert Counter(taken(budget(subject), 1000)) == {"post": 900, "poll": 50, "screen": 50}


def test_retries_and_new_installs_take_turns_and_lookups_go_before_both() -> None:
    subject = account()
    subject.fresh.extend(fresh(number) for number in range(3))
    for number in range(3):
        subject.queue(fresh(number), 0.0)
    subject.queue(doubted(), 0.0)
    order = []
    for _ in range(7):
        got = subject.take(1000.0)
        order.append(
            "look" if isinstance(got, PendingBackup) and isinstance(got.state, InDoubt) else len(subject.fresh)
        )
    assert order == ["look", 3, 2, 2, 1, 1, 0]


@pytest.mark.parametrize("count", [1, 3, 500])
def test_polls_alone_keep_to_their_share_of_the_rate_without_bursts(count: int) -> None:
    subject = account()
    for number in range(count):
        subject.queue(watched(number), 0.0)
    order = taken(budget(subject), 400)
    assert min(count, 400 * POLL_SHARE) <= order.count("poll") <= min(count, 400 * POLL_SHARE + 1)
    assert "poll poll poll poll" not in " ".join(order)


def test_other_reads_get_the_turns_that_polls_leave() -> None:
    subject = account()
    for number in range(400):
        subject.queue(watched(number), 0.0)
        subject.queue(screened(number), 0.0)
    assert Counter(taken(budget(subject), 400)) == {"poll": 200, "screen": 200}


def test_accounts_in_one_budget_share_the_turns_of_polls() -> None:
    accounts = [account("a"), account("b"), account("c")]
    for each in accounts:
        for number in range(400):
            each.queue(watched(number), 0.0)
    assert taken(budget(*accounts), 400).count("poll") in {200, 201}
    assert max(each.watched for each in accounts) - min(each.watched for each in accounts) <= 1


def test_backups_to_poll_once_do_not_wait_for_the_share_of_polls() -> None:
    subject = account()
    for number in range(50):
        subject.queue(watched(number, once=True), 0.0)
    assert taken(budget(subject), 50) == ["poll"] * 50
    assert subject.watched == 0


def test_another_read_may_go_while_polls_must_wait() -> None:
    subject = account()
    shared = budget(subject)
    for number in range(4):
        subject.queue(watched(number), 0.0)
    assert taken(shared, 3, gap_s=0.0) == ["poll", "poll", "-"]
    for number in range(3):
        subject.queue(screened(number), 0.0)
    assert taken(shared, 4, gap_s=0.0) == ["screen", "screen", "screen", "-"]


def test_the_queue_is_ready_when_the_next_poll_may_go() -> None:
    subject = account()
    for number in range(3):
        subject.queue(watched(number), 0.0)
    shared = budget(subject)
    assert shared.ready_at() == 0.0
    taken(shared, 2, gap_s=0.0)
    assert shared.ready_at() == pytest.approx(1000.0 + GAP_S)
    subject.queue(doubted(), 7.0)
    assert shared.ready_at() == 7.0


def test_a_read_only_canary_is_always_a_check_of_credentials() -> None:
    subject = account()
    subject.queue(watched(), 0.0)
    got = budget(subject).take(1000.0, read_only=True)
    assert got
    assert got[1] == CredentialsCheck(canary=True)
    assert len(subject.polls) == 1


# -- settled work is passed over ---------------------------------------------------------------------------------------


def test_a_settled_backup_is_neither_counted_as_work_nor_taken() -> None:
    subject = account()
    works = [watched(), screened(), doubted(), fresh()]
    for work in works:
        subject.queue(work, 0.0)
        work.is_settled = True
    subject.suspects.append((replace(fresh(), is_settled=True), OK))
    assert not subject.has_work
    assert subject.ready_at() is None
    assert subject.take(1000.0) is None
    assert budget(subject).is_finished


def test_a_read_request_that_nobody_waits_for_is_neither_counted_as_work_nor_taken() -> None:
    async def main() -> None:
        loop, subject = asyncio.get_running_loop(), account()
        gone, waiting = (ReadRequest(lambda api: api.list_accounts(0), loop.create_future()) for _ in range(2))
        subject.queue(gone, 0.0)
        subject.queue(waiting, 0.0)
        gone.answer.cancel()
        assert subject.take(1000.0) is waiting
        gone.end(OK)
        assert gone.answer.cancelled()
        assert not subject.has_work

    run_virtual(main())


def test_a_suspect_counts_as_work_until_it_is_settled() -> None:
    subject = account()
    work = watched()
    subject.suspects.append((work, OK))
    assert subject.has_work
    work.is_settled = True
    assert not subject.has_work


def test_a_queue_is_sorted_by_time_and_then_by_arrival() -> None:
    queue = DueQueue()
    pending = [fresh(number) for number in range(5)]
    for work, at in zip(pending, [3.0, 1.0, 2.0, 1.0, 0.5], strict=True):
        queue.put(work, at)
    pending[3].is_settled = True
    assert [at for at, _ in queue] == [0.5, 1.0, 2.0, 3.0]
    assert [work.planned.position for _, work in queue if isinstance(work, PendingBackup)] == [4, 1, 2, 0]
    assert [queue.pop() for _ in range(2)] == [pending[4], pending[1]]
    assert queue.is_due(2.0)
    assert queue.clear() == [pending[2], pending[0]]
    assert not queue


# -- removal of work ---------------------------------------------------------------------------------------------------


def test_backups_not_yet_requested_are_taken_out_and_all_others_stay() -> None:
    subject = account()
    stays: list[PendingBackup | ReadRequest] = [watched(1), doubted(2), read(), watched(6, once=True)]
    goes = [screened(3), fresh(4)]
    for work in (*stays, *goes):
        subject.queue(work, 5.0)
    subject.fresh.append(fresh(5))
    assert sorted(each.planned.position for each in subject.take_requests()) == [3, 4, 5]
    assert (len(subject.polls), len(subject.lookups), len(subject.reads)) == (1, 1, 2)
    assert subject.take_requests() == []


def test_clearing_a_queue_returns_everything_once() -> None:
    subject = account()
    works = [watched(1), doubted(2), screened(3), fresh(4), watched(5, once=True)]
    for work in works:
        subject.queue(work, 5.0)
    subject.fresh.append(fresh(6))
    subject.suspects.append((fresh(7), OK))
    left = [work.planned.position for work in subject.clear() if isinstance(work, PendingBackup)]
    assert sorted(left) == [1, 2, 3, 4, 5, 6, 7]
    assert not subject.has_work
    assert subject.clear() == []
