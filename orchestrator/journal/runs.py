"""The journal of a run: its plan, the checkpoint of each planned backup, and the line of each outcome.

Before a POST is sent, its intent is on disk as a checkpoint. Before a line is in the report, its outcome is on disk. So
after a kill the journal knows which backups may exist and which outcomes are final, and the report can be written again
from it. The journal never holds credentials. Times are UTC, ISO 8601. Texts that people wrote are stored as JSON, since
some (paths, for example) are not valid UTF-8, and SQLite refuses those.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from orchestrator.journal.schema import iso
from orchestrator.model import (
    Backup,
    BackupRequest,
    Checkpoint,
    ErrorInfo,
    ErrorKind,
    FieldError,
    Install,
    Made,
    OutcomeKind,
    PlannedBackup,
    Run,
    Spent,
)
from orchestrator.run_names import run_named
from orchestrator.selection import Selection
from orchestrator.summary import Line

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from orchestrator.journal.store import Store

_Row = tuple[Any, ...]

Covered = tuple[str, str | None, str | None]
"""An install of a run's plan: its account, its name, its id."""

NOTHING_MADE = Made()

ANOTHER_FOLDER = "name another directory with --state-dir"
"""The remedy if the directory has no runs."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as the journal knows it.

    ``scope`` names one configuration, one shard of it, or installs of it that were named one by one. ``accounts`` maps
    each account to its base URL. ``report`` is the path of its report. ``retried`` is the run or report whose failures
    this run retries. ``is_part`` tells that its plan is only a part of its configuration: a selection, or the failures
    of another run. ``failed_sources``, ``empty_sources`` and ``selection`` are as in the summary. ``covered`` are the
    installs that the retried runs covered; it is empty unless a source still fails. ``summary`` is the last summary
    line, ``None`` if there is none yet. ``has_ended`` tells that the run was not resumed after that line.
    """

    run: Run
    scope: str
    config: str
    report: str
    accounts: dict[str, str]
    disabled: int = 0
    retried: str | None = None
    is_part: bool = False
    failed_sources: tuple[dict[str, Any], ...] = ()
    empty_sources: tuple[dict[str, Any], ...] = ()
    selection: dict[str, Any] | None = None
    covered: tuple[Covered, ...] = ()
    summary: dict[str, Any] | None = None
    has_ended: bool = False


@dataclass(frozen=True, slots=True)
class KnownRun:
    """A run with its scope and the path of its configuration, as given."""

    id: str
    scope: str
    config: str


@dataclass(frozen=True, slots=True)
class StoredBackup:
    """One planned backup of a stored run.

    ``checkpoint`` is ``None`` if nothing was tried, ``line`` if there is no outcome yet. The report has the lines in
    ascending order of ``nth``.
    """

    planned: PlannedBackup
    checkpoint: Checkpoint | None
    line: Line | None
    nth: int = field(default=0, compare=False)


async def begin(
    store: Store, record: RunRecord, planned: Sequence[PlannedBackup], checkpoints: Sequence[Checkpoint]
) -> None:
    """Store a new run and its plan, before anything is sent. Raises ``StateError``."""
    await store.write(partial(_begin, record=record, planned=planned, checkpoints=checkpoints))


async def keep(store: Store, run_id: str, lines: Sequence[Line], checkpoints: Sequence[Checkpoint] = ()) -> None:
    """Store ``checkpoints`` and ``lines`` in one transaction. The lines follow in the report in this order.

    A checkpoint replaces the earlier one of the same planned backup. Raises ``StateError``.
    """
    await store.write(partial(_keep, run_id=run_id, lines=lines, checkpoints=checkpoints))


async def amend(store: Store, run_id: str, lines: Sequence[Line]) -> None:
    """Replace earlier lines by ``lines``, which keep their places in the report. Raises ``StateError``."""
    await store.write(partial(_amend, run_id=run_id, lines=lines))


