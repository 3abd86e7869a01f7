"""The rest of an interrupted run: what is known stays, what is open is looked up, what was not tried is requested."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.engine.lanes import Effort
from orchestrator.errors import UsageError
from orchestrator.journal.runs import find, load
from orchestrator.model import OutcomeKind, Standing
from orchestrator.plan import differences, make_plan
from orchestrator.usecases.jobs import Job, RunOptions, effort_in_doubt, gone_since, report_of, scope_of, target_of

if TYPE_CHECKING:
    from orchestrator.engine.ports import Log
    from orchestrator.journal.runs import RunRecord, StoredBackup
    from orchestrator.journal.store import Store
    from orchestrator.model import Config

_GOES_ON = {OutcomeKind.CANCELLED, OutcomeKind.UNCONFIRMED}


async def run_to_resume(config: Config, options: RunOptions, store: Store) -> RunRecord:
    """Return the run that the options name. Raises ``UsageError`` and ``WriteError``."""
    return await find(store, options.resume or "", f"in {options.state_dir}", scope_of(config))


async def resumed_job(config: Config, options: RunOptions, run_id: str, store: Store, log: Log) -> Job:
    """Return what is left of a run that nobody else is at. Raises ``UsageError`` and ``WriteError``."""
    log = log.bind(run_id=run_id)
    record = await find(store, run_id, f"in {options.state_dir}")
    stored = await load(store, record.run.id)
    open_ones = [each for each in stored if each.line is None or each.line.kind in _GOES_ON]
    left = [each for each in open_ones if each.planned.install.enabled]
    _check_accounts(config, record, left)
    _say_differences(config, record, stored, log)
    done = [(each.planned, each.line) for each in stored if each.line and each.line.kind not in _GOES_ON]
    return Job(
        record=replace(record, report=target_of(options, report_of(record, options.state_dir))),
        planned=tuple(each.planned for each in stored),
        efforts=tuple(_effort(record.run.id, each) for each in left),
        given_up=tuple(_effort(record.run.id, each) for each in open_ones if not each.planned.install.enabled),
        why=gone_since(record.retried or ""),
        kept=tuple(line for _, line in done),
        specimens={
            each.install.account: each.request.install_id
            for each, line in reversed(done)
            if line.kind is OutcomeKind.ACCEPTED
        },
        is_new=False,
    )


def _effort(run_id: str, stored: StoredBackup) -> Effort:
    standing = stored.standing or Standing(stored.planned)
    is_unconfirmed = stored.line is not None and stored.line.kind is OutcomeKind.UNCONFIRMED
    sought = standing.sought or ((run_id,) if is_unconfirmed else ())
    if sought:
        return effort_in_doubt(replace(standing, sought=sought))
    spent = standing.spent
    is_resumed = spent.started_at is not None
    return Effort(stored.planned, spent.tries, spent.attempts, spent.throttled, spent.started_at, is_resumed=is_resumed)


def _check_accounts(config: Config, record: RunRecord, left: list[StoredBackup]) -> None:
    """Refuse to ask anybody else than the run did: what is not listed there proves nothing."""
    for name in sorted({each.planned.install.account for each in left}):
        account = config.accounts.get(name)
        if account is None:
            message = f"run {record.run.id} cannot go on: the account {name} is no longer in {config.source}"
            raise UsageError(message)
        if account.base_url != record.accounts.get(name):
            message = (
                f"run {record.run.id} cannot go on: the account {name} was at {record.accounts.get(name)} and is now"
                f" at {account.base_url}; begin a new run"
            )
            raise UsageError(message)


def _say_differences(config: Config, record: RunRecord, stored: list[StoredBackup], log: Log) -> None:
    if record.retried is not None:
        return
    now = make_plan(config, record.run).backups
    for reason in differences([each.planned for each in stored], now):
        log.warning("resume.config_changed", reason=reason)
