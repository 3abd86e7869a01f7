"""Apply the control law of ``pacing`` to the clock: hold, in-flight bound, pacer, then asyncio-throttle.

There is one gate per budget. Only that budget's dispatcher waits for it, so a queue of any length costs nothing while
it waits. asyncio-throttle logs the starts within a sliding window. It is exact as a ceiling, but it lets a whole window
of requests through at once, and it polls while it waits. So it only enforces the ceiling, and the pacer spaces the
starts below it.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from asyncio_throttle.throttler import Throttler

from orchestrator.pacing import (
    Feedback,
    Observation,
    Pace,
    Ticket,
    held_s,
    next_pace,
    opening,
    ready_at,
    released,
    started,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from orchestrator.model import Learned
    from orchestrator.policies import ThrottlePolicy

    OnChange = Callable[[Pace, Pace, Observation | None], None]

POLL_INTERVAL_S = 0.002
"""Seconds after which asyncio-throttle checks a full window again; the pacer's next start is then almost due."""


class Gate:
    """Admit the requests of one budget; the engine's ``Throttle``.

    ``draw`` returns uniform numbers in [0, 1) for the holds' jitter. ``on_change(before, after, observation)`` is
    called when the phase, the rate, the epoch, the binding or the moment named by a ``Retry-After`` has changed.
    ``observation`` is the answer that caused this, ``None`` if no answer did.
    """

    def __init__(
        self,
        policy: ThrottlePolicy,
        draw: Callable[[], float],
        on_change: OnChange,
        learned: Learned | None = None,
    ) -> None:
        """Start at the policy's fixed rate, else at the ``learned`` limit, else at the policy's start rate."""
        self.pace = opening(policy, learned)
        self._draw = draw
        self._on_change = on_change
        self._changed = asyncio.Event()
        self._waits_until: float | None = None
        self._is_waking = False
        self._pass_ceiling: Callable[[], Coroutine[Any, Any, None]] = _ceiling(policy.ceiling).acquire

    def admit_at_once(self) -> Ticket | None:
        """Start one more request if it need not wait, else return ``None``. Unlike ``admit``, this needs no task."""
        if self._wait_s() > 0:
            return None
        passing = self._pass_ceiling()
        try:
            passing.send(None)
        except StopIteration:
            return self._started()
        passing.close()
        return None

    async def admit(self) -> Ticket:
        """Wait until one more request may start, and start it. If cancelled, it admits nothing."""
        while True:
            await self._until_ready()
            await self._pass_ceiling()
            if self._wait_s() <= 0:
                break
        return self._started()

    def _started(self) -> Ticket:
        pace, ticket = started(self.pace, self._now())
        self._become(pace, None)
        return ticket

    def observe(self, ticket: Ticket, feedback: Feedback) -> None:
        """Take the ticket back with the feedback from the answer."""
        observation = Observation(ticket, feedback, self._now(), self._draw())
        self._become(next_pace(self.pace, observation), observation)
        self._wake()

    def release(self, ticket: Ticket) -> None:
        """Take the ticket back when there was no answer, or no request."""
        self._become(released(self.pace, ticket, self._now()), None)
        self._wake()

    def rate(self) -> float:
        """Return the current rate in requests per second: in a window, what it sustains."""
        window = self.pace.window
        return self.pace.rate if window is None else min(self.pace.rate, window.rate)

    def held_s(self) -> float:
        """Return how many seconds the budget has been held so far."""
        return held_s(self.pace, self._now())

    def _become(self, pace: Pace, observation: Observation | None) -> None:
        before, self.pace = self.pace, pace
        if _is_told(before, pace):
            self._on_change(before, pace, observation)

    def _wait_s(self) -> float:
        at = ready_at(self.pace)
        return math.inf if at is None else at - self._now()

    async def _until_ready(self) -> None:
        try:
            while (wait_s := self._wait_s()) > 0:
                self._changed.clear()
                self._waits_until = self._now() + wait_s
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if math.isinf(wait_s) else wait_s):
                        await self._changed.wait()
        finally:
            self._waits_until = None

    def _wake(self) -> None:
        """Let the waiter look again if its wait has become shorter, but only after the calling worker has had its turn.

        The worker takes the next ticket itself if there is one. Then the waiter need not wake.
        """
        if self._waits_until is not None and not self._is_waking:
            self._is_waking = True
            asyncio.get_running_loop().call_soon(self._wake_if_earlier)

    def _wake_if_earlier(self) -> None:
        self._is_waking = False
        at = ready_at(self.pace)
        if self._waits_until is not None and at is not None and at < self._waits_until:
            self._changed.set()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _is_told(before: Pace, after: Pace) -> bool:
    return (
        before.rate != after.rate
        or before.phase is not after.phase
        or before.epoch != after.epoch
        or before.binding is not after.binding
        or before.hold.not_before != after.hold.not_before
    )


def _ceiling(rate: float) -> Throttler:
    """Return a throttler that lets ``rate`` requests per second through.

    The library counts whole requests (it treats 0.5 as 1, and 0 never returns), so the fraction goes into the period:
    ``n = max(1, floor(rate))`` requests in any ``n / rate`` seconds.
    """
    whole = max(1, math.floor(rate))
    return Throttler(rate_limit=whole, period=whole / rate, retry_interval=POLL_INTERVAL_S)
