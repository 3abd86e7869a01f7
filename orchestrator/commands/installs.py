"""Read the installs in WP Engine's listings, and compare the configuration with them. Requests no backup."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.drift import Difference, DriftKind, View, differences
from orchestrator.model import ErrorInfo, FailedSource
from orchestrator.session.connections import Connections
from orchestrator.session.inventory import Inventory, looked_through, read_listing, say_sources, source_of, told
from orchestrator.session.queries import are_credentials_refused, asked
from orchestrator.summary import Ending, exit_code

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.engine.ports import Log
    from orchestrator.engine.stop import StopSwitch
    from orchestrator.listings import ListedInstall
    from orchestrator.model import Config
    from orchestrator.session.queries import Queries


@dataclass(frozen=True, slots=True)
class SeenInstall:
    """A listed install, and the first account of the configuration whose credentials see it."""

    account: str
    listed: ListedInstall


@dataclass(frozen=True, slots=True)
class InstallsEnd:
    """The listed installs, the sources that could not be read, and the differences, if these were asked for.

    ``names`` are the known names of WP Engine's accounts, by id.
    """

    installs: tuple[SeenInstall, ...]
    names: dict[str, str]
    failed: tuple[FailedSource, ...]
    differences: tuple[Difference, ...]
    credentials_refused: bool

    @property
    def exit_code(self) -> int:
        """Return the exit code: 0 if every listing was read and nothing differs."""
        failed = len(self.failed) + len(self.differences)
        return exit_code(Ending(signum=None, credentials_refused=self.credentials_refused, failed=failed))


async def installs_seen(config: Config, log: Log, stop: StopSwitch, *, compares: bool = False) -> InstallsEnd:
    """Return the installs that the accounts of ``config`` see and, if ``compares``, how ``config`` differs.

    Raises ``StoppedError`` if a signal comes first.
    """
    async with AsyncExitStack() as stack:
        connections = Connections(config, None, log, stack)
        seen = await asked(connections, config.accounts, partial(_look, config, compares=compares), stop)
        refused = are_credentials_refused(connections)
    views = [each.view for each in seen if each.view]
    failed = [*(config.failed_sources if compares else ()), *(each.failed for each in seen if each.failed)]
    say_sources(told(failed), told(config.empty_sources if compares else ()), log)
    shown: dict[str, SeenInstall] = {}
    for view in views:
        for listed in view.installs:
            shown.setdefault(listed.id, SeenInstall(view.account, listed))
    unknown = [
        Difference(DriftKind.UNKNOWN, each.account, note=f"{each.source}: {each.error.message}") for each in failed
    ]
    return InstallsEnd(
        installs=tuple(shown.values()),
        names={account_id: name for each in seen for account_id, name in each.names.items()},
        failed=tuple(failed),
        differences=(*unknown, *differences(config.installs, views)) if compares else (),
        credentials_refused=refused,
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one account sees, the source that could not be read, and the names of WP Engine's accounts by id."""

    view: View | None = None
    failed: FailedSource | None = None
    names: dict[str, str] = field(default_factory=dict)


async def _look(config: Config, queries: Queries, *, compares: bool) -> list[_Seen]:
    return await asyncio.gather(*(_seen_by(account, config, queries, compares=compares) for account in config.accounts))


async def _seen_by(account: str, config: Config, queries: Queries, *, compares: bool) -> _Seen:
    inventory = Inventory()
    await read_listing(inventory, account, queries)
    listing = inventory.listings[account]
    if isinstance(listing, ErrorInfo):
        return _Seen(failed=FailedSource(f"the installs of account {account}", account, listing))
    names = await _names(account, listing.installs, queries)
    discovered = await _discovered(config, account, inventory, queries) if compares else frozenset()
    if isinstance(discovered, FailedSource):
        return _Seen(View(account, listing.installs, None), discovered, names)
    return _Seen(View(account, listing.installs, discovered), None, names)


async def _discovered(
    config: Config, account: str, inventory: Inventory, queries: Queries
) -> frozenset[str] | FailedSource:
    """Return the ids that the discoveries of ``account`` look at, or the first discovery that failed."""
    ids: set[str] = set()
    for discovery in config.discoveries:
        if discovery.account == account:
            found = await looked_through(discovery, inventory, queries)
            if isinstance(found, ErrorInfo):
                return FailedSource(source_of(discovery), account, found)
            ids |= {each.id for each in found}
    return frozenset(ids)


async def _names(account: str, installs: Sequence[ListedInstall], queries: Queries) -> dict[str, str]:
    """Return the names of WP Engine's accounts by id; empty if no install has one, or they cannot be listed."""
    if not any(each.account_id for each in installs):
        return {}
    accounts = await queries.accounts(account)
    return {} if isinstance(accounts, ErrorInfo) else {each.id: each.name for each in accounts}
