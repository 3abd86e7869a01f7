"""Find the age of the newest completed backup of each install, whoever made it. Reads listings, requests no backup."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.errors import StorageError
from orchestrator.freshness import Freshness, Verdict, judged
from orchestrator.journal.store import FILE_NAME, Store, is_there
from orchestrator.marker import runs_marked
from orchestrator.model import ErrorInfo
from orchestrator.session.choice import chosen_from
from orchestrator.session.connections import Connections
from orchestrator.session.inventory import inventory_of, missing_from, say_sources, told
from orchestrator.session.queries import Question, Subject, answers_to, are_credentials_refused
from orchestrator.summary import Ending, exit_code

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from orchestrator.engine.ports import Log
    from orchestrator.engine.stop import StopSwitch
    from orchestrator.model import Backup, Config, FailedSource, Install
    from orchestrator.selection import Selection
    from orchestrator.session.queries import Queries


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """The options of an audit. ``max_age_s`` overrides that of each install. The state need not exist."""

    selection: Selection
    max_age_s: float | None
    state_dir: Path | None


@dataclass(frozen=True, slots=True)
class Audited:
    """One install, the seconds that its newest completed backup may be old, and the verdict."""

    install: Install
    max_age_s: float
    freshness: Freshness

    @property
    def run_id(self) -> str | None:
        """Return the run of this program that requested the newest completed backup, ``None`` if none did."""
        newest = self.freshness.newest
        return None if newest is None else run_of(newest)


@dataclass(frozen=True, slots=True)
class AuditEnd:
    """The result of an audit, the worst first. ``failed`` are the sources of installs that could not be read."""

    installs: tuple[Audited, ...]
    failed: tuple[FailedSource, ...]
    signum: int | None
    credentials_refused: bool

    @property
    def counts(self) -> Counter[Verdict]:
        """Return the number of installs with each verdict."""
        return Counter(each.freshness.verdict for each in self.installs)

    @property
    def exit_code(self) -> int:
        """Return the exit code: 0 if every source was read and every selected install has a recent backup."""
        failed = len(self.installs) - self.counts[Verdict.OK] + len(self.failed)
        return exit_code(Ending(signum=self.signum, credentials_refused=self.credentials_refused, failed=failed))


async def audited(config: Config, options: AuditOptions, log: Log, stop: StopSwitch) -> AuditEnd:
    """Read the listing of every selected install, and judge it.

    Raises ``UsageError`` if no install is selected, ``StoppedError`` if a signal comes before the selection is known.
    """
    async with AsyncExitStack() as stack:
        connections = Connections(config, await _store(options.state_dir, log, stack, stop), log, stack)
        inventory = await inventory_of(config, options.selection, connections, stop)
        for warning in inventory.warnings:
            log.warning("plan.warning", reason=warning)
        chosen = chosen_from(inventory, config, options.selection)
        failed = missing_from(options.selection, inventory)
        say_sources(told(failed), told(config.empty_sources), log)
        found = {each: Freshness(Verdict.UNKNOWN, error=why) for each, (_, why) in chosen.lacks.items()}
        to_ask = [each for each in chosen.installs if each not in found]
        questions = [_question(each, _max_age_s(each, options)) for each in to_ask]
        answers = await answers_to(Subject("audit", "installs"), questions, connections, stop)
        for install, answer in zip(to_ask, answers.answers, strict=True):
            if isinstance(answer, ErrorInfo):
                answer = Freshness(Verdict.UNKNOWN, error=answer)  # noqa: PLW2901 - an error becomes a verdict
            found[install] = answer
        rows = [Audited(each, _max_age_s(each, options), found[each]) for each in chosen.installs]
        return AuditEnd(tuple(worst_first(rows)), failed, answers.signum, are_credentials_refused(connections))


async def _store(state_dir: Path | None, log: Log, stack: AsyncExitStack, stop: StopSwitch) -> Store | None:
    """Return the state, which remembers limits; ``None`` if there is none or it cannot be used."""
    if state_dir is None:
        return None
    store = Store(state_dir / FILE_NAME)
    try:
        if not is_there(state_dir / FILE_NAME):
            return None
        await stop.unless_pressed(stack.enter_async_context(store))
    except StorageError as error:
        log.warning("throttle.not_remembered", reason=str(error))
        return None
    return store


def _question(install: Install, max_age_s: float) -> Question[Freshness]:
    async def ask(queries: Queries) -> Freshness | ErrorInfo:
        backups = await queries.backups(install.account, install.id or "")
        return backups if isinstance(backups, ErrorInfo) else judged(backups, queries.now_s(install.account), max_age_s)

    return Question(install.account, ask)


def _max_age_s(install: Install, options: AuditOptions) -> float:
    return install.max_age_s if options.max_age_s is None else options.max_age_s


def worst_first(rows: Iterable[Audited]) -> list[Audited]:
    """Return ``rows`` by verdict, the worst first, then by age, the oldest first."""
    ranks = list(Verdict)

    def rank(row: Audited) -> tuple[int, float]:
        age_s = row.freshness.age_s
        return ranks.index(row.freshness.verdict), -math.inf if age_s is None else -age_s

    return sorted(rows, key=rank)


def run_of(backup: Backup) -> str | None:
    """Return the run of this program that requested ``backup``, ``None`` if its description has no marker."""
    names = runs_marked(backup.description or "")
    return max(names).partition("/")[0] if names else None
