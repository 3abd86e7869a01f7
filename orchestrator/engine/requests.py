"""One POST: its intent on disk, the request, what follows from its answer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.engine.exchange import effect_of
from orchestrator.errors import StorageError
from orchestrator.marker import second
from orchestrator.model import Fault
from orchestrator.outcome import Answer, Decision, Step, classify, counts_as_failed, decide, error_info, error_kind
from orchestrator.pacing import Effect

if TYPE_CHECKING:
    from orchestrator.engine.completion import CompletionWaits
    from orchestrator.engine.core import Core
    from orchestrator.engine.exchange import Admitted
    from orchestrator.engine.lookups import Lookups
    from orchestrator.engine.pending import PendingBackup
    from orchestrator.model import AttemptResult

_THROTTLINGS = {Answer.THROTTLED, Answer.QUOTA}
_OPEN = {Answer.AMBIGUOUS, Answer.UNREADABLE}
_MADE_NOTHING = {
    Answer.THROTTLED,
    Answer.QUOTA,
    Answer.NOT_SENT,
    Answer.CREDENTIALS,
    Answer.MISCONFIGURED,
}
"""Answers after which the intent is cleared on disk, since the outcome may follow much later."""


class Requests:
    """Request backups."""

    def __init__(self, core: Core, looks: Lookups, watches: CompletionWaits) -> None:
        """Leave what is open to ``looks``, and what was made to ``watches``."""
        self._wire = core.wire
        self._accounts = core.accounts
        self._ledger = core.ledger
        self._limits = core.limits
        self._around = core.context
        self._looks = looks
        self._watches = watches

    async def post(self, admitted: Admitted, pending: PendingBackup) -> None:
        """Send the POST of ``pending`` once, and do what follows."""
        account, context = admitted.account, self._around
        clock = context.clock
        try:
            is_intended = await self._is_intended(admitted, pending)
        except Exception:
            admitted.release()
            raise
        if not is_intended:
            admitted.release()
            await self._accounts.queue(account, pending)
            return
        result = await self._wire.send(admitted, account.api.create_backup(pending.planned.request), is_read=False)
        pending.request_id = result.request_id or pending.request_id
        answer = classify(result)
        if answer not in _OPEN:
            pending.end_doubt()
        if result.fault is Fault.INTERRUPTED and not result.sent:
            context.journal.note_soon(pending.checkpoint())
            admitted.release()
            await self._accounts.queue(account, pending)
            return
        is_throttled = answer in _THROTTLINGS
        pending.throttled += is_throttled
        pending.tries += counts_as_failed(answer, result)
        pending.attempts += result.sent and not is_throttled
        self._wire.tell(admitted, effect_of(answer), result)
        if answer in _MADE_NOTHING:
            context.journal.note_soon(pending.checkpoint())
        context.log.debug(
            "attempt.answered", install=pending.planned.install.label, answer=answer.value, status=result.status
        )
        spent = pending.expense(clock.monotonic(), admitted.budget.throttle.held_s())
        decision = decide(answer, spent, self._limits.retry, clock.draw())
        await self._follow(admitted, pending, decision, result)
        if effect_of(answer) is Effect.SERVED:
            account.unserved_since = None
        else:
            await self._accounts.stop_if_hopeless(admitted, answer, result)

    async def _is_intended(self, admitted: Admitted, pending: PendingBackup) -> bool:
        """Have the intent on disk; tell whether the request may be sent."""
        context = self._around
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
        pending.end_doubt()
        pending.started_at = started_at
        context.journal.note_soon(pending.checkpoint())
        return False

    async def _follow(
        self, admitted: Admitted, pending: PendingBackup, decision: Decision, result: AttemptResult
    ) -> None:
        account = admitted.account
        match decision.step:
            case Step.DONE if decision.outcome.is_success:
                pending.made = replace(pending.made, backup=result.backup)
                self._looks.has_specimen(account, pending, result)
                await self._watches.accepted(admitted, pending)
            case Step.DONE:
                kind = error_kind(classify(result), result)
                await self._ledger.settle(pending, decision.outcome, error_info(kind, result))
            case Step.LOOK_UP:
                await self._looks.doubt(account, pending, result)
            case Step.AGAIN:
                await self._accounts.queue(account, pending, decision.after_s)
            case Step.CHECK_CREDENTIALS:
                await self._accounts.suspect(account, pending, result)
            case Step.STOP_ACCOUNT:
                account.suspects.append((pending, result))
                await self._accounts.stop(admitted, error_kind(classify(result), result), result)
