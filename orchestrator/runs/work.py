"""What a run has to do: a new plan, the rest of an interrupted run, or the failures of an earlier one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.engine.pending import CompletionWait, InDoubt, PendingBackup, RecencyCheck
from orchestrator.errors import UsageError
from orchestrator.journal import recent as journal_recent
from orchestrator.journal.runs import RunRecord
from orchestrator.model import ErrorInfo, ErrorKind, Made, OutcomeKind, Run
from orchestrator.plan import make_plan
from orchestrator.report.read import run_of
from orchestrator.report.write import OWN_REPORT, STANDARD_OUTPUT
from orchestrator.runs.scopes import Scopes, part_of
from orchestrator.selection import Selected, Selection, check_values, selected
from orchestrator.session.inventory import MOST_SAID, empty_lines, missing_from, say_sources, told

if TYPE_CHECKING:
    from orchestrator.engine.ports import Clock, Log
    from orchestrator.journal.store import Store
    from orchestrator.listings import EmptySource
    from orchestrator.model import Backup, Checkpoint, Config, FailedSource, Install, Plan, PlannedBackup
    from orchestrator.session.inventory import Inventory, Lack
    from orchestrator.summary import FailureLimit, Line

NOT_IN_THE_PLAN = "--installs-from"
"""The place of what only a list names: nothing in the configuration does, so it is never looked up."""

CUT_OFF = ErrorInfo(ErrorKind.INTERRUPTED, "the run was cut off before it knew the answer")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Where a run keeps its state and puts its report, what it is about, and what it goes on with.

    ``report`` of ``None`` is a file in the run's own folder, ``-`` the descriptor ``stdout_fd``, which is ``None``
    where standard output is closed. ``resume`` and ``retry_failed`` name an earlier run. ``description`` and ``emails``
    stand in for what the configuration says. With ``strict``, whatever cannot be resolved ends the run before anything
    is sent. ``waits`` tells that accepted backups are waited for. ``recent_s`` is how old a completed backup may be
    that makes another needless. Requests end ``deadline_s`` seconds after the run began, or when ``failure_limit`` has seen
    enough.
    """

    state_dir: Path
    report: str | None
    stdout_fd: int | None
    resume: str | None = None
    retry_failed: str | None = None
    lock_wait_s: float = 0.0
    selection: Selection = field(default_factory=Selection)
    description: str | None = None
    emails: tuple[str, ...] | None = None
    strict: bool = False
    waits: bool = False
    recent_s: float | None = None
    deadline_s: float | None = None
    failure_limit: FailureLimit | None = None

    @property
    def is_new(self) -> bool:
        """Tell whether the run goes on with nothing."""
        return self.resume is None and self.retry_failed is None


@dataclass(frozen=True, slots=True)
class Presettled:
    """A planned backup whose outcome is known before anything is sent, and why."""

    pending: PendingBackup
    kind: OutcomeKind
    error: ErrorInfo | None = None
    reason: str | None = None

    @property
    def is_kept(self) -> bool:
        """Tell whether the journal has to know how it stands: a backup of it exists, or may."""
        return bool(self.pending.sought or self.pending.watch)

    def checkpoint(self) -> Checkpoint:
        """Return how it stands, for the journal: somebody else's backup is none that was made for it."""
        checkpoint = self.pending.checkpoint()
        return replace(checkpoint, made=Made()) if self.kind is OutcomeKind.SKIPPED else checkpoint

    def settled(self) -> tuple[PendingBackup, OutcomeKind, ErrorInfo | None, str | None]:
        """Return what the dispatcher is to record."""
        return self.pending, self.kind, self.error, self.reason


@dataclass(frozen=True, slots=True)
class RunWork:
    """A run, what is left of it, and what it has already.

    ``planned`` is the whole plan; ``pending`` are those of it that are still to be requested, looked up or waited for.
    ``kept`` are the lines that stand. ``presettled`` are settled before anything is sent. ``specimens`` are
    installs by account whose backups are known to exist. ``is_new`` tells that the journal does not know the run yet.
    """

    record: RunRecord
    planned: tuple[PlannedBackup, ...]
    pending: tuple[PendingBackup, ...]
    kept: tuple[Line, ...] = ()
    presettled: tuple[Presettled, ...] = ()
    specimens: dict[str, str] = field(default_factory=dict)
    is_new: bool = True


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """The plan of a new run, and what of it cannot be requested."""

    plan: Plan
    presettled: dict[int, Presettled]
    failed: tuple[FailedSource, ...]
    empty: tuple[EmptySource, ...]


