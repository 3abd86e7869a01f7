"""The gate over asyncio-throttle, in virtual time; the library gets the loop's time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import asyncio_throttle.throttler
import pytest
from virtual import VirtualLoop, run_virtual

from orchestrator.model import Learned, LearnedWindow
from orchestrator.pacing import Effect, Feedback, Observation, Pace, Phase, Ticket, opening
from orchestrator.pacing.growth import SETTLED_SHARE
from orchestrator.pacing.law import JITTER_SHARE, LONGEST_JITTER_S
from orchestrator.policies import ThrottlePolicy
from orchestrator.throttle.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Changes = list[tuple[Pace, Pace, Observation | None]]

SERVED = Feedback(Effect.SERVED, accepted=True)
THROTTLED = Feedback(Effect.THROTTLED)

ROUNDING_S = 1e-6


@pytest.fixture(autouse=True)
def _virtual_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give asyncio-throttle the loop's time, because it takes no clock as an argument."""
    clock = SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time())
    monkeypatch.setattr(asyncio_throttle.throttler, "time", clock)


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return run_virtual(main)


def gate(policy: ThrottlePolicy, changes: Changes | None = None, known: Learned | None = None) -> Gate:
    def note(before: Pace, after: Pace, observation: Observation | None) -> None:
        if changes is not None:
            changes.append((before, after, observation))

    return Gate(policy, lambda: 0.0, note, known)


def now() -> float:
    return asyncio.get_running_loop().time()


async def starts_of(subject: Gate, count: int) -> list[float]:
    starts = []
    for _ in range(count):
        ticket = await subject.admit()
        starts.append(ticket.started_at)
        subject.observe(ticket, SERVED)
    return starts


# -- how fast ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.5, 1.0, 1.5, 7.0, 40.0])
def test_a_fixed_rate_is_kept_evenly_and_almost_fully_used(rate: float) -> None:
    starts = run(starts_of(gate(ThrottlePolicy(fixed_rate=rate, ceiling=rate)), 200))
    assert 199 / (starts[-1] - starts[0]) == pytest.approx(rate, rel=0.03)
    assert 199 / (starts[-1] - starts[0]) <= rate * 1.006


@pytest.mark.parametrize("ceiling", [0.5, 2.0, 2.5, 30.0])
def test_a_learned_rate_never_exceeds_the_ceiling(ceiling: float) -> None:
    subject = gate(ThrottlePolicy(start_rate=20.0, ceiling=ceiling))
    starts = run(starts_of(subject, 150))
    assert subject.pace.rate == ceiling
    for first in starts:
        assert sum(first <= start < first + 10.0 for start in starts) <= ceiling * 10 + 1


def test_a_run_begins_at_the_remembered_rate_and_the_ceiling_also_limits_its_burst() -> None:
    known = Learned(10.0, 40.0)
    subject = gate(ThrottlePolicy(ceiling=20.0), known=known)
    assert subject.pace == opening(ThrottlePolicy(ceiling=20.0), known)
    starts = run(starts_of(subject, 60))
    assert starts[19] - starts[0] == pytest.approx(0.0)
    assert starts[20] - starts[0] >= 1.0
    assert 19 / (starts[-1] - starts[-20]) == pytest.approx(SETTLED_SHARE * 10.0, rel=0.03)


def test_a_ceiling_below_1_a_second_admits_one_request_at_a_time() -> None:
    starts = run(starts_of(gate(ThrottlePolicy(ceiling=0.5), known=Learned(10.0, 40.0)), 3))
    assert starts[1] - starts[0] >= 2.0 - ROUNDING_S
    assert starts[2] - starts[1] >= 2.0 - ROUNDING_S


def test_no_more_than_concurrency_requests_are_in_flight() -> None:
    async def main() -> None:
        subject = gate(ThrottlePolicy(fixed_rate=1000.0, ceiling=1000.0, concurrency=3))
        tickets = [await subject.admit() for _ in range(3)]
        for ticket, is_answered in zip(tickets, (True, False), strict=False):
            waiting = asyncio.create_task(subject.admit())
            await asyncio.sleep(60)
            assert not waiting.done()
            if is_answered:
                subject.observe(ticket, SERVED)
            else:
                subject.release(ticket)
            assert isinstance(await waiting, Ticket)
            assert subject.pace.in_flight == 3

    run(main())


# -- holds -------------------------------------------------------------------------------------------------------------


