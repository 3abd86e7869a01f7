"""What a run has to do: a new plan, the rest of an interrupted run, or the failures of an earlier one."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.engine.lanes import Doubt, Effort
from orchestrator.errors import UsageError
from orchestrator.journal.runs import RunRecord
from orchestrator.model import ErrorInfo, ErrorKind, Run
from orchestrator.plan import make_plan
from orchestrator.report.read import run_of
from orchestrator.report.write import OWN_REPORT, STANDARD_OUTPUT

if TYPE_CHECKING:
    from datetime import datetime

    from orchestrator.engine.ports import Log
    from orchestrator.model import Config, Plan, PlannedBackup, Standing
    from orchestrator.summary import Line

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

NEVER = ErrorInfo(ErrorKind.STOPPED, "nothing was given up")
CUT_OFF = ErrorInfo(ErrorKind.INTERRUPTED, "the run was cut off before it knew the answer")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Where a run keeps its state and puts its report, and what it goes on with.

    ``report`` of ``None`` is a file in the run's own folder, ``-`` the descriptor ``stdout_fd``, which is ``None``
    where standard output is closed. ``resume`` and ``retry_failed`` name an earlier run.
    """

    state_dir: Path
    report: str | None
    stdout_fd: int | None
    resume: str | None = None
    retry_failed: str | None = None
    lock_wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Job:
    """A run, what is left of it, and what it has already.

    ``planned`` is the whole plan; ``efforts`` are those of it that are still to be requested or looked up. ``kept`` are
    the lines that stand. ``given_up`` are cancelled before anything is sent, for the reason ``why``. ``specimens`` are
    installs by account whose backups are known to exist. ``is_new`` tells that the journal does not know the run yet.
    """

    record: RunRecord
    planned: tuple[PlannedBackup, ...]
    efforts: tuple[Effort, ...]
    kept: tuple[Line, ...] = ()
    given_up: tuple[Effort, ...] = ()
    why: ErrorInfo = NEVER
    specimens: dict[str, str] = field(default_factory=dict)
    is_new: bool = True


def new_job(config: Config, options: RunOptions, now: datetime, log: Log) -> Job:
    """Return the job of a new run of all that ``config`` has enabled. Raises ``UsageError`` if that is nothing."""
    run = Run(new_run_id(), now)
    plan = make_plan(config, run)
    if not plan.backups:
        message = f"nothing to do: every install in {config.source} has enabled: false"
        raise UsageError(message)
    say_warnings(config, plan, log.bind(run_id=run.id))
    record = record_of(config, options, run, plan.disabled)
    return Job(record, plan.backups, tuple(Effort(planned) for planned in plan.backups))


def record_of(config: Config, options: RunOptions, run: Run, disabled: int, retried: str | None = None) -> RunRecord:
    """Return the record of a new run."""
    return RunRecord(
        run=run,
        scope=scope_of(config),
        config=config.source,
        report=target_of(options, folder_of(options, run.id) / OWN_REPORT),
        accounts={name: account.base_url for name, account in config.accounts.items()},
        disabled=disabled,
        retried=retried,
    )


def target_of(options: RunOptions, default: Path | str) -> str:
    """Return where the report goes: to ``default`` if the options do not say."""
    if options.report is None:
        return str(default)
    return options.report if options.report == STANDARD_OUTPUT else str(Path(options.report).absolute())


def folder_of(options: RunOptions, run_id: str) -> Path:
    """Return the folder of a run."""
    return options.state_dir.absolute() / "runs" / run_id


def scope_of(config: Config) -> str:
    """Return the name of what only one run at a time may do: where the configuration is, or what it is, without a file.

    One that came over standard input is known by its installs.
    """
    if Path(config.source).is_file():
        return str(Path(config.source).resolve())
    ids = " ".join(sorted(install.id or install.label for install in config.installs))
    return f"{config.source} {hashlib.sha256(ids.encode()).hexdigest()[:16]}"


def new_run_id() -> str:
    """Return a ULID: 48 bits of milliseconds and 80 of chance in Crockford's base 32, so that ids sort by time."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -5, -5))


def say_warnings(config: Config, plan: Plan, log: Log) -> None:
    """Warn of what the plan has to say."""
    for warning in plan.warnings:
        log.warning("plan.warning", reason=warning)
    throttle = config.throttle
    if throttle.fixed_rate is not None and throttle.fixed_rate > throttle.ceiling:
        reason = f"the rate {throttle.fixed_rate:g} is held to max_requests_per_second, {throttle.ceiling:g}"
        log.warning("plan.warning", reason=reason)


def gone_since(retried: str) -> ErrorInfo:
    """Return why an install that failed in ``retried`` is not retried."""
    reason = "had it no longer enabled when this run began; --retry-failed asks again"
    return ErrorInfo(ErrorKind.STOPPED, f"it failed in {retried}, and the configuration {reason}")


def report_of(record: RunRecord, state_dir: Path) -> str:
    """Return where the report of a run goes: if that is its own folder, where that is now.

    If another run has put its report there meanwhile, it is the run's own folder, too.
    """
    own = state_dir.absolute() / "runs" / record.run.id / OWN_REPORT
    is_own = Path(record.report).parts[-2:] == own.parts[-2:]
    is_taken = record.report != STANDARD_OUTPUT and run_of(Path(record.report)) not in {None, record.run.id}
    return str(own) if is_own or is_taken else record.report


def effort_in_doubt(standing: Standing) -> Effort:
    """Return the effort that goes on from ``standing``, whose fate is open since another process.

    The grace begins now, unless the server's clock shows that its answer came longer ago. Of one without an answer
    nobody knows when it left: its intent may have waited for the disk, or the machine been suspended.
    """
    is_unanswered = standing.error is None
    spent = standing.spent
    return Effort(
        planned=standing.planned,
        tries=spent.tries + is_unanswered,
        attempts=spent.attempts + is_unanswered,
        throttled=spent.throttled,
        started_at=spent.started_at,
        sought=standing.sought,
        sent_at=standing.sent_at,
        described=standing.described,
        doubt=Doubt(
            error=standing.error or CUT_OFF,
            since=asyncio.get_running_loop().time(),
            may_repeat=standing.may_repeat,
            server_since=standing.open_since,
            is_inherited=True,
        ),
        is_resumed=True,
    )
