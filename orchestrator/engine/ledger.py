"""The ledger: gives each planned backup its one outcome, and hands it to the sink; knows when to request no more.

Called by the core alone. A sink or a journal that fails ends the run; what was not taken is kept to be told all the
same.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from orchestrator.engine.pending import ReadRequest
from orchestrator.errors import StorageError
from orchestrator.model import ErrorInfo, ErrorKind, Outcome, OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from orchestrator.engine.pending import PendingBackup
    from orchestrator.engine.ports import Clock, OutcomeSink
    from orchestrator.summary import FailureLimit

CANCELLED_TOGETHER = 1000


T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield ``items`` in lists of at most ``size``, as Python 3.12's own does."""
    remaining = iter(items)
    while together := list(islice(remaining, size)):
        yield together


class Ledger:
    """Settle efforts. ``write_error`` is the sink's first; ``unwritten`` are the outcomes that it did not take.

    ``closed`` says why nothing more is requested, once that is so, and ``closing`` is set then.
    """

    def __init__(
        self, sink: OutcomeSink, clock: Clock, halted: asyncio.Event, failure_limit: FailureLimit | None
    ) -> None:
        """Settle into ``sink``; set ``halted`` when that fails, request no more once ``failure_limit`` has seen enough."""
        self._sink = sink
        self._clock = clock
        self._halted = halted
        self._brake = failure_limit
        self._settled = self._failed = 0
        self.write_error: StorageError | None = None
        self.unwritten: list[Outcome] = []
        self.closed: ErrorInfo | None = None
        self.closing = asyncio.Event()
        self.cancelled_by_deadline = 0

    async def settle(
        self, pending: PendingBackup, kind: OutcomeKind, error: ErrorInfo | None = None, *, reason: str | None = None
    ) -> None:
        """Record how ``pending`` ended; an effort that has its outcome keeps it."""
        if pending.is_settled:
            return
        pending.is_settled = True
        made = pending.made
        outcome = Outcome(
            planned=pending.planned,
            kind=kind,
            finished_at=self._clock.now(),
            duration_s=self._duration_s(pending),
            backup=made.backup,
            error=error,
            spent=pending.spent,
            request_id=pending.request_id,
            reconciled=made.is_reconciled,
            earlier=made.earlier,
            sought=pending.sought if kind is OutcomeKind.UNCONFIRMED else (),
            reason=reason,
        )
        self._count(kind)
        try:
            await self._sink.record(outcome)
        except StorageError as write_error:
            self.unwritten.append(outcome)
            self.failed(write_error)

    async def settle_all(
        self, outcomes: Iterable[tuple[PendingBackup, OutcomeKind, ErrorInfo | None, str | None]]
    ) -> None:
        """Record many, so that one commit serves them; a cancelled one whose backup may exist is not called so."""
        for together in batched(outcomes, CANCELLED_TOGETHER):
            await asyncio.gather(
                *(
                    self.cancel(pending, error)
                    if kind is OutcomeKind.CANCELLED and error
                    else self.settle(pending, kind, error, reason=reason)
                    for pending, kind, error, reason in together
                )
            )

    async def cancel(self, work: PendingBackup | ReadRequest, why: ErrorInfo) -> None:
        """Record that nothing was made for ``work``, and why; where something was or may have been, that."""
        if isinstance(work, ReadRequest):
            work.end(why)
        elif work.doubt:
            await self.leave_open(work, f"not looked up to the end: {why.message}")
        elif work.watch and work.watch.is_own:
            cut_short = replace(why, kind=ErrorKind.TIMEOUT, message=f"the wait was cut short: {why.message}")
            await self.settle(work, OutcomeKind.INCOMPLETE, cut_short)
        elif work.made.is_second:
            await self.leave_aborted(work)
        else:
            work.made = replace(work.made, backup=None)
            self.cancelled_by_deadline += why.kind is ErrorKind.DEADLINE and not work.is_settled
            await self.settle(work, OutcomeKind.CANCELLED, why)

    async def cancel_all(self, works: Iterable[PendingBackup | ReadRequest], why: ErrorInfo) -> None:
        """Cancel many, so that one commit serves them."""
        for together in batched(works, CANCELLED_TOGETHER):
            await asyncio.gather(*(self.cancel(work, why) for work in together))

    async def leave_open(self, pending: PendingBackup, why: str) -> None:
        """Record that nobody knows whether a backup was made for ``pending``, and why the listing could not tell."""
        error = pending.doubt.error if pending.doubt else None
        if error:
            error = replace(error, message=f"{error.message}; {why}" if error.message else why)
        await self.settle(pending, OutcomeKind.UNCONFIRMED, error)

    async def leave_aborted(self, pending: PendingBackup) -> None:
        """Record that WP Engine aborted the backup of ``pending``, and that none was made in its place."""
        *earlier, aborted = pending.made.earlier
        pending.made = replace(pending.made, backup=aborted, earlier=tuple(earlier))
        await self.settle(pending, OutcomeKind.ABORTED)

    def close(self, why: ErrorInfo) -> None:
        """Let nothing more be requested from now on, for the reason ``why``."""
        self.closed = self.closed or why
        self.closing.set()

    def failed(self, error: StorageError) -> None:
        """End the run, since something could not be written."""
        self.write_error = self.write_error or error
        self._halted.set()

    def _count(self, kind: OutcomeKind) -> None:
        if kind is OutcomeKind.CANCELLED:
            return
        self._settled += 1
        self._failed += not kind.is_success
        if self._brake and self._brake.holds(self._failed, self._settled):
            rule = f"{self._failed} of {self._settled} installs failed ({self._brake})"
            self.close(ErrorInfo(ErrorKind.STOPPED, f"the run stopped requesting: {rule}"))

    def _duration_s(self, pending: PendingBackup) -> float:
        if pending.began_at is not None and not pending.is_resumed and not pending.made.is_second:
            return self._clock.monotonic() - pending.began_at
        if pending.started_at is not None:
            return max(0.0, (self._clock.now() - pending.started_at).total_seconds())
        return 0.0