def test_a_429_holds_the_whole_pool_then_one_canary_then_everyone() -> None:
    async def main() -> None:
        subject = gate(ThrottlePolicy(fixed_rate=100.0, ceiling=100.0))
        tickets = [await subject.admit() for _ in range(5)]
        began = now()
        subject.observe(tickets[0], Feedback(Effect.THROTTLED, retry_after_s=7.0))
        canary = await subject.admit()
        assert canary.canary
        assert canary.started_at - began >= 7.0 - ROUNDING_S
        waiting = asyncio.create_task(subject.admit())
        for ticket in tickets[1:]:
            subject.observe(ticket, THROTTLED)
        await asyncio.sleep(30)
        assert not waiting.done()
        subject.observe(canary, SERVED)
        assert not (await waiting).canary
        assert subject.held_s() == pytest.approx(37.0)

    run(main())


def test_a_random_draw_lengthens_a_hold() -> None:
    async def main() -> float:
        draws = iter([0.0, 0.5, 0.25])
        subject = Gate(ThrottlePolicy(fixed_rate=100.0, ceiling=100.0), lambda: next(draws), lambda *_: None)
        subject.observe(await subject.admit(), SERVED)
        began = now()
        subject.observe(await subject.admit(), Feedback(Effect.THROTTLED, retry_after_s=7.0))
        return (await subject.admit()).started_at - began

    assert run(main()) == pytest.approx(7.0 + 0.5 * min(LONGEST_JITTER_S, JITTER_SHARE * 7.0), abs=0.02)


def test_a_hold_that_begins_during_a_wait_for_the_ceiling_is_kept() -> None:
    async def main() -> None:
        subject = gate(ThrottlePolicy(fixed_rate=0.1, ceiling=0.1))
        first = await subject.admit()
        second = asyncio.create_task(subject.admit())
        await asyncio.sleep(5)
        subject.observe(first, Feedback(Effect.THROTTLED, retry_after_s=100.0))
        assert (await second).started_at >= first.started_at + 105.0 - ROUNDING_S

    run(main())


def test_a_waiter_waits_out_a_hold_that_a_late_429_lengthens() -> None:
    async def main() -> None:
        subject = gate(ThrottlePolicy(fixed_rate=100.0, ceiling=100.0))
        tickets = [await subject.admit() for _ in range(2)]
        began = now()
        subject.observe(tickets[0], Feedback(Effect.THROTTLED, retry_after_s=7.0))
        waiting = asyncio.create_task(subject.admit())
        await asyncio.sleep(5)
        subject.observe(tickets[1], Feedback(Effect.THROTTLED, retry_after_s=50.0))
        assert (await waiting).started_at >= began + 55.0 - ROUNDING_S

    run(main())


def test_another_canary_may_go_after_one_is_released() -> None:
    async def main() -> None:
        subject = gate(ThrottlePolicy(fixed_rate=10.0, ceiling=10.0))
        subject.observe(await subject.admit(), THROTTLED)
        canary = await subject.admit()
        subject.release(canary)
        assert subject.pace.in_flight == 0
        assert (await subject.admit()).canary

    run(main())


# -- reports -----------------------------------------------------------------------------------------------------------


def test_each_change_of_phase_is_reported_with_its_answer_or_none_for_a_start() -> None:
    changes: Changes = []

    async def main() -> None:
        subject = gate(ThrottlePolicy(fixed_rate=100.0, ceiling=100.0), changes)
        ticket, late = await subject.admit(), await subject.admit()
        subject.observe(ticket, THROTTLED)
        subject.observe(late, THROTTLED)
        subject.observe(await subject.admit(), SERVED)
        subject.observe(await subject.admit(), SERVED)

    run(main())
    told = [(before.phase, after.phase, seen and seen.feedback) for before, after, seen in changes]
    assert told == [
        (Phase.FLOWING, Phase.HELD, THROTTLED),
        (Phase.HELD, Phase.CANARY, None),
        (Phase.CANARY, Phase.FLOWING, SERVED),
    ]


def test_a_rate_that_grows_at_a_start_is_reported() -> None:
    changes: Changes = []

    async def main() -> Gate:
        subject = gate(ThrottlePolicy(start_rate=5.0, ceiling=200.0), changes)
        for _ in range(16):
            await subject.admit()
        return subject

    subject = run(main())
    assert [before.rate for before, _, _ in changes] == [5.0, *(after.rate for _, after, _ in changes[:-1])]
    assert {seen for _, _, seen in changes} == {None}
    assert changes[-1][1].rate == subject.pace.rate > 5.0


