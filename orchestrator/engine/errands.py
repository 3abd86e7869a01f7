"""Errands: one read each for somebody who waits for it, under the same limiter, repeated until it is answered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from orchestrator.engine.efforts import Errand
from orchestrator.engine.wire import effect_of
from orchestrator.model import ErrorInfo, ErrorKind, Fault
from orchestrator.outcome import Answer, Step, classify, counts_as_failed, error_info, error_kind
from orchestrator.pacing import Effect
from orchestrator.reconcile import decide_failed_read

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from orchestrator.engine.core import Core
    from orchestrator.engine.lanes import Budget, Lane
    from orchestrator.engine.ports import Api
    from orchestrator.engine.wire import Admitted
    from orchestrator.model import AttemptResult

BUG = ErrorInfo(ErrorKind.PROTOCOL, "internal error")


class Errands:
    """Ask what others want to know."""

    def __init__(self, core: Core) -> None:
        """Ask over the wire of ``core``."""
        self._wire = core.wire
        self._accounts = core.accounts
        self._limits = core.limits
        self._clock = core.around.clock
        self._closed: ErrorInfo | None = None

    def close(self, lanes: Iterable[Lane], why: ErrorInfo) -> None:
        """Answer ``why`` to whoever asks from now on, and to those who wait already."""
        self._closed = why
        for lane in lanes:
            for _, work in lane.reads:
                if isinstance(work, Errand):
                    work.end(why)

    async def ask(
        self, budget: Budget, lane: Lane, call: Callable[[Api], Coroutine[object, object, AttemptResult]]
    ) -> AttemptResult | ErrorInfo:
        """Return the answer to ``call``, or why there is none. The budget has to be attended meanwhile."""
        if lane.stop or self._closed:
            return lane.stop or self._closed or BUG
        errand = Errand(call, asyncio.get_running_loop().create_future())
        lane.queue(errand, self._clock.monotonic())
        budget.changed.set()
        return await errand.answer

    async def run(self, admitted: Admitted, errand: Errand) -> None:
        """Send the request of ``errand``, and do what follows."""
        lane = admitted.lane
        result = await self._wire.send(admitted, errand.call(lane.api), is_read=True)
        answer = classify(result)
        self._wire.tell(admitted, effect_of(answer), result)
        if self._closed:
            errand.end(self._closed)
        elif result.fault is Fault.INTERRUPTED:
            await self._accounts.queue(lane, errand)
        elif answer is Answer.ACCEPTED:
            lane.unserved_since = None
            errand.end(result)
        elif lane.stop:
            errand.end(lane.stop)
        else:
            await self._failed(admitted, errand, result)
        if effect_of(answer) is not Effect.SERVED:
            await self._accounts.stop_if_hopeless(admitted, answer, result)

    async def _failed(self, admitted: Admitted, errand: Errand, result: AttemptResult) -> None:
        lane, answer = admitted.lane, classify(result)
        errand.failed += counts_as_failed(answer, result)
        verdict = decide_failed_read(answer, errand.failed, self._limits.retry, self._clock.draw())
        match verdict.step:
            case Step.AGAIN:
                await self._accounts.queue(lane, errand, verdict.after_s)
            case Step.CHECK_CREDENTIALS:
                await self._accounts.suspect(lane, errand, result)
            case Step.STOP_ACCOUNT:
                lane.suspects.append((errand, result))
                await self._accounts.stop(admitted, error_kind(answer, result), result)
            case _:
                errand.end(error_info(error_kind(answer, result), result))
