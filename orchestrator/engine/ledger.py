"""The ledger: give each planned backup its one outcome, pass it to the sink, end requests at the failure limit.

Only the core calls it. If the sink or the journal fails, the run ends. The ledger keeps the outcomes that the sink did
not keep, so that the command can still print them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

from orchestrator.engine.pending import (
    CompletionWait,
    InDoubt,
    PendingBackup,
    ReadRequest,
    RecencyCheck,
    ToRequest,
)
from orchestrator.errors import StorageError
from orchestrator.model import ErrorInfo, ErrorKind, Outcome, OutcomeKind

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from orchestrator.engine.context import DispatchContext

Settlement = tuple[PendingBackup, OutcomeKind, ErrorInfo | None, str | None]
"""A pending backup, the kind of its outcome, its error, and the reason why nothing was requested."""


class Ledger:
    """Settle pending backups.

    ``write_error`` is the first error of the sink or the journal. ``unwritten`` are the outcomes that the sink did not
    keep. ``closed`` is the reason why the run requests nothing more, ``None`` until then.
    """

    def __init__(
        self,
        context: DispatchContext,
        halted: asyncio.Event,
        on_close: Callable[[ErrorInfo], None],
        on_bug: Callable[[Exception], None],
    ) -> None:
        """Record outcomes in the sink of ``context``.

        If the sink fails, set ``halted``. If a bug is the reason, call ``on_bug``.
        ``on_close`` is called once, when the run is to request nothing more, for example at the failure limit.
        """
        self._sink = context.sink
        self._clock = context.clock
        self._on_close = on_close
        self._on_bug = on_bug
        self._halted = halted
        self._failure_limit = context.limits.failure_limit
        self._settled = self._failed = 0
        self.write_error: StorageError | None = None
        self.unwritten: list[Outcome] = []
        self.closed: ErrorInfo | None = None
        self.cancelled_by_deadline = 0

    def settle(
        self, pending: PendingBackup, kind: OutcomeKind, error: ErrorInfo | None = None, *, reason: str | None = None
    ) -> None:
        """Record the outcome of ``pending``, unless it already has one."""
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
        self._sink.record(outcome, self._not_written)

    def _not_written(self, outcome: Outcome, error: Exception) -> None:
        self.unwritten.append(outcome)
        if isinstance(error, StorageError):
            self.failed(error)
        else:
            self._on_bug(error)

    def settle_all(self, settlements: Iterable[Settlement]) -> None:
        """Record many outcomes. Pass cancelled ones to ``cancel``, since their backups may exist."""
        for pending, kind, error, reason in settlements:
            if kind is OutcomeKind.CANCELLED and error:
                self.cancel(pending, error)
            else:
                self.settle(pending, kind, error, reason=reason)

    def cancel(self, work: PendingBackup | ReadRequest, why: ErrorInfo) -> None:
        """Settle ``work`` that the run gives up for the reason ``why``.

        The outcome is ``cancelled`` only if no backup was made; else it says that a backup exists or may exist.
        """
        if isinstance(work, ReadRequest):
            work.end(why)
            return
        match work.state:
            case InDoubt() as doubt:
                self.leave_open(work, doubt, f"the lookup was cut short: {why.message}")
            case CompletionWait(is_own=True):
                cut_short = replace(why, kind=ErrorKind.TIMEOUT, message=f"the wait was cut short: {why.message}")
                self.settle(work, OutcomeKind.INCOMPLETE, cut_short)
            case ToRequest() | RecencyCheck() | CompletionWait():
                self._cancel_unrequested(work, why)
            case _:
                assert_never(work.state)

    def _cancel_unrequested(self, pending: PendingBackup, why: ErrorInfo) -> None:
        if pending.made.is_second:
            self.leave_aborted(pending)
            return
        pending.made = replace(pending.made, backup=None)
        self.cancelled_by_deadline += why.kind is ErrorKind.DEADLINE and not pending.is_settled
        self.settle(pending, OutcomeKind.CANCELLED, why)

    def cancel_all(self, works: Iterable[PendingBackup | ReadRequest], why: ErrorInfo) -> None:
        """Cancel all of ``works``."""
        for work in works:
            self.cancel(work, why)

    def leave_open(self, pending: PendingBackup, doubt: InDoubt, why: str) -> None:
        """Settle ``pending`` as unconfirmed: nobody knows whether a backup exists, for the reason ``why``."""
        message = f"{doubt.error.message}; {why}" if doubt.error.message else why
        self.settle(pending, OutcomeKind.UNCONFIRMED, replace(doubt.error, message=message))

    def leave_aborted(self, pending: PendingBackup) -> None:
        """Settle ``pending`` as aborted: WP Engine aborted its backup, and no second one was made."""
        *earlier, aborted = pending.made.earlier
        pending.made = replace(pending.made, backup=aborted, earlier=tuple(earlier))
        self.settle(pending, OutcomeKind.ABORTED)

    def close(self, why: ErrorInfo) -> None:
        """Request nothing more from now on, for the reason ``why``."""
        if self.closed is None:
            self.closed = why
            self._on_close(why)

    def failed(self, error: StorageError) -> None:
        """End the run because the report or the journal could not be written."""
        self.write_error = self.write_error or error
        self._halted.set()

    def _count(self, kind: OutcomeKind) -> None:
        if kind is OutcomeKind.CANCELLED:
            return
        self._settled += 1
        self._failed += not kind.is_success
        if self._failure_limit and self._failure_limit.holds(self._failed, self._settled):
            rule = f"{self._failed} of {self._settled} installs failed ({self._failure_limit})"
            self.close(ErrorInfo(ErrorKind.STOPPED, f"the run stopped requesting: {rule}"))

    def _duration_s(self, pending: PendingBackup) -> float:
        if pending.began_at is not None and not pending.is_resumed and not pending.made.is_second:
            return self._clock.monotonic() - pending.began_at
        if pending.started_at is not None:
            return max(0.0, (self._clock.now() - pending.started_at).total_seconds())
        return 0.0