@dataclass(frozen=True, slots=True)
class Meant:
    """The installs that are meant. ``lacks`` says of those without an id how they end.

    ``unknown`` are the entries of a list that are not in the plan, each with why; they are among ``installs``, too.
    """

    installs: tuple[Install, ...] = ()
    lacks: dict[Install, Lack] = field(default_factory=dict)
    unknown: tuple[tuple[str, str], ...] = ()
    disabled: int = 0


def watch_of_earlier(backup: Backup, wait_s: float | None) -> CompletionWait:
    """Return the watch of a backup that an earlier run made: it is polled, once without ``wait_s``, never repeated."""
    until = asyncio.get_running_loop().time() + (wait_s or 0.0)
    return CompletionWait(backup, until, may_repeat=False, is_polled_once=wait_s is None)


def meant(config: Config, selection: Selection, inventory: Inventory) -> Meant:
    """Return the installs of ``inventory`` that ``selection`` means; none where they may be in a source that failed.

    Raises ``UsageError`` if nothing is meant, or an install that was named is not there.
    """
    if not inventory.failed:
        check_values(inventory.installs, selection)
    try:
        chosen = selected(inventory.installs, selection)
    except UsageError as error:
        if not inventory.failed:
            raise
        if selection.is_named:
            unread = "\n".join(["", *inventory.unresolved({})])
            message = f"{error}{unread}"
            raise UsageError(message) from None
        words = dict(selection.listed or ())
        chosen = Selected((), tuple((word, f"is not in the plan ({place})") for word, place in words.items()))
    strangers = {
        replace(config.discovered, name=word, place=NOT_IN_THE_PLAN): end_of_stranger(why, inventory)
        for word, why in chosen.unknown
    }
    return Meant((*chosen.installs, *strangers), inventory.lacks | strangers, chosen.unknown, chosen.disabled)


def end_of_stranger(why: str, inventory: Inventory) -> Lack:
    """Return how an entry of a list ends that is not in the plan: it may be in a source that could not be read."""
    if inventory.failed:
        source = inventory.failed[0]
        message = f"{why}; it may be in what could not be read: {source.source}: {source.error.message}"
        return OutcomeKind.CANCELLED, replace(source.error, message=message)
    return OutcomeKind.REJECTED, ErrorInfo(ErrorKind.NOT_FOUND, why)


def planned_run(config: Config, options: RunOptions, inventory: Inventory, run: Run) -> PlannedRun:
    """Return the plan of what the options mean.

    Raises ``UsageError`` if that is nothing, or if it is not certain and has to be.
    """
    chosen = meant(config, options.selection, inventory)
    if options.strict:
        lacking = {install: chosen.lacks[install] for install in chosen.installs if install in chosen.lacks}
        check_resolved([*empty_lines(config), *inventory.renamed, *inventory.unresolved(lacking)])
    installs = tuple(for_this_run(each, options) for each in chosen.installs)
    lacks = {for_this_run(each, options): lack for each, lack in chosen.lacks.items()}
    failed = missing_from(options.selection, inventory)
    beside = inventory.failed if options.selection.is_named else []
    aside = [f"{each.source}: {each.error.message}" for each in beside[:MOST_SAID] if each.path]
    plan = make_plan(replace(config, installs=installs), run)
    plan = replace(
        plan,
        disabled=chosen.disabled,
        warnings=(*aside, *inventory.warnings, *inventory.renamed, *plan.warnings),
    )
    presettled = {
        each.position: Presettled(PendingBackup(each), *lacks[each.install])
        for each in plan.backups
        if each.install in lacks
    }
    empty = () if options.selection.is_named else config.empty_sources
    return PlannedRun(plan, presettled, failed, empty)


