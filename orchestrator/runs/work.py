"""Run work: the plan of a new run, the rest of an interrupted run, or the failures of an earlier run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from orchestrator.engine.pending import CompletionWait, InDoubt, PendingBackup, RecencyCheck
from orchestrator.errors import UsageError
from orchestrator.journal import recent as journal_recent
from orchestrator.journal.runs import RunRecord
from orchestrator.model import ErrorInfo, ErrorKind, Made, OutcomeKind, Run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.engine.ledger import Settlement
    from orchestrator.model import Backup, Checkpoint, PlannedBackup
    from orchestrator.runs.context import RunContext
    from orchestrator.summary import Line

CUT_OFF = ErrorInfo(ErrorKind.INTERRUPTED, "the run was interrupted before it recorded an answer")


@dataclass(frozen=True, slots=True)
class Presettled:
    """A planned backup whose outcome is known before anything is sent, with the reason."""

    pending: PendingBackup
    kind: OutcomeKind
    error: ErrorInfo | None = None
    reason: str | None = None

    @property
    def may_exist(self) -> bool:
        """Return whether a backup exists or may exist, so that the journal needs a checkpoint."""
        return bool(self.pending.sought) or isinstance(self.pending.state, CompletionWait)

    def checkpoint(self) -> Checkpoint:
        """Return its checkpoint. If the backup is skipped, leave out the recent backup: this plan did not make it."""
        checkpoint = self.pending.checkpoint()
        return replace(checkpoint, made=Made()) if self.kind is OutcomeKind.SKIPPED else checkpoint

    def settlement(self) -> Settlement:
        """Return the settlement that the dispatcher records."""
        return self.pending, self.kind, self.error, self.reason


@dataclass(frozen=True, slots=True)
class RunWork:
    """A run with its plan, the work that is left, and the outcomes that are already recorded.

    ``planned`` is the whole plan. ``pending`` are its backups still to be requested, looked up or waited for.
    ``recorded`` are the lines of the outcomes that the journal already has. ``presettled`` are settled before anything
    is sent. ``specimens`` has, by account, the id of an install whose backup is known to exist. ``is_new`` is true if
    the journal does not know the run yet.
    """

    record: RunRecord
    planned: tuple[PlannedBackup, ...]
    pending: tuple[PendingBackup, ...]
    recorded: tuple[Line, ...] = ()
    presettled: tuple[Presettled, ...] = ()
    specimens: dict[str, str] = field(default_factory=dict)
    is_new: bool = True

    def checkpoints(self) -> list[Checkpoint]:
        """Return the checkpoints to store before the first request: in a new run, those of backups that may exist."""
        left = (each for each in self.pending if not self.is_new or each.sought or not each.is_to_be_requested)
        settled = (each for each in self.presettled if not self.is_new or each.may_exist)
        return [*(each.checkpoint() for each in left), *(each.checkpoint() for each in settled)]

    def known(self) -> dict[str, object]:
        """Return log fields that tell a resumed run, a retry or presettled backups from a plain new run."""
        known: dict[str, object] = {} if self.is_new else {"resumed": True, "kept": len(self.recorded)}
        known |= {"presettled": len(self.presettled)} if self.presettled else {}
        return known | ({} if self.record.retried is None else {"retries": self.record.retried})


def divided(works: Iterable[PendingBackup | Presettled]) -> tuple[tuple[PendingBackup, ...], tuple[Presettled, ...]]:
    """Divide ``works`` into the pending backups and the presettled ones."""
    given = tuple(works)
    pending = tuple(each for each in given if isinstance(each, PendingBackup))
    return pending, tuple(each for each in given if isinstance(each, Presettled))


def record_of(context: RunContext, run: Run, scope: str) -> RunRecord:
    """Return the record of a new run."""
    config = context.config
    return RunRecord(
        run=run,
        scope=scope,
        config=config.source,
        report=context.options.report_or(context.folder.own_report(run.id)),
        accounts={name: account.base_url for name, account in config.accounts.items()},
    )


def check_resolved(unresolved: list[str]) -> None:
    """Raise ``UsageError`` with the lines ``unresolved`` if there are any."""
    if unresolved:
        raise UsageError("\n".join([*unresolved, "nothing was sent because of --strict"]))


def gone_since(retried: str) -> ErrorInfo:
    """Return the error of an install that failed in ``retried`` and is not enabled any more."""
    reason = "it was no longer enabled in the configuration when this run began; enable it, then use --retry-failed"
    return ErrorInfo(ErrorKind.STOPPED, f"it failed in {retried}, but {reason}")


def wait_for_earlier(backup: Backup, wait_s: float | None) -> CompletionWait:
    """Return the wait for a backup that an earlier run made.

    The run polls for ``wait_s`` seconds, or once if that is ``None``, and does not request the backup again.
    """
    until = asyncio.get_running_loop().time() + (wait_s or 0.0)
    return CompletionWait(backup, until, may_repeat=False, is_polled_once=wait_s is None)


def pending_in_doubt(checkpoint: Checkpoint) -> PendingBackup:
    """Return a backup in doubt that continues from ``checkpoint``, which another process wrote.

    The grace begins now, unless the server's clock shows that the answer came earlier. If there was no answer, the time
    of sending is unknown: the intent may have waited for the disk, or the machine may have been suspended.
    """
    is_unanswered = checkpoint.error is None
    spent = checkpoint.spent
    return PendingBackup(
        planned=checkpoint.planned,
        tries=spent.tries + is_unanswered,
        attempts=spent.attempts + is_unanswered,
        throttled=spent.throttled,
        started_at=spent.started_at,
        sought=checkpoint.sought,
        sent_at=checkpoint.sent_at,
        described=checkpoint.described,
        made=checkpoint.made,
        state=InDoubt(
            error=checkpoint.error or CUT_OFF,
            since=asyncio.get_running_loop().time(),
            may_repeat=checkpoint.may_repeat,
            server_since=checkpoint.open_since,
            is_inherited=True,
        ),
        is_resumed=True,
    )


async def check_recency_first(context: RunContext, work: RunWork) -> None:
    """Put a recency check before each request if ``recent_s`` is set.

    The check starts with the completed backup that the journal knows, if any. Raises ``StorageError``.
    """
    recent_s = context.options.recent_s
    if recent_s is None:
        return
    known = await journal_recent.completed_since(context.store, context.clock.now().timestamp() - recent_s)
    for pending in work.pending:
        if pending.is_to_be_requested and not pending.made.is_second:
            base_url = context.config.accounts[pending.planned.install.account].base_url
            pending.state = RecencyCheck(known.get((base_url, pending.planned.request.install_id)))
