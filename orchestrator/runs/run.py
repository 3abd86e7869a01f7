"""The main job: plan, dispatch under a limiter, report. ``run_backups`` is the list of its steps."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from orchestrator.engine.context import RunContext, RunLimits
from orchestrator.engine.dispatch import Dispatcher
from orchestrator.errors import OrchestratorError, StorageError
from orchestrator.journal import runs
from orchestrator.journal.locks import HeldLock, Patience, locked, run_lock, scope_lock
from orchestrator.journal.store import FILE_NAME, Store
from orchestrator.model import OutcomeKind, Run
from orchestrator.report.write import ReportWriter, drop_old_report, drop_run, make_folder
from orchestrator.run_names import LATEST
from orchestrator.runs.failures import failures_of
from orchestrator.runs.finish import Places, Totals, closed, removed_old_runs
from orchestrator.runs.recorder import Recorder
from orchestrator.runs.resume import resumed_work, run_to_resume, what_is_left
from orchestrator.runs.retry import needs_listing, retried_work
from orchestrator.runs.scopes import Scopes, part_of
from orchestrator.runs.work import (
    RunOptions,
    RunWork,
    folder_of,
    have_screened,
    new_work,
    own_report,
    planned_run,
)
from orchestrator.selection import Selection
from orchestrator.session.alongside import alongside
from orchestrator.session.clock import SYSTEM_CLOCK, new_run
from orchestrator.session.connections import Connections
from orchestrator.session.inventory import Inventory, asked_accounts, inventory_of, offline, read_listing
from orchestrator.session.narration import heartbeat
from orchestrator.session.queries import Persistence, asked, limits_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.engine.ports import Clock, Log
    from orchestrator.engine.stop import StopSwitch
    from orchestrator.model import Config, Outcome
    from orchestrator.runs.scopes import Scope
    from orchestrator.session.queries import Queries
    from orchestrator.summary import Summary

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
    write_error: StorageError | None
    crash: Exception | None


async def run_backups(
    config: Config, options: RunOptions, log: Log, stop: StopSwitch, clock: Clock = SYSTEM_CLOCK
) -> RunEnd:
    """Request a backup of every install that the options mean, once, and report every outcome.

    Raises ``UsageError`` if there is nothing to do, ``StorageError`` if the state or the report cannot be begun,
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
        world = _World(store, log, stop, stack, Connections(config, store, log, stack, clock), locks)
        if not is_scope_known:
            record = await run_to_resume(config, options, store)
            await locks.take_scopes(Scopes(config).to_lock_for(record), record.config, record.run)
        work = await _job(config, options, world) if new is None else new
        await have_screened(config, options, work, world.store, clock)
        return await _carried_out(config, options, work, _Course(world, began))


def _planned_offline(config: Config, options: RunOptions, log: Log, clock: Clock) -> RunWork | None:
    """Return the job of a new run whose plan needs no listing, so that a mistake is told of before anything is made."""
    if asked_accounts(config, options.selection):
        return None
    return new_work(config, options, planned_run(config, options, offline(config), new_run(clock)), log)


async def _job(config: Config, options: RunOptions, world: _World) -> RunWork:
    """Return what is to be done, with what listings show."""
    if options.is_new:
        run = new_run(world.connections.clock)
        inventory = await inventory_of(
            config, options.selection, world.connections, world.stop, Persistence(options.deadline_s)
        )
        return new_work(config, options, planned_run(config, options, inventory, run), world.log)
    if options.resume is None:
        failures = await world.stop.unless_pressed(failures_of(config, options, world.store, world.log))
        asking = (world.connections, world.stop, Persistence(options.deadline_s))
        if needs_listing(config, failures):
            inventory = await inventory_of(config, Selection(), *asking)
        elif failures.reads_again:
            inventory = await inventory_of(config, failures.selection or Selection(), *asking)
        else:
            inventory = offline(config)
        return retried_work(config, options, failures, inventory, world.connections)
    return await _resumed(config, options, world)


async def _resumed(config: Config, options: RunOptions, world: _World) -> RunWork:
    """Return the rest of a run, which is locked before it is looked at."""
    stop, inventory = world.stop, Inventory()
    record = await run_to_resume(config, options, world.store)
    await world.locks.take_run(record.run)
    left = await stop.unless_pressed(what_is_left(config, options, record.run.id, world.store))

    async def read_listings(queries: Queries) -> None:
        for account in left.nameless():
            await read_listing(inventory, account, queries)

    if left.nameless():
        await asked(world.connections, left.nameless(), read_listings, stop, Persistence(options.deadline_s))
    return resumed_work(config, options, left, inventory, world.log)


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
    connections: Connections
    locks: _Locks


@dataclass(frozen=True, slots=True)
class _Course:
    """The world of a run, and the monotonic instant at which the command began it."""

    world: _World
    began: float