def in_report_order(stored: Iterable[StoredBackup]) -> list[Line]:
    """Return the lines of ``stored`` in the order of the report."""
    return [each.line for each in sorted(stored, key=attrgetter("nth")) if each.line]


async def reopen(store: Store, record: RunRecord, checkpoints: Sequence[Checkpoint]) -> None:
    """Store that a run is resumed: its report and the ``checkpoints`` of its open planned backups. Delete their lines.

    Their plans are stored again too, since a name may have its id by now. If a line stayed and this process was killed,
    that line would hide the new request. Raises ``StateError``.
    """
    await store.write(partial(_reopen, record=record, checkpoints=checkpoints))


async def end(store: Store, run_id: str, ended_at: datetime, summary: dict[str, Any]) -> None:
    """Store that a run has ended, with its summary line. Raises ``StateError``."""
    values = (iso(ended_at), json.dumps(summary), run_id)
    await store.write(partial(_update, change="ended_at = ?, summary = ?", values=values))


async def find(store: Store, word: str, where: str) -> RunRecord:
    """Return the run that ``word`` names: a run id, the unique beginning of one, or ``latest``.

    Messages name the place of the runs as ``where``. Raises ``UsageError`` and ``StateError``.
    """
    record: RunRecord = await store.read(partial(_find, word=word, where=where))
    return record


async def known(store: Store) -> list[KnownRun]:
    """Return all runs in order of time. Raises ``StateError``."""
    return await store.read(_known)


async def load(store: Store, run_id: str) -> list[StoredBackup]:
    """Return the planned backups of a run, in order, with their checkpoints and lines. Raises ``StateError``."""
    return await store.read(partial(_load, run_id=run_id))


async def ended_before(store: Store, before: datetime) -> list[KnownRun]:
    """Return the runs that ended before the instant ``before``, in order of time. Raises ``StateError``."""
    return await store.read(partial(_ended_before, before=before))


async def forget(store: Store, run_ids: Iterable[str]) -> None:
    """Remove runs. Raises ``StateError``."""
    await store.write(partial(_forget, run_ids=tuple(run_ids)))


def _begin(
    connection: sqlite3.Connection,
    record: RunRecord,
    planned: Sequence[PlannedBackup],
    checkpoints: Sequence[Checkpoint],
) -> None:
    run = record.run
    texts = map(json.dumps, (record.scope, record.config, record.report, record.accounts))
    row = (run.id, iso(run.started_at), *texts, record.disabled, json.dumps(record.retried), None, None)
    _insert(connection, "runs", [row])
    _insert(connection, "circumstances", [_circumstances_row(record)])
    _insert(connection, "planned_backups", [(run.id, each.position, _plan_text(each)) for each in planned])
    _note(connection, run.id, checkpoints)


def _note(connection: sqlite3.Connection, run_id: str, checkpoints: Sequence[Checkpoint]) -> None:
    _insert(connection, "standings", [_checkpoint_row(run_id, checkpoint) for checkpoint in checkpoints])
    made = [(run_id, each.planned.position, _made_text(each.made)) for each in checkpoints if each.made != NOTHING_MADE]
    _insert(connection, "made", made)


def _keep(
    connection: sqlite3.Connection, run_id: str, lines: Sequence[Line], checkpoints: Sequence[Checkpoint]
) -> None:
    _note(connection, run_id, checkpoints)
    if not lines:
        return
    _amend(connection, run_id, lines)
    positions = json.dumps([each.position for each in lines])
    connection.execute(
        "INSERT INTO report_order SELECT ?, COALESCE(MAX(nth), 0) + 1, ? FROM report_order WHERE run_id = ?",
        (run_id, positions, run_id),
    )


def _amend(connection: sqlite3.Connection, run_id: str, lines: Sequence[Line]) -> None:
    rows = [(run_id, each.position, each.kind.value, each.retries, each.reconciled, each.data) for each in lines]
    _insert(connection, "outcomes", rows)


