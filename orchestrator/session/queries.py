"""Send read requests to the API, under the limiter of each account, without requesting a backup.

Many questions go out at once, for each account by itself. The log shows the expected duration first, then the progress.
If a signal comes or an account stops, the answers so far are kept.
"""

from __future__ import annotations

import asyncio
import math
import signal
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar

from orchestrator.engine.context import DispatchContext, RunLimits
from orchestrator.engine.dispatch import Dispatcher
from orchestrator.engine.queues import AccountState
from orchestrator.errors import StoppedError
from orchestrator.model import ErrorInfo, ErrorKind
from orchestrator.paging import Entry, PageCursor, Progress
from orchestrator.session.alongside import alongside
from orchestrator.session.narration import heartbeat
from orchestrator.units import age_text

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from orchestrator.engine.ports import Api
    from orchestrator.engine.stop import StopSwitch
    from orchestrator.listings import ListedAccount, ListedInstall, Page
    from orchestrator.model import AttemptResult, Backup, Config
    from orchestrator.session.connections import Connections

T = TypeVar("T")

MOST_PAGES_OF_INSTALLS = 10_000
"""Enough for a million installs."""

AT_A_TIME = 256
"""Questions to one account that are open at once: more than the default concurrency, and few enough for memory."""

ENDLESS = ErrorInfo(ErrorKind.PROTOCOL, f"the listing has no end ({MOST_PAGES_OF_INSTALLS} pages)")


@dataclass(frozen=True, slots=True)
class Persistence:
    """The time limits of read requests: ``within_s`` seconds in all, ``None`` for no limit.

    If an account cannot be reached, it is tried for ``reach_s`` seconds, but no longer than ``throttle.give_up``.
    """

    within_s: float | None = None
    reach_s: float = math.inf


WATCHED = Persistence(reach_s=60.0)
"""The persistence of a command that a person waits for."""


class _Nowhere:
    """A journal and an outcome sink for a dispatcher that requests no backup."""

    async def note(self, _checkpoint: object) -> NoReturn:
        raise NotImplementedError

    def note_soon(self, _checkpoint: object) -> NoReturn:
        raise NotImplementedError

    def record(self, _outcome: object, _on_failure: object) -> NoReturn:
        raise NotImplementedError

    async def drain(self) -> None:
        """Do nothing: nothing was recorded."""


class Queries:
    """Send read requests to accounts. Each method returns the answer, or the error if there is none."""

    def __init__(self, dispatcher: Dispatcher, connections: Connections) -> None:
        """Ask the accounts of ``connections`` through ``dispatcher``, which has to be attending."""
        self._dispatcher = dispatcher
        self._connections = connections

    async def ask(
        self, account: str, call: Callable[[Api], Coroutine[object, object, AttemptResult]]
    ) -> AttemptResult | ErrorInfo:
        """Send one request to ``account``, and return its answer unchecked."""
        return await self._dispatcher.ask(account, call)

    async def installs(self, account: str, of: str | None = None) -> tuple[ListedInstall, ...] | ErrorInfo:
        """Return the installs that ``account`` can see, or those of WP Engine's account with the id ``of``."""
        return await self._whole(account, lambda api, at: api.list_installs(of, at), attrgetter("installs"))

    async def accounts(self, account: str) -> tuple[ListedAccount, ...] | ErrorInfo:
        """Return WP Engine's accounts that ``account`` can see."""
        return await self._whole(account, lambda api, at: api.list_accounts(at), attrgetter("accounts"))

    async def backups(self, account: str, install_id: str) -> tuple[Backup, ...] | ErrorInfo:
        """Return the backups of an install."""
        return await self._whole(account, lambda api, at: api.list_backups(install_id, at), attrgetter("page"))

    async def backup(self, account: str, install_id: str, backup_id: str) -> Backup | ErrorInfo:
        """Return one backup of an install."""
        answer = await self._dispatcher.ask(account, lambda api: api.show_backup(install_id, backup_id))
        if isinstance(answer, ErrorInfo):
            return answer
        if answer.backup is None or answer.backup.id.lower() != backup_id.lower():
            return ErrorInfo(ErrorKind.PROTOCOL, "the answer shows another backup", answer.status)
        return answer.backup

    def now_s(self, account: str) -> float | None:
        """Return the time of the account's server in seconds since 1970, ``None`` if it is not known."""
        return self._connections.accounts[account].server_time(self._connections.clock.monotonic())

    async def _whole(
        self,
        account: str,
        call: Callable[[Api, int], Coroutine[object, object, AttemptResult]],
        page_of: Callable[[AttemptResult], Page[Entry] | None],
    ) -> tuple[Entry, ...] | ErrorInfo:
        """Read a listing to its end. ``call`` requests the page at an offset, ``page_of`` finds it in the answer."""
        entries: list[Entry] = []
        cursor, progress = PageCursor(), Progress.MORE
        while not progress.is_whole:
            answer = await self._dispatcher.ask(account, partial(_page_at, call, cursor.offset))
            if isinstance(answer, ErrorInfo):
                return answer
            page = page_of(answer)
            if page is None:
                return ErrorInfo(ErrorKind.PROTOCOL, "the answer is not a page of a listing", answer.status)
            progress = cursor.after(page, MOST_PAGES_OF_INSTALLS)
            if progress is Progress.ENDLESS:
                return ENDLESS
            if progress is Progress.CHANGED:
                entries.clear()
            elif progress is not Progress.REPEATED:
                entries += page.entries
        return tuple(entries)


