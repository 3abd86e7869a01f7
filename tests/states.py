"""Shortcuts to use a state's file in a test."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import pytest

from orchestrator.errors import StorageError
from orchestrator.journal.rates import remember, remembered
from orchestrator.journal.store import Store
from orchestrator.model import Learned

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

T = TypeVar("T")

AT = datetime(2026, 11, 23, 1, 0, 0, 123000, tzinfo=UTC)
USER_ID = "0c5b2f0e-5a4e-4d5e-9a2f-7b0f0d9d1a11"
KEY = ("https://api.wpengineapi.com/v1", USER_ID)
LEARNED = Learned(rate=47.5, burst=100.0, in_flight=8, latency_s=0.25)


def with_store(path: Path, use: Callable[[Store], Awaitable[T]], **options: float) -> T:
    async def main() -> T:
        async with Store(path, **options) as store:
            return await use(store)

    return asyncio.run(main())


def recall(path: Path, key: tuple[str, str] = KEY, now: datetime = AT) -> Learned | None:
    return with_store(path, lambda store: remembered(store, key, now))


def keep(path: Path, learned: Learned = LEARNED, key: tuple[str, str] = KEY, at: datetime = AT) -> None:
    with_store(path, lambda store: remember(store, key, learned, at))


def by_hand(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def refusal(path: Path, **options: float) -> str:
    async def nothing(_: Store) -> None:
        pass

    with pytest.raises(StorageError) as caught:
        with_store(path, nothing, **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert caught.value.exit_code == 4
    return message


def insert(connection: sqlite3.Connection, number: int) -> int:
    connection.execute(
        "INSERT INTO learned_rates (base_url, user_digest, rate, burst, updated_at) VALUES ('u', ?, 1.0, 1.0, '')",
        (str(number),),
    )
    return number


def numbers(connection: sqlite3.Connection) -> list[int]:
    return sorted(int(row[0]) for row in connection.execute("SELECT user_digest FROM learned_rates"))


class Hold:
    """Keep the writer's thread busy until ``release``, so that all other writes wait."""

    def __init__(self, store: Store) -> None:
        self._began, self._go = threading.Event(), threading.Event()
        self._task = asyncio.ensure_future(store.write(self._wait))

    def _wait(self, _: sqlite3.Connection) -> None:
        self._began.set()
        assert self._go.wait(30)

    async def begun(self) -> None:
        assert await asyncio.to_thread(self._began.wait, 30)

    async def release(self) -> None:
        self._go.set()
        await self._task


def fill(connection: sqlite3.Connection) -> None:
    """Stop the file from growing: SQLite then fails as it does on a full disk."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
