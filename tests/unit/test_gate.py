"""The gate over asyncio-throttle, in virtual time: the library is told the loop's time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import asyncio_throttle.throttler
import pytest
from virtual import run_virtual

from orchestrator.model import ThrottlePolicy
from orchestrator.pacing import Effect, Observation, Pace, Phase, Ticket, Word
from orchestrator.throttle.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Coroutine

SERVED = Word(Effect.SERVED, accepted=True)
THROTTLED = Word(Effect.THROTTLED)


@pytest.fixture(autouse=True)
def _virtual_library(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time())
    monkeypatch.setattr(asyncio_throttle.throttler, "time", clock)


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return run_virtual(main)


def gate(policy: ThrottlePolicy, changes: list[tuple[Pace, Pace]] | None = None) -> Gate:
    def note(before: Pace, after: Pace, _observation: Observation) -> None:
        if changes is not None:
            changes.append((before, after))

    return Gate(policy, lambda: 0.0, note)


async def starts_of(subject: Gate, count: int) -> list[float]:
    starts = []
    for _ in range(count):
        ticket = await subject.admit()
        starts.append(ticket.started_at)
        subject.observe(ticket, SERVED)
    return starts


@pytest.mark.parametrize("rate", [0.5, 1.0, 1.5, 7.0, 40.0])
def test_a_fixed_rate_is_kept_evenly_and_nearly_all_of_it_is_used(rate: float) -> None:
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


def test_no_more_than_concurrency_requests_are_in_flight() -> None:
    async def main() -> None:
        subject = gate(ThrottlePolicy(fixed_rate=1000.0, ceiling=1000.0, concurrency=3))
        tickets = [await subject.admit() for _ in range(3)]
        fourth = asyncio.create_task(subject.admit())
        await asyncio.sleep(60)
        assert not fourth.done()
        subject.release(tickets[0])
        assert isinstance(await fourth, Ticket)

    run(main())


def test_a_429_holds_the_whole_pool_then_one_canary_then_everyone() -> None:
    changes: list[tuple[Pace, Pace]] = []

    async def main() -> None:
        subject = gate(ThrottlePolicy(fixed_rate=100.0, ceiling=100.0), changes)
        tickets = [await subject.admit() for _ in range(5)]
        began = asyncio.get_running_loop().time()
        subject.observe(tickets[0], Word(Effect.THROTTLED, retry_after_s=7.0))
        canary = await subject.admit()
        assert canary.canary
        assert canary.started_at - began >= 7.0 - 1e-6
        waiting = asyncio.create_task(subject.admit())
        for ticket in tickets[1:]:
            subject.observe(ticket, THROTTLED)
        await asyncio.sleep(30)
        assert not waiting.done()
        subject.observe(canary, SERVED)
        assert not (await waiting).canary
        assert subject.held_s() == pytest.approx(37.0)

    run(main())
    assert [after.phase for _, after in changes] == [Phase.HELD, Phase.OPEN]


def test_a_hold_that_comes_while_the_ceiling_is_waited_for_is_kept() -> None:
    async def main() -> None:
        subject = gate(ThrottlePolicy(fixed_rate=0.1, ceiling=0.1))
        first = await subject.admit()
        second = asyncio.create_task(subject.admit())
        await asyncio.sleep(5)
        subject.observe(first, Word(Effect.THROTTLED, retry_after_s=100.0))
        assert (await second).started_at >= first.started_at + 105.0 - 1e-6

    run(main())


def test_a_cancelled_waiter_admits_nothing_and_leaks_nothing() -> None:
    async def main() -> None:
        subject = gate(ThrottlePolicy(fixed_rate=10.0, ceiling=10.0, concurrency=1))
        ticket = await subject.admit()
        waiting = asyncio.create_task(subject.admit())
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        subject.observe(ticket, SERVED)
        subject.observe(await subject.admit(), SERVED)
        subject.observe(await subject.admit(), SERVED)

    run(main())


def test_a_canary_that_is_released_lets_another_go() -> None:
    async def main() -> None:
        subject = gate(ThrottlePolicy(fixed_rate=10.0, ceiling=10.0))
        subject.observe(await subject.admit(), THROTTLED)
        canary = await subject.admit()
        subject.release(canary)
        assert (await subject.admit()).canary

    run(main())
