"""What the core is given: the limits it keeps to, and the objects it works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.engine.ports import Clock, Journal, Log, OutcomeSink
    from orchestrator.engine.stop import StopSwitch
    from orchestrator.model import ReconcilePolicy, RetryPolicy


@dataclass(frozen=True, slots=True)
class Limits:
    """What ends an install, and what ends an account: a longer ``Retry-After``, a longer time without a served POST."""

    retry: RetryPolicy
    reconcile: ReconcilePolicy
    max_pause_s: float
    give_up_s: float


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the dispatcher works with, for the run ``run_id``."""

    run_id: str
    journal: Journal
    sink: OutcomeSink
    clock: Clock
    log: Log
    stop: StopSwitch
