"""The limits that earlier runs learned, so that the next run starts there and not from nothing.

Each budget has a row. Its key is the base URL and a digest of the user id: this program never writes credentials to a
file. Times are UTC, ISO 8601. A stored value counts only within bounds. The file may be damaged or edited, and a wrong
rate would stall a run or flood a server.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.journal.schema import iso
from orchestrator.model import Learned, LearnedWindow

if TYPE_CHECKING:
    import sqlite3

    from orchestrator.journal.store import Store

FORGOTTEN_AFTER = timedelta(days=30)
"""Limits change: an outdated rate costs a run more than starting without one."""

_RATE = (0.01, 100_000.0)
_BURST = (0.0, 100_000.0)
_IN_FLIGHT = (1, 100_000)
_LATENCY_S = (0.000_001, 600.0)
_REQUESTS = (1, 1_000_000)
_PERIOD_S = (0.001, 86_400.0)

_LIMIT = "rate, burst, in_flight, latency_s, low, high"
_COLUMNS = f"{_LIMIT}, window_requests, window_low_s, window_high_s, window_fixed, updated_at"


async def remembered(store: Store, budget_key: tuple[str, str], now: datetime) -> Learned | None:
    """Return the learned limit of the budget ``budget_key``, which ``plan.budget_of`` returns.

    Return ``None`` if no limit is stored, if a value is out of bounds, or if the limit is more than ``FORGOTTEN_AFTER``
    older or newer than ``now`` (newer: a clock was wrong). Raises ``StateError``.
    """
    row = await store.read(partial(_row, key=_stored_key(budget_key)))
    return _learned(row, now) if row else None


async def remember(store: Store, budget_key: tuple[str, str], learned: Learned, at: datetime) -> None:
    """Store ``learned``, the limit as known at ``at``, in place of the earlier one. The last run to write wins.

    A limit that is out of bounds is silently not stored. Limits of any budget that are older than ``FORGOTTEN_AFTER``
    are removed. Raises ``StateError``.
    """
    if not _is_sane(learned):
        return
    window = learned.window
    counted = (None,) * 4 if window is None else (window.requests, window.low_s, window.high_s, window.fixed)
    values = (learned.rate, learned.burst, learned.in_flight, learned.latency_s, learned.low, learned.high, *counted)
    row = (*_stored_key(budget_key), *values, iso(at))
    await store.write(partial(_keep, row=row, forgotten_before=iso(at - FORGOTTEN_AFTER)))


def _row(connection: sqlite3.Connection, key: tuple[str, str]) -> tuple[object, ...] | None:
    found: tuple[object, ...] | None = connection.execute(
        f"SELECT {_COLUMNS} FROM learned_rates WHERE base_url = ? AND user_digest = ?",  # noqa: S608 - a constant
        key,
    ).fetchone()
    return found


def _keep(connection: sqlite3.Connection, row: tuple[object, ...], forgotten_before: str) -> None:
    connection.execute("DELETE FROM learned_rates WHERE updated_at < ?", (forgotten_before,))
    connection.execute(
        f"INSERT OR REPLACE INTO learned_rates (base_url, user_digest, {_COLUMNS})"  # noqa: S608 - a constant
        f" VALUES ({', '.join('?' * len(row))})",
        row,
    )


def _stored_key(budget_key: tuple[str, str]) -> tuple[str, str]:
    """Return the row's key: the base URL, and the digest of a fixed prefix, the base URL and the user id.

    At WP Engine a user id is a random UUID, so nobody can find it from the digest by trying all of them. A short name
    could be found that way. The prefix and the URL make the digest differ from digests that other programs make.
    """
    base_url, user_id = budget_key
    digested = f"wpe-backup learned rate\0{base_url}\0{user_id}"
    return base_url, hashlib.sha256(digested.encode("utf-8", "surrogatepass")).hexdigest()


def _learned(row: tuple[object, ...], now: datetime) -> Learned | None:
    *limit, updated_at = row
    at = _instant(updated_at)
    if at is None or abs(now - at) > FORGOTTEN_AFTER:
        return None
    rate, burst, in_flight, latency_s, low, high, *counted = limit
    if not (
        isinstance(rate, float)
        and isinstance(burst, float)
        and isinstance(in_flight, int | None)
        and isinstance(latency_s, float | None)
        and isinstance(low, float | None)
        and isinstance(high, float | None)
    ):
        return None
    age_s = max(0.0, (now - at).total_seconds())
    learned = Learned(rate, burst, in_flight, latency_s, low, high, _window(*counted), age_s)
    return learned if _is_sane(learned) else None


def _window(requests: object, low_s: object, high_s: object, fixed: object) -> LearnedWindow | None:
    """Return the stored window, ``None`` if there is none, or if it makes no sense."""
    if not (isinstance(requests, int) and isinstance(low_s, float) and isinstance(high_s, float)):
        return None
    window = LearnedWindow(requests, low_s, high_s, None if fixed is None else bool(fixed))
    is_sane = _REQUESTS[0] <= requests <= _REQUESTS[1] and _PERIOD_S[0] <= low_s <= high_s <= _PERIOD_S[1]
    return window if is_sane else None


def _is_sane(learned: Learned) -> bool:
    """Tell whether every value is within its bounds. NaN never is."""
    low = learned.rate if learned.low is None else learned.low
    high = learned.rate if learned.high is None else learned.high
    return (
        _RATE[0] <= low <= learned.rate <= high <= _RATE[1]
        and _BURST[0] <= learned.burst <= _BURST[1]
        and (learned.in_flight is None or _IN_FLIGHT[0] <= learned.in_flight <= _IN_FLIGHT[1])
        and (learned.latency_s is None or _LATENCY_S[0] <= learned.latency_s <= _LATENCY_S[1])
    )


def _instant(text: object) -> datetime | None:
    """Return the instant ``text``; ``None`` if it is not an instant or has no UTC offset."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at if at.tzinfo else None
