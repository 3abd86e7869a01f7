"""The switch that lets signals stop a run: the first signal drains it, the second aborts it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from orchestrator.errors import StoppedError

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


class StopSwitch:
    """Remember which signal asked to stop, and let the dispatcher wait for it.

    Call ``press`` only from the loop's thread, for example through ``loop.add_signal_handler``.
    """

    def __init__(self) -> None:
        """Start with nothing pressed."""
        self.draining = asyncio.Event()
        self.aborting = asyncio.Event()
        self.signum: int | None = None

    def press(self, signum: int) -> None:
        """Drain on the first press, abort on the second. The first signal decides the exit code."""
        if self.signum is None:
            self.signum = signum
            self.draining.set()
        else:
            self.aborting.set()

    async def unless_pressed(self, work: Coroutine[object, object, T]) -> T:
        """Return the result of ``work``. If the switch is pressed first, cancel ``work`` and raise ``StoppedError``."""
        working = asyncio.ensure_future(work)
        waiting = asyncio.ensure_future(self.draining.wait())
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not working.done():
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            raise StoppedError(self.signum or 0)
        return working.result()
