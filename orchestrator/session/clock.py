"""Time and chance as they are; whoever needs them takes a clock, and this one if nobody gives another."""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime
from random import random
from typing import TYPE_CHECKING

from orchestrator.model import Run

if TYPE_CHECKING:
    from orchestrator.engine.ports import Clock

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class SystemClock:
    """The engine's ``Clock``."""

    def monotonic(self) -> float:
        """Return the running loop's time."""
        return asyncio.get_running_loop().time()

    def now(self) -> datetime:
        """Return the wall clock's time."""
        return datetime.now(UTC)

    def draw(self) -> float:
        """Return a number that is uniform in [0, 1)."""
        return random()  # noqa: S311 - jitter, not a secret


SYSTEM_CLOCK = SystemClock()


def new_run(clock: Clock = SYSTEM_CLOCK) -> Run:
    """Return a run that begins now.

    Its id is a ULID: 48 bits of milliseconds and 80 of chance in Crockford's base 32, so that ids sort by time.
    """
    now = clock.now()
    number = int(now.timestamp() * 1000) << 80 | secrets.randbits(80)
    return Run("".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5)), now)