# -- costs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [ThrottlePolicy(fixed_rate=0.1, ceiling=0.1), ThrottlePolicy(concurrency=1)])
def test_a_cancelled_waiter_admits_nothing_and_leaks_nothing(policy: ThrottlePolicy) -> None:
    async def main() -> None:
        subject = gate(policy)
        ticket = await subject.admit()
        before = subject.pace
        for _ in range(20):
            waiting = asyncio.create_task(subject.admit())
            await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        assert subject.pace == before
        assert asyncio.all_tasks() == {asyncio.current_task()}
        subject.observe(ticket, SERVED)
        subject.observe(await subject.admit(), SERVED)
        assert subject.pace.in_flight == 0

    run(main())


def test_a_waiter_cancelled_at_the_ceiling_uses_no_part_of_it() -> None:
    async def main() -> list[float]:
        subject = gate(ThrottlePolicy(ceiling=2.0), known=Learned(1.0, 10.0))
        first = [await subject.admit() for _ in range(2)]
        began = now()
        while now() - began < 0.9:
            waiting = asyncio.create_task(subject.admit())
            await asyncio.sleep(0.05)
            assert not waiting.done()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        assert subject.pace.in_flight == len(first)
        return [(await subject.admit()).started_at - began for _ in range(2)]

    assert run(main()) == pytest.approx([1.0, 1.0], abs=0.02)


class CountingLoop(VirtualLoop):
    """A loop that counts its timers and its wake-ups."""

    def __init__(self) -> None:
        super().__init__()
        self.timers = self.wakes = 0

    def call_at(self, when: float, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:  # type: ignore[override]  # typeshed types what is called with its arguments; this hands them on
        self.timers += 1
        return super().call_at(when, *args, **kwargs)

    def _run_once(self) -> None:
        self.wakes += 1
        super()._run_once()  # type: ignore[misc]  # asyncio's own method, which typeshed does not know


def counted(main: Callable[[CountingLoop], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, CountingLoop)
        runner.run(main(loop))


@pytest.mark.parametrize("pause_s", [10.0, 3600.0])
def test_a_long_hold_needs_no_more_timers_than_a_short_one(pause_s: float) -> None:
    async def main(loop: CountingLoop) -> None:
        subject = gate(ThrottlePolicy(fixed_rate=100.0, ceiling=100.0))
        subject.observe(await subject.admit(), Feedback(Effect.THROTTLED, retry_after_s=pause_s))
        timers, wakes = loop.timers, loop.wakes
        await subject.admit()
        assert loop.timers - timers <= 2
        assert loop.wakes - wakes <= 8

    counted(main)


def test_waiting_for_an_answer_sets_no_timer() -> None:
    async def main(loop: CountingLoop) -> None:
        subject = gate(ThrottlePolicy(fixed_rate=100.0, ceiling=100.0, concurrency=1))
        ticket = await subject.admit()
        waiting = asyncio.create_task(subject.admit())
        await asyncio.sleep(1.0)
        timers, wakes = loop.timers, loop.wakes
        await asyncio.sleep(3600.0)
        assert (loop.timers - timers, waiting.done()) == (1, False)
        assert loop.wakes - wakes <= 4
        subject.observe(ticket, SERVED)
        await waiting

    counted(main)


def test_thousands_of_requests_set_one_timer_each_and_holds_need_no_polling() -> None:
    async def main(loop: CountingLoop) -> None:
        subject = gate(ThrottlePolicy(fixed_rate=400.0, ceiling=500.0))
        timers, holds = loop.timers, 0
        for number in range(5_000):
            ticket = await subject.admit()
            is_refused = number % 125 == 0
            holds += is_refused
            subject.observe(ticket, Feedback(Effect.THROTTLED, retry_after_s=60.0) if is_refused else SERVED)
        assert loop.timers - timers <= 5_000 + 3 * holds
        assert now() >= 1000.0 + 60.0 * holds

    counted(main)


def test_the_rate_of_a_window_is_what_it_sustains() -> None:
    known = Learned(5.0, 0.0, window=LearnedWindow(requests=100, low_s=20.0, high_s=20.0))
    subject = gate(ThrottlePolicy(ceiling=50.0), known=known)
    assert subject.pace.rate == 50.0
    assert subject.rate() == 5.0
