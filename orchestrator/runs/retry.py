"""A retry: a new run of the failures of an earlier run, with their present configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.engine.pending import CompletionWait, PendingBackup
from orchestrator.errors import UsageError
from orchestrator.model import Checkpoint, Made, OutcomeKind
from orchestrator.plan import make_plan
from orchestrator.runs.failures import Failure, failures_of
from orchestrator.runs.new import say_warnings
from orchestrator.runs.work import (
    CUT_OFF,
    Presettled,
    RunWork,
    check_resolved,
    divided,
    gone_since,
    pending_in_doubt,
    record_of,
    wait_for_earlier,
)
from orchestrator.selection import Selection, selected
from orchestrator.session.choice import NOT_IN_THE_PLAN, end_of_stranger
from orchestrator.session.inventory import empty_lines, inventory_of, names_of, offline, say_sources, told

if TYPE_CHECKING:
    from collections.abc import Collection

    from orchestrator.journal.runs import RunRecord
    from orchestrator.model import Config, FailedSource, Install, PlannedBackup
    from orchestrator.runs.context import RunContext
    from orchestrator.runs.failures import Failures
    from orchestrator.session.inventory import Inventory

_Key = tuple[str, str]


async def retried_work(context: RunContext) -> RunWork:
    """Return the work of the retry. Failures that are no longer configured are cancelled.

    If the earlier run could not read a source, the retry also requests the installs that the source shows now. Raises
    ``UsageError``, ``StorageError``, and ``StoppedError`` if a signal comes first.
    """
    failures = await context.stop.unless_pressed(failures_of(context))
    inventory = await _inventory_now(context, failures)
    installs = _installs_now(context, failures, inventory)
    current = {key: install for key, (_, install) in installs.items() if install}
    if context.options.strict:
        lacking = {install: inventory.lacks[install] for install in current.values() if install in inventory.lacks}
        unread = [f"{failures.retried}: {failures.unread}"] if failures.unread else []
        check_resolved([*empty_lines(context.config), *inventory.unresolved(lacking), *unread])
    gone = {key: replace(failure.install, enabled=True) for key, (failure, install) in installs.items() if not install}
    run = context.new_run
    plan = make_plan(replace(context.config, installs=(*current.values(), *gone.values())), run)
    record, log = _record(context, failures, inventory), context.log.bind(run_id=run.id)
    say_warnings(context.config, plan, log)
    say_sources(record.failed_sources, record.empty_sources, log)
    planned = [*plan.backups[: len(current)], *map(_no_more, plan.backups[len(current) :])]
    wait_s = context.config.wait.timeout_s if context.options.waits else None
    works = (
        _unless_settled(_pending(each, installs[key][0], wait_s), failures.retried, inventory)
        for each, key in zip(planned, [*current, *gone], strict=True)
    )
    pending, presettled = divided(works)
    return RunWork(record, tuple(planned), pending, presettled=presettled)


async def _inventory_now(context: RunContext, failures: Failures) -> Inventory:
    """Return the present inventory. Read listings only if the failures or the failed sources need them."""
    if _needs_listing(context.config, failures):
        selection = Selection()
    elif failures.reads_again:
        selection = failures.selection or Selection()
    else:
        return offline(context.config)
    return await inventory_of(context.config, selection, context.connections, context.stop, context.persistence)


def _needs_listing(config: Config, failures: Failures) -> bool:
    """Return whether only a listing can tell which failures are still in the configuration."""
    listed = {install.id for install in config.installs if install.id}
    has_others = any(each.install.id not in listed for each in failures.failures)
    return has_others and (bool(config.discoveries) or any(install.id is None for install in config.installs))


def _installs_now(
    context: RunContext, failures: Failures, inventory: Inventory
) -> dict[_Key, tuple[Failure, Install | None]]:
    """Return each failure with its present install, ``None`` if that is gone.

    First come the failures in the order of the plan, then newly shown installs, then the failures that are gone.
    """
    config = context.config
    wanted = sorted(failures.failures, key=lambda each: (bool(each.sought), each.backup is not None))
    by_key = {_key(each.install): each for each in wanted}
    now = _current(context, by_key, inventory)
    for key in [key for key, each in now.items() if _is_not_meant(by_key[key].install, each, failures.selection)]:
        del by_key[key], now[key]
    shown = _newly_shown(config, failures, inventory, {install.id for install in now.values()})
    found: dict[_Key, tuple[Failure, Install | None]] = {key: (by_key[key], install) for key, install in now.items()}
    found |= {_key(install): (Failure(install), install) for install in shown}
    return found | {key: (failure, None) for key, failure in by_key.items() if key not in found}


def _unless_settled(pending: PendingBackup, retried: str, inventory: Inventory) -> PendingBackup | Presettled:
    """Return ``pending``, or its outcome if no request can be made."""
    install = pending.planned.install
    if install.place == NOT_IN_THE_PLAN:
        return Presettled(pending, *end_of_stranger("is not in the plan", inventory))
    if not install.enabled:
        return Presettled(pending, OutcomeKind.CANCELLED, gone_since(retried))
    if install in inventory.lacks and not pending.sought and not isinstance(pending.state, CompletionWait):
        return Presettled(pending, *inventory.lacks[install])
    return pending


def _is_not_meant(was: Install, now: Install, selection: Selection | None) -> bool:
    """Return whether a listing now shows that the install is of an environment that was not selected."""
    is_known_now = was.id is None and was.environment is None and now.environment is not None
    environments = selection.environments if selection else ()
    return is_known_now and bool(environments) and now.environment not in environments


def _record(context: RunContext, failures: Failures, inventory: Inventory) -> RunRecord:
    """Return the record of the new run. While a source still fails, the record also has what a later retry needs."""
    scope = failures.scope or str(context.scopes.now(context.part))
    failed = tuple(_not_read_again(each, failures.retried) for each in failures.failed_sources)
    if failures.reads_again:
        failed = told(_still_failed(failures, inventory))
    failed += failures.unread_source
    return replace(
        record_of(context, context.new_run, scope),
        retried=failures.retried,
        is_part=True,
        failed_sources=failed,
        empty_sources=told(context.config.empty_sources) if failures.reads_again else (),
        selection=failures.selection.told() if failures.selection else None,
        covered=failures.covered if failed else (),
    )


def _not_read_again(source: dict[str, Any], retried: str) -> dict[str, Any]:
    reason = (
        f"{source['error']['message']}; it is not read again, because {retried} does not show"
        " which installs it missed: name the run by its id, or begin a new run with --skip-if-recent"
    )
    return source | {"error": source["error"] | {"message": reason}}


def _still_failed(failures: Failures, inventory: Inventory) -> list[FailedSource]:
    """Return the sources that fail now and may hold installs that the earlier run selected."""
    accounts = failures.selection.accounts if failures.selection else ()
    return [each for each in inventory.failed if not accounts or each.account is None or each.account in accounts]


def _newly_shown(
    config: Config, failures: Failures, inventory: Inventory, retried: Collection[str | None]
) -> list[Install]:
    """Return the installs that the earlier run selected but could not plan, because a source could not be read.

    If the earlier run could not look up a name, the name decided the shard. The name decides here too, although the id
    is known now.
    """
    if failures.selection is None or not failures.reads_again:
        return []
    unnamed = {each["account"] for each in failures.failed_sources if each["source"] == names_of(each["account"])}
    names = {(each.account, each.name) for each in config.installs if each.id is None and each.account in unnamed}
    as_seen = {
        replace(each, id=None) if (each.account, each.name) in names else each: each for each in inventory.installs
    }
    try:
        meant = selected(tuple(as_seen), replace(failures.selection, limit=None)).installs
    except UsageError:  # nothing is selected
        return []
    ids = {install_id for _, _, install_id in failures.covered if install_id} | set(retried)
    nameless = {(account, name) for account, name, install_id in failures.covered if install_id is None}
    labels = {(account, name) for account, name, _ in failures.covered}
    found = [
        install
        for install in (as_seen[each] for each in meant)
        if install.id not in ids and (install.account, install.name) not in (nameless if install.id else labels)
    ]
    limit = failures.selection.limit
    return found if limit is None else found[: max(0, limit - len(failures.covered))]


def _key(install: Install) -> _Key:
    return ("", install.id) if install.id else (install.account, install.name or "")


def _current(context: RunContext, failures: dict[_Key, Failure], inventory: Inventory) -> dict[_Key, Install]:
    """Return the failed installs that are, or may be, still configured, by the key of the failure.

    An install may be configured if a source that failed now may hold it.
    """
    known = _Known(context.config, inventory)
    order = {install: position for position, install in enumerate(inventory.installs)}
    found: dict[_Key, Install] = {}
    for key, failure in failures.items():
        install = known.now(failure.install)
        if install is not None:
            found[key] = context.options.in_words_of(install)
    return dict(sorted(found.items(), key=lambda entry: order.get(entry[1], len(order))))


class _Known:
    """An index of the enabled installs of an inventory, to find the installs of an earlier plan."""

    def __init__(self, config: Config, inventory: Inventory) -> None:
        self._config = config
        self._failed = {(each.account, each.path): each for each in inventory.failed}
        enabled = [install for install in inventory.installs if install.enabled]
        self._by_id = {install.id: install for install in enabled if install.id}
        self._by_name = {(each.account, each.name): each for each in enabled}
        self._by_word = {each.name: each for each in reversed(enabled)}

    def now(self, was: Install) -> Install | None:
        """Return the present install for ``was``, ``None`` if it is gone."""
        named = self._by_name.get((was.account, was.name))
        if was.id is None:
            if named is None and was.name:
                named = self._by_id.get(was.name.lower())
            if named is None and was.place == NOT_IN_THE_PLAN:
                named = self._by_word.get(was.name)
            return named
        install = self._by_id.get(was.id)
        if install is None and named is not None and named.id is None:
            return named
        return install or self._in_what_failed(was)

    def _in_what_failed(self, was: Install) -> Install | None:
        """Return the install if a source that failed may hold it.

        If that source is a file, keep the settings in the journal. If it is a listing, use the settings of discoveries.
        """
        holds = [each for each in self._failed.values() if _may_hold(each, was)]
        if not holds or was.account not in self._config.accounts:
            return None
        if was.place and any(each.path for each in holds):
            return replace(was, enabled=True)
        same = {"id": was.id, "name": was.name, "environment": was.environment, "account": was.account}
        return replace(self._config.discovered, **same)  # type: ignore[arg-type]  # the types are those of Install


def _may_hold(source: FailedSource, was: Install) -> bool:
    """Return whether ``source`` may hold ``was``, of an earlier plan. An install from a report has no place."""
    if not source.path:
        return source.account == was.account
    file = was.place.rpartition(":")[0]
    return not file or file == source.path or file.startswith(f"{source.path.rstrip('/')}/")


def _no_more(planned: PlannedBackup) -> PlannedBackup:
    return replace(planned, install=replace(planned.install, enabled=False))


def _pending(planned: PlannedBackup, failure: Failure, wait_s: float | None) -> PendingBackup:
    if failure.sought:
        return pending_in_doubt(
            Checkpoint(
                planned,
                sought=failure.sought,
                sent_at=failure.sent_at,
                described=failure.described,
                open_since=failure.open_since,
                error=failure.error or CUT_OFF,
            )
        )
    if failure.backup is None:
        return PendingBackup(planned)
    return PendingBackup(planned, made=Made(failure.backup), state=wait_for_earlier(failure.backup, wait_s))
