"""What the core is given: the limits of a run, and the objects that it works with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.engine.ports import Clock, Journal, Log, OutcomeSink
    from orchestrator.engine.stop import StopSwitch
    from orchestrator.policies import ReconcilePolicy, RetryPolicy, WaitPolicy
    from orchestrator.summary import FailureLimit


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What ends an install, what ends an account, and what ends the requests of a run.

    An account ends at a longer ``Retry-After`` than ``max_pause_s``, and ``give_up_s`` without a served POST. ``wait``
    says how accepted backups are waited for, ``None`` if they are not. An install with a completed backup younger than
    ``recent_s`` seconds is skipped. Requests end after ``deadline_s`` seconds, or at the ``failure_limit``. A check of
    credentials that gets no answer, or a 5xx, is repeated for ``reach_s`` seconds, and no longer than ``give_up_s``.
    """

    retry: RetryPolicy
    reconcile: ReconcilePolicy
    max_pause_s: float
    give_up_s: float
    wait: WaitPolicy | None = None
    recent_s: float | None = None
    deadline_s: float | None = None
    failure_limit: FailureLimit | None = None
    reach_s: float = math.inf


@dataclass(frozen=True, slots=True)
class DispatchContext:
    """What every part of the core works with, for the run ``run_id``."""

    run_id: str
    limits: RunLimits
    journal: Journal
    sink: OutcomeSink
    clock: Clock
    log: Log
    stop: StopSwitch
