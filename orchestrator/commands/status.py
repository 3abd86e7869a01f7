"""Ask the API how the backups of a run ended, and record it in the run's journal and report."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from orchestrator.freshness import ABORTED, COMPLETED, age_s, has_ended, merged
from orchestrator.journal.store import Store
from orchestrator.model import Backup, ErrorInfo, OutcomeKind
from orchestrator.report.lines import encode
from orchestrator.runs.amend import amend_run, run_at_rest, summary_now
from orchestrator.runs.folder import StateFolder
from orchestrator.runs.resume import check_accounts
from orchestrator.runs.scopes import run_meant
from orchestrator.session.connections import Connections
from orchestrator.session.queries import Question, Subject, answers_to, are_credentials_refused
from orchestrator.summary import Ending, exit_code
from orchestrator.units import seconds_of

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from orchestrator.engine.ports import Log
    from orchestrator.engine.stop import StopSwitch
    from orchestrator.journal.runs import StoredBackup
    from orchestrator.model import Config, Install
    from orchestrator.runs.amend import StoredRun
    from orchestrator.session.queries import Queries
    from orchestrator.summary import Line

_WITH_BACKUP = {
    OutcomeKind.ACCEPTED,
    OutcomeKind.COMPLETED,
    OutcomeKind.SKIPPED,
    OutcomeKind.ABORTED,
    OutcomeKind.INCOMPLETE,
}


class Condition(StrEnum):
    """How a backup of a run stands, the worst first."""

    ABORTED = "aborted"
    UNKNOWN = "unknown"
    UNDER_WAY = "under way"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True)
class Known:
    """The backup of one install, and its line in the report.

    ``age_s`` is the seconds since the backup was created, ``None`` if the API did not show it or it has ended.
    ``error`` says why the API gave no usable answer.
    """

    install: Install
    line: Line
    backup: Backup
    age_s: float | None = None
    error: ErrorInfo | None = None

    @property
    def condition(self) -> Condition:
        """Return how the backup stands."""
        if self.error is not None:
            return Condition.UNKNOWN
        ended = {COMPLETED: Condition.COMPLETED, ABORTED: Condition.ABORTED}
        return ended.get(self.backup.status or "", Condition.UNDER_WAY)

    @property
    def took_s(self) -> float | None:
        """Return the seconds that the backup took, ``None`` if it is not completed or lacks a usable time."""
        began, ended = seconds_of(self.backup.create_time), seconds_of(self.backup.complete_time)
        if self.condition is not Condition.COMPLETED or began is None or ended is None or ended < began:
            return None
        return ended - began


@dataclass(frozen=True, slots=True)
class StatusEnd:
    """What is known of a run's backups now, the worst first.

    ``asked`` counts the backups that the API was asked about, ``failures`` the installs without a backup, and
    ``unfinished`` the installs without an outcome, because the run did not reach its end. ``has_news`` tells that
    something new was recorded. Then ``report`` is the rewritten report, ``None`` if it cannot be written again.
    """

    run_id: str
    backups: tuple[Known, ...]
    asked: int
    failures: int
    unfinished: int
    has_news: bool
    report: str | None
    signum: int | None
    credentials_refused: bool

    @property
    def counts(self) -> Counter[Condition]:
        """Return the number of backups in each condition."""
        return Counter(each.condition for each in self.backups)

    @property
    def exit_code(self) -> int:
        """Return the exit code: 0 if every backup is completed."""
        not_completed = len(self.backups) - self.counts[Condition.COMPLETED] + self.unfinished
        return exit_code(Ending(signum=self.signum, credentials_refused=self.credentials_refused, failed=not_completed))


async def run_status(config: Config, state_dir: Path, word: str, log: Log, stop: StopSwitch) -> StatusEnd:
    """Ask how the backups of the run that ``word`` names ended, and record it in its journal and its report.

    Raises ``UsageError`` if there is no such run, or if one of its accounts has left the configuration or has another
    ``base_url``. Raises ``LockedError`` if the run is alive, ``StoppedError`` if a signal comes before the first
    question, and ``StorageError`` if the state or the report cannot be read or written.
    """
    async with AsyncExitStack() as stack:
        folder = StateFolder.at(state_dir)
        store = Store(folder.existing_database())
        await stop.unless_pressed(stack.enter_async_context(store))
        run_id = (await run_meant(store, config, word, state_dir, None)).id
        run = await stop.unless_pressed(run_at_rest(stack, store, folder, run_id))
        connections = Connections(config, store, log.bind(run_id=run_id), stack)
        told = [known for each in run.stored if (known := known_of(each))]
        to_ask = [each for each in told if not has_ended(each.backup)]
        names = {each.install.account for each in to_ask}
        check_accounts(config, run.record, names, "cannot be asked about", "name the YAML that it ran with")
        questions = [_question(each) for each in to_ask]
        answers = await answers_to(Subject("status", "backups"), questions, connections, stop)
        found = dict(zip((each.line.position for each in to_ask), answers.answers, strict=True))
        backups = [_after(each, found.get(each.line.position)) for each in told]
        has_news, report = await _amended(store, folder, run, [each.line for each in backups], connections.clock.now())
        ranks = list(Condition)
        return StatusEnd(
            run_id=run_id,
            backups=tuple(sorted(backups, key=lambda each: ranks.index(each.condition))),
            asked=len(to_ask),
            failures=len(run.lines) - len(told),
            unfinished=len(run.stored) - len(run.lines),
            has_news=has_news,
            report=report,
            signum=answers.signum,
            credentials_refused=are_credentials_refused(connections),
        )


def known_of(stored: StoredBackup) -> Known | None:
    """Return the backup in an install's line, ``None`` if no backup is known to exist."""
    line = stored.line
    fields = line.fields()["backup"] if line and line.kind in _WITH_BACKUP else None
    return Known(stored.planned.install, line, Backup(**fields)) if line and fields else None


