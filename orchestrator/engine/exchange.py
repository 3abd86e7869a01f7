"""The exchange that every request goes through: send it, count it, classify its answer, and tell the limiter.

Each exchange can be interrupted. No other module tells the limiter about an answer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from orchestrator.model import Fault
from orchestrator.outcome import Answer, classify
from orchestrator.pacing import Effect, Feedback
from orchestrator.value import value

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from orchestrator.engine.context import DispatchContext
    from orchestrator.engine.queues import AccountQueue, Budget
    from orchestrator.model import AttemptResult
    from orchestrator.pacing import Ticket

_EFFECTS = {
    Answer.THROTTLED: Effect.THROTTLED,
    Answer.QUOTA: Effect.THROTTLED,
    Answer.NOT_SENT: Effect.FAILED,
    Answer.AMBIGUOUS: Effect.FAILED,
}
"""What each answer says about the server's capacity. All other answers mean ``SERVED``."""

_USELESS_CANARY = {Answer.PERMANENT, Answer.UNREADABLE}
"""Answers to a canary's ``GET /user`` that cannot come from the API itself, so they count as failed."""


@value
class Admitted:
    """One request that the limiter let through, with its budget, its account and its ticket."""

    budget: Budget
    account: AccountQueue
    ticket: Ticket

    def release(self) -> None:
        """Give the ticket back because there was no request or no answer."""
        self.budget.throttle.release(self.ticket)


@value
class Exchanged:
    """The result of one request, the class of its answer, and what that says about the server's capacity.

    ``pause_s`` is the ``Retry-After`` that the limiter obeys if the request was refused or failed. A ``Retry-After``
    longer than ``max_pause_s`` is ``too_long_s`` instead: the limiter ignores it, and after a 429 the account stops.
    """

    result: AttemptResult
    answer: Answer
    effect: Effect
    pause_s: float | None
    too_long_s: float | None

    @property
    def is_interrupted(self) -> bool:
        """Tell whether the request was interrupted before its answer came. This says nothing about the server."""
        return self.result.fault is Fault.INTERRUPTED


class Wire:
    """Exchange requests for answers, and keep track of the requests in flight."""

    def __init__(self, context: DispatchContext) -> None:
        """Send requests for the run of ``context``."""
        self._clock = context.clock
        self._log = context.log
        self._max_pause_s = context.limits.max_pause_s
        self._senders: dict[asyncio.Task[object], bool] = {}

    @property
    def in_flight(self) -> int:
        """Return how many requests are in flight."""
        return len(self._senders)

    async def exchange(
        self, admitted: Admitted, call: Coroutine[object, object, AttemptResult], *, is_read: bool = True
    ) -> Exchanged:
        """Send one request, and tell the limiter about the answer."""
        result = await self._sent(admitted, call, is_read=is_read)
        answer = classify(result)
        effect = _EFFECTS.get(answer, Effect.SERVED)
        if admitted.ticket.read_only and answer in _USELESS_CANARY:
            effect = Effect.FAILED
        admitted.account.throttled += effect is Effect.THROTTLED
        pause_s, too_long_s = result.retry_after_s, None
        if pause_s is not None and pause_s > self._max_pause_s:
            pause_s, too_long_s = None, pause_s
        exchanged = Exchanged(result, answer, effect, pause_s, too_long_s)
        self._tell(admitted, exchanged)
        return exchanged

    async def _sent(
        self, admitted: Admitted, call: Coroutine[object, object, AttemptResult], *, is_read: bool
    ) -> AttemptResult:
        """Send within the current task. ``break_off`` cancels it; the ``Api`` turns that into a result."""
        sender = asyncio.current_task()
        if sender is None:
            message = "a request is sent outside of a task"
            raise RuntimeError(message)
        self._senders[sender] = is_read
        try:
            result = await call
        except Exception:
            admitted.release()
            raise
        finally:
            del self._senders[sender]
        account = admitted.account
        account.requests += result.sent
        if result.server_at is not None:
            account.server_ahead_s = result.server_at - self._clock.monotonic()
        if account.notes_headers(result):
            self._log.info("throttle.headers", account=account.name, headers=dict(result.rate_headers))
        return result

    @staticmethod
    def _tell(admitted: Admitted, exchanged: Exchanged) -> None:
        """Give the ticket back with the feedback from the answer.

        A used-up quota stops the account, but says nothing about the rate.
        """
        result = exchanged.result
        if exchanged.is_interrupted or result.on_reused or exchanged.answer is Answer.QUOTA:
            admitted.release()
            return
        feedback = Feedback(exchanged.effect, result.backup is not None, exchanged.pause_s, result.sent)
        admitted.budget.throttle.observe(admitted.ticket, feedback)

    def break_off(self, *, reads_only: bool) -> None:
        """Interrupt all requests in flight, or with ``reads_only`` only the reads, which may be repeated freely."""
        for sender, is_read in self._senders.items():
            if is_read or not reads_only:
                sender.cancel()
