"""Plan a run without a state, a lock or a request for a backup."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from orchestrator.runs.new import planned_run, say_warnings
from orchestrator.session.clock import SYSTEM_CLOCK, new_run
from orchestrator.session.connections import Connections
from orchestrator.session.inventory import inventory_of, say_sources, told
from orchestrator.session.queries import are_credentials_refused

if TYPE_CHECKING:
    from orchestrator.engine.ports import Clock, Log
    from orchestrator.engine.stop import StopSwitch
    from orchestrator.model import Config
    from orchestrator.runs.new import PlannedRun
    from orchestrator.runs.options import RunOptions


async def previewed(
    config: Config, options: RunOptions, log: Log, stop: StopSwitch, clock: Clock = SYSTEM_CLOCK
) -> tuple[PlannedRun, bool]:
    """Return the plan of a new run, and whether an account's credentials were refused.

    It reads listings only if names or discoveries need them.

    Raises ``UsageError`` if nothing is selected, ``StoppedError`` if a signal comes first.
    """
    config = options.applied_to(config)
    async with AsyncExitStack() as stack:
        connections = Connections(config, None, log, stack, clock)
        inventory = await inventory_of(config, options.selection, connections, stop)
        planned = planned_run(config, options, inventory, new_run(clock))
    say_warnings(config, planned.plan, log)
    say_sources(told(planned.failed), told(planned.empty), log)
    return planned, are_credentials_refused(connections)
