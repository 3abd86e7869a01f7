"""The ledger: gives each planned backup its one outcome, and hands it to the sink.

Called by the core alone. A sink or a journal that fails ends the run; what was not taken is kept to be told all the
same.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.errors import WriteError
from orchestrator.model import Outcome, OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.engine.lanes import Effort
    from orchestrator.engine.ports import Clock, OutcomeSink
    from orchestrator.model import Backup, ErrorInfo

CANCELLED_TOGETHER = 1000


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
        self,
        effort: Effort,
        kind: OutcomeKind,
        error: ErrorInfo | None = None,
        *,
        backup: Backup | None = None,
        found: tuple[Backup, ...] = (),
    ) -> None:
        """Record how ``effort`` ended; an effort that has its outcome keeps it.

        ``backup`` is the one that was answered, ``found`` are those that the listing shows, in its place.
        """
        if effort.is_settled:
            return
        effort.is_settled = True
        outcome = Outcome(
            planned=effort.planned,
            kind=kind,
            finished_at=self._clock.now(),
            duration_s=self._duration_s(effort),
            backup=found[0] if found else backup,
            error=error,
            spent=effort.spent,
            request_id=effort.request_id,
            reconciled=bool(found),
            earlier=found[1:],
            sought=effort.sought if kind is OutcomeKind.UNCONFIRMED else (),
        )
        try:
            await self._sink.record(outcome)
        except WriteError as write_error:
            self.unwritten.append(outcome)
            self.failed(write_error)

    async def cancel(self, effort: Effort, why: ErrorInfo) -> None:
        """Record that nothing was made for ``effort``, and why; of one in doubt, that nobody knows."""
        if effort.doubt:
            await self.leave_open(effort, f"not looked up to the end: {why.message}")
        else:
            await self.settle(effort, OutcomeKind.CANCELLED, why)

    async def cancel_all(self, efforts: Iterable[Effort], why: ErrorInfo) -> None:
        """Cancel many, so that one commit serves them."""
        remaining = list(efforts)
        while remaining:
            together, remaining = remaining[:CANCELLED_TOGETHER], remaining[CANCELLED_TOGETHER:]
            await asyncio.gather(*(self.cancel(effort, why) for effort in together))

    async def leave_open(self, effort: Effort, why: str) -> None:
        """Record that nobody knows whether a backup was made for ``effort``, and why the listing could not tell."""
        error = effort.doubt.error if effort.doubt else None
        if error:
            error = replace(error, message=f"{error.message}; {why}" if error.message else why)
        await self.settle(effort, OutcomeKind.UNCONFIRMED, error)

    def failed(self, error: WriteError) -> None:
        """End the run, since something could not be written."""
        self.write_error = self.write_error or error
        self._halted.set()

    def _duration_s(self, effort: Effort) -> float:
        if effort.began_at is not None and not effort.is_resumed:
            return self._clock.monotonic() - effort.began_at
        if effort.started_at is not None:
            return max(0.0, (self._clock.now() - effort.started_at).total_seconds())
        return 0.0
