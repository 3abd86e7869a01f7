"""The main job: plan, dispatch under a limiter, report. ``run_backups`` is the list of its steps."""

from __future__ import annotations

import asyncio
import random
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orchestrator.engine.dispatch import Dispatcher
from orchestrator.engine.surroundings import Limits, Surroundings
from orchestrator.errors import OrchestratorError, WriteError
from orchestrator.journal import runs
from orchestrator.journal.locks import Patience, locked, run_lock, scope_lock
from orchestrator.journal.store import FILE_NAME, Store
from orchestrator.model import OutcomeKind
from orchestrator.report.write import ReportWriter, drop_old_report, drop_run, make_folder
from orchestrator.usecases.alongside import alongside
from orchestrator.usecases.closing import Places, Totals, closed, removed_old_runs
from orchestrator.usecases.fleet import assembled
from orchestrator.usecases.jobs import Job, RunOptions, folder_of, new_job, scope_of
from orchestrator.usecases.narration import heartbeat
from orchestrator.usecases.recorder import Recorder
from orchestrator.usecases.resume import resumed_job, run_to_resume
from orchestrator.usecases.retry import retried_job

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.engine.ports import Log
    from orchestrator.engine.stop import StopSwitch
    from orchestrator.model import Config, Outcome
    from orchestrator.summary import Summary
    from orchestrator.usecases.fleet import Fleet

ABANDON_AFTER_S, ABANDON_POLL_S = 2.0, 0.2


@dataclass(frozen=True, slots=True)
class RunEnd:
    """What a run came to: its summary, the lines of the first failures, and what went wrong with the run itself.

    ``state_dir`` and ``config`` are what it was given, to be resumed with; ``unfinished`` counts what that would go on
    with. ``unwritten`` are outcomes that journal or report did not take because of ``write_error``. ``crash`` is a
    bug's exception.
    """

    state_dir: Path
    config: str
    unfinished: int
    summary: Summary
    first_failures: tuple[dict[str, Any], ...]
    unwritten: tuple[Outcome, ...]
    write_error: WriteError | None
    crash: Exception | None


async def run_backups(config: Config, options: RunOptions, log: Log, stop: StopSwitch) -> RunEnd:
    """Request a backup of every install that the options mean, once, and report every outcome.

    Raises ``UsageError`` if there is nothing to do, ``WriteError`` if the state or the report cannot be begun,
    ``LockedError`` if another process is at it, and ``StoppedError`` if a signal comes before it is begun; nothing was
    sent then.
    """
    state_dir = options.state_dir.absolute()
    is_new = options.resume is None and options.retry_failed is None
    async with AsyncExitStack() as stack:
        new = new_job(config, options, datetime.now(UTC), log) if is_new else None
        make_folder(state_dir)
        scope = scope_of(config)
        lock = locked(scope_lock(state_dir, scope), f"a run of {config.source} is going on", _patience(options, log))
        await stop.unless_pressed(stack.enter_async_context(lock))
        store = Store(state_dir / FILE_NAME)
        await stop.unless_pressed(stack.enter_async_context(store))
        world = _World(store, log, stop, stack)
        job = await stop.unless_pressed(_continued(config, options, world)) if new is None else new
        return await _carried_out(config, options, job, world)


async def _continued(config: Config, options: RunOptions, world: _World) -> Job:
    """Return the job that an earlier run left; one that is resumed is locked before it is looked at."""
    if options.resume is None:
        return await retried_job(config, options, world.store, world.log)
    record = await run_to_resume(config, options, world.store)
    await world.stack.enter_async_context(_lock_of(options, record.run.id, world.log))
    return await resumed_job(config, options, record.run.id, world.store, world.log)


def _lock_of(options: RunOptions, run_id: str, log: Log) -> AbstractAsyncContextManager[None]:
    path = run_lock(options.state_dir.absolute(), run_id)
    return locked(path, f"run {run_id} is going on", _patience(options, log))


def _patience(options: RunOptions, log: Log) -> Patience:
    def say(busy: str) -> None:
        log.info("lock.waiting", reason=busy, at_most_s=options.lock_wait_s)

    return Patience(options.lock_wait_s, "wait for its end, or let --lock-wait do it", say)


@dataclass(frozen=True, slots=True)
class _World:
    """The real things that a run works with."""

    store: Store
    log: Log
    stop: StopSwitch
    stack: AsyncExitStack


