"""What every request has in common: it can be broken off, it is counted, and the limiter hears what came of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.model import Fault
from orchestrator.outcome import Answer
from orchestrator.pacing import Effect, Feedback

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from orchestrator.engine.ports import Clock, Log
    from orchestrator.engine.queues import AccountQueue, Budget
    from orchestrator.model import AttemptResult
    from orchestrator.pacing import Ticket

_EFFECTS = {
    Answer.THROTTLED: Effect.THROTTLED,
    Answer.QUOTA: Effect.THROTTLED,
    Answer.NOT_SENT: Effect.FAILED,
    Answer.AMBIGUOUS: Effect.FAILED,
}


def effect_of(answer: Answer) -> Effect:
    """Return what ``answer`` says of the server's capacity."""
    return _EFFECTS.get(answer, Effect.SERVED)


@dataclass(frozen=True, slots=True)
class Admitted:
    """One request that the limiter let through: for which account, out of which budget, with which ticket."""

    budget: Budget
    account: AccountQueue
    ticket: Ticket

    def release(self) -> None:
        """Give the ticket back, since there was no request or no answer."""
        self.budget.throttle.release(self.ticket)


class Wire:
    """Send requests, and know which are under way."""

    def __init__(self, clock: Clock, log: Log, max_pause_s: float) -> None:
        """Tell limiters of no ``Retry-After`` that is longer than ``max_pause_s`` seconds: it ends the account."""
        self._clock = clock
        self._log = log
        self._max_pause_s = max_pause_s
        self._senders: dict[asyncio.Task[object], bool] = {}

    @property
    def in_flight(self) -> int:
        """Return how many requests are under way."""
        return len(self._senders)

    async def send(
        self, admitted: Admitted, call: Coroutine[object, object, AttemptResult], *, is_read: bool
    ) -> AttemptResult:
        """Send one request so that it can be broken off and its fate is still known.

        Within a task: breaking off cancels that, and the ``Api`` turns the cancellation into a result.
        """
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

    def break_off(self, *, reads_only: bool) -> None:
        """Break off what is under way, or of that only what may be repeated freely."""
        for sender, is_read in self._senders.items():
            if is_read or not reads_only:
                sender.cancel()

    def tell(self, admitted: Admitted, effect: Effect, result: AttemptResult) -> None:
        """Give the ticket back with what the answer said."""
        admitted.account.throttled += effect is Effect.THROTTLED
        if result.fault is Fault.INTERRUPTED or result.on_reused:
            admitted.release()
            return
        retry_after_s = result.retry_after_s
        if retry_after_s is not None and retry_after_s > self._max_pause_s:
            retry_after_s = None
        feedback = Feedback(effect, result.backup is not None, retry_after_s, result.sent)
        admitted.budget.throttle.observe(admitted.ticket, feedback)
