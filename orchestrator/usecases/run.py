"""The main job: plan, dispatch under a limiter, report. ``run_backups`` is the list of its steps."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from orchestrator.engine.dispatch import Dispatcher
from orchestrator.engine.surroundings import Limits, Surroundings
from orchestrator.errors import OrchestratorError, WriteError
from orchestrator.journal import runs
from orchestrator.journal.locks import HeldLock, Patience, locked, run_lock, scope_lock
from orchestrator.journal.store import FILE_NAME, Store
from orchestrator.model import OutcomeKind, Run
from orchestrator.report.write import ReportWriter, drop_old_report, drop_run, make_folder
from orchestrator.run_names import LATEST
from orchestrator.selection import Selection
from orchestrator.usecases.alongside import alongside
from orchestrator.usecases.asking import Persistence, asked, limits_of
from orchestrator.usecases.clock import SYSTEM_CLOCK, new_run
from orchestrator.usecases.closing import Places, Totals, closed, removed_old_runs
from orchestrator.usecases.failures import failures_of
from orchestrator.usecases.fleet import Fleet
from orchestrator.usecases.jobs import (
    Job,
    RunOptions,
    folder_of,
    have_screened,
    new_job,
    own_report,
    planned_run,
)
from orchestrator.usecases.narration import heartbeat
from orchestrator.usecases.recorder import Recorder
from orchestrator.usecases.resolve import Inventory, asked_accounts, inventory_of, offline, read_listing
from orchestrator.usecases.resume import resumed_job, run_to_resume, what_is_left
from orchestrator.usecases.retry import needs_listing, retried_job
from orchestrator.usecases.scopes import Scopes, part_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.engine.ports import Clock, Log
    from orchestrator.engine.stop import StopSwitch
    from orchestrator.model import Config, Outcome
    from orchestrator.summary import Summary
    from orchestrator.usecases.asking import Asker
    from orchestrator.usecases.scopes import Scope

ABANDON_AFTER_S, ABANDON_POLL_S = 2.0, 0.2


@dataclass(frozen=True, slots=True)
class RunEnd:
    """What a run came to: its summary, the lines of the first failures, and what went wrong with the run itself.

    ``options`` and ``config`` are what it was given, to be resumed with; ``unfinished`` counts what that would go on
    with. ``unwritten`` are outcomes that journal or report did not take because of ``write_error``. ``crash`` is a
    bug's exception.
    """

    options: RunOptions
    config: str
    unfinished: int
    summary: Summary
    first_failures: tuple[dict[str, Any], ...]
    unwritten: tuple[Outcome, ...]
    write_error: WriteError | None
    crash: Exception | None


async def run_backups(
    config: Config, options: RunOptions, log: Log, stop: StopSwitch, clock: Clock = SYSTEM_CLOCK
) -> RunEnd:
    """Request a backup of every install that the options mean, once, and report every outcome.

    Raises ``UsageError`` if there is nothing to do, ``WriteError`` if the state or the report cannot be begun,
    ``LockedError`` if another process is at it, and ``StoppedError`` if a signal comes before it is begun; no backup
    was requested then.
    """
    began = clock.monotonic()
    state_dir = options.state_dir.absolute()
    async with AsyncExitStack() as stack:
        new = _planned_offline(config, options, log, clock) if options.is_new else None
        make_folder(state_dir)
        locks = _Locks(options, log, stop, stack)
        is_scope_known = options.resume in {None, LATEST}
        if is_scope_known:
            scopes = Scopes(config).to_lock(part_of(options.selection))
            await locks.take_scopes(scopes, config.name or config.source, new.record.run if new else None)
        store = Store(state_dir / FILE_NAME)
        await stop.unless_pressed(stack.enter_async_context(store))
        world = _World(store, log, stop, stack, Fleet(config, store, log, stack, clock), locks)
        if not is_scope_known:
            record = await run_to_resume(config, options, store)
            await locks.take_scopes(Scopes(config).to_lock_for(record), record.config, record.run)
        job = await _job(config, options, world) if new is None else new
        await have_screened(config, options, job, world.store, clock)
        return await _carried_out(config, options, job, _Course(world, began))


def _planned_offline(config: Config, options: RunOptions, log: Log, clock: Clock) -> Job | None:
    """Return the job of a new run whose plan needs no listing, so that a mistake is told of before anything is made."""
    if asked_accounts(config, options.selection):
        return None
    return new_job(config, options, planned_run(config, options, offline(config), new_run(clock)), log)


async def _job(config: Config, options: RunOptions, world: _World) -> Job:
    """Return what is to be done, with what listings show."""
    if options.is_new:
        run = new_run(world.fleet.clock)
        inventory = await inventory_of(
            config, options.selection, world.fleet, world.stop, Persistence(options.deadline_s)
        )
        return new_job(config, options, planned_run(config, options, inventory, run), world.log)
    if options.resume is None:
        failures = await world.stop.unless_pressed(failures_of(config, options, world.store, world.log))
        asking = (world.fleet, world.stop, Persistence(options.deadline_s))
        if needs_listing(config, failures):
            inventory = await inventory_of(config, Selection(), *asking)
        elif failures.reads_again:
            inventory = await inventory_of(config, failures.selection or Selection(), *asking)
        else:
            inventory = offline(config)
        return retried_job(config, options, failures, inventory, world.fleet)
    return await _resumed(config, options, world)


async def _resumed(config: Config, options: RunOptions, world: _World) -> Job:
    """Return the rest of a run, which is locked before it is looked at."""
    stop, inventory = world.stop, Inventory()
    record = await run_to_resume(config, options, world.store)
    await world.locks.take_run(record.run)
    left = await stop.unless_pressed(what_is_left(config, options, record.run.id, world.store))

    async def read_listings(asker: Asker) -> None:
        for account in left.nameless():
            await read_listing(inventory, account, asker)

    if left.nameless():
        await asked(world.fleet, left.nameless(), read_listings, stop, Persistence(options.deadline_s))
    return resumed_job(config, options, left, inventory, world.log)


@dataclass(frozen=True, slots=True)
class _Locks:
    """The locks that a run takes, and holds for as long as ``stack`` is open."""

    options: RunOptions
    log: Log
    stop: StopSwitch
    stack: AsyncExitStack
    of_scopes: list[HeldLock] = field(default_factory=list)

    async def take_scopes(self, scopes: Sequence[Scope], config: str, run: Run | None) -> None:
        """Let one run at a time be of ``scopes``. Everybody takes them in one order, so that nobody waits for ever."""
        state_dir = self.options.state_dir.absolute()
        for path in sorted(scope_lock(state_dir, str(scope)) for scope in scopes):
            self.of_scopes.append(await self._take(path, f"a run of {config} is going on"))
        if run:
            self.tell(run)

    async def take_run(self, run: Run) -> None:
        """Let nobody else be at ``run``, which holds all these locks."""
        held = await self._take(run_lock(self.options.state_dir.absolute(), run.id), f"run {run.id} is going on")
        held.tell(run)
        self.tell(run)

    def tell(self, run: Run) -> None:
        for held in self.of_scopes:
            held.tell(run)

    async def _take(self, path: Path, what: str) -> HeldLock:
        return await self.stop.unless_pressed(self.stack.enter_async_context(locked(path, what, self._patience())))

    def _patience(self) -> Patience:
        def say(busy: str) -> None:
            self.log.info("lock.waiting", reason=busy, at_most_s=self.options.lock_wait_s)

        return Patience(self.options.lock_wait_s, "wait for its end, or let --lock-wait do it", say)


@dataclass(frozen=True, slots=True)
class _World:
    """The real things that a run works with."""

    store: Store
    log: Log
    stop: StopSwitch
    stack: AsyncExitStack
    fleet: Fleet
    locks: _Locks


@dataclass(frozen=True, slots=True)
class _Course:
    """The world of a run, and the monotonic instant at which the command began it."""

    world: _World
    began: float


async def _carried_out(config: Config, options: RunOptions, job: Job, course: _Course) -> RunEnd:
    world, clock, run = course.world, course.world.fleet.clock, job.record.run
    fleet, log = world.fleet, world.log.bind(run_id=run.id)
    is_own = job.record.report == str(own_report(options.state_dir, run.id))
    kept = b"".join(line.data for line in job.kept)
    report = ReportWriter(job.record.report, options.stdout_fd, kept, is_private=is_own)
    await _opened(options, job, report, world)
    await world.stack.enter_async_context(alongside(_abandon_on_abort(report, world.stop)))
    recorder = Recorder(run.id, world.store, report, log)
    recorder.has(job.kept)
    log.info("run.started", installs=len(job.efforts), **_known_of(job), config=config.source, report=job.record.report)
    stopped = await fleet.take_on(job)
    around = Surroundings(run.id, recorder, recorder, clock, log, world.stop)
    dispatcher = Dispatcher(fleet.budgets, _limits(config, options, course), around)
    async with alongside(heartbeat(log, lambda: _progress(fleet, recorder, job))):
        await dispatcher.forego(each.settled() for each in job.foregone)
        await dispatcher.forego((effort, OutcomeKind.CANCELLED, why, None) for effort, why in stopped)
        end = await dispatcher.run()
        await recorder.drain()
    totals = Totals(job, recorder.tally, fleet.totals(), clock.now(), clock.monotonic() - course.began)
    places = Places(world.store, folder_of(options, run.id), report)
    summary, write_error = await closed(places, totals, end, world.stop.signum)
    if not world.stop.aborting.is_set():
        await fleet.remember()
        await removed_old_runs(config, options, job.record, world.store, log)
    kinds = recorder.tally.outcomes
    given_up = sum(not each.effort.planned.install.enabled for each in job.foregone)
    return RunEnd(
        options=options,
        config=config.source,
        unfinished=kinds[OutcomeKind.CANCELLED] + kinds[OutcomeKind.UNCONFIRMED] - given_up,
        summary=summary,
        first_failures=recorder.tally.first_failures(),
        unwritten=tuple(end.unwritten),
        write_error=write_error,
        crash=end.crash,
    )


def _known_of(job: Job) -> dict[str, object]:
    """Return what makes a run other than a new one of its own."""
    known: dict[str, object] = {} if job.is_new else {"resumed": True, "kept": len(job.kept)}
    known |= {"foregone": len(job.foregone)} if job.foregone else {}
    return known | ({} if job.record.retried is None else {"retries": job.record.retried})


async def _opened(options: RunOptions, job: Job, report: ReportWriter, world: _World) -> None:
    """Lock the run, open its report, begin or reopen its journal; one that cannot even begin leaves nothing behind."""
    folder = folder_of(options, job.record.run.id)
    left = [effort.standing() for effort in job.efforts if effort.sought or effort.watch or not job.is_new]
    standings = [*left, *(each.standing() for each in job.foregone if each.is_kept or not job.is_new)]
    try:
        make_folder(folder)
        if job.is_new:
            await world.locks.take_run(job.record.run)
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


def _limits(config: Config, options: RunOptions, course: _Course) -> Limits:
    deadline_s = options.deadline_s
    if deadline_s is not None:
        deadline_s = max(0.0, deadline_s - (course.world.fleet.clock.monotonic() - course.began))
    return replace(
        limits_of(config),
        wait=config.wait if options.waits else None,
        recent_s=options.recent_s,
        deadline_s=deadline_s,
        brake=options.brake,
    )


def _progress(fleet: Fleet, recorder: Recorder, job: Job) -> dict[str, object]:
    totals = fleet.totals()
    rate = fleet.rate()
    tally = recorder.tally
    in_doubt, waiting = fleet.in_doubt(), fleet.watched()
    left = max(0, len(job.planned) - tally.outcomes.total() - waiting)
    return {
        "done": tally.outcomes.total(),
        "planned": len(job.planned),
        "failed": tally.failed,
        "in_doubt": in_doubt,
        "waiting": waiting,
        "throttled": sum(each.throttled for each in totals.values()),
        "rate": round(rate, 2),
        "left_s": round(max(left / rate, fleet.next_look_s())) if rate and left else None,
    }
