"""A new run of only the failures of an earlier one, with what the configuration says of them now."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from orchestrator.engine.efforts import Effort
from orchestrator.model import Made, OutcomeKind, Run, Standing
from orchestrator.plan import make_plan
from orchestrator.usecases.jobs import (
    CUT_OFF,
    Beginning,
    Foregone,
    Job,
    RunOptions,
    check_resolved,
    effort_in_doubt,
    for_this_run,
    gone_since,
    new_run_id,
    record_of,
    say_warnings,
    watch_of_earlier,
)
from orchestrator.usecases.scopes import Scopes, part_of

if TYPE_CHECKING:
    from orchestrator.engine.ports import Log
    from orchestrator.model import Config, Install, PlannedBackup
    from orchestrator.usecases.failures import Failure, Failures
    from orchestrator.usecases.resolve import Inventory


def needs_listing(config: Config, failures: Failures) -> bool:
    """Tell whether it takes a listing to know which failures are still in the configuration."""
    listed = {install.id for install in config.installs if install.id}
    has_others = any(each.install.id not in listed for each in failures.failures)
    return has_others and (bool(config.discoveries) or any(install.id is None for install in config.installs))


def retried_job(config: Config, options: RunOptions, failures: Failures, inventory: Inventory, log: Log) -> Job:
    """Return the new run. What is no longer in ``inventory`` is given up; an unknown account has nobody to ask."""
    run = Run(new_run_id(), datetime.now(UTC))
    wanted = sorted(failures.failures, key=lambda each: (bool(each.sought), each.backup is not None))
    by_key = {_key(each.install): each for each in wanted}
    now = _current(config, by_key, inventory)
    if options.strict:
        lacking = {install: inventory.lacks[install] for install in now.values() if install in inventory.lacks}
        unread = [f"{failures.retried}: {failures.unread}"] if failures.unread else []
        check_resolved([*config.warnings, *inventory.unresolved(lacking), *unread])
    current = {key: for_this_run(install, options) for key, install in now.items()}
    gone = [replace(each.install, enabled=True) for key, each in by_key.items() if key not in current]
    plan = make_plan(replace(config, installs=(*current.values(), *gone)), run)
    say_warnings(config, plan, log.bind(run_id=run.id))
    of_key = list(current) + [_key(install) for install in gone]
    efforts: list[Effort] = []
    foregone: list[Foregone] = []
    planned = [*plan.backups[: len(current)], *map(_no_more, plan.backups[len(current) :])]
    wait_s = config.wait.timeout_s if options.waits else None
    for each, key in zip(planned, of_key, strict=True):
        effort = _effort(each, by_key[key], wait_s)
        if not each.install.enabled:
            foregone.append(Foregone(effort, OutcomeKind.CANCELLED, gone_since(failures.retried)))
        elif now[key] in inventory.lacks and not effort.sought and not effort.watch:
            foregone.append(Foregone(effort, *inventory.lacks[now[key]]))
        else:
            efforts.append(effort)
    scope = failures.scope or str(Scopes(config).now(part_of(options.selection)))
    return Job(
        record=replace(
            record_of(config, options, Beginning(run, scope, 0, failures.retried)),
            is_part=True,
            failed_sources=failures.failed_sources(),
        ),
        planned=tuple(planned),
        efforts=tuple(efforts),
        foregone=tuple(foregone),
    )


_Key = tuple[str, str]


def _key(install: Install) -> _Key:
    return ("", install.id) if install.id else (install.account, install.name or "")


def _current(config: Config, failures: dict[_Key, Failure], inventory: Inventory) -> dict[_Key, Install]:
    """Return what is still in the configuration, by the key of the failure; nobody knows of a source that failed."""
    by_id = {install.id: install for install in inventory.installs if install.enabled and install.id}
    by_name = {(each.account, each.name): each for each in inventory.installs if each.enabled}
    unknown = {each.account for each in inventory.failed} & set(config.accounts)
    order = {install: position for position, install in enumerate(inventory.installs)}
    found: dict[_Key, Install] = {}
    for key, failure in failures.items():
        was = failure.install
        install = by_id.get(was.id) if was.id else by_name.get((was.account, was.name))
        if install is None and was.id and (nameless := by_name.get((was.account, was.name))) and nameless.id is None:
            install = nameless
        if install is None and was.id and was.account in unknown:
            same = {"id": was.id, "name": was.name, "environment": was.environment, "account": was.account}
            install = replace(config.discovered, **same)  # type: ignore[arg-type]  # they are of an Install
        if install is not None:
            found[key] = install
    return dict(sorted(found.items(), key=lambda entry: order.get(entry[1], len(order))))


def _no_more(planned: PlannedBackup) -> PlannedBackup:
    return replace(planned, install=replace(planned.install, enabled=False))


def _effort(planned: PlannedBackup, failure: Failure, wait_s: float | None) -> Effort:
    if failure.sought:
        return effort_in_doubt(
            Standing(
                planned,
                sought=failure.sought,
                sent_at=failure.sent_at,
                described=failure.described,
                open_since=failure.open_since,
                error=failure.error or CUT_OFF,
            )
        )
    if failure.backup is None:
        return Effort(planned)
    return Effort(planned, made=Made(failure.backup), watch=watch_of_earlier(failure.backup, wait_s))
