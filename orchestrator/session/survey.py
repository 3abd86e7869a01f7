"""Ask about many things at once, each account by itself: how long it will take is said before, how far it is under way.

What was found out by then stays known when a signal comes, or when an account stops.
"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from orchestrator.engine.queues import AccountState
from orchestrator.errors import StoppedError
from orchestrator.model import ErrorInfo, ErrorKind
from orchestrator.session.alongside import alongside
from orchestrator.session.narration import heartbeat
from orchestrator.session.queries import asked, each
from orchestrator.units import age_text

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from orchestrator.engine.stop import StopSwitch
    from orchestrator.session.connections import Connections
    from orchestrator.session.queries import Queries

T = TypeVar("T")

NOT_ASKED = ErrorInfo(ErrorKind.INTERRUPTED, "a signal came before there was an answer")


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """One thing to be found out of ``account``, and how."""

    account: str
    ask: Callable[[Queries], Coroutine[object, object, T | ErrorInfo]]


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """An answer to each question, in order, or why there is none. ``signum`` is of the signal that came first."""

    answers: tuple[T | ErrorInfo, ...]
    signum: int | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """Which command asks, and about how many of what: for the log."""

    command: str
    what: str


async def surveyed(
    subject: Subject, questions: Sequence[Question[T]], connections: Connections, stop: StopSwitch
) -> Answers[T]:
    """Ask all ``questions``; without any, nobody is asked."""
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
    """Tell whether an account that was asked has refused its credentials."""
    return any(
        account.stop is not None and account.stop.kind is ErrorKind.CREDENTIALS
        for account in connections.accounts.values()
    )


def _expected(connections: Connections, counts: dict[str, int]) -> dict[str, object]:
    """Say how many requests ``counts`` by account come to, with those for the credentials, and how long they take."""
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