def _reopen(connection: sqlite3.Connection, record: RunRecord, checkpoints: Sequence[Checkpoint]) -> None:
    run_id = record.run.id
    _note(connection, run_id, checkpoints)
    plans = [
        (run_id, each.planned.position, _plan_text(each.planned)) for each in checkpoints if not each.made.is_second
    ]
    _insert(connection, "planned_backups", plans)
    positions = [(run_id, checkpoint.planned.position) for checkpoint in checkpoints]
    connection.executemany("DELETE FROM outcomes WHERE run_id = ? AND position = ?", positions)
    _insert(connection, "circumstances", [_circumstances_row(record)])
    _update(connection, "report = ?, ended_at = NULL", (json.dumps(record.report), run_id))


def _circumstances_row(record: RunRecord) -> _Row:
    keys = ("is_part", "failed_sources", "empty_sources", "selection", "covered")
    return record.run.id, json.dumps({key: getattr(record, key) for key in keys})


def _insert(connection: sqlite3.Connection, table: str, rows: Sequence[_Row]) -> None:
    if rows:
        marks = ", ".join("?" * len(rows[0]))
        connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", rows)  # noqa: S608 - no user input


def _update(connection: sqlite3.Connection, change: str, values: _Row) -> None:
    connection.execute(f"UPDATE runs SET {change} WHERE id = ?", values)  # noqa: S608 - no user input


def _known(connection: sqlite3.Connection) -> list[KnownRun]:
    rows = connection.execute("SELECT id, scope, config FROM runs ORDER BY rowid")
    return [KnownRun(run_id, json.loads(scope), json.loads(config)) for run_id, scope, config in rows]


def _find(connection: sqlite3.Connection, word: str, where: str) -> RunRecord:
    run_id = run_named(word, [each.id for each in _known(connection)], where, remedy=ANOTHER_FOLDER)
    row = connection.execute(
        "SELECT r.id, started_at, scope, config, report, accounts, disabled, retried, summary, ended_at, circumstances"
        " FROM runs r LEFT JOIN circumstances c ON c.run_id = r.id WHERE r.id = ?",
        (run_id,),
    ).fetchone()
    circumstances = {} if row[10] is None else json.loads(row[10])
    return RunRecord(
        run=Run(row[0], datetime.fromisoformat(row[1])),
        scope=json.loads(row[2]),
        config=json.loads(row[3]),
        report=json.loads(row[4]),
        accounts=json.loads(row[5]),
        disabled=row[6],
        retried=json.loads(row[7]),
        is_part=circumstances.get("is_part", False),
        failed_sources=tuple(circumstances.get("failed_sources", ())),
        empty_sources=tuple(circumstances.get("empty_sources", ())),
        selection=circumstances.get("selection", None if circumstances.get("is_part") else Selection().told()),
        covered=tuple((account, name, install_id) for account, name, install_id in circumstances.get("covered", ())),
        summary=None if row[8] is None else json.loads(row[8]),
        has_ended=row[9] is not None,
    )


def _load(connection: sqlite3.Connection, run_id: str) -> list[StoredBackup]:
    rows = connection.execute(
        "SELECT p.position, p.plan, s.tries, s.attempts, s.throttled, s.started_at, s.sought, s.sent_at, s.described,"
        " s.open_since, s.may_repeat, s.error, m.made, o.outcome, o.retries, o.reconciled, o.line"
        " FROM planned_backups p LEFT JOIN standings s USING (run_id, position)"
        " LEFT JOIN made m USING (run_id, position) LEFT JOIN outcomes o USING (run_id, position)"
        " WHERE p.run_id = ? ORDER BY p.position",
        (run_id,),
    )
    order = _report_order(connection, run_id)
    return [_stored(row, order) for row in rows]


def _report_order(connection: sqlite3.Connection, run_id: str) -> dict[int, int]:
    """Map each position in the plan to its place in the report. A line that was stored twice has its later place."""
    rows = connection.execute("SELECT positions FROM report_order WHERE run_id = ? ORDER BY nth", (run_id,))
    positions = [position for (text,) in rows for position in json.loads(text)]
    return {position: nth for nth, position in enumerate(positions, 1)}


