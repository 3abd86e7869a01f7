"""Whoever wants to know something of the API gets an answer, or why there is none, in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from fakes import (
    DISCONNECTED,
    GATEWAY_TIMEOUT,
    NOT_FOUND,
    OK,
    REFUSED,
    RUN_ID,
    THROTTLED,
    UNAUTHORIZED,
    UNREADABLE,
    FakeApi,
    FakeClock,
    FakeJournal,
    FakeThrottle,
    ListLog,
    ListSink,
    install_id,
    listing,
    planned,
    shown,
)
from virtual import run_virtual

from orchestrator.engine.dispatch import Dispatcher
from orchestrator.engine.efforts import Effort
from orchestrator.engine.lanes import Budget, Lane, LaneState
from orchestrator.engine.stop import StopSwitch
from orchestrator.engine.surroundings import Limits, Surroundings
from orchestrator.errors import StoppedError
from orchestrator.model import AttemptResult, ErrorInfo, ErrorKind, OutcomeKind, ReconcilePolicy, RetryPolicy
from orchestrator.pacing import Ticket

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from orchestrator.engine.ports import Api

QUOTA = AttemptResult(status=429, message="Limit Exceeded")
LIMITS = Limits(RetryPolicy(3, 100.0), ReconcilePolicy(grace_s=20.0), 60.0, 300.0)
PAGE = listing(shown("b"))
Answer = AttemptResult | ErrorInfo


def backups(number: int = 0) -> Any:
    return lambda api: api.list_backups(install_id(number), 0)


@dataclass
class Desk:
    """Two accounts that share a budget, and a dispatcher that attends to whoever asks."""

    api: FakeApi = field(default_factory=FakeApi)
    other_api: FakeApi = field(default_factory=FakeApi)
    throttle: FakeThrottle = field(default_factory=FakeThrottle)
    sink: ListSink = field(default_factory=ListSink)
    stop: StopSwitch = field(default_factory=StopSwitch)

    def __post_init__(self) -> None:
        self.lanes = {"default": Lane("default", self.api), "other": Lane("other", self.other_api)}
        self.budget = Budget(self.throttle, list(self.lanes.values()))
        self.dispatcher = self.new()

    def new(self) -> Dispatcher:
        around = Surroundings(RUN_ID, FakeJournal(), self.sink, FakeClock(), ListLog(), self.stop)
        return Dispatcher([self.budget], LIMITS, around)

    async def ask(self, account: str = "default", number: int = 0) -> Answer:
        return await self.dispatcher.ask(account, backups(number))

    async def run_afterwards(self) -> None:
        """Request a backup under the same budget; whatever was asked before has left nothing behind."""
        assert self.throttle.out == 0, "a ticket was not given back"
        assert len(asyncio.all_tasks()) == 1, "a task was left behind"
        assert self.budget.in_flight == 0
        self.lanes["default"].fresh.append(Effort(planned(9)))
        await self.new().run()
        assert self.sink.of(9).kind is OutcomeKind.ACCEPTED
        assert self.throttle.out == 0


def attended(desk: Desk, work: Coroutine[object, object, Any], *, goes_on: bool = True) -> Any:
    async def main() -> Any:
        async with asyncio.timeout(10_000):
            result = await desk.dispatcher.attend(work)
        if goes_on:
            await desk.run_afterwards()
        return result

    return run_virtual(main())


def test_what_is_asked_is_answered_after_one_check_of_the_credentials() -> None:
    desk = Desk()
    desk.api.script_listing(0, PAGE)
    assert attended(desk, desk.ask()) == PAGE
    assert (desk.api.checked, len(desk.api.looks[install_id(0)])) == (1, 1)


def test_many_are_answered_each_with_its_own_answer() -> None:
    desk = Desk()
    for number in range(100):
        desk.api.script_listing(number, listing(shown(str(number))))

    async def work() -> list[Answer]:
        return await asyncio.gather(*(desk.ask(number=number) for number in range(100)))

    pages = [each.page for each in attended(desk, work()) if isinstance(each, AttemptResult)]
    assert [page.entries[0].id for page in pages if page] == [str(number) for number in range(100)]


@pytest.mark.parametrize("failure", [GATEWAY_TIMEOUT, DISCONNECTED, REFUSED, UNREADABLE])
def test_what_fails_is_asked_again_with_backoff_and_then_told(failure: AttemptResult) -> None:
    desk = Desk()
    desk.api.script_listing(0, failure, failure, PAGE)
    assert attended(desk, desk.ask()) == PAGE
    desk = Desk()
    desk.api.script_listing(0, failure)
    answer = attended(desk, desk.ask())
    assert isinstance(answer, ErrorInfo)
    assert (answer.status, answer.message) == (failure.status, failure.message)
    assert len(desk.api.looks[install_id(0)]) == 3


@pytest.mark.parametrize(("status", "kind"), [(404, ErrorKind.REJECTED), (403, ErrorKind.REJECTED), (302, "protocol")])
def test_a_permanent_answer_is_told_at_once(status: int, kind: ErrorKind) -> None:
    desk = Desk()
    desk.api.script_listing(0, replace(NOT_FOUND, status=status))
    answer = attended(desk, desk.ask())
    assert isinstance(answer, ErrorInfo)
    assert (answer.kind, answer.status, len(desk.api.looks[install_id(0)])) == (kind, status, 1)


def test_a_throttled_question_is_asked_again_and_that_is_no_failure() -> None:
    desk = Desk()
    desk.api.script_listing(0, *[THROTTLED] * 30, PAGE)
    assert attended(desk, desk.ask()) == PAGE


def test_a_server_that_throttles_for_ever_is_given_up() -> None:
    desk = Desk(api=FakeApi(takes_s=10.0))
    desk.api.script_listing(0, THROTTLED)
    answer = attended(desk, desk.ask(), goes_on=False)
    assert isinstance(answer, ErrorInfo)
    assert "give_up" in answer.message


@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize("goes_bad", ["at once", "in the middle", "quota"])
def test_an_account_that_stops_tells_everybody_why_and_others_go_on(goes_bad: str, count: int) -> None:
    desk = Desk()
    desk.api.checks = [UNAUTHORIZED] if goes_bad == "at once" else [OK, UNAUTHORIZED]
    for number in range(count):
        desk.api.script_listing(number, {"quota": QUOTA}.get(goes_bad, UNAUTHORIZED))
        desk.other_api.script_listing(number, PAGE)

    async def work() -> list[Answer]:
        here = [desk.ask(number=number) for number in range(count)]
        there = [desk.ask("other", number) for number in range(count)]
        return [*await asyncio.gather(*here, *there), await desk.ask()]

    answers = attended(desk, work(), goes_on=False)
    stop = desk.lanes["default"].stop
    assert stop
    assert stop.kind is (ErrorKind.QUOTA if goes_bad == "quota" else ErrorKind.CREDENTIALS)
    assert answers == [stop] * count + [PAGE] * count + [stop]
    assert desk.throttle.out == 0


def test_a_401_of_one_question_alone_is_its_own_affair() -> None:
    desk = Desk()
    desk.api.script_listing(0, UNAUTHORIZED)
    answer = attended(desk, desk.ask())
    assert isinstance(answer, ErrorInfo)
    assert (answer.kind, answer.status, desk.api.checked) == (ErrorKind.REJECTED, 401, 2)


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.15, 0.25, 5.0], ids=lambda after_s: f"{after_s} s")
def test_who_no_longer_waits_leaves_nothing_behind(after_s: float) -> None:
    desk = Desk()
    desk.api.script_listing(0, THROTTLED, GATEWAY_TIMEOUT, THROTTLED)
    desk.api.script_listing(1, PAGE)

    async def work() -> Answer:
        impatient = asyncio.create_task(desk.ask())
        await asyncio.sleep(after_s)
        impatient.cancel()
        await asyncio.gather(impatient, return_exceptions=True)
        return await desk.ask(number=1)

    assert attended(desk, work()) == PAGE
    assert not desk.lanes["default"].has_work


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.15, 0.2, 30.0])
def test_a_signal_ends_the_asking_at_once_and_leaves_nothing_behind(after_s: float) -> None:
    desk = Desk(api=FakeApi(takes_s=0.1))
    desk.api.list_takes_s = 3600.0

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(after_s, desk.stop.press, 15)
        began = loop.time()
        asking = asyncio.gather(*(desk.ask(number=number) for number in range(20)))

        async def work() -> object:
            return await asking

        with pytest.raises(StoppedError):
            await desk.stop.unless_pressed(desk.dispatcher.attend(work()))
        assert loop.time() - began < after_s + 1
        assert desk.throttle.out == 0
        assert len(asyncio.all_tasks()) == 1

    run_virtual(main())


class Prompt(FakeThrottle):
    """Never let anybody wait."""

    def admit_at_once(self) -> Ticket | None:
        self.out += 1
        return Ticket(0.0, 0)

    async def admit(self) -> Ticket:
        raise NotImplementedError

    def _back(self) -> None:
        self.out -= 1


@pytest.mark.parametrize("throttle", [FakeThrottle, Prompt])
@pytest.mark.parametrize("turns", range(12))
def test_a_signal_ends_even_what_is_just_being_admitted(turns: int, throttle: type[FakeThrottle]) -> None:
    desk = Desk(throttle=throttle())
    desk.api.list_takes_s = 3600.0
    desk.lanes["default"].state = LaneState.OPEN

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def press_after(left: int) -> None:
            if left:
                loop.call_soon(press_after, left - 1)
            else:
                desk.stop.press(15)

        loop.call_soon(press_after, turns)
        with pytest.raises(StoppedError):
            await desk.stop.unless_pressed(desk.dispatcher.attend(desk.ask()))
        assert loop.time() < 1001
        assert desk.throttle.out == 0
        assert len(asyncio.all_tasks()) == 1

    run_virtual(main())


@pytest.mark.parametrize("throttle", [FakeThrottle, Prompt])
@pytest.mark.parametrize("turns", range(8))
def test_a_question_that_is_just_being_admitted_when_its_asker_goes_holds_up_nothing(
    turns: int, throttle: type[FakeThrottle]
) -> None:
    desk = Desk(throttle=throttle())
    desk.api.list_takes_s = 3600.0

    async def work() -> str:
        await asyncio.sleep(1.0)
        asker = asyncio.create_task(desk.ask())
        for _ in range(turns):
            await asyncio.sleep(0)
        asker.cancel()
        return "done"

    async def main() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await desk.dispatcher.attend(work()) == "done"
        assert loop.time() - began < 2
        await desk.run_afterwards()

    run_virtual(main())


@pytest.mark.parametrize("others", [0, 3])
@pytest.mark.parametrize("at", ["sync", "async"])
def test_a_bug_in_a_question_surfaces(at: str, others: int) -> None:
    desk = Desk()

    async def broken() -> AttemptResult:
        await asyncio.sleep(0.1)
        raise ZeroDivisionError

    def call(_: Api) -> Coroutine[object, object, AttemptResult]:
        if at == "sync":
            raise ZeroDivisionError
        return broken()

    async def work() -> list[Answer]:
        return await asyncio.gather(
            desk.dispatcher.ask("default", call), *(desk.ask("other", number) for number in range(others))
        )

    with pytest.raises(ZeroDivisionError):
        attended(desk, work(), goes_on=False)


def test_a_bug_in_the_limiter_surfaces_and_does_not_hang() -> None:
    class Broken(FakeThrottle):
        async def admit(self) -> Any:
            raise ZeroDivisionError

    desk = Desk(throttle=Broken())
    with pytest.raises(ZeroDivisionError):
        attended(desk, desk.ask(), goes_on=False)


def test_what_the_work_itself_raises_is_raised() -> None:
    desk = Desk()

    async def work() -> None:
        await desk.ask()
        raise KeyError

    with pytest.raises(KeyError):
        attended(desk, work(), goes_on=False)


def test_work_that_asks_nothing_costs_nothing() -> None:
    desk = Desk()

    async def work() -> int:
        await asyncio.sleep(5)
        return 7

    assert attended(desk, work()) == 7
    assert desk.api.checked == 1
