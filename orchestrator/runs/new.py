"""The plan of a new run: the selected installs, those that cannot be requested, and the warnings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.engine.pending import PendingBackup
from orchestrator.plan import make_plan
from orchestrator.runs.work import Presettled, RunWork, check_resolved, record_of
from orchestrator.session.choice import chosen_from
from orchestrator.session.inventory import (
    MOST_SAID,
    asked_accounts,
    empty_lines,
    inventory_of,
    missing_from,
    offline,
    say_sources,
    told,
)

if TYPE_CHECKING:
    from orchestrator.engine.ports import Log
    from orchestrator.listings import EmptySource
    from orchestrator.model import Config, FailedSource, Plan, Run
    from orchestrator.runs.context import RunContext
    from orchestrator.runs.options import RunOptions
    from orchestrator.session.choice import Chosen
    from orchestrator.session.inventory import Inventory


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """The plan of a new run. ``presettled`` has, by position, the backups that cannot be requested.

    ``failed`` and ``empty`` are the sources that could not be read, and those without an install.
    """

    plan: Plan
    presettled: dict[int, Presettled]
    failed: tuple[FailedSource, ...]
    empty: tuple[EmptySource, ...]


def refuse_mistakes(context: RunContext) -> None:
    """Raise ``UsageError`` if a new run selects no install. Check only if the plan needs no request to the API."""
    config, options = context.config, context.options
    if options.is_new and not asked_accounts(config, options.selection):
        _chosen(config, options, offline(config))


def _chosen(config: Config, options: RunOptions, inventory: Inventory) -> Chosen:
    chosen = chosen_from(inventory, config, options.selection)
    if options.strict:
        lacking = {install: chosen.lacks[install] for install in chosen.installs if install in chosen.lacks}
        check_resolved([*empty_lines(config), *inventory.renamed, *inventory.unresolved(lacking)])
    return chosen


def planned_run(config: Config, options: RunOptions, inventory: Inventory, run: Run) -> PlannedRun:
    """Return the plan for the installs that the options select.

    Raises ``UsageError`` if they select nothing, or if ``strict`` is set and something is unresolved.
    """
    chosen = _chosen(config, options, inventory)
    is_named = options.selection.is_named
    beside = inventory.failed if is_named else []
    aside = [f"{each.source}: {each.error.message}" for each in beside[:MOST_SAID] if each.path]
    plan = make_plan(replace(config, installs=chosen.installs), run)
    plan = replace(
        plan,
        disabled=chosen.disabled,
        warnings=(*aside, *inventory.warnings, *inventory.renamed, *plan.warnings),
    )
    presettled = {
        each.position: Presettled(PendingBackup(each), *chosen.lacks[each.install])
        for each in plan.backups
        if each.install in chosen.lacks
    }
    failed = missing_from(options.selection, inventory)
    return PlannedRun(plan, presettled, failed, () if is_named else config.empty_sources)


async def new_work(context: RunContext) -> RunWork:
    """Return the work of a new run. Read listings if names or discoveries need them.

    Raises ``UsageError`` if there is nothing to do, and ``StoppedError`` if a signal comes first.
    """
    config, options, run = context.config, context.options, context.new_run
    inventory = await inventory_of(config, options.selection, context.connections, context.stop, context.persistence)
    planned = planned_run(config, options, inventory, run)
    plan, log = planned.plan, context.log.bind(run_id=run.id)
    record = replace(
        record_of(context, run, str(context.scopes.now(context.part))),
        disabled=plan.disabled,
        is_part=options.selection.is_given,
        selection=options.selection.told(),
        failed_sources=told(planned.failed),
        empty_sources=told(planned.empty),
    )
    say_warnings(config, plan, log)
    say_sources(record.failed_sources, record.empty_sources, log)
    return RunWork(
        record=record,
        planned=plan.backups,
        pending=tuple(PendingBackup(each) for each in plan.backups if each.position not in planned.presettled),
        presettled=tuple(planned.presettled.values()),
    )


def say_warnings(config: Config, plan: Plan, log: Log) -> None:
    """Log the warnings of the plan, and one if the fixed rate is above the ceiling."""
    for warning in plan.warnings:
        log.warning("plan.warning", reason=warning)
    throttle = config.throttle
    if throttle.fixed_rate is not None and throttle.fixed_rate > throttle.ceiling:
        reason = f"the rate {throttle.fixed_rate:g} is lowered to max_requests_per_second, {throttle.ceiling:g}"
        log.warning("plan.warning", reason=reason)