def _stored(row: _Row, order: dict[int, int]) -> StoredBackup:
    position, plan, *checkpoint, outcome, retries, reconciled, line = row
    planned = _planned(position, plan)
    account = planned.install.account
    return StoredBackup(
        planned,
        None if checkpoint[0] is None else _checkpoint(planned, checkpoint),
        None if line is None else Line(position, OutcomeKind(outcome), retries, bool(reconciled), line, account),
        order.get(position, 0),
    )


def _ended_before(connection: sqlite3.Connection, before: datetime) -> list[KnownRun]:
    old = {run_id for (run_id,) in connection.execute("SELECT id FROM runs WHERE ended_at < ?", (iso(before),))}
    return [each for each in _known(connection) if each.id in old] if old else []


def _forget(connection: sqlite3.Connection, run_ids: Sequence[str]) -> None:
    for run_id in run_ids:
        for table in ("planned_backups", "standings", "made", "outcomes", "report_order", "circumstances"):
            connection.execute(f"DELETE FROM {table} WHERE run_id = ?", (run_id,))  # noqa: S608 - no user input
        connection.execute("DELETE FROM runs WHERE id = ?", (run_id,))


def _plan_text(planned: PlannedBackup) -> str:
    install, request = planned.install, planned.request
    return json.dumps(
        {
            "install": {
                "id": install.id,
                "account": install.account,
                "description": install.description,
                "notification_emails": install.notification_emails,
                "name": install.name,
                "environment": install.environment,
                "tags": install.tags,
                "enabled": install.enabled,
                "max_age_s": install.max_age_s,
                "place": install.place,
            },
            "description": request.description,
            "notification_emails": request.notification_emails,
        },
        separators=(",", ":"),
    )


def _planned(position: int, text: str) -> PlannedBackup:
    plan = json.loads(text)
    fields = plan["install"]
    emails, tags = tuple(fields.pop("notification_emails")), tuple(fields.pop("tags"))
    install = Install(**fields, notification_emails=emails, tags=tags)
    request = BackupRequest(install.id or "", plan["description"], tuple(plan["notification_emails"]))
    return PlannedBackup(position, install, request)


def _checkpoint_row(run_id: str, checkpoint: Checkpoint) -> _Row:
    spent, error = checkpoint.spent, checkpoint.error
    return (
        run_id,
        checkpoint.planned.position,
        spent.tries,
        spent.attempts,
        spent.throttled,
        None if spent.started_at is None else iso(spent.started_at),
        " ".join(checkpoint.sought),
        checkpoint.sent_at,
        json.dumps(checkpoint.described),
        checkpoint.open_since,
        checkpoint.may_repeat,
        None if error is None else json.dumps(asdict(error)),
    )


def _checkpoint(planned: PlannedBackup, row: Sequence[Any]) -> Checkpoint:
    tries, attempts, throttled, started_at, sought, sent_at, described, open_since, may_repeat, error, made = row
    began = None if started_at is None else datetime.fromisoformat(started_at)
    return Checkpoint(
        planned=planned,
        spent=Spent(tries, attempts, throttled, began),
        sought=tuple(sought.split()),
        sent_at=sent_at,
        described=json.loads(described),
        open_since=open_since,
        may_repeat=bool(may_repeat),
        error=None if error is None else _error(json.loads(error)),
        made=NOTHING_MADE if made is None else _made(json.loads(made)),
    )


def _made_text(made: Made) -> str:
    return json.dumps(asdict(made))


def _made(fields: dict[str, Any]) -> Made:
    backup, earlier = fields.pop("backup"), fields.pop("earlier")
    return Made(backup and Backup(**backup), earlier=tuple(Backup(**each) for each in earlier), **fields)


def _error(fields: dict[str, Any]) -> ErrorInfo:
    kind, errors = ErrorKind(fields.pop("kind")), fields.pop("errors")
    return ErrorInfo(**fields, kind=kind, errors=tuple(FieldError(**each) for each in errors))
