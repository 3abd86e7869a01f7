"""Errands: one read each for somebody who waits for it, under the same limiter, repeated until it is answered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from orchestrator.engine.exchange import effect_of
from orchestrator.engine.pending import ReadRequest
from orchestrator.model import ErrorInfo, ErrorKind, Fault
from orchestrator.outcome import Answer, Step, classify, counts_as_failed, error_info, error_kind
from orchestrator.pacing import Effect
from orchestrator.reconcile import decide_failed_read

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from orchestrator.engine.core import Core
    from orchestrator.engine.exchange import Admitted
    from orchestrator.engine.ports import Api
    from orchestrator.engine.queues import AccountQueue, Budget
    from orchestrator.model import AttemptResult

BUG = ErrorInfo(ErrorKind.PROTOCOL, "internal error")


class Reads:
    """Ask what others want to know."""

    def __init__(self, core: Core) -> None:
        """Ask over the wire of ``core``."""
        self._wire = core.wire
        self._accounts = core.accounts
        self._limits = core.limits
        self._clock = core.context.clock
        self._closed: ErrorInfo | None = None

    def close(self, accounts: Iterable[AccountQueue], why: ErrorInfo) -> None:
        """Answer ``why`` to whoever asks from now on, and to those who wait already."""
        self._closed = why
        for account in accounts:
            for _, work in account.reads:
                if isinstance(work, ReadRequest):
                    work.end(why)

    async def ask(
        self, budget: Budget, account: AccountQueue, call: Callable[[Api], Coroutine[object, object, AttemptResult]]
    ) -> AttemptResult | ErrorInfo:
        """Return the answer to ``call``, or why there is none. The budget has to be attended meanwhile."""
        if account.stop or self._closed:
            return account.stop or self._closed or BUG
        read = ReadRequest(call, asyncio.get_running_loop().create_future())
        account.queue(read, self._clock.monotonic())
        budget.changed.set()
        return await read.answer

    async def run(self, admitted: Admitted, read: ReadRequest) -> None:
        """Send the request of ``read``, and do what follows."""
        account = admitted.account
        result = await self._wire.send(admitted, read.call(account.api), is_read=True)
        answer = classify(result)
        self._wire.tell(admitted, effect_of(answer), result)
        if self._closed:
            read.end(self._closed)
        elif result.fault is Fault.INTERRUPTED:
            await self._accounts.queue(account, read)
        elif answer is Answer.ACCEPTED:
            account.unserved_since = None
            read.end(result)
        elif account.stop:
            read.end(account.stop)
        else:
            await self._failed(admitted, read, result)
        if effect_of(answer) is not Effect.SERVED:
            await self._accounts.stop_if_hopeless(admitted, answer, result)

    async def _failed(self, admitted: Admitted, read: ReadRequest, result: AttemptResult) -> None:
        account, answer = admitted.account, classify(result)
        read.failed += counts_as_failed(answer, result)
        decision = decide_failed_read(answer, read.failed, self._limits.retry, self._clock.draw())
        match decision.step:
            case Step.AGAIN:
                await self._accounts.queue(account, read, decision.after_s)
            case Step.CHECK_CREDENTIALS:
                await self._accounts.suspect(account, read, result)
            case Step.STOP_ACCOUNT:
                account.suspects.append((read, result))
                await self._accounts.stop(admitted, error_kind(answer, result), result)
            case _:
                read.end(error_info(error_kind(answer, result), result))
