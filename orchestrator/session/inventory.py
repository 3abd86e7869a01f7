"""Resolve names and discoveries to installs, with WP Engine's listings at the time of the plan.

One vanished install must not stop the backups of a fleet. A name that is not in the listing, and a listing that cannot
be read, concern only the installs that need them. A failed listing never counts as a listing without the install.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from orchestrator.listings import ENVIRONMENTS
from orchestrator.model import ErrorInfo, ErrorKind, FailedSource, OutcomeKind
from orchestrator.report.lines import source_fields
from orchestrator.selection import matcher, may_be_meant
from orchestrator.session.queries import WATCHED, asked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.engine.ports import Log
    from orchestrator.engine.stop import StopSwitch
    from orchestrator.listings import Discovery, EmptySource, ListedInstall
    from orchestrator.model import Config, Install
    from orchestrator.selection import Selection
    from orchestrator.session.connections import Connections
    from orchestrator.session.queries import Persistence, Queries

LONGEST_NAME = 100

MOST_SAID = 20
"""Most failed sources to log one by one: a file of installs may hold ten thousand wrong rows."""

Lack = tuple[OutcomeKind, ErrorInfo]
"""The outcome of an install without an id, and its error."""


class InstallIndex:
    """The listing of an account, indexed for lookups."""

    def __init__(self, installs: Iterable[ListedInstall]) -> None:
        """Index ``installs`` by name and by id."""
        self.installs = tuple(installs)
        self.by_name = {each.name: each for each in self.installs}
        self.by_id = {each.id: each for each in self.installs}


@dataclass(slots=True)
class Inventory:
    """The installs of a configuration, after names are looked up and discoveries are made.

    ``lacks`` has the outcome of each install without an id. ``failed`` are the sources that could not be read.
    ``warnings`` and ``renamed`` are messages. ``renamed`` tells where a listing contradicts a name in the
    configuration. ``listings`` has, by account, each whole listing that was read, or the error.
    """

    installs: list[Install] = field(default_factory=list)
    lacks: dict[Install, Lack] = field(default_factory=dict)
    failed: list[FailedSource] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    renamed: list[str] = field(default_factory=list)
    listings: dict[str, InstallIndex | ErrorInfo] = field(default_factory=dict)

    def unresolved(self, lacks: dict[Install, Lack]) -> list[str]:
        """Return one line for each of ``lacks``, and one for each source that could not be read."""
        lines = [f"{each.place or each.label}: {each.label}: {error.message}" for each, (_, error) in lacks.items()]
        return lines + [f"{each.source}: {each.error.message}" for each in self.failed]


def asked_accounts(config: Config, selection: Selection) -> list[str]:
    """Return the accounts whose listings the plan needs."""
    names = {each.account for each in _nameless(config.installs, selection)}
    names |= {each.account for each in _meant_discoveries(config, selection)}
    return sorted(names)


def offline(config: Config) -> Inventory:
    """Return the inventory of ``config`` without reading a listing."""
    return Inventory(installs=list(config.installs), failed=list(config.failed_sources))


async def resolved(config: Config, selection: Selection, queries: Queries) -> Inventory:
    """Return the inventory of ``config``. Read only the listings that ``selection`` may need."""
    inventory = Inventory(failed=list(config.failed_sources))
    discoveries = _meant_discoveries(config, selection)
    whole = {each.account for each in _nameless(config.installs, selection)}
    whole |= {each.account for each in discoveries if not each.wpengine_accounts}
    for account in sorted(whole):
        await read_listing(inventory, account, queries)
    for account in sorted({each.account for each in _nameless(config.installs, selection)}):
        answer = inventory.listings[account]
        if isinstance(answer, ErrorInfo):
            inventory.failed.append(FailedSource(names_of(account), account, answer))
    known: dict[str, Install] = {}
    for install in config.installs:
        _add(inventory, known, looked_up(install, inventory), config)
    for discovery in discoveries:
        found = await _discovered(discovery, inventory, queries)
        if isinstance(found, ErrorInfo):
            inventory.failed.append(FailedSource(source_of(discovery), discovery.account, found))
            continue
        _add_discovered(inventory, known, (discovery, found), config)
    return inventory


async def inventory_of(
    config: Config, selection: Selection, connections: Connections, stop: StopSwitch, persistence: Persistence = WATCHED
) -> Inventory:
    """Return the inventory of ``config``. Read the listings that it needs within the limits of ``persistence``.

    Raises ``StoppedError`` if a signal comes first.
    """
    accounts = asked_accounts(config, selection)
    if not accounts:
        return offline(config)
    return await asked(connections, accounts, lambda queries: resolved(config, selection, queries), stop, persistence)


async def read_listing(inventory: Inventory, account: str, queries: Queries) -> None:
    """Read the whole listing of ``account`` into ``inventory``."""
    answer = await queries.installs(account)
    inventory.listings[account] = answer if isinstance(answer, ErrorInfo) else InstallIndex(answer)


def looked_up(install: Install, inventory: Inventory) -> Install:
    """Return ``install`` with missing details (id, name, environment) from its account's listing, if that was read."""
    listing = inventory.listings.get(install.account)
    if listing is None or (isinstance(listing, ErrorInfo) and install.id is not None):
        return install
    if isinstance(listing, ErrorInfo):
        if install.enabled:
            message = f"its name could not be looked up: {listing.message}"
            inventory.lacks[install] = (OutcomeKind.CANCELLED, replace(listing, message=message))
        return install
    if install.id is None:
        shown = listing.by_name.get(install.name or "")
        if shown is None and install.enabled:
            message = f"the listing of account {install.account} has no install of this name"
            inventory.lacks[install] = (OutcomeKind.REJECTED, ErrorInfo(ErrorKind.NOT_FOUND, message))
    else:
        shown = listing.by_id.get(install.id)
        if shown is not None and install.name not in {None, shown.name}:
            inventory.renamed.append(
                f"{install.place or install.id}: {install.name} is {shown.name} in the listing of account"
                f" {install.account}"
            )
    if shown is None:
        return install
    return replace(
        install,
        id=shown.id,
        name=install.name or _name_of(shown),
        environment=install.environment or _environment_of(shown),
    )


