"""Ask the API something without requesting a backup, under the limiter of the account that is asked."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar

from orchestrator.engine.context import RunContext, RunLimits
from orchestrator.engine.dispatch import Dispatcher
from orchestrator.model import ErrorInfo, ErrorKind

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from orchestrator.engine.ports import Api
    from orchestrator.engine.stop import StopSwitch
    from orchestrator.listings import ListedAccount, ListedInstall, Page
    from orchestrator.model import AttemptResult, Backup, Config
    from orchestrator.session.connections import Connections

T = TypeVar("T")
Entry = TypeVar("Entry")

MOST_PAGES = 10_000
"""Pages of one listing of installs: a million."""

AT_A_TIME = 256
"""Questions that wait for the limiter at once: more than it ever lets through together, and few enough to hold."""

ENDLESS = ErrorInfo(ErrorKind.PROTOCOL, f"the listing has no end ({MOST_PAGES} pages)")


@dataclass(frozen=True, slots=True)
class Persistence:
    """How long something is asked: ``within_s`` seconds in all, ``None`` for as long as it takes.

    An account that cannot be reached is tried for ``reach_s`` seconds, and no longer than ``throttle.give_up``.
    """

    within_s: float | None = None
    reach_s: float = math.inf


WATCHED = Persistence(reach_s=60.0)
"""That of a command that somebody waits for."""


class _Nowhere:
    """The journal and the sink of what requests nothing."""

    async def note(self, _checkpoint: object) -> NoReturn:
        raise NotImplementedError

    def note_soon(self, _checkpoint: object) -> NoReturn:
        raise NotImplementedError

    async def record(self, _outcome: object) -> NoReturn:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class _PageReader(Generic[Entry]):
    """How a page of some listing is asked for, and where it stands in the answer."""

    call: Callable[[Api, int], Coroutine[object, object, AttemptResult]]
    page: Callable[[AttemptResult], Page[Entry] | None]


class Queries:
    """Ask accounts. Each answer is what was asked for, or why it could not be had."""

    def __init__(self, dispatcher: Dispatcher, connections: Connections) -> None:
        """Ask through ``dispatcher``, which has to attend to whoever asks, what is in ``connections``."""
        self._dispatcher = dispatcher
        self._fleet = connections

    async def ask(
        self, account: str, call: Callable[[Api], Coroutine[object, object, AttemptResult]]
    ) -> AttemptResult | ErrorInfo:
        """Return the answer of ``account`` to one request, whatever is in it."""
        return await self._dispatcher.ask(account, call)

    async def installs(self, account: str, of: str | None = None) -> tuple[ListedInstall, ...] | ErrorInfo:
        """Return the installs that ``account`` can see, or those of WP Engine's account with the id ``of``."""
        return await self._whole(
            account, _PageReader(lambda api, offset: api.list_installs(of, offset), lambda result: result.installs)
        )

    async def accounts(self, account: str) -> tuple[ListedAccount, ...] | ErrorInfo:
        """Return WP Engine's accounts that ``account`` can see."""
        return await self._whole(
            account, _PageReader(lambda api, offset: api.list_accounts(offset), lambda result: result.accounts)
        )

    async def backups(self, account: str, install_id: str) -> tuple[Backup, ...] | ErrorInfo:
        """Return the backups of an install."""
        return await self._whole(
            account, _PageReader(lambda api, offset: api.list_backups(install_id, offset), lambda result: result.page)
        )

    async def backup(self, account: str, install_id: str, backup_id: str) -> Backup | ErrorInfo:
        """Return one backup of an install."""
        answer = await self._dispatcher.ask(account, lambda api: api.show_backup(install_id, backup_id))
        if isinstance(answer, ErrorInfo):
            return answer
        if answer.backup is None or answer.backup.id.lower() != backup_id.lower():
            return ErrorInfo(ErrorKind.PROTOCOL, "the answer shows another backup", answer.status)
        return answer.backup

    def now_s(self, account: str) -> float | None:
        """Return the seconds since 1970 by the clock of the server that ``account`` asks, ``None`` if it has none."""
        return self._fleet.accounts[account].server_time(self._fleet.clock.monotonic())

    async def _whole(self, account: str, reading: _PageReader[Entry]) -> tuple[Entry, ...] | ErrorInfo:
        """Read every page; anew if the listing changes meanwhile, since an entry may be missed then."""
        entries: list[Entry] = []
        total: int | None = None
        offset, last = 0, tuple[Entry, ...]()
        for _ in range(MOST_PAGES):
            answer = await self._dispatcher.ask(account, lambda api, at=offset: reading.call(api, at))  # type: ignore[misc]  # mypy does not infer a lambda with a default
            if isinstance(answer, ErrorInfo):
                return answer
            page = reading.page(answer)
            if page is None:
                return ErrorInfo(ErrorKind.PROTOCOL, "the answer is no page of a listing", answer.status)
            if total is not None and page.total is not None and page.total != total:
                entries, total, offset, last = [], None, 0, ()
                continue
            total = page.total
            if page.entries == last and last:
                return tuple(entries)
            entries += page.entries
            if page.next_offset is None:
                return tuple(entries)
            offset, last = page.next_offset, page.entries
        return ENDLESS


def limits_of(config: Config) -> RunLimits:
    """Return the limits that ``config`` sets to any request."""
    return RunLimits(config.retry, config.reconcile, config.throttle.max_pause_s, config.throttle.give_up_s)


async def asked(
    connections: Connections,
    accounts: Iterable[str],
    work: Callable[[Queries], Coroutine[object, object, T]],
    stop: StopSwitch,
    persistence: Persistence = WATCHED,
) -> T:
    """Return what ``work`` finds out of ``accounts``, with ``persistence``.

    Raises ``StoppedError`` if a signal comes first.
    """
    for account in accounts:
        await connections.reach(account)
    nowhere = _Nowhere()
    context = RunContext("", nowhere, nowhere, connections.clock, connections.log, stop)
    limits = replace(limits_of(connections.config), deadline_s=persistence.within_s, reach_s=persistence.reach_s)
    dispatcher = Dispatcher(connections.budgets, limits, context)
    return await stop.unless_pressed(dispatcher.attend(work(Queries(dispatcher, connections))))


async def each(items: Iterable[T], ask: Callable[[T], Coroutine[object, object, None]]) -> None:
    """Call ``ask`` for each of ``items``, ``AT_A_TIME`` of them together, in order."""
    remaining = iter(items)

    async def some() -> None:
        for item in remaining:
            await ask(item)

    await asyncio.gather(*(some() for _ in range(AT_A_TIME)))
