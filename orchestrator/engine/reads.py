"""Reads that somebody waits for: each passes the same limiter, and is repeated until it is answered or given up."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.engine.pending import ReadRequest
from orchestrator.model import ErrorInfo, ErrorKind
from orchestrator.outcome import Answer, counts_as_failed, error_info, error_kind
from orchestrator.reconcile import decide_failed_read

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from orchestrator.engine.accounts import Accounts
    from orchestrator.engine.context import DispatchContext
    from orchestrator.engine.exchange import Admitted, Exchanged
    from orchestrator.engine.ports import Api
    from orchestrator.engine.queues import AccountQueue, Budget
    from orchestrator.model import AttemptResult

BUG = ErrorInfo(ErrorKind.PROTOCOL, "internal error")


class Reads:
    """Send reads for callers outside the core."""

    def __init__(self, context: DispatchContext, accounts: Accounts) -> None:
        """Send reads through ``accounts``."""
        self._accounts = accounts
        self._retry = context.limits.retry
        self._clock = context.clock
        self._open: set[ReadRequest] = set()
        self._closed: ErrorInfo | None = None

    def close(self, why: ErrorInfo) -> None:
        """Answer all waiting and all later reads with ``why``."""
        self._closed = why
        for read in self._open:
            read.end(why)

    async def ask(
        self, budget: Budget, account: AccountQueue, call: Callable[[Api], Coroutine[object, object, AttemptResult]]
    ) -> AttemptResult | ErrorInfo:
        """Send ``call``; return the answer, or the reason why there is none. ``budget`` must be attended meanwhile."""
        refusal = account.stop or self._closed
        if refusal:
            return refusal
        read = ReadRequest(call, asyncio.get_running_loop().create_future())
        account.queue(read, self._clock.monotonic())
        budget.changed.set()
        self._open.add(read)
        try:
            return await read.answer
        finally:
            self._open.discard(read)

    async def send(self, admitted: Admitted, read: ReadRequest) -> None:
        """Send the request of ``read``, and act on the answer."""
        call = read.call(admitted.account.api)
        await self._accounts.read(admitted, read, call, partial(self._follow, admitted, read))

    async def _follow(self, admitted: Admitted, read: ReadRequest, exchanged: Exchanged) -> None:
        answer, result = exchanged.answer, exchanged.result
        if read.is_settled:
            return
        if answer is Answer.ACCEPTED:
            admitted.account.unserved_since = None
            read.end(result)
        else:
            read.failed += counts_as_failed(answer, result)
            decision = decide_failed_read(answer, read.failed, self._retry, self._clock.draw())
            if self._accounts.is_given_up(admitted, read, exchanged, decision):
                read.end(error_info(error_kind(answer, result), result))
