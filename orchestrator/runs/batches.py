"""Hand things over in batches: while one is under way, the next gathers. So one fsync serves many requests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class Batches(Generic[T]):
    """Gather items for ``hand_over``, in order. What it raises is raised for each item of that batch."""

    def __init__(self, hand_over: Callable[[list[T]], Awaitable[None]]) -> None:
        """Hand over to ``hand_over``, one batch at a time."""
        self._hand_over = hand_over
        self._gathered: list[tuple[T, asyncio.Future[None] | None]] = []
        self._work: asyncio.Task[None] | None = None

    async def put(self, item: T) -> None:
        """Return when ``item`` has been handed over."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gather(item, done)
        await done

    def leave(self, item: T) -> None:
        """Hand ``item`` over soon; if that fails, whoever comes next will see."""
        self._gather(item, None)

    async def drain(self) -> None:
        """Return when everything has been handed over, or has failed."""
        while self._work is not None:
            await self._work

    def _gather(self, item: T, done: asyncio.Future[None] | None) -> None:
        self._gathered.append((item, done))
        if self._work is None:
            self._work = asyncio.create_task(self._hand_over_all())

    async def _hand_over_all(self) -> None:
        try:
            while self._gathered:
                batch, self._gathered = self._gathered, []
                error: Exception | None = None
                try:
                    await self._hand_over([item for item, _ in batch])
                except Exception as raised:  # noqa: BLE001 - it is raised again where it is waited for
                    error = raised
                for _, done in batch:
                    _settle(done, error)
        finally:
            self._work = None


def _settle(done: asyncio.Future[None] | None, error: Exception | None) -> None:
    if done is None or done.done():
        return
    if error:
        done.set_exception(error)
    else:
        done.set_result(None)