def _page_at(
    call: Callable[[Api, int], Coroutine[object, object, AttemptResult]], offset: int, api: Api
) -> Coroutine[object, object, AttemptResult]:
    return call(api, offset)


def limits_of(config: Config) -> RunLimits:
    """Return the limits that ``config`` sets for every request."""
    return RunLimits(config.retry, config.reconcile, config.throttle.max_pause_s, config.throttle.give_up_s)


async def asked(
    connections: Connections,
    accounts: Iterable[str],
    work: Callable[[Queries], Coroutine[object, object, T]],
    stop: StopSwitch,
    persistence: Persistence = WATCHED,
) -> T:
    """Return the result of ``work``, which may ask ``accounts`` within the limits of ``persistence``.

    Raises ``StoppedError`` if a signal comes first.
    """
    for account in accounts:
        await connections.reach(account)
    limits = replace(limits_of(connections.config), deadline_s=persistence.within_s, reach_s=persistence.reach_s)
    nowhere = _Nowhere()
    dispatcher = Dispatcher(
        connections.budgets, DispatchContext("", limits, nowhere, nowhere, connections.clock, connections.log, stop)
    )
    return await stop.unless_pressed(dispatcher.attend(work(Queries(dispatcher, connections))))


async def each(items: Iterable[T], ask: Callable[[T], Coroutine[object, object, None]]) -> None:
    """Call ``ask`` for each of ``items`` in order, ``AT_A_TIME`` at once."""
    remaining = iter(items)

    async def some() -> None:
        for item in remaining:
            await ask(item)

    await asyncio.gather(*(some() for _ in range(AT_A_TIME)))


# -- many questions at once ------------------------------------------------------------------------------------------

NOT_ASKED = ErrorInfo(ErrorKind.INTERRUPTED, "a signal stopped the command before it had an answer")


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """A question to ``account``. ``ask`` finds the answer."""

    account: str
    ask: Callable[[Queries], Coroutine[object, object, T | ErrorInfo]]


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """The answer to each question, in order, or its error. ``signum`` is the signal that stopped them, if any."""

    answers: tuple[T | ErrorInfo, ...]
    signum: int | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """The command that asks, and the noun for its questions, for the log."""

    command: str
    what: str


async def answers_to(
    subject: Subject, questions: Sequence[Question[T]], connections: Connections, stop: StopSwitch
) -> Answers[T]:
    """Ask all ``questions`` and return their answers. Send nothing if there are none."""
    beginning, beat, end = (f"{subject.command}.{word}" for word in ("asking", "progress", "stopped"))
    total = {subject.what: len(questions)}
    found: dict[int, T | ErrorInfo] = {}
    by_account: dict[str, list[tuple[int, Question[T]]]] = {}
    for place, question in enumerate(questions):
        by_account.setdefault(question.account, []).append((place, question))

    async def ask(queries: Queries, numbered: tuple[int, Question[T]]) -> None:
        place, question = numbered
        found[place] = await question.ask(queries)

    async def work(queries: Queries) -> None:
        counts = {account: len(group) for account, group in by_account.items()}
        connections.log.info(beginning, **total, **_expected(connections, counts))
        async with alongside(
            heartbeat(connections.log, lambda: total | _progress(connections, found, len(questions)), beat)
        ):
            await asyncio.gather(*(each(group, partial(ask, queries)) for group in by_account.values()))

    signum = None
    try:
        if questions:
            await asked(connections, by_account, work, stop)
    except StoppedError:
        signum = stop.signum
        name = signal.Signals(signum).name if signum else "nobody"
        connections.log.warning(end, by=name, answered=len(found), **total)
    await connections.remember()
    return Answers(tuple(found.get(place, NOT_ASKED) for place in range(len(questions))), signum)


def are_credentials_refused(connections: Connections) -> bool:
    """Return whether an account's credentials were refused."""
    return any(
        account.stop is not None and account.stop.kind is ErrorKind.CREDENTIALS
        for account in connections.accounts.values()
    )


def _expected(connections: Connections, counts: dict[str, int]) -> dict[str, object]:
    """Return the expected number of requests and their duration, for the log.

    ``counts`` are the questions by account. Each account whose credentials are unchecked adds one request.
    """
    requests, longest_s = 0, 0.0
    for budget in connections.budgets:
        asked_accounts_ = [account for account in budget.accounts if account.name in counts]
        mine = sum(counts[account.name] + (account.state is AccountState.TO_CHECK) for account in asked_accounts_)
        requests += mine
        longest_s = max(longest_s, mine / budget.throttle.rate())
    return {
        "requests": requests,
        "takes": f"about {age_text(max(1.0, longest_s))} at {round(connections.rate(), 1):g}/s",
    }


def _progress(connections: Connections, found: dict[int, T | ErrorInfo], count: int) -> dict[str, object]:
    rate = connections.rate()
    return {
        "done": len(found),
        "failed": sum(isinstance(answer, ErrorInfo) for answer in found.values()),
        "throttled": sum(account.throttled for account in connections.accounts.values()),
        "rate": round(rate, 2),
        "left_s": round((count - len(found)) / rate) if rate else None,
    }
