"""What earlier runs learned of a server's limits, so that the next run starts there and not from nothing.

A row for each budget: base URL, and a digest in place of the user id, since credentials are never in a file that this
program writes. Times are UTC, ISO 8601. What is read back is believed only within bounds: a file may be damaged, or
edited, and a nonsensical rate would stall a run or flood a server.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.journal.schema import iso
from orchestrator.model import Learned

if TYPE_CHECKING:
    import sqlite3

    from orchestrator.journal.store import Store

FORGOTTEN_AFTER = timedelta(days=30)
"""Limits change. A rate of another time costs a run more than none."""

_RATE = (0.01, 100_000.0)
_BURST = (0.0, 100_000.0)
_IN_FLIGHT = (1, 100_000)
_LATENCY_S = (0.000_001, 600.0)


async def remembered(store: Store, budget_key: tuple[str, str], now: datetime) -> Learned | None:
    """Return what was learned of the budget ``budget_key``, as ``plan.budget_of`` makes it.

    ``None`` if nothing is known, if it is more than ``FORGOTTEN_AFTER`` away from ``now`` (in either direction: the
    clock may have been wrong), or if it is nonsense. Raises ``StateError``.
    """
    row = await store.read(partial(_row, key=_stored_key(budget_key)))
    return _learned(row, now) if row else None


async def remember(store: Store, budget_key: tuple[str, str], learned: Learned, at: datetime) -> None:
    """Keep what was learned by the moment ``at`` in the place of what was known. The last of two runs wins.

    What ``remembered`` would not believe is not kept, and nothing is raised for it. What is too old to be remembered
    is removed, for all budgets. Raises ``StateError``.
    """
    if not _is_sane(learned):
        return
    values = (learned.rate, learned.burst, learned.in_flight, learned.latency_s, iso(at))
    row = (*_stored_key(budget_key), *values)
    await store.write(partial(_keep, row=row, forgotten_before=iso(at - FORGOTTEN_AFTER)))


def _row(connection: sqlite3.Connection, key: tuple[str, str]) -> tuple[object, ...] | None:
    found: tuple[object, ...] | None = connection.execute(
        "SELECT rate, burst, in_flight, latency_s, updated_at FROM learned_rates"
        " WHERE base_url = ? AND user_digest = ?",
        key,
    ).fetchone()
    return found


def _keep(connection: sqlite3.Connection, row: tuple[object, ...], forgotten_before: str) -> None:
    connection.execute("DELETE FROM learned_rates WHERE updated_at < ?", (forgotten_before,))
    connection.execute(
        "INSERT OR REPLACE INTO learned_rates"
        " (base_url, user_digest, rate, burst, in_flight, latency_s, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        row,
    )


def _stored_key(budget_key: tuple[str, str]) -> tuple[str, str]:
    """Return the row's key: the base URL, and the digest of a fixed prefix, base URL and user id.

    User ids are UUIDs at WP Engine, mostly chance, so that trying all of them against a digest is hopeless; a short
    name could be guessed from it. Prefix and URL keep the digest from being compared with one made elsewhere.
    """
    base_url, user_id = budget_key
    digested = f"wpe-backup learned rate\0{base_url}\0{user_id}"
    return base_url, hashlib.sha256(digested.encode("utf-8", "surrogatepass")).hexdigest()


def _learned(row: tuple[object, ...], now: datetime) -> Learned | None:
    rate, burst, in_flight, latency_s, updated_at = row
    at = _instant(updated_at)
    if at is None or abs(now - at) > FORGOTTEN_AFTER:
        return None
    if not (
        isinstance(rate, float)
        and isinstance(burst, float)
        and isinstance(in_flight, int | None)
        and isinstance(latency_s, float | None)
    ):
        return None
    learned = Learned(rate, burst, in_flight, latency_s)
    return learned if _is_sane(learned) else None


def _is_sane(learned: Learned) -> bool:
    """Tell whether every value is within its bounds; NaN is in none."""
    return (
        _RATE[0] <= learned.rate <= _RATE[1]
        and _BURST[0] <= learned.burst <= _BURST[1]
        and (learned.in_flight is None or _IN_FLIGHT[0] <= learned.in_flight <= _IN_FLIGHT[1])
        and (learned.latency_s is None or _LATENCY_S[0] <= learned.latency_s <= _LATENCY_S[1])
    )


def _instant(text: object) -> datetime | None:
    """Return the instant that ``text`` names, ``None`` if it names none, or none with an offset."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at if at.tzinfo else None
