"""What a run says while it goes on: each failure, each change of pace and why, a heartbeat."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from orchestrator.model import OutcomeKind
from orchestrator.pacing import Phase, ready_at
from orchestrator.summary import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.engine.ports import Log, OutcomeSink
    from orchestrator.model import Outcome
    from orchestrator.pacing import Observation, Pace

HEARTBEAT_S = 30.0


class Recorder:
    """Hand each outcome on to the report, then count it and say of a failure that it is one; an ``OutcomeSink``."""

    def __init__(self, report: OutcomeSink, log: Log) -> None:
        """Stand before ``report``."""
        self._report = report
        self._log = log
        self.tally = Tally()

    async def record(self, outcome: Outcome) -> None:
        """Keep one outcome for good."""
        self.tally.add(outcome)
        await self._report.record(outcome)
        install, error = outcome.planned.install.label, outcome.error
        event = f"backup.{outcome.kind.value}"
        if error is None:
            self._log.debug(event, install=install, backup=outcome.backup.id if outcome.backup else None)
        elif outcome.kind is OutcomeKind.CANCELLED:
            self._log.debug(event, install=install, kind=error.kind.value, reason=error.message)
        else:
            self._log.warning(event, install=install, kind=error.kind.value, status=error.status, reason=error.message)


class PaceNarrator:
    """Say each change of a budget's pace, and why."""

    def __init__(self, budget: str, log: Log) -> None:
        """Speak of the budget of the account ``budget`` and those that share it."""
        self._budget = budget
        self._log = log

    def __call__(self, before: Pace, after: Pace, observation: Observation) -> None:
        """Say what changed between ``before`` and ``after``, which ``observation`` brought about."""
        rate = round(after.rate, 2)
        if after.epoch != before.epoch:
            self._log.warning(
                "throttle.held",
                budget=self._budget,
                why=observation.word.effect.value,
                for_s=round((ready_at(after) or observation.at) - observation.at, 2),
                retry_after_s=observation.word.retry_after_s,
                rate=rate,
            )
        elif before.phase is not Phase.OPEN and after.phase is Phase.OPEN:
            self._log.info("throttle.resumed", budget=self._budget, rate=rate)
        else:
            self._log.debug("throttle.rate", budget=self._budget, rate=rate)


async def heartbeat(log: Log, progress: Callable[[], dict[str, object]]) -> None:
    """Log ``progress()`` every ``HEARTBEAT_S`` seconds, for ever."""
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        log.info("run.progress", **progress())
