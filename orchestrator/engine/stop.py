"""The switch by which a signal stops a run: once to drain it, twice to abort it."""

from __future__ import annotations

import asyncio


class StopSwitch:
    """Remember which signal asked to stop, and let the dispatcher wait for it.

    ``press`` is meant for ``loop.add_signal_handler``: it may be called from the loop's thread only.
    """

    def __init__(self) -> None:
        """Start with nothing pressed."""
        self.draining = asyncio.Event()
        self.aborting = asyncio.Event()
        self.signum: int | None = None

    def press(self, signum: int) -> None:
        """Drain on the first press, abort on the second. The first signal names the exit code."""
        if self.signum is None:
            self.signum = signum
            self.draining.set()
        else:
            self.aborting.set()