async def _carried_out(config: Config, options: RunOptions, work: RunWork, course: _Course) -> RunEnd:
    world, clock, run = course.world, course.world.connections.clock, work.record.run
    connections, log = world.connections, world.log.bind(run_id=run.id)
    is_own = work.record.report == str(own_report(options.state_dir, run.id))
    kept = b"".join(line.data for line in work.kept)
    report = ReportWriter(work.record.report, options.stdout_fd, kept, is_private=is_own)
    await _opened(options, work, report, world)
    await world.stack.enter_async_context(alongside(_abandon_on_abort(report, world.stop)))
    recorder = Recorder(run.id, world.store, report, log)
    recorder.has(work.kept)
    log.info(
        "run.started", installs=len(work.pending), **_known_of(work), config=config.source, report=work.record.report
    )
    stopped = await connections.take_on(work)
    context = RunContext(run.id, recorder, recorder, clock, log, world.stop)
    dispatcher = Dispatcher(connections.budgets, _limits(config, options, course), context)
    async with alongside(heartbeat(log, lambda: _progress(connections, recorder, work))):
        await dispatcher.presettle(each.settled() for each in work.presettled)
        await dispatcher.presettle((pending, OutcomeKind.CANCELLED, why, None) for pending, why in stopped)
        end = await dispatcher.run()
        await recorder.drain()
    totals = Totals(work, recorder.tally, connections.totals(), clock.now(), clock.monotonic() - course.began)
    places = Places(world.store, folder_of(options, run.id), report)
    summary, write_error = await closed(places, totals, end, world.stop.signum)
    if not world.stop.aborting.is_set():
        await connections.remember()
        await removed_old_runs(config, options, work.record, world.store, log)
    kinds = recorder.tally.outcomes
    given_up = sum(not each.pending.planned.install.enabled for each in work.presettled)
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


def _known_of(work: RunWork) -> dict[str, object]:
    """Return what makes a run other than a new one of its own."""
    known: dict[str, object] = {} if work.is_new else {"resumed": True, "kept": len(work.kept)}
    known |= {"foregone": len(work.presettled)} if work.presettled else {}
    return known | ({} if work.record.retried is None else {"retries": work.record.retried})


async def _opened(options: RunOptions, work: RunWork, report: ReportWriter, world: _World) -> None:
    """Lock the run, open its report, begin or reopen its journal; one that cannot even begin leaves nothing behind."""
    folder = folder_of(options, work.record.run.id)
    left = [pending.checkpoint() for pending in work.pending if pending.sought or pending.watch or not work.is_new]
    checkpoints = [*left, *(each.checkpoint() for each in work.presettled if each.is_kept or not work.is_new)]
    try:
        make_folder(folder)
        if work.is_new:
            await world.locks.take_run(work.record.run)
        await world.stop.unless_pressed(world.stack.enter_async_context(report))
        if work.is_new:
            await runs.begin(world.store, work.record, work.planned, checkpoints)
        else:
            await runs.reopen(world.store, work.record, checkpoints)
            drop_old_report(folder, work.record.report)
    except OrchestratorError:
        if work.is_new:
            drop_run(folder)
        raise


async def _abandon_on_abort(report: ReportWriter, stop: StopSwitch) -> None:
    """Let a report whose reader does not read hold up the second signal for no longer than ``ABANDON_AFTER_S``."""
    await stop.aborting.wait()
    while report.stuck_s() < ABANDON_AFTER_S:  # noqa: ASYNC110 - what is waited for happens in a thread that is stuck
        await asyncio.sleep(ABANDON_POLL_S)
    report.abandon()


def _limits(config: Config, options: RunOptions, course: _Course) -> RunLimits:
    deadline_s = options.deadline_s
    if deadline_s is not None:
        deadline_s = max(0.0, deadline_s - (course.world.connections.clock.monotonic() - course.began))
    return replace(
        limits_of(config),
        wait=config.wait if options.waits else None,
        recent_s=options.recent_s,
        deadline_s=deadline_s,
        failure_limit=options.failure_limit,
    )


def _progress(connections: Connections, recorder: Recorder, work: RunWork) -> dict[str, object]:
    totals = connections.totals()
    rate = connections.rate()
    tally = recorder.tally
    in_doubt, waiting = connections.in_doubt(), connections.watched()
    left = max(0, len(work.planned) - tally.outcomes.total() - waiting)
    return {
        "done": tally.outcomes.total(),
        "planned": len(work.planned),
        "failed": tally.failed,
        "in_doubt": in_doubt,
        "waiting": waiting,
        "throttled": sum(each.throttled for each in totals.values()),
        "rate": round(rate, 2),
        "left_s": round(max(left / rate, connections.next_look_s())) if rate and left else None,
    }
