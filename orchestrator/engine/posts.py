"""One POST: its intent on disk, the request, what follows from its answer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.engine.wire import effect_of
from orchestrator.errors import WriteError
from orchestrator.marker import second
from orchestrator.model import Fault
from orchestrator.outcome import Answer, Step, Verdict, classify, counts_as_failed, decide, error_info, error_kind
from orchestrator.pacing import Effect

if TYPE_CHECKING:
    from orchestrator.engine.core import Core
    from orchestrator.engine.efforts import Effort
    from orchestrator.engine.looks import Looks
    from orchestrator.engine.watches import Watches
    from orchestrator.engine.wire import Admitted
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


class Posts:
    """Request backups."""

    def __init__(self, core: Core, looks: Looks, watches: Watches) -> None:
        """Leave what is open to ``looks``, and what was made to ``watches``."""
        self._wire = core.wire
        self._accounts = core.accounts
        self._ledger = core.ledger
        self._limits = core.limits
        self._around = core.around
        self._looks = looks
        self._watches = watches

    async def post(self, admitted: Admitted, effort: Effort) -> None:
        """Send the POST of ``effort`` once, and do what follows."""
        lane, around = admitted.lane, self._around
        clock = around.clock
        try:
            is_intended = await self._is_intended(admitted, effort)
        except Exception:
            admitted.release()
            raise
        if not is_intended:
            admitted.release()
            await self._accounts.queue(lane, effort)
            return
        result = await self._wire.send(admitted, lane.api.create_backup(effort.planned.request), is_read=False)
        effort.request_id = result.request_id or effort.request_id
        answer = classify(result)
        if answer not in _OPEN:
            effort.end_doubt()
        if result.fault is Fault.INTERRUPTED and not result.sent:
            around.journal.note_soon(effort.standing())
            admitted.release()
            await self._accounts.queue(lane, effort)
            return
        is_throttled = answer in _THROTTLINGS
        effort.throttled += is_throttled
        effort.tries += counts_as_failed(answer, result)
        effort.attempts += result.sent and not is_throttled
        self._wire.tell(admitted, effect_of(answer), result)
        if answer in _MADE_NOTHING:
            around.journal.note_soon(effort.standing())
        around.log.debug(
            "attempt.answered", install=effort.planned.install.label, answer=answer.value, status=result.status
        )
        spent = effort.expense(clock.monotonic(), admitted.budget.throttle.held_s())
        verdict = decide(answer, spent, self._limits.retry, clock.draw())
        await self._follow(admitted, effort, verdict, result)
        if effect_of(answer) is Effect.SERVED:
            lane.unserved_since = None
        else:
            await self._accounts.stop_if_hopeless(admitted, answer, result)

    async def _is_intended(self, admitted: Admitted, effort: Effort) -> bool:
        """Have the intent on disk; tell whether the request may be sent."""
        around = self._around
        now = around.clock.monotonic()
        if effort.began_at is None:
            effort.began_at, effort.held_before_s = now, admitted.budget.throttle.held_s()
        started_at = effort.started_at
        effort.started_at = started_at or around.clock.now()
        name = second(around.run_id) if effort.made.is_second else around.run_id
        effort.sought, effort.sent_at = (name,), admitted.lane.server_time(now)
        try:
            await around.journal.note(effort.standing())
        except WriteError as error:
            self._ledger.failed(error)
        else:
            is_stopped = self._ledger.write_error or self._ledger.closed or admitted.lane.stop
            if not (around.stop.draining.is_set() or is_stopped):
                return True
        effort.end_doubt()
        effort.started_at = started_at
        around.journal.note_soon(effort.standing())
        return False

    async def _follow(self, admitted: Admitted, effort: Effort, verdict: Verdict, result: AttemptResult) -> None:
        lane = admitted.lane
        match verdict.step:
            case Step.DONE if verdict.outcome.is_success:
                effort.made = replace(effort.made, backup=result.backup)
                self._looks.has_specimen(lane, effort, result)
                await self._watches.accepted(admitted, effort)
            case Step.DONE:
                kind = error_kind(classify(result), result)
                await self._ledger.settle(effort, verdict.outcome, error_info(kind, result))
            case Step.LOOK_UP:
                await self._looks.doubt(lane, effort, result)
            case Step.AGAIN:
                await self._accounts.queue(lane, effort, verdict.after_s)
            case Step.CHECK_CREDENTIALS:
                await self._accounts.suspect(lane, effort, result)
            case Step.STOP_ACCOUNT:
                lane.suspects.append((effort, result))
                await self._accounts.stop(admitted, error_kind(classify(result), result), result)
