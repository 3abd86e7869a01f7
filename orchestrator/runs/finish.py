"""The end of a run: its summary in three places, its exit code, and the removal of old runs."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from orchestrator.errors import ExitCode, LockedError, StorageError
from orchestrator.journal import runs
from orchestrator.journal.locks import locked, run_lock
from orchestrator.model import ErrorKind, OutcomeKind
from orchestrator.report.lines import account_totals, encode, summary_line
from orchestrator.report.write import drop_run, write_summary
from orchestrator.summary import AccountTotals, Ending, Summary, exit_code, exit_code_now
from orchestrator.version import __version__

if TYPE_CHECKING:
    from orchestrator.engine.dispatch import DispatchEnd
    from orchestrator.journal.runs import RunRecord
    from orchestrator.report.write import ReportWriter
    from orchestrator.runs.context import RunContext
    from orchestrator.runs.work import RunWork
    from orchestrator.summary import Tally


FOUND_OUT_ANEW = {ExitCode.OK, ExitCode.BUG, ExitCode.FAILED, ExitCode.STORAGE}
"""Earlier exit codes that a resumed run replaces by the code of its outcomes, now that all are written."""

NOBODY_ASKED = AccountTotals(0, 0, 0.0)


@dataclass(frozen=True, slots=True)
class RunTotals:
    """The totals of a run when nothing is under way any more. ``duration_s`` counts only this process, in seconds."""

    work: RunWork
    tally: Tally
    accounts: dict[str, AccountTotals]
    finished_at: datetime
    duration_s: float


async def closed(
    context: RunContext, totals: RunTotals, report: ReportWriter, end: DispatchEnd
) -> tuple[Summary, StorageError | None]:
    """Write the summary to the run's directory, the journal and the report.

    If one of them fails, the exit code is 4, or 1 after a bug. Return the summary and the first error.
    """
    ending = Ending(
        crashed=end.crash is not None,
        unwritten=end.write_error is not None,
        signum=context.stop.signum if end.interrupted else None,
        credentials_refused=any(why.kind is ErrorKind.CREDENTIALS for why in end.stops.values()),
        deadline_passed=end.deadline_passed or _is_late(totals.work.record.failed_sources),
        failed=totals.tally.failed + len(totals.work.record.failed_sources),
    )
    summary = _as_it_ended(totals, _summary(totals, ending))
    unwritten = replace(summary, exit_code=exit_code(replace(ending, unwritten=True)))
    failure = await _kept(context, summary)
    if failure:
        summary = unwritten
    try:
        await report.write(encode(summary_line(summary)), sync=True)
    except StorageError as error:
        failure = failure or error
        if summary.exit_code != unwritten.exit_code:
            summary = unwritten
            await _kept(context, summary)
    return summary, end.write_error or failure


async def _kept(context: RunContext, summary: Summary) -> StorageError | None:
    """Write ``summary`` into the run's directory and the journal, and return the first failure."""
    line, failure = summary_line(summary), None
    try:
        write_summary(context.folder.of_run(summary.run_id), line)
    except StorageError as error:
        failure = error
    try:
        await runs.end(context.store, summary.run_id, summary.finished_at, line)
    except StorageError as error:
        failure = failure or error
    return failure


def _summary(totals: RunTotals, ending: Ending) -> Summary:
    record, tally = totals.work.record, totals.tally
    finished_at, duration_s = _times(totals)
    return Summary(
        run_id=record.run.id,
        started_at=record.run.started_at,
        finished_at=finished_at,
        duration_s=duration_s,
        planned=len(totals.work.planned),
        disabled=record.disabled,
        outcomes={kind: tally.outcomes[kind] for kind in OutcomeKind},
        retries=tally.retries,
        reconciled=tally.reconciled,
        accounts=_by_account(_with_earlier(totals.accounts, record), tally),
        exit_code=exit_code(ending),
        config=record.config,
        report=record.report,
        version=__version__,
        failed_sources=record.failed_sources,
        empty_sources=record.empty_sources,
        selection=record.selection if record.retried is None else None,
    )


def _is_late(failed_sources: tuple[dict[str, Any], ...]) -> bool:
    """Return whether a source was not read because the deadline had passed."""
    return any(source["error"]["kind"] == ErrorKind.DEADLINE for source in failed_sources)


def _as_it_ended(totals: RunTotals, summary: Summary) -> Summary:
    """Keep the earlier exit code of a resumed run that had ended and has nothing left to do, if it still applies."""
    work, before = totals.work, totals.work.record.summary
    is_done = not (work.is_new or work.pending or work.presettled) and work.record.has_ended
    if (
        not is_done
        or before is None
        or before["exit_code"] in FOUND_OUT_ANEW
        or summary.exit_code not in {ExitCode.OK, ExitCode.FAILED}
    ):
        return summary
    code = exit_code_now(before["exit_code"], totals.tally.outcomes, len(work.record.failed_sources))
    return replace(summary, exit_code=code)


def _by_account(accounts: dict[str, AccountTotals], tally: Tally) -> dict[str, AccountTotals]:
    """Add the outcomes of each account, also of accounts that received no request."""
    names = [*accounts, *(name for name in tally.by_account if name not in accounts)]
    return {
        name: replace(accounts.get(name, NOBODY_ASKED), outcomes=dict(tally.by_account.get(name, {}))) for name in names
    }


def _with_earlier(accounts: dict[str, AccountTotals], record: RunRecord) -> dict[str, AccountTotals]:
    """Add the requests of an earlier part of the run, if that part wrote a summary."""
    earlier = (record.summary or {}).get("accounts", {})
    added = dict(accounts)
    for name, asked in earlier.items():
        before, now = account_totals(asked), accounts.get(name)
        if now is None:
            added[name] = before
        else:
            requests, throttled = now.requests + before.requests, now.throttled + before.throttled
            added[name] = replace(now, requests=requests, throttled=throttled)
    return added


def _times(totals: RunTotals) -> tuple[datetime, float]:
    """Return the end of the run and its duration. If nothing was left to do, both stay as they were."""
    work, before = totals.work, totals.work.record.summary
    if work.is_new:
        return totals.finished_at, totals.duration_s
    if before is not None and work.record.has_ended and not work.pending:
        return datetime.fromisoformat(before["finished_at"]), before["duration_s"]
    return totals.finished_at, max(0.0, (totals.finished_at - work.record.run.started_at).total_seconds())


async def remove_old_runs(context: RunContext, record: RunRecord) -> None:
    """Remove the runs of the same scope that ended more than ``keep_s`` seconds before this run began."""
    is_alike = context.scopes.alike(record)
    try:
        before = record.run.started_at - timedelta(seconds=context.config.keep_s)
        for run_id in [each.id for each in await runs.ended_before(context.store, before) if is_alike(each)]:
            with suppress(LockedError):
                async with locked(run_lock(context.folder.path, run_id), "it is going on"):
                    await runs.forget(context.store, [run_id])
                    drop_run(context.folder.of_run(run_id))
                context.log.debug("state.removed", removed=run_id)
    except (StorageError, OverflowError) as error:
        context.log.warning("state.not_removed", reason=str(error))
