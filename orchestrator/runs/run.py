"""The main job: plan, dispatch under a limiter, report. ``run_backups`` lists the steps."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.engine.context import DispatchContext
from orchestrator.engine.dispatch import Dispatcher
from orchestrator.engine.pending import ToRequest
from orchestrator.errors import OrchestratorError, StorageError
from orchestrator.journal import runs
from orchestrator.model import OutcomeKind
from orchestrator.report.write import ReportWriter, drop_old_report, drop_run, make_folder
from orchestrator.run_names import LATEST
from orchestrator.runs.context import RunContext
from orchestrator.runs.finish import RunTotals, closed, remove_old_runs
from orchestrator.runs.new import new_work, refuse_mistakes
from orchestrator.runs.recorder import Recorder
from orchestrator.runs.resume import resumed_work
from orchestrator.runs.retry import retried_work
from orchestrator.runs.scopes import run_meant
from orchestrator.runs.work import check_recency_first
from orchestrator.session.alongside import alongside
from orchestrator.session.narration import heartbeat

if TYPE_CHECKING:
    from orchestrator.engine.dispatch import DispatchEnd
    from orchestrator.engine.ledger import Settlement
    from orchestrator.engine.ports import Log
    from orchestrator.engine.stop import StopSwitch
    from orchestrator.journal.runs import KnownRun
    from orchestrator.model import Config, Outcome
    from orchestrator.runs.options import RunOptions
    from orchestrator.runs.recorder import OnOutcome
    from orchestrator.runs.work import RunWork
    from orchestrator.summary import Summary

ABANDON_AFTER_S, ABANDON_POLL_S = 2.0, 0.2


@dataclass(frozen=True, slots=True)
class RunEnd:
    """The result of a run: its summary, the lines of the first failures, and the errors of the run itself.

    ``options`` and ``config`` are those to resume the run with. ``unfinished`` counts the backups that a resumed run
    would work on. ``unwritten`` are the outcomes that the journal or the report could not store because of
    ``write_error``. ``crash`` is the exception of a bug.
    """

    options: RunOptions
    config: str
    unfinished: int
    summary: Summary
    first_failures: tuple[dict[str, Any], ...]
    unwritten: tuple[Outcome, ...]
    write_error: StorageError | None
    crash: Exception | None


async def run_backups(
    config: Config, options: RunOptions, log: Log, stop: StopSwitch, on_outcome: OnOutcome | None = None
) -> RunEnd:
    """Request one backup of every selected install, and report every outcome.

    The run calls ``on_outcome`` with each outcome as soon as it is recorded. Raises ``UsageError`` if there is nothing
    to do, ``StorageError`` if the state or the report cannot be opened, ``LockedError`` if another process holds a
    lock, and ``StoppedError`` if a signal comes before the run begins. No backup was requested in these cases.
    """
    async with AsyncExitStack() as stack:
        context = RunContext(config, options, log, stop, stack)
        refuse_mistakes(context)
        await context.open_state()
        earlier = await locked_scopes(context)
        work = await planned_work(context, earlier)
        await check_recency_first(context, work)
        report = await begun(context, work)
        recorder = Recorder(work.record.run.id, context.store, report, context.log, on_outcome)
        end = await dispatched(context, work, recorder)
        return await finished(context, work, recorder, report, end)


async def locked_scopes(context: RunContext) -> KnownRun | None:
    """Take the locks of the scopes, and return the run to resume, or ``None``.

    To resume ``latest``, lock first and look it up then, so that no other process can begin a newer run. To resume
    another run, look it up first: its scope decides the locks.
    """
    config, word, scopes = context.config, context.options.resume, context.scopes
    if word is None or word == LATEST:
        await context.locks.take_scopes(scopes.to_lock(context.part), config.name or config.source)
    if word is None:
        context.locks.tell(context.new_run)
        return None
    run = await run_meant(context.store, config, word, context.options.state_dir, context.part)
    if word != LATEST:
        await context.locks.take_scopes(scopes.to_lock_for(run), run.config)
    return run


async def planned_work(context: RunContext, earlier: KnownRun | None) -> RunWork:
    """Return the run work: the rest of ``earlier``, the failures of another run, or a new plan."""
    if earlier:
        return await resumed_work(context, earlier)
    if context.options.retry_failed is not None:
        return await retried_work(context)
    return await new_work(context)


async def begun(context: RunContext, work: RunWork) -> ReportWriter:
    """Lock a new run, open the report, and begin the run in the journal or reopen it there.

    If a new run cannot begin, this leaves no files behind.
    """
    run_id, target = work.record.run.id, work.record.report
    folder = context.folder.of_run(run_id)
    is_own = target == context.folder.own_report(run_id)
    recorded = b"".join(line.data for line in work.recorded)
    report = ReportWriter(target, context.options.stdout_fd, recorded, is_private=is_own)
    try:
        make_folder(folder)
        if work.is_new:
            await context.locks.take_run(run_id)
            context.locks.tell(work.record.run)
        await context.stop.unless_pressed(context.stack.enter_async_context(report))
        if work.is_new:
            await runs.begin(context.store, work.record, work.planned, work.checkpoints())
        else:
            await runs.reopen(context.store, work.record, work.checkpoints())
            drop_old_report(folder, target)
    except OrchestratorError:
        if work.is_new:
            drop_run(folder)
        raise
    await context.stack.enter_async_context(alongside(_abandon_on_abort(report, context.stop)))
    return report


async def _abandon_on_abort(report: ReportWriter, stop: StopSwitch) -> None:
    """After a second signal, give up a report whose reader has not read for ``ABANDON_AFTER_S`` seconds."""
    await stop.aborting.wait()
    while report.stuck_s() < ABANDON_AFTER_S:  # noqa: ASYNC110 - the thread that is stuck cannot set an event
        await asyncio.sleep(ABANDON_POLL_S)
    report.abandon()


async def dispatched(context: RunContext, work: RunWork, recorder: Recorder) -> DispatchEnd:
    """Work on every planned backup until it has an outcome, and record each outcome."""
    connections, record = context.connections, work.record
    log = context.log.bind(run_id=record.run.id)
    recorder.has(work.recorded)
    log.info(
        "run.started", installs=len(work.pending), **work.known(), config=context.config.source, report=record.report
    )
    stopped = await _queue_all(context, work)
    dispatcher = Dispatcher(
        connections.budgets,
        DispatchContext(record.run.id, context.limits(), recorder, recorder, context.clock, log, context.stop),
    )
    async with alongside(heartbeat(log, lambda: _progress(context, work, recorder))):
        dispatcher.presettle(each.settlement() for each in work.presettled)
        dispatcher.presettle(stopped)
        return await dispatcher.run()


async def _queue_all(context: RunContext, work: RunWork) -> list[Settlement]:
    """Queue the pending backups with their accounts. If an account stopped during planning, return how they end."""
    connections, began_at = context.connections, context.clock.monotonic()
    stopped: list[Settlement] = []
    for pending in work.pending:
        account = await connections.reach(pending.planned.install.account)
        if account.stop:
            stopped.append((pending, OutcomeKind.CANCELLED, account.stop, None))
        elif isinstance(pending.state, ToRequest):
            account.fresh.append(pending)
        else:
            account.queue(pending, began_at)
    for name, install_id in work.specimens.items():
        if name in connections.accounts:
            connections.accounts[name].specimen = (install_id, began_at)
    return stopped


async def finished(
    context: RunContext, work: RunWork, recorder: Recorder, report: ReportWriter, end: DispatchEnd
) -> RunEnd:
    """Write the summary, store the learned limits, remove old runs, and return the result of the run."""
    clock, connections, tally = context.clock, context.connections, recorder.tally
    totals = RunTotals(work, tally, connections.totals(), clock.now(), clock.monotonic() - context.began)
    summary, write_error = await closed(context, totals, report, end)
    if not context.stop.aborting.is_set():
        await connections.remember()
        await remove_old_runs(context, work.record)
    given_up = sum(not each.pending.planned.install.enabled for each in work.presettled)
    return RunEnd(
        options=context.options,
        config=context.config.source,
        unfinished=tally.outcomes[OutcomeKind.CANCELLED] + tally.outcomes[OutcomeKind.UNCONFIRMED] - given_up,
        summary=summary,
        first_failures=tally.first_failures(),
        unwritten=tuple(end.unwritten),
        write_error=write_error,
        crash=end.crash,
    )


def _progress(context: RunContext, work: RunWork, recorder: Recorder) -> dict[str, object]:
    connections, tally = context.connections, recorder.tally
    rate, waiting, done = connections.rate(), connections.watched(), tally.outcomes.total()
    left = max(0, len(work.planned) - done - waiting)
    return {
        "done": done,
        "planned": len(work.planned),
        "failed": tally.failed,
        "in_doubt": connections.in_doubt(),
        "waiting": waiting,
        "throttled": sum(each.throttled for each in connections.totals().values()),
        "rate": round(rate, 2),
        "left_s": round(max(left / rate, connections.next_lookup_s())) if rate and left and done else None,
    }