def known_now(known: Known, shown: Backup, age: float | None = None) -> Known:
    """Return ``known`` with its backup as ``shown``, and with the outcome that follows.

    A skipped install stays skipped if its backup is completed. If that backup was aborted, the outcome is aborted.
    """
    line, backup = known.line, merged(known.backup, shown)
    fields, kind = line.fields(), line.kind
    if backup.status == ABORTED:
        kind = OutcomeKind.ABORTED
    elif backup.status == COMPLETED and kind is not OutcomeKind.SKIPPED:
        kind = OutcomeKind.COMPLETED
    if kind is not line.kind:
        fields |= {"outcome": kind.value, "error": None, "reason": None}
    line = replace(line, kind=kind, data=encode(fields | {"backup": asdict(backup)}))
    return replace(known, line=line, backup=backup, age_s=None if has_ended(backup) else age)


def _question(known: Known) -> Question[Known]:
    install, backup = known.install, known.backup

    async def ask(queries: Queries) -> Known | ErrorInfo:
        answer = await queries.backup(install.account, install.id or "", backup.id)
        if isinstance(answer, ErrorInfo):
            return answer
        return known_now(known, answer, age_s(merged(backup, answer), queries.now_s(install.account)))

    return Question(install.account, ask)


def _after(known: Known, answer: Known | ErrorInfo | None) -> Known:
    """Return ``known`` after the ``answer``. Without an answer, the outcome follows from the status known so far."""
    if isinstance(answer, ErrorInfo):
        return replace(known, error=answer)
    return answer or known_now(known, known.backup)


async def _amended(
    store: Store, folder: StateFolder, run: StoredRun, lines: list[Line], at: datetime
) -> tuple[bool, str | None]:
    """Record changed lines, and those that an earlier process left unwritten; return whether any, and the report."""
    before = {line.position: line for line in run.lines}
    changed = [line for line in lines if line != before[line.position]]
    now = summary_now(run.record, run.lines, folder.report_of(run.record))
    is_told = not run.is_whole or run.record.summary == now
    if is_told and not changed:
        return False, None
    return True, await amend_run(store, folder, run, changed, at)
