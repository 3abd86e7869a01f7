"""How a run ends: its summary in three places, its exit code, and what is removed of runs long ago."""

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
"""Exit codes of a run that are found out anew: by its outcomes, now that they are all written."""

NOBODY_ASKED = AccountTotals(0, 0, 0.0)


@dataclass(frozen=True, slots=True)
class RunTotals:
    """What a run has come to when nothing is under way any more. ``duration_s`` is of this process."""

    work: RunWork
    tally: Tally
    accounts: dict[str, AccountTotals]
    finished_at: datetime
    duration_s: float


async def closed(
    context: RunContext, totals: RunTotals, report: ReportWriter, end: DispatchEnd
) -> tuple[Summary, StorageError | None]:
    """Write the summary wherever it goes; failing anywhere is exit code 4, unless a bug has made it 1."""
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
    """Write ``summary`` into the journal and the run's folder, and return the first failure."""
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
    """Tell whether a part of the inventory was not read since the deadline had passed."""
    return any(source["error"]["kind"] == ErrorKind.DEADLINE for source in failed_sources)


def _as_it_ended(totals: RunTotals, summary: Summary) -> Summary:
    """Return the summary of a run with nothing left to do with the code of its end, as long as that still applies."""
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
    """Add how the installs of each account ended; of one that nobody was asked of, that too."""
    names = [*accounts, *(name for name in tally.by_account if name not in accounts)]
    return {
        name: replace(accounts.get(name, NOBODY_ASKED), outcomes=dict(tally.by_account.get(name, {}))) for name in names
    }


def _with_earlier(accounts: dict[str, AccountTotals], record: RunRecord) -> dict[str, AccountTotals]:
    """Add what an earlier part of the run asked, as far as it came to tell."""
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
    """Return when the run ended and how long that took; of one with nothing left to do, when it did end."""
    work, before = totals.work, totals.work.record.summary
    if work.is_new:
        return totals.finished_at, totals.duration_s
    if before is not None and work.record.has_ended and not work.pending:
        return datetime.fromisoformat(before["finished_at"]), before["duration_s"]
    return totals.finished_at, max(0.0, (totals.finished_at - work.record.run.started_at).total_seconds())


async def remove_old_runs(context: RunContext, record: RunRecord) -> None:
    """Remove the runs of the same scope that ended longer before this one began than the configuration says."""
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
