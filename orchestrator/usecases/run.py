"""The main job: plan, dispatch under a limiter, report. ``run_backups`` is the list of its steps."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import __version__
from orchestrator.engine.dispatch import DispatchEnd, Dispatcher, Limits, Surroundings
from orchestrator.errors import OrchestratorError, UsageError, WriteError
from orchestrator.journal.store import FILE_NAME, Store
from orchestrator.model import ErrorKind, OutcomeKind, Run
from orchestrator.plan import make_plan
from orchestrator.report.write import STANDARD_OUTPUT, ReportWriter, drop_folder, make_folder, write_summary
from orchestrator.summary import Ending, Summary, exit_code
from orchestrator.usecases.alongside import alongside
from orchestrator.usecases.fleet import assembled
from orchestrator.usecases.narration import Recorder, heartbeat

if TYPE_CHECKING:
    from orchestrator.engine.ports import Log
    from orchestrator.engine.stop import StopSwitch
    from orchestrator.model import Config, Outcome, Plan
    from orchestrator.usecases.fleet import Fleet

ABANDON_AFTER_S = 2.0

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Where a run keeps its state and puts its report.

    ``report`` of ``None`` is a file in the run's own folder, ``-`` the descriptor ``stdout_fd``, which is ``None``
    where standard output is closed.
    """

    state_dir: Path
    report: str | None
    stdout_fd: int | None


@dataclass(frozen=True, slots=True)
class RunEnd:
    """What a run came to: its summary, the first failures, and what went wrong with the run itself.

    ``unwritten`` are outcomes that the report did not take because of ``write_error``. ``crash`` is a bug's exception.
    """

    summary: Summary
    first_failures: tuple[Outcome, ...]
    unwritten: tuple[Outcome, ...]
    write_error: WriteError | None
    crash: Exception | None


async def run_backups(config: Config, options: RunOptions, log: Log, stop: StopSwitch) -> RunEnd:
    """Request a backup of every enabled install of ``config``, once, and report every outcome.

    Raises ``UsageError`` if there is nothing to do, ``WriteError`` if the state or the report cannot be begun, and
    ``StoppedError`` if a signal comes before it is; nothing was sent then.
    """
    clock = _SystemClock()
    run, began = Run(new_run_id(), clock.now()), clock.monotonic()
    log = log.bind(run_id=run.id)
    plan = _planned(config, run, log)
    folder = options.state_dir.absolute() / "runs" / run.id
    make_folder(folder)
    target = _target(options, folder)
    async with AsyncExitStack() as stack:
        report = ReportWriter(run.id, target, options.stdout_fd)
        store = Store(options.state_dir.absolute() / FILE_NAME)
        await _opened((store, report), folder, stop, stack)
        await stack.enter_async_context(alongside(_abandon_on_abort(report, stop)))
        recorder = Recorder(report, log)
        log.info("run.started", installs=len(plan.backups), config=config.source, report=target)
        fleet = await assembled(config, plan, store, log, stack)
        dispatcher = Dispatcher(fleet.budgets, _limits(config), Surroundings(recorder, clock, log, stop))
        async with alongside(heartbeat(log, lambda: _progress(fleet, recorder, plan))):
            end = await dispatcher.run()
        summary = Summary(
            run_id=run.id,
            started_at=run.started_at,
            finished_at=clock.now(),
            duration_s=clock.monotonic() - began,
            planned=len(plan.backups),
            disabled=plan.disabled,
            outcomes={kind: recorder.tally.outcomes[kind] for kind in OutcomeKind},
            retries=recorder.tally.retries,
            accounts=fleet.totals(),
            exit_code=exit_code(_ending(end, recorder, stop)),
            config=config.source,
            report=target,
            version=__version__,
        )
        run_end = await _closed(folder, report, summary, recorder, end)
        if not stop.aborting.is_set():
            await fleet.remember(store, clock.now(), log)
        return run_end


def _target(options: RunOptions, folder: Path) -> str:
    if options.report is None:
        return str(folder / "report.jsonl")
    return options.report if options.report == STANDARD_OUTPUT else str(Path(options.report).absolute())


async def _opened(files: tuple[Store, ReportWriter], folder: Path, stop: StopSwitch, stack: AsyncExitStack) -> None:
    """Open state and report; a run that cannot even begin leaves no folder behind, which ``latest`` would find."""
    try:
        for file in files:
            await stop.unless_pressed(stack.enter_async_context(file))
    except OrchestratorError:
        drop_folder(folder)
        raise


async def _abandon_on_abort(report: ReportWriter, stop: StopSwitch) -> None:
    """Let a report whose reader does not read hold up the second signal for no longer than ``ABANDON_AFTER_S``."""
    await stop.aborting.wait()
    await asyncio.sleep(ABANDON_AFTER_S)
    report.abandon()


def new_run_id() -> str:
    """Return a ULID: 48 bits of milliseconds and 80 of chance in Crockford's base 32, so that ids sort by time."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -5, -5))


def _planned(config: Config, run: Run, log: Log) -> Plan:
    plan = make_plan(config, run)
    if not plan.backups:
        message = f"nothing to do: every install in {config.source} has enabled: false"
        raise UsageError(message)
    for warning in plan.warnings:
        log.warning("plan.warning", reason=warning)
    throttle = config.throttle
    if throttle.fixed_rate is not None and throttle.fixed_rate > throttle.ceiling:
        reason = f"the rate {throttle.fixed_rate:g} is held to max_requests_per_second, {throttle.ceiling:g}"
        log.warning("plan.warning", reason=reason)
    return plan


def _limits(config: Config) -> Limits:
    return Limits(config.retry, config.throttle.max_pause_s, config.throttle.give_up_s)


class _SystemClock:
    """The engine's ``Clock``."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def draw(self) -> float:
        return random.random()  # noqa: S311 - jitter, not a secret


def _progress(fleet: Fleet, recorder: Recorder, plan: Plan) -> dict[str, object]:
    totals = fleet.totals()
    rate = fleet.rate()
    left = len(plan.backups) - recorder.tally.outcomes.total()
    return {
        "done": recorder.tally.outcomes.total(),
        "planned": len(plan.backups),
        "failed": recorder.tally.failed,
        "throttled": sum(each.throttled for each in totals.values()),
        "rate": round(rate, 2),
        "left_s": round(left / rate),
    }


def _ending(end: DispatchEnd, recorder: Recorder, stop: StopSwitch) -> Ending:
    return Ending(
        crashed=end.crash is not None,
        unwritten=end.write_error is not None,
        signum=stop.signum if end.interrupted else None,
        credentials_refused=any(why.kind is ErrorKind.CREDENTIALS for why in end.stops.values()),
        failed=recorder.tally.failed,
    )


async def _closed(folder: Path, report: ReportWriter, summary: Summary, recorder: Recorder, end: DispatchEnd) -> RunEnd:
    """Write the summary in both places; failing at either is exit code 4, unless a bug has made it 1."""
    write_error = end.write_error
    unwritten_code = exit_code(Ending(crashed=end.crash is not None, unwritten=True))
    try:
        write_summary(folder, summary)
    except WriteError as error:
        write_error, summary = write_error or error, replace(summary, exit_code=unwritten_code)
    try:
        await report.finish(summary)
    except WriteError as error:
        write_error = write_error or error
        if summary.exit_code != unwritten_code:
            summary = replace(summary, exit_code=unwritten_code)
            with suppress(WriteError):
                write_summary(folder, summary)
    return RunEnd(
        summary=summary,
        first_failures=recorder.tally.first_failures(),
        unwritten=tuple(end.unwritten),
        write_error=write_error,
        crash=end.crash,
    )
