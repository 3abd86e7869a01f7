"""Each read request gets its answer, or the reason why there is none; in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from engine_bench import HOUR_S, Bench
from fakes import (
    DISCONNECTED,
    GATEWAY_TIMEOUT,
    NOT_FOUND,
    OK,
    QUOTA,
    REFUSED,
    THROTTLED,
    UNAUTHORIZED,
    UNREADABLE,
    FakeApi,
    FakeThrottle,
    listing,
    shown,
)
from virtual import run_virtual

from orchestrator.engine.queues import AccountState
from orchestrator.errors import StoppedError
from orchestrator.model import AttemptResult, ErrorInfo, ErrorKind
from orchestrator.pacing import Ticket

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from orchestrator.engine.ports import Api

PAGE = listing(shown("b"))
Answer = AttemptResult | ErrorInfo


def test_a_read_is_answered_after_one_check_of_the_credentials() -> None:
    bench = Bench()
    bench.api.script_listing(0, PAGE)
    assert bench.attend(bench.ask()) == PAGE
    assert (bench.api.checked, len(bench.looked())) == (1, 1)


def test_many_reads_each_get_their_own_answer() -> None:
    bench = Bench()
    for number in range(100):
        bench.api.script_listing(number, listing(shown(str(number))))

    async def work() -> list[Answer]:
        return await asyncio.gather(*(bench.ask(number=number) for number in range(100)))

    pages = [each.page for each in bench.attend(work()) if isinstance(each, AttemptResult)]
    assert [page.entries[0].id for page in pages if page] == [str(number) for number in range(100)]


@pytest.mark.parametrize("failure", [GATEWAY_TIMEOUT, DISCONNECTED, REFUSED, UNREADABLE])
def test_a_failed_read_is_repeated_with_backoff_and_then_reported(failure: AttemptResult) -> None:
    bench = Bench()
    bench.api.script_listing(0, failure, failure, PAGE)
    assert bench.attend(bench.ask()) == PAGE
    bench = Bench()
    bench.api.script_listing(0, failure)
    answer = bench.attend(bench.ask())
    assert isinstance(answer, ErrorInfo)
    assert (answer.status, answer.message) == (failure.status, failure.message)
    assert len(bench.looked()) == 3


@pytest.mark.parametrize(("status", "kind"), [(404, ErrorKind.REJECTED), (403, ErrorKind.REJECTED), (302, "protocol")])
def test_a_permanent_answer_is_reported_immediately(status: int, kind: ErrorKind) -> None:
    bench = Bench()
    bench.api.script_listing(0, replace(NOT_FOUND, status=status))
    answer = bench.attend(bench.ask())
    assert isinstance(answer, ErrorInfo)
    assert (answer.kind, answer.status, len(bench.looked())) == (kind, status, 1)


def test_a_throttled_read_is_repeated_and_does_not_count_as_failed() -> None:
    bench = Bench()
    bench.api.script_listing(0, *[THROTTLED] * 30, PAGE)
    assert bench.attend(bench.ask()) == PAGE


def test_a_server_that_always_throttles_is_given_up() -> None:
    bench = Bench(api=FakeApi(takes_s=10.0))
    bench.api.script_listing(0, THROTTLED)
    answer = bench.attend(bench.ask())
    assert isinstance(answer, ErrorInfo)
    assert "give_up" in answer.message


@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize("goes_bad", ["at once", "in the middle", "quota"])
def test_an_account_that_stops_answers_every_read_with_the_reason_and_others_go_on(goes_bad: str, count: int) -> None:
    bench = Bench()
    bench.api.checks = [UNAUTHORIZED] if goes_bad == "at once" else [OK, UNAUTHORIZED]
    for number in range(count):
        bench.api.script_listing(number, {"quota": QUOTA}.get(goes_bad, UNAUTHORIZED))
        bench.other_api.script_listing(number, PAGE)

    async def work() -> list[Answer]:
        here = [bench.ask(number=number) for number in range(count)]
        there = [bench.ask("other", number) for number in range(count)]
        return [*await asyncio.gather(*here, *there), await bench.ask()]

    answers = bench.attend(work())
    stop = bench.accounts[0].stop
    assert stop
    assert stop.kind is (ErrorKind.QUOTA if goes_bad == "quota" else ErrorKind.CREDENTIALS)
    assert answers == [stop] * count + [PAGE] * count + [stop]


def test_a_401_of_a_single_read_rejects_only_that_read() -> None:
    bench = Bench()
    bench.api.script_listing(0, UNAUTHORIZED)
    answer = bench.attend(bench.ask())
    assert isinstance(answer, ErrorInfo)
    assert (answer.kind, answer.status, bench.api.checked) == (ErrorKind.REJECTED, 401, 2)


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.15, 0.25, 5.0], ids=lambda after_s: f"{after_s} s")
def test_a_cancelled_read_leaves_nothing_behind(after_s: float) -> None:
    bench = Bench()
    bench.api.script_listing(0, THROTTLED, GATEWAY_TIMEOUT, THROTTLED)
    bench.api.script_listing(1, PAGE)

    async def work() -> Answer:
        impatient = asyncio.create_task(bench.ask())
        await asyncio.sleep(after_s)
        impatient.cancel()
        await asyncio.gather(impatient, return_exceptions=True)
        return await bench.ask(number=1)

    assert bench.attend(work()) == PAGE
    assert not bench.accounts[0].has_work


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.15, 0.2, 30.0])
def test_a_signal_ends_all_reads_immediately_and_leaves_nothing_behind(after_s: float) -> None:
    bench = Bench(signals=((after_s, 15),))
    bench.api.list_takes_s = HOUR_S

    async def work() -> list[Answer]:
        return await asyncio.gather(*(bench.ask(number=number) for number in range(20)))

    with pytest.raises(StoppedError):
        bench.attend(work())
    assert bench.seconds < after_s + 1


class Prompt(FakeThrottle):
    """A throttle that never makes a request wait."""

    def admit_at_once(self) -> Ticket | None:
        self.out += 1
        return Ticket(0.0, 0)

    async def admit(self) -> Ticket:
        raise NotImplementedError

    def _back(self) -> None:
        self.out -= 1


@pytest.mark.parametrize("throttle", [FakeThrottle, Prompt])
@pytest.mark.parametrize("turns", range(12))
def test_a_signal_also_ends_a_read_that_is_being_admitted(turns: int, throttle: type[FakeThrottle]) -> None:
    bench = Bench(throttle=throttle())
    bench.api.list_takes_s = HOUR_S
    bench.accounts[0].state = AccountState.OPEN

    async def work() -> Answer:
        bench.press_after(turns, 15)
        return await bench.ask()

    with pytest.raises(StoppedError):
        bench.attend(work())
    assert bench.seconds < 1


@pytest.mark.parametrize("throttle", [FakeThrottle, Prompt])
@pytest.mark.parametrize("turns", range(8))
def test_a_read_that_is_cancelled_while_it_is_admitted_blocks_nothing(turns: int, throttle: type[FakeThrottle]) -> None:
    bench = Bench(throttle=throttle())
    bench.api.list_takes_s = HOUR_S

    async def work() -> str:
        await asyncio.sleep(1.0)
        queries = asyncio.create_task(bench.ask())
        for _ in range(turns):
            await asyncio.sleep(0)
        queries.cancel()
        return "done"

    assert bench.attend(work()) == "done"
    assert bench.seconds < 2


@pytest.mark.parametrize("others", [0, 3])
@pytest.mark.parametrize("at", ["sync", "async"])
def test_a_bug_in_a_read_is_raised(at: str, others: int) -> None:
    bench = Bench()

    async def broken() -> AttemptResult:
        await asyncio.sleep(0.1)
        raise ZeroDivisionError

    def call(_: Api) -> Coroutine[object, object, AttemptResult]:
        if at == "sync":
            raise ZeroDivisionError
        return broken()

    async def work() -> list[Answer]:
        return await asyncio.gather(
            bench.dispatcher.ask("default", call), *(bench.ask("other", number) for number in range(others))
        )

    with pytest.raises(ZeroDivisionError):
        bench.attend(work())


def test_a_bug_in_the_limiter_is_raised_and_does_not_hang() -> None:
    class Broken(FakeThrottle):
        always_waits = True

        async def admit(self) -> Any:
            raise ZeroDivisionError

    bench = Bench(throttle=Broken())
    with pytest.raises(ZeroDivisionError):
        bench.attend(bench.ask())


def test_an_exception_of_the_work_itself_is_raised() -> None:
    bench = Bench()

    async def work() -> None:
        await bench.ask()
        raise KeyError

    with pytest.raises(KeyError):
        bench.attend(work())


def test_work_without_reads_sends_only_the_check_of_credentials() -> None:
    bench = Bench()

    async def work() -> int:
        await asyncio.sleep(5)
        return 7

    assert bench.attend(work()) == 7
    assert bench.api.checked == 1


def test_reads_wait_for_an_unreachable_api_only_up_to_reach_s() -> None:
    bench = Bench(reach_s=60.0)
    bench.api.checks = [REFUSED]
    answer = bench.attend(bench.ask())
    assert isinstance(answer, ErrorInfo)
    assert "there was no usable answer for" in answer.message
    assert 60 <= bench.seconds <= 95


def test_a_read_that_nobody_waits_for_is_not_sent() -> None:
    bench = Bench(api=FakeApi(takes_s=1.0), throttle=FakeThrottle(concurrency=1))
    waiting: list[asyncio.Task[AttemptResult | ErrorInfo]] = []

    async def work() -> None:
        waiting.extend(asyncio.create_task(bench.ask(number=number)) for number in range(3))
        await waiting[0]

    async def main() -> None:
        bench._begin()
        await bench.dispatcher.attend(work())
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    run_virtual(main())
    assert (len(bench.looked(0)), bench.looked(2)) == (1, [])
