"""The log of a run while it goes on: each change of pace with its cause, and a heartbeat."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from orchestrator.pacing import Effect, Phase, ready_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.engine.ports import Log
    from orchestrator.pacing import Observation, Pace

HEARTBEAT_S = 30.0

LONGER_S = 0.5
"""A hold that becomes longer by less than this is not logged again: the last 429s of a hold come one after another."""

COINCIDENCE_S, COINCIDENCES = 1.0, 3
"""Two budgets coincide if their holds begin within one second. Three coincidences are hardly chance."""


class PaceNarrator:
    """Log each change of a budget's pace, with its cause."""

    def __init__(self, budget: str, log: Log, on_held: Callable[[str, float], None]) -> None:
        """Log to ``log`` under the name ``budget``. Call ``on_held(budget, instant)`` for a hold after a 429."""
        self._budget = budget
        self._log = log.bind(budget=budget)
        self._on_held = on_held
        self._told_until = 0.0

    def __call__(self, before: Pace, after: Pace, observation: Observation | None) -> None:
        """Log the change from ``before`` to ``after``. ``observation`` caused the change, ``None`` if a start did."""
        if after.epoch != before.epoch and observation is not None:
            self._say_held(before, after, observation)
        elif observation is not None and after.hold.not_before >= max(self._told_until, observation.at) + LONGER_S:
            self._say_held_longer(after, observation)
        elif before.phase is not Phase.FLOWING and after.phase is Phase.FLOWING:
            self._log.info("throttle.resumed", **_rates(after))
        elif after.rate != before.rate:
            self._log.debug("throttle.rate", **_rates(after))
        if after.binding is not before.binding:
            self._log.debug("throttle.binds", what=after.binding.value, in_flight=after.in_flight)

    def _say_held(self, before: Pace, after: Pace, observation: Observation) -> None:
        feedback = observation.feedback
        self._told_until = ready_at(after) or observation.at
        if before.phase is Phase.FLOWING and feedback.effect is Effect.THROTTLED:
            self._on_held(self._budget, observation.at)
        self._log.warning(
            "throttle.held",
            why="429" if feedback.effect is Effect.THROTTLED else "failures in a row",
            for_s=round(self._told_until - observation.at, 2),
            retry_after_s=feedback.retry_after_s,
            rate=round(before.rate, 2),
            in_flight=before.in_flight,
        )

    def _say_held_longer(self, after: Pace, observation: Observation) -> None:
        """Log a ``Retry-After`` that begins no hold, but lets no request start before a later moment."""
        feedback = observation.feedback
        self._told_until = after.hold.not_before
        self._log.warning(
            "throttle.held_longer",
            why="429" if feedback.effect is Effect.THROTTLED else "failed request",
            for_s=round(self._told_until - observation.at, 2),
            retry_after_s=feedback.retry_after_s,
        )


def _rates(pace: Pace) -> dict[str, object]:
    limit = {} if pace.limit is None else {"limit": round(pace.limit, 2)}
    return {"rate": round(pace.rate, 2), "why": pace.cause.value, **limit}


class Neighbours:
    """Notice budgets of one base URL that get a 429 at the same moments: they may share one limit per IP address."""

    def __init__(self, log: Log) -> None:
        """Warn once, in ``log``."""
        self._log = log
        self._last: dict[str, tuple[str, float]] = {}
        self._coincidences = 0

    def of(self, base_url: str) -> Callable[[str, float], None]:
        """Return a callback ``(budget, instant)``, to call when a budget of ``base_url`` is held."""

        def held(budget: str, at: float) -> None:
            other, other_at = self._last.get(base_url, (budget, at))
            self._last[base_url] = budget, at
            if other == budget or at - other_at > COINCIDENCE_S:
                return
            self._coincidences += 1
            if self._coincidences == COINCIDENCES:
                hint = "the limit may be one per IP address; set throttle.scope: host to share one budget"
                self._log.warning("throttle.refused_together", budgets=[other, budget], hint=hint)

        return held


async def heartbeat(log: Log, progress: Callable[[], dict[str, object]], event: str = "run.progress") -> None:
    """Log ``progress()`` as ``event`` every ``HEARTBEAT_S`` seconds, until it is cancelled."""
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        log.info(event, **progress())
