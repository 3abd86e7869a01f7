"""The ledger: gives each planned backup its one outcome, and hands it to the sink.

Called by the dispatcher alone. A sink that fails ends the run; what it did not take is kept to be told all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import WriteError
from orchestrator.model import Outcome, OutcomeKind

if TYPE_CHECKING:
    import asyncio

    from orchestrator.engine.lanes import Effort
    from orchestrator.engine.ports import Clock, OutcomeSink
    from orchestrator.model import AttemptResult, ErrorInfo


class Ledger:
    """Settle efforts. ``write_error`` is the sink's first; ``unwritten`` are the outcomes that it did not take."""

    def __init__(self, sink: OutcomeSink, clock: Clock, halted: asyncio.Event) -> None:
        """Settle into ``sink``; set ``halted`` when that fails."""
        self._sink = sink
        self._clock = clock
        self._halted = halted
        self.write_error: WriteError | None = None
        self.unwritten: list[Outcome] = []

    async def settle(
        self, effort: Effort, kind: OutcomeKind, error: ErrorInfo | None, result: AttemptResult | None = None
    ) -> None:
        """Record how ``effort`` ended, with the backup of ``result``; an effort that has its outcome keeps it."""
        if effort.is_settled:
            return
        effort.is_settled = True
        outcome = self._outcome(effort, kind, error, result)
        try:
            await self._sink.record(outcome)
        except WriteError as write_error:
            self.unwritten.append(outcome)
            self.write_error = self.write_error or write_error
            self._halted.set()

    async def cancel(self, effort: Effort, why: ErrorInfo) -> None:
        """Record that nothing was made for ``effort``, and why."""
        await self.settle(effort, OutcomeKind.CANCELLED, why)

    def _outcome(
        self, effort: Effort, kind: OutcomeKind, error: ErrorInfo | None, result: AttemptResult | None
    ) -> Outcome:
        return Outcome(
            planned=effort.planned,
            kind=kind,
            finished_at=self._clock.now(),
            started_at=effort.started_at,
            duration_s=self._clock.monotonic() - effort.first_sent_at if effort.started_at else 0.0,
            backup=result.backup if result else None,
            error=error,
            attempts=effort.attempts,
            tries=effort.tries,
            throttled=effort.throttled,
            request_id=effort.request_id,
        )