def _name_of(shown: ListedInstall) -> str | None:
    """Return the name in the listing if it is printable and short enough for descriptions, logs and reports."""
    return shown.name if shown.name.isprintable() and len(shown.name) <= LONGEST_NAME else None


def _environment_of(shown: ListedInstall) -> str | None:
    return shown.environment if shown.environment in ENVIRONMENTS else None


def _nameless(installs: Iterable[Install], selection: Selection) -> list[Install]:
    return [each for each in installs if each.id is None and each.enabled and may_be_meant(each, selection)]


def _meant_discoveries(config: Config, selection: Selection) -> list[Discovery]:
    """Return the discoveries that may find selected installs, by their account and the default tags."""
    return [
        each for each in config.discoveries if may_be_meant(replace(config.discovered, account=each.account), selection)
    ]


Told = Sequence[dict[str, Any]]
"""Failed or empty sources, in the form of the summary."""


def say_sources(failed: Told, empty: Told, log: Log) -> None:
    """Log the sources that could not be read, and those without an install, as errors, which ``-q`` does not hide.

    Log only the first ``MOST_SAID`` of each kind, and the number of the others. The summary has all of them.
    """
    reasons = [("source.failed", each["source"], each["error"]["message"]) for each in failed[:MOST_SAID]]
    reasons += [("source.empty", each["source"], each["reason"]) for each in empty[:MOST_SAID]]
    for event, source, reason in reasons:
        log.error(event, source=source, reason=reason)
    for event, sources in (("source.failed", failed), ("source.empty", empty)):
        if len(sources) > MOST_SAID:
            log.error(event, more=len(sources) - MOST_SAID)


def told(sources: Iterable[FailedSource | EmptySource]) -> tuple[dict[str, Any], ...]:
    """Return ``sources`` in the form of the summary."""
    return tuple(map(source_fields, sources))


def missing_from(selection: Selection, inventory: Inventory) -> tuple[FailedSource, ...]:
    """Return the failed sources that may hold more selected installs.

    If installs are named one by one, all of them were found, so failed files do not count.
    """
    return tuple(each for each in inventory.failed if not (selection.is_named and each.path))


