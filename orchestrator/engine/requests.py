"""Requests for backups: write the intent to disk, send one POST, and act on its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from orchestrator.errors import StorageError
from orchestrator.marker import second
from orchestrator.outcome import Answer, Step, counts_as_failed, decide, error_info, error_kind
from orchestrator.pacing import Effect

if TYPE_CHECKING:
    from orchestrator.engine.accounts import Accounts
    from orchestrator.engine.context import DispatchContext
    from orchestrator.engine.exchange import Admitted, Exchanged, Wire
    from orchestrator.engine.ledger import Ledger
    from orchestrator.engine.lookups import Lookups
    from orchestrator.engine.pending import PendingBackup
    from orchestrator.outcome import Decision

_OPEN = {Answer.AMBIGUOUS, Answer.UNREADABLE}
_MADE_NOTHING = {
    Answer.THROTTLED,
    Answer.QUOTA,
    Answer.NOT_SENT,
    Answer.CREDENTIALS,
    Answer.MISCONFIGURED,
}
"""Answers after which the intent on disk is cleared at once, since the outcome may come much later."""


class Requests:
    """Request backups."""

    def __init__(
        self, context: DispatchContext, wire: Wire, ledger: Ledger, accounts: Accounts, lookups: Lookups
    ) -> None:
        """Send over ``wire``; pass backups in doubt, and backups that were made, to ``lookups``."""
        self._context = context
        self._wire = wire
        self._ledger = ledger
        self._accounts = accounts
        self._lookups = lookups

    async def post(self, admitted: Admitted, pending: PendingBackup) -> None:
        """Send the POST of ``pending`` once, and act on its answer."""
        context, account = self._context, admitted.account
        try:
            is_intended = await self._is_intended(admitted, pending)
        except Exception:
            admitted.release()
            raise
        if not is_intended:
            admitted.release()
            self._accounts.queue(account, pending)
            return
        call = account.api.create_backup(pending.planned.request)
        exchanged = await self._wire.exchange(admitted, call, is_read=False)
        self._note(pending, exchanged)
        if exchanged.is_interrupted and not exchanged.result.sent:
            self._accounts.queue(account, pending)
            return
        spent = pending.expense(context.clock.monotonic(), admitted.budget.throttle.held_s())
        decision = decide(exchanged.answer, spent, context.limits.retry, context.clock.draw())
        await self._follow(admitted, pending, exchanged, decision)
        if exchanged.effect is Effect.SERVED:
            account.unserved_since = None
        else:
            self._accounts.stop_if_hopeless(admitted, exchanged)

    async def _is_intended(self, admitted: Admitted, pending: PendingBackup) -> bool:
        """Write the intent to disk; tell whether the request may be sent."""
        context = self._context
        now = context.clock.monotonic()
        if pending.began_at is None:
            pending.began_at, pending.held_before_s = now, admitted.budget.throttle.held_s()
        started_at = pending.started_at
        pending.started_at = started_at or context.clock.now()
        name = second(context.run_id) if pending.made.is_second else context.run_id
        pending.sought, pending.sent_at = (name,), admitted.account.server_time(now)
        try:
            await context.journal.note(pending.checkpoint())
        except StorageError as error:
            self._ledger.failed(error)
        else:
            is_stopped = self._ledger.write_error or self._ledger.closed or admitted.account.stop
            if not (context.stop.draining.is_set() or is_stopped):
                return True
        pending.nothing_is_open()
        pending.started_at = started_at
        context.journal.note_soon(pending.checkpoint())
        return False

    def _note(self, pending: PendingBackup, exchanged: Exchanged) -> None:
        """Record what was spent on the request, and whether it may have made a backup."""
        result, answer = exchanged.result, exchanged.answer
        pending.request_id = result.request_id or pending.request_id
        if answer not in _OPEN:
            pending.nothing_is_open()
        if exchanged.is_interrupted and not result.sent:
            self._context.journal.note_soon(pending.checkpoint())
            return
        is_throttled = exchanged.effect is Effect.THROTTLED
        pending.throttled += is_throttled
        pending.tries += counts_as_failed(answer, result)
        pending.attempts += result.sent and not is_throttled
        if answer in _MADE_NOTHING:
            self._context.journal.note_soon(pending.checkpoint())
        label = pending.planned.install.label
        self._context.log.debug("attempt.answered", install=label, answer=answer.value, status=result.status)

    async def _follow(
        self, admitted: Admitted, pending: PendingBackup, exchanged: Exchanged, decision: Decision
    ) -> None:
        account, result = admitted.account, exchanged.result
        match decision.step:
            case Step.DONE if decision.outcome.is_success:
                await self._lookups.accepted(admitted, pending, result)
            case Step.DONE:
                error = error_info(error_kind(exchanged.answer, result), result)
                self._ledger.settle(pending, decision.outcome, error)
            case Step.LOOK_UP:
                self._lookups.doubt(account, pending, exchanged)
            case Step.AGAIN:
                self._accounts.queue(account, pending, decision.after_s)
            case Step.CHECK_CREDENTIALS:
                self._accounts.suspect(account, pending, result)
            case Step.STOP_ACCOUNT:
                self._accounts.stop_over(admitted, pending, exchanged)
            case _:
                assert_never(decision.step)
