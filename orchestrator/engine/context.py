"""The inputs of the core: the limits of a run, and the objects that it works with."""

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
    """The limits that end the work on an install, the work of an account, or the requests of a run.

    An account stops if a ``Retry-After`` is longer than ``max_pause_s``, or if no POST is served for ``give_up_s``
    seconds. ``wait`` says how the run waits for accepted backups; with ``None`` it does not wait. The run skips an
    install that has a completed backup younger than ``recent_s`` seconds. It requests nothing more after ``deadline_s``
    seconds, or at the ``failure_limit``. A check of credentials that gets no answer, or a 5xx, is repeated for
    ``reach_s`` seconds, but no longer than ``give_up_s``.
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
    """The objects that every part of the core works with, for the run ``run_id``."""

    run_id: str
    limits: RunLimits
    journal: Journal
    sink: OutcomeSink
    clock: Clock
    log: Log
    stop: StopSwitch
