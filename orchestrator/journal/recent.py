"""Completed backups that the journal knows, whichever run recorded them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from orchestrator.journal.schema import iso
from orchestrator.model import Backup, OutcomeKind
from orchestrator.units import seconds_of

if TYPE_CHECKING:
    import sqlite3

    from orchestrator.journal.store import Store

Key = tuple[str, str]
"""A base URL and the id of an install there: a backup at the stand-in proves nothing about the real API."""

_KINDS = (OutcomeKind.COMPLETED, OutcomeKind.SKIPPED)


async def completed_since(store: Store, since_s: float) -> dict[Key, Backup]:
    """Return each install's newest completed backup that was made at ``since_s`` (seconds since 1970) or later.

    Raises ``StateError``.
    """
    return await store.read(partial(_completed_since, since_s=since_s))


def _completed_since(connection: sqlite3.Connection, since_s: float) -> dict[Key, Backup]:
    """Read the runs first: without CROSS JOIN, SQLite would read every outcome in the journal."""
    rows = connection.execute(
        "SELECT r.accounts, o.line FROM runs r CROSS JOIN outcomes o ON o.run_id = r.id"
        " WHERE o.outcome IN (?, ?) AND (r.ended_at IS NULL OR r.ended_at >= ?)",
        (*_KINDS, iso(datetime.fromtimestamp(since_s, UTC))),
    )
    newest: dict[Key, tuple[float, Backup]] = {}
    for accounts, text in rows:
        line: dict[str, Any] = json.loads(text)
        backup, base_url = line["backup"], json.loads(accounts).get(line["account"])
        at = seconds_of(backup and backup["create_time"])
        if base_url is None or at is None or at < since_s or backup["status"] != "completed":
            continue
        key = (base_url, line["install_id"])
        if key not in newest or newest[key][0] < at:
            newest[key] = at, Backup(**backup)
    return {key: backup for key, (_, backup) in newest.items()}