def check_resolved(unresolved: list[str]) -> None:
    """Raise ``UsageError`` if anything is ``unresolved``."""
    if unresolved:
        raise UsageError("\n".join([*unresolved, "nothing was sent, by --strict"]))


def for_this_run(install: Install, options: RunOptions) -> Install:
    """Return ``install`` with what the options put in the place of the configuration's words."""
    changes: dict[str, object] = {}
    if options.description is not None:
        changes["description"] = options.description
    if options.emails is not None:
        changes["notification_emails"] = options.emails
    return replace(install, **changes) if changes else install  # type: ignore[arg-type]  # both are of their fields' types


def new_work(config: Config, options: RunOptions, planned: PlannedRun, log: Log) -> RunWork:
    """Return the job of a new run."""
    plan = planned.plan
    say_warnings(config, plan, log.bind(run_id=plan.run.id))
    scope = Scopes(config).now(part_of(options.selection))
    record = replace(
        record_of(config, options, Beginning(plan.run, str(scope), plan.disabled)),
        is_part=options.selection.is_given,
        selection=options.selection.told(),
        failed_sources=told(planned.failed),
        empty_sources=told(planned.empty),
    )
    say_sources(record.failed_sources, record.empty_sources, log.bind(run_id=plan.run.id))
    return RunWork(
        record=record,
        planned=plan.backups,
        pending=tuple(PendingBackup(each) for each in plan.backups if each.position not in planned.presettled),
        presettled=tuple(planned.presettled.values()),
    )


async def have_screened(config: Config, options: RunOptions, work: RunWork, store: Store, clock: Clock) -> None:
    """Have each install of ``work`` that is to be requested screened first, with what the journal knows of it.

    Raises ``StorageError``.
    """
    if options.recent_s is None:
        return
    known = await journal_recent.completed_since(store, clock.now().timestamp() - options.recent_s)
    for pending in work.pending:
        if pending.is_to_be_requested and not pending.made.is_second:
            base_url = config.accounts[pending.planned.install.account].base_url
            pending.screen = RecencyCheck(known.get((base_url, pending.planned.request.install_id)))


@dataclass(frozen=True, slots=True)
class Beginning:
    """What distinguishes a new run from others of the same configuration."""

    run: Run
    scope: str
    disabled: int = 0
    retried: str | None = None


def record_of(config: Config, options: RunOptions, beginning: Beginning) -> RunRecord:
    """Return the record of a new run."""
    run = beginning.run
    return RunRecord(
        run=run,
        scope=beginning.scope,
        config=config.source,
        report=target_of(options, own_report(options.state_dir, run.id)),
        accounts={name: account.base_url for name, account in config.accounts.items()},
        disabled=beginning.disabled,
        retried=beginning.retried,
    )


def target_of(options: RunOptions, default: Path | str) -> str:
    """Return where the report goes: to ``default`` if the options do not say."""
    if options.report is None:
        return str(default)
    return options.report if options.report == STANDARD_OUTPUT else str(Path(options.report).absolute())


def folder_of(options: RunOptions, run_id: str) -> Path:
    """Return the folder of a run."""
    return options.state_dir.absolute() / "runs" / run_id


def own_report(state_dir: Path, run_id: str) -> Path:
    """Return where the report of a run goes if nobody says otherwise."""
    return state_dir.absolute() / "runs" / run_id / OWN_REPORT


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
    own = own_report(state_dir, record.run.id)
    is_own = Path(record.report).parts[-2:] == own.parts[-2:]
    is_taken = record.report != STANDARD_OUTPUT and run_of(Path(record.report)) not in {None, record.run.id}
    return str(own) if is_own or is_taken else record.report


def pending_in_doubt(checkpoint: Checkpoint) -> PendingBackup:
    """Return the effort that goes on from ``checkpoint``, whose fate is open since another process.

    The grace begins now, unless the server's clock shows that its answer came longer ago. Of one without an answer
    nobody knows when it left: its intent may have waited for the disk, or the machine been suspended.
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
        doubt=InDoubt(
            error=checkpoint.error or CUT_OFF,
            since=asyncio.get_running_loop().time(),
            may_repeat=checkpoint.may_repeat,
            server_since=checkpoint.open_since,
            is_inherited=True,
        ),
        is_resumed=True,
    )
