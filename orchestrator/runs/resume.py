"""The rest of an interrupted run: keep known outcomes, look up backups in doubt, and request the others."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.engine.pending import CompletionWait, PendingBackup
from orchestrator.errors import UsageError
from orchestrator.journal.runs import find, in_report_order, load
from orchestrator.marker import described_again, second
from orchestrator.model import Backup, Checkpoint, ErrorInfo, ErrorKind, OutcomeKind, PlannedBackup
from orchestrator.plan import differences, make_plan
from orchestrator.runs.work import Presettled, RunWork, divided, gone_since, pending_in_doubt, wait_for_earlier
from orchestrator.session.choice import NOT_IN_THE_PLAN
from orchestrator.session.inventory import Inventory, looked_up, names_of, read_listing, say_sources
from orchestrator.session.queries import asked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from orchestrator.engine.ports import Log
    from orchestrator.journal.runs import KnownRun, RunRecord, StoredBackup
    from orchestrator.model import Config, Install
    from orchestrator.policies import WaitPolicy
    from orchestrator.runs.context import RunContext
    from orchestrator.session.queries import Queries

_GOES_ON = {OutcomeKind.CANCELLED, OutcomeKind.UNCONFIRMED}


@dataclass(frozen=True, slots=True)
class Left:
    """An earlier run that this process has locked, its stored backups, and those ``left`` to work on."""

    record: RunRecord
    stored: list[StoredBackup]
    left: list[StoredBackup]

    def nameless(self) -> list[str]:
        """Return the accounts whose listings are needed, because names could not be looked up in the earlier run."""
        installs = (each.planned.install for each in self.left)
        return sorted({each.account for each in installs if _is_to_be_looked_up(each)})


async def resumed_work(context: RunContext, run: KnownRun) -> RunWork:
    """Lock ``run``, then return the rest of it.

    Raises ``UsageError``, ``LockedError``, ``StorageError``, and ``StoppedError`` if a signal comes first.
    """
    await context.locks.take_run(run.id)
    if not context.scopes.has(run):
        reason = f"the run was made with {run.config}, not with {context.config.source}: check -c"
        context.log.warning("resume.config_changed", run_id=run.id, reason=reason)
    left = await context.stop.unless_pressed(_what_is_left(context, run))
    inventory = await _listings_of(context, left.nameless())
    return _rest(context, left, inventory)


async def _what_is_left(context: RunContext, run: KnownRun) -> Left:
    record = await find(context.store, run.id, context.where())
    context.locks.tell(record.run)
    stored = await load(context.store, run.id)
    goes_on = _GOES_ON | ({OutcomeKind.INCOMPLETE} if context.options.waits else set())
    left = [each for each in stored if each.line is None or each.line.kind in goes_on]
    names = {each.planned.install.account for each in left if each.planned.install.enabled}
    check_accounts(context.config, record, names)
    return Left(record, stored, left)


async def _listings_of(context: RunContext, accounts: list[str]) -> Inventory:
    """Return an inventory that has only the listings of ``accounts``."""
    inventory = Inventory()

    async def read_listings(queries: Queries) -> None:
        for account in accounts:
            await read_listing(inventory, account, queries)

    if accounts:
        await asked(context.connections, accounts, read_listings, context.stop, context.persistence)
    return inventory


def _rest(context: RunContext, left: Left, inventory: Inventory) -> RunWork:
    """Return the run work for ``left``. Names get their ids from the listings of ``inventory``."""
    record, config = left.record, context.config
    log = context.log.bind(run_id=record.run.id)
    _say_differences(config, record, left.stored, log)
    others = {each.planned.request.install_id: each.planned.install.label for each in left.stored}
    found = {each.planned.position: _with_id(config, record, each, inventory, others) for each in left.left}
    done = [each for each in left.stored if each.planned.position not in found]
    wait = config.wait if context.options.waits else None
    works = (_unless_settled(_pending(record, each, wait), each, record, inventory) for each in found.values())
    pending, presettled = divided(works)
    report = context.options.report_or(context.folder.report_of(record))
    record = replace(record, report=report, failed_sources=tuple(_still_failed(record, inventory)))
    say_sources(record.failed_sources, record.empty_sources, log)
    return RunWork(
        record=record,
        planned=tuple(found.get(each.planned.position, each).planned for each in left.stored),
        pending=pending,
        presettled=presettled,
        recorded=tuple(in_report_order(done)),
        specimens={
            each.planned.install.account: each.planned.request.install_id
            for each in reversed(done)
            if each.line and each.line.kind in {OutcomeKind.ACCEPTED, OutcomeKind.COMPLETED}
        },
        is_new=False,
    )


def _unless_settled(
    pending: PendingBackup, stored: StoredBackup, record: RunRecord, inventory: Inventory
) -> PendingBackup | Presettled:
    """Return ``pending``, or its outcome if no request is to be made."""
    install = pending.planned.install
    if install in inventory.lacks:
        return Presettled(pending, *inventory.lacks[install])
    if install.place == NOT_IN_THE_PLAN:
        return Presettled(pending, *_end_of_stranger(stored))
    if not install.enabled:
        return Presettled(pending, OutcomeKind.CANCELLED, gone_since(record.retried or ""))
    if pending.made.backup and not isinstance(pending.state, CompletionWait):
        return Presettled(pending, OutcomeKind.ACCEPTED)
    return pending


def _is_to_be_looked_up(install: Install) -> bool:
    return install.id is None and install.enabled and install.place != NOT_IN_THE_PLAN


def _with_id(
    config: Config, record: RunRecord, stored: StoredBackup, inventory: Inventory, others: dict[str, str]
) -> StoredBackup:
    """Return ``stored`` with the id and other details that a listing shows now.

    ``others`` are the labels of the run's installs by id. An install that is already among them ends as cancelled.
    """
    planned = stored.planned
    if not _is_to_be_looked_up(planned.install):
        return stored
    install = looked_up(planned.install, inventory)
    if install.id is None:
        return stored
    if install.id in others:
        message = f"it is the same install as {others[install.id]}, which is already in this run"
        inventory.lacks[planned.install] = (OutcomeKind.CANCELLED, ErrorInfo(ErrorKind.STOPPED, message))
        return stored
    (rendered,) = make_plan(replace(config, installs=(install,)), record.run).backups
    return replace(stored, planned=replace(planned, install=install, request=rendered.request))


def _end_of_stranger(stored: StoredBackup) -> tuple[OutcomeKind, ErrorInfo]:
    """Return the outcome of a list entry that is not in the plan, as in the earlier part of the run."""
    if stored.line and stored.line.kind is OutcomeKind.CANCELLED:
        message = (stored.line.fields()["error"] or {}).get("message") or "it is not in the plan"
        return OutcomeKind.CANCELLED, ErrorInfo(ErrorKind.STOPPED, message)
    return OutcomeKind.REJECTED, ErrorInfo(ErrorKind.NOT_FOUND, "is not in the plan")


def _still_failed(record: RunRecord, inventory: Inventory) -> Iterator[dict[str, Any]]:
    """Yield the failed sources that still count as failed.

    Names of an account no longer fail once its listing is read. The exception is a run of only a part of the
    configuration: nobody knows which other names were meant.
    """
    for source in record.failed_sources:
        is_of_names = source["source"] == names_of(source["account"])
        listing = inventory.listings.get(source["account"])
        if record.is_part or not is_of_names or listing is None or isinstance(listing, ErrorInfo):
            yield source


def _pending(record: RunRecord, stored: StoredBackup, policy: WaitPolicy | None) -> PendingBackup:
    """Return the pending backup for ``stored``: in doubt, waited for with ``policy``, or to be requested."""
    run_id = record.run.id
    checkpoint = stored.checkpoint or Checkpoint(stored.planned)
    checkpoint = replace(checkpoint, planned=_planned(stored.planned, checkpoint, run_id))
    kind = stored.line.kind if stored.line else None
    name = second(run_id) if checkpoint.made.is_second else run_id
    sought = checkpoint.sought or ((name,) if kind is OutcomeKind.UNCONFIRMED else ())
    if sought:
        return pending_in_doubt(replace(checkpoint, sought=sought))
    spent, made = checkpoint.spent, checkpoint.made
    pending = PendingBackup(
        checkpoint.planned, spent.tries, spent.attempts, spent.throttled, spent.started_at, made=made
    )
    pending.is_resumed = spent.started_at is not None
    backup = made.backup or (_shown(stored) if kind is OutcomeKind.INCOMPLETE else None)
    if made.backup and record.retried is not None and spent.started_at is None:
        pending.state = wait_for_earlier(made.backup, policy.timeout_s if policy else None)
    elif backup and policy:
        until = asyncio.get_running_loop().time() + policy.timeout_s
        may_repeat = policy.retry_aborted and not made.is_second
        pending.state = CompletionWait(backup, until, is_own=made.backup is not None, may_repeat=may_repeat)
    return pending


def _planned(planned: PlannedBackup, checkpoint: Checkpoint, run_id: str) -> PlannedBackup:
    """Return the planned backup to request next. After an aborted backup, its description has another marker."""
    if not checkpoint.made.is_second:
        return planned
    description = described_again(planned.request.description, run_id)
    return replace(planned, request=replace(planned.request, description=description))


def _shown(stored: StoredBackup) -> Backup | None:
    """Return the backup in the line of the outcome, if any."""
    fields = stored.line.fields()["backup"] if stored.line else None
    return Backup(**fields) if fields else None


def check_accounts(
    config: Config,
    record: RunRecord,
    names: Iterable[str],
    cannot: str = "cannot be resumed",
    remedy: str = "begin a new run",
) -> None:
    """Raise ``UsageError`` if an account is gone or has another base URL than in the run.

    A listing at another base URL proves nothing about the backups of the run.
    """
    for name in sorted(names):
        account = config.accounts.get(name)
        if account is None:
            message = f"run {record.run.id} {cannot}: the account {name} is no longer in {config.source}"
            raise UsageError(message)
        if account.base_url != record.accounts.get(name):
            message = (
                f"run {record.run.id} {cannot}: the account {name} was at {record.accounts.get(name)} and is now"
                f" at {account.base_url}; {remedy}"
            )
            raise UsageError(message)


def _say_differences(config: Config, record: RunRecord, stored: list[StoredBackup], log: Log) -> None:
    """Warn of differences between the configuration and the plan.

    This skips retries, selections and configurations with discoveries: their plans differ anyway.
    """
    if record.retried is not None or record.is_part or config.discoveries:
        return
    ids = {(each.planned.install.account, each.planned.install.name): each.planned.install.id for each in stored}
    installs = tuple(
        install if install.id else replace(install, id=ids.get((install.account, install.name)))
        for install in config.installs
    )
    now = make_plan(replace(config, installs=installs), record.run).backups
    for reason in differences([each.planned for each in stored], now):
        log.warning("resume.config_changed", reason=reason)