async def _carried_out(config: Config, options: RunOptions, job: Job, world: _World) -> RunEnd:
    clock, run = _SystemClock(), job.record.run
    began, log = clock.monotonic(), world.log.bind(run_id=run.id)
    report = ReportWriter(job.record.report, options.stdout_fd, b"".join(line.data for line in job.kept))
    await _opened(options, job, report, world)
    await world.stack.enter_async_context(alongside(_abandon_on_abort(report, world.stop)))
    recorder = Recorder(run.id, world.store, report, log)
    recorder.has(job.kept)
    log.info("run.started", installs=len(job.efforts), **_known_of(job), config=config.source, report=job.record.report)
    fleet = await assembled(config, job, world.store, log, world.stack)
    around = Surroundings(run.id, recorder, recorder, clock, log, world.stop)
    dispatcher = Dispatcher(fleet.budgets, _limits(config), around)
    async with alongside(heartbeat(log, lambda: _progress(fleet, recorder, job))):
        await dispatcher.give_up(job.given_up, job.why)
        end = await dispatcher.run()
        await recorder.drain()
    totals = Totals(job, recorder.tally, fleet.totals(), clock.now(), clock.monotonic() - began)
    places = Places(world.store, folder_of(options, run.id), report)
    summary, write_error = await closed(places, totals, end, world.stop.signum)
    if not world.stop.aborting.is_set():
        await fleet.remember(world.store, clock.now(), log)
        await removed_old_runs(options, job.record, world.store, config.keep_s, log)
    kinds = recorder.tally.outcomes
    unfinished = kinds[OutcomeKind.CANCELLED] + kinds[OutcomeKind.UNCONFIRMED] - len(job.given_up)
    return RunEnd(
        state_dir=options.state_dir,
        config=config.source,
        unfinished=unfinished,
        summary=summary,
        first_failures=recorder.tally.first_failures(),
        unwritten=tuple(end.unwritten),
        write_error=write_error,
        crash=end.crash,
    )


def _known_of(job: Job) -> dict[str, object]:
    """Return what makes a run other than a new one of its own."""
    known: dict[str, object] = {} if job.is_new else {"resumed": True, "kept": len(job.kept)}
    return known | ({} if job.record.retried is None else {"retries": job.record.retried})


async def _opened(options: RunOptions, job: Job, report: ReportWriter, world: _World) -> None:
    """Lock the run, open its report, begin or reopen its journal; one that cannot even begin leaves nothing behind."""
    folder = folder_of(options, job.record.run.id)
    left = (*job.efforts, *job.given_up)
    standings = [effort.standing() for effort in left if effort.sought or not job.is_new]
    try:
        make_folder(folder)
        if job.is_new:
            await world.stack.enter_async_context(_lock_of(options, job.record.run.id, world.log))
        await world.stop.unless_pressed(world.stack.enter_async_context(report))
        if job.is_new:
            await runs.begin(world.store, job.record, job.planned, standings)
        else:
            await runs.reopen(world.store, job.record, standings)
            drop_old_report(folder, job.record.report)
    except OrchestratorError:
        if job.is_new:
            drop_run(folder)
        raise


async def _abandon_on_abort(report: ReportWriter, stop: StopSwitch) -> None:
    """Let a report whose reader does not read hold up the second signal for no longer than ``ABANDON_AFTER_S``."""
    await stop.aborting.wait()
    while report.stuck_s() < ABANDON_AFTER_S:  # noqa: ASYNC110 - what is waited for happens in a thread that is stuck
        await asyncio.sleep(ABANDON_POLL_S)
    report.abandon()


def _limits(config: Config) -> Limits:
    return Limits(config.retry, config.reconcile, config.throttle.max_pause_s, config.throttle.give_up_s)


class _SystemClock:
    """The engine's ``Clock``."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def draw(self) -> float:
        return random.random()  # noqa: S311 - jitter, not a secret


def _progress(fleet: Fleet, recorder: Recorder, job: Job) -> dict[str, object]:
    totals = fleet.totals()
    rate = fleet.rate()
    tally = recorder.tally
    left, in_doubt = len(job.planned) - tally.outcomes.total(), fleet.in_doubt()
    return {
        "done": tally.outcomes.total(),
        "planned": len(job.planned),
        "failed": tally.failed,
        "in_doubt": in_doubt,
        "throttled": sum(each.throttled for each in totals.values()),
        "rate": round(rate, 2),
        "left_s": round(max(left / rate, fleet.next_look_s())) if rate else None,
    }
