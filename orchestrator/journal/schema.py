"""The tables of the state's file, by schema version, and the text form of instants in them."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

MIGRATIONS = (
    """
    CREATE TABLE learned_rates (
        base_url TEXT NOT NULL,
        user_digest TEXT NOT NULL,
        rate REAL NOT NULL,
        burst REAL NOT NULL,
        in_flight INTEGER,
        latency_s REAL,
        updated_at TEXT NOT NULL,
        PRIMARY KEY (base_url, user_digest)
    );
    """,
    """
    CREATE TABLE runs (
        id TEXT PRIMARY KEY,
        started_at TEXT NOT NULL,
        scope TEXT NOT NULL,
        config TEXT NOT NULL,
        report TEXT NOT NULL,
        accounts TEXT NOT NULL,
        disabled INTEGER NOT NULL,
        retried TEXT,
        ended_at TEXT,
        summary TEXT
    );
    CREATE TABLE planned_backups (
        run_id TEXT NOT NULL,
        position INTEGER NOT NULL,
        plan TEXT NOT NULL,
        PRIMARY KEY (run_id, position)
    ) WITHOUT ROWID;
    CREATE TABLE standings (
        run_id TEXT NOT NULL,
        position INTEGER NOT NULL,
        tries INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        throttled INTEGER NOT NULL,
        started_at TEXT,
        sought TEXT NOT NULL,
        sent_at REAL,
        described TEXT,
        open_since REAL,
        may_repeat INTEGER NOT NULL,
        error TEXT,
        PRIMARY KEY (run_id, position)
    ) WITHOUT ROWID;
    CREATE TABLE outcomes (
        run_id TEXT NOT NULL,
        position INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        retries INTEGER NOT NULL,
        reconciled INTEGER NOT NULL,
        line BLOB NOT NULL,
        PRIMARY KEY (run_id, position)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE circumstances (
        run_id TEXT PRIMARY KEY,
        circumstances TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE made (
        run_id TEXT NOT NULL,
        position INTEGER NOT NULL,
        made TEXT NOT NULL,
        PRIMARY KEY (run_id, position)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE report_order (
        run_id TEXT NOT NULL,
        nth INTEGER NOT NULL,
        positions TEXT NOT NULL,
        PRIMARY KEY (run_id, nth)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE learned_rates ADD COLUMN low REAL;
    ALTER TABLE learned_rates ADD COLUMN high REAL;
    ALTER TABLE learned_rates ADD COLUMN window_requests INTEGER;
    ALTER TABLE learned_rates ADD COLUMN window_low_s REAL;
    ALTER TABLE learned_rates ADD COLUMN window_high_s REAL;
    ALTER TABLE learned_rates ADD COLUMN window_fixed INTEGER;
    """,
)
"""SQL scripts in order: the first n scripts create schema version n.

A published script never changes. An older program may still be running, so a new script keeps everything that it needs.
Each statement ends at the end of a line.
"""


def iso(at: datetime) -> str:
    """Return the text of an instant in UTC with milliseconds. Such texts sort in the order of time."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds")
