"""The system clock and random numbers, behind the engine's ``Clock``. Tests pass another clock."""

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
    """Implement the engine's ``Clock`` with the event loop, the system time and ``random``."""

    def monotonic(self) -> float:
        """Return the time of the running event loop, in seconds."""
        return asyncio.get_running_loop().time()

    def now(self) -> datetime:
        """Return the system time, in UTC."""
        return datetime.now(UTC)

    def draw(self) -> float:
        """Return a random number, uniform in [0, 1)."""
        return random()  # noqa: S311 - jitter, not a secret


SYSTEM_CLOCK = SystemClock()


def new_run(clock: Clock = SYSTEM_CLOCK) -> Run:
    """Return a run that begins now.

    Its id is a ULID: 48 bits of milliseconds and 80 random bits in Crockford's base 32, so ids sort by time.
    """
    now = clock.now()
    number = int(now.timestamp() * 1000) << 80 | secrets.randbits(80)
    return Run("".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5)), now)