def empty_lines(config: Config) -> list[str]:
    """Return a line for each source that holds no install."""
    return [f"{each.source}: {each.reason}" for each in config.empty_sources]


def names_of(account: str | None) -> str:
    """Return the name of the source that looks up names in the listing of ``account``.

    The journal stores this text: do not change it.
    """
    return f"the names of account {account}"


def source_of(discovery: Discovery) -> str:
    """Return the name of ``discovery`` as a source, with its place and its account."""
    return f"{discovery.place}: discover {discovery.account}" if discovery.place else f"discover {discovery.account}"


def _add(inventory: Inventory, known: dict[str, Install], install: Install, config: Config) -> None:
    """Add an install of the configuration, unless it is the same as an earlier one: then warn."""
    first = known.setdefault(install.id, install) if install.id else install
    if first is install:
        inventory.installs.append(install)
        return
    inventory.warnings.append(
        f"{install.place or config.source}: {install.label} is the same install as {first.label}"
        f" ({first.place or first.id}); "
        + ("it is backed up once, as configured there" if first.enabled else "it is disabled there, and not backed up")
    )


def _add_discovered(
    inventory: Inventory, known: dict[str, Install], found: tuple[Discovery, list[ListedInstall]], config: Config
) -> None:
    discovery, listed = found
    pending = [each.name for each in listed if each.is_pending]
    if pending:
        shown = ", ".join(pending[:5]) + (", …" if len(pending) > 5 else "")  # noqa: PLR2004 - as many as fit a line
        inventory.warnings.append(
            f"{source_of(discovery)}: {len(pending)} pending install(s) left out until active: {shown}"
        )
    nameless = {each.name for each in inventory.installs if each.id is None}
    for each in listed:
        if each.is_pending or each.id in known or each.name in nameless:
            continue
        install = replace(
            config.discovered,
            id=each.id,
            name=_name_of(each),
            environment=_environment_of(each),
            account=discovery.account,
            place=discovery.place,
        )
        known[each.id] = install
        inventory.installs.append(install)


async def _discovered(discovery: Discovery, inventory: Inventory, queries: Queries) -> list[ListedInstall] | ErrorInfo:
    """Return the installs that ``discovery`` finds, or the error of a listing."""
    seen = await looked_through(discovery, inventory, queries)
    if isinstance(seen, ErrorInfo):
        return seen
    is_excluded = matcher(discovery.exclude)
    return [each for each in seen if _is_of_environment(each, discovery) and not is_excluded(each.name, each.id)]


async def looked_through(
    discovery: Discovery, inventory: Inventory, queries: Queries
) -> tuple[ListedInstall, ...] | ErrorInfo:
    """Return every install that ``discovery`` looks at, before its filters, or the error of a listing.

    Unless it names WP Engine's accounts, the whole listing of its account must be in ``inventory``.
    """
    if not discovery.wpengine_accounts:
        whole = inventory.listings[discovery.account]
        return whole if isinstance(whole, ErrorInfo) else whole.installs
    ids = await _account_ids(discovery, queries)
    if isinstance(ids, ErrorInfo):
        return ids
    listed: tuple[ListedInstall, ...] = ()
    for account_id in ids:
        part = await queries.installs(discovery.account, account_id)
        if isinstance(part, ErrorInfo):
            return part
        listed += part
    return listed


def _is_of_environment(install: ListedInstall, discovery: Discovery) -> bool:
    return not discovery.environments or install.environment in discovery.environments


async def _account_ids(discovery: Discovery, queries: Queries) -> list[str] | ErrorInfo:
    accounts = await queries.accounts(discovery.account)
    if isinstance(accounts, ErrorInfo):
        return accounts
    ids = {word: each.id for each in accounts for word in (each.nickname, each.name, each.id) if word}
    missing = [word for word in discovery.wpengine_accounts if word.lower() not in ids and word not in ids]
    if missing:
        seen = ", ".join(sorted({each.name for each in accounts})) or "none"
        message = f"WP Engine shows no account {', '.join(missing)}; it shows {seen}"
        return ErrorInfo(ErrorKind.NOT_FOUND, message)
    found = [ids.get(word) or ids[word.lower()] for word in discovery.wpengine_accounts]
    return list(dict.fromkeys(found))
