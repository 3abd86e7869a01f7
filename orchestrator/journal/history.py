"""Read past runs from the state's file without changing it: nothing is created, migrated, locked or repaired.

So this works while a run is alive, on a read-only file system, and for a user who can only read the file.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.errors import StateError
from orchestrator.journal.schema import MIGRATIONS
from orchestrator.journal.store import PATIENCE_S, Patience, is_there
from orchestrator.model import OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

T = TypeVar("T")

_COLUMNS = "id, started_at, ended_at, config, report, retried, disabled, summary"

_QUERY = f"""
WITH shown AS (
    SELECT rowid AS nth, {_COLUMNS},
        CASE WHEN ended_at IS NULL THEN (SELECT count(*) FROM planned_backups WHERE run_id = runs.id) END AS planned
    FROM runs ORDER BY rowid DESC LIMIT ?
)
SELECT {_COLUMNS}, planned, outcome, count(outcome) FROM shown LEFT JOIN outcomes ON ended_at IS NULL AND run_id = id
GROUP BY nth, outcome ORDER BY nth DESC
"""  # noqa: S608 - no user input
"""One row per ended run; for a run that has not ended, one row per outcome, with the counts of plan and outcomes."""


@dataclass(frozen=True, slots=True)
class PastRun:
    """One run, which may still be alive. ``outcomes`` counts the installs that have an outcome so far, by outcome.

    ``finished_at``, ``duration_s`` (seconds) and ``exit_code`` are ``None`` until the run has ended.
    """

    id: str
    started_at: datetime
    config: str
    report: str
    retried: str | None
    disabled: int
    planned: int
    outcomes: dict[str, int]
    finished_at: datetime | None = None
    duration_s: float | None = None
    exit_code: int | None = None

    @property
    def succeeded(self) -> int:
        """Return how many installs count as backed up."""
        return sum(self.outcomes.get(kind.value, 0) for kind in OutcomeKind if kind.is_success)

    @property
    def failed(self) -> int:
        """Return how many installs have an outcome and do not count as backed up."""
        return sum(self.outcomes.values()) - self.succeeded


def past_runs(path: Path, limit: int | None = None) -> list[PastRun]:
    """Return the runs in the state's file ``path``, newest first, at most ``limit``. Return none if there is no file.

    Raises ``StateError`` if the file cannot be read.
    """
    if not is_there(path):
        return []
    try:
        rows = _read(path.absolute(), partial(_rows, -1 if limit is None else limit))
        return [_past_run(list(group)) for _, group in groupby(rows, itemgetter(0))]
    except (sqlite3.Error, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        message = f"the state in {path} cannot be read: {reason}; name another directory with --state-dir"
    except (ValueError, TypeError, LookupError, AttributeError):
        message = f"the state in {path} cannot be read: it is damaged; name another directory with --state-dir"
    raise StateError(message)


def state_fault(path: Path) -> str | None:
    """Read all of the state's file ``path``, which must exist. Return the first problem, or ``None``."""
    try:
        version, check = _read(path.absolute(), _version_and_check)
    except (sqlite3.Error, OSError) as error:
        return f"cannot be read: {error}"
    if check != "ok":
        return f"is damaged: {check}"
    if not 0 <= version <= len(MIGRATIONS):
        return f"has schema version {version}, but this program knows only versions up to {len(MIGRATIONS)}"
    return None


def _version_and_check(connection: sqlite3.Connection) -> tuple[int, str]:
    version, check = (connection.execute(f"PRAGMA {each}").fetchone()[0] for each in ("user_version", "quick_check(1)"))
    return int(version), str(check)


def _read(path: Path, query: Callable[[sqlite3.Connection], T]) -> T:
    """Return the value of ``query``.

    If no ``-wal`` or ``-journal`` file exists, nobody is changing the file. Then SQLite opens it as immutable, since it
    would otherwise create such files and leave them behind. If the file changes during the query, read it again.
    """
    before = _looks(path)
    if not before.is_in_use:
        try:
            found = _queried(f"{path.as_uri()}?immutable=1", query)
        except sqlite3.Error:
            if _looks(path) == before:
                raise
        else:
            if _looks(path) == before:
                return found
    return _queried(f"{path.as_uri()}?mode=ro", query)


@dataclass(frozen=True, slots=True)
class _Looks:
    """The file's metadata, and whether a file beside it shows that a process uses it."""

    is_in_use: bool
    inode: int
    size: int
    modified_ns: int


def _looks(path: Path) -> _Looks:
    stat = path.stat()
    is_in_use = any(path.with_name(path.name + end).exists() for end in ("-wal", "-journal"))
    return _Looks(is_in_use, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def _queried(address: str, query: Callable[[sqlite3.Connection], T]) -> T:
    with closing(sqlite3.connect(address, uri=True, timeout=0.0, isolation_level=None)) as connection:
        connection.text_factory = partial(str, encoding="utf-8", errors="replace")
        return Patience(PATIENCE_S).until_unlocked(partial(query, connection))


def _rows(limit: int, connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchone():
        return []  # the file is new, or its schema version has no runs
    return connection.execute(_QUERY, (limit,)).fetchall()


def _past_run(rows: list[tuple[Any, ...]]) -> PastRun:
    """Return the run in ``rows``. Damaged rows raise whatever exception their parsing raises."""
    run_id, started_at, ended_at, config, report, retried, disabled, summary, planned = rows[0][:9]
    past = PastRun(
        id=run_id,
        started_at=datetime.fromisoformat(started_at),
        config=json.loads(config),
        report=json.loads(report),
        retried=json.loads(retried),
        disabled=disabled,
        planned=planned or 0,
        outcomes=_counted((row[-2], row[-1]) for row in rows),
    )
    return past if ended_at is None else _ended(past, json.loads(summary))


def _ended(past: PastRun, summary: dict[str, Any]) -> PastRun:
    """Return ``past`` with the values of its summary line."""
    return replace(
        past,
        planned=int(summary["planned"]),
        outcomes=_counted(summary["outcomes"].items()),
        finished_at=datetime.fromisoformat(summary["finished_at"]),
        duration_s=float(summary["duration_s"]),
        exit_code=int(summary["exit_code"]),
    )


def _counted(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    return {outcome: count for outcome, count in counts if count}
