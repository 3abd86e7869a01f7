"""What every step of a run works with: its configuration and options, and the real things that are open for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.journal.store import Store
from orchestrator.report.write import make_folder
from orchestrator.runs.folder import StateFolder
from orchestrator.runs.locks import RunLocks
from orchestrator.runs.scopes import Scopes, part_of
from orchestrator.session.clock import SYSTEM_CLOCK, new_run
from orchestrator.session.connections import Connections
from orchestrator.session.queries import Persistence, limits_of

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from orchestrator.engine.context import RunLimits
    from orchestrator.engine.ports import Clock, Log
    from orchestrator.engine.stop import StopSwitch
    from orchestrator.model import Config, Run
    from orchestrator.runs.options import RunOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """The run's configuration and options, and what stays open for it as long as ``stack`` does.

    ``began`` is the monotonic instant at which the command began it, and ``new_run`` the run that begins then, unless
    an earlier one is resumed. ``scopes`` are those of its configuration, and
    ``part`` is the part of that which is meant.
    """

    config: Config
    options: RunOptions
    scopes: Scopes
    part: str
    log: Log
    stop: StopSwitch
    clock: Clock
    began: float
    new_run: Run
    stack: AsyncExitStack
    folder: StateFolder
    store: Store
    connections: Connections
    locks: RunLocks

    @property
    def persistence(self) -> Persistence:
        """Return how long listings are asked for while the run is planned."""
        return Persistence(self.options.deadline_s)

    def limits(self) -> RunLimits:
        """Return the limits of the requests, what is left until the deadline from now on among them."""
        options, deadline_s = self.options, self.options.deadline_s
        if deadline_s is not None:
            deadline_s = max(0.0, deadline_s - (self.clock.monotonic() - self.began))
        return replace(
            limits_of(self.config),
            wait=self.config.wait if options.waits else None,
            recent_s=options.recent_s,
            deadline_s=deadline_s,
            failure_limit=options.failure_limit,
        )

    def where(self) -> str:
        """Return where the runs are, for people."""
        return f"in {self.options.state_dir}"


async def opened(config: Config, options: RunOptions, log: Log, stop: StopSwitch, stack: AsyncExitStack) -> RunContext:
    """Open the state, which is made where there is none, for as long as ``stack`` is open. Raises ``StorageError``."""
    clock, folder = SYSTEM_CLOCK, StateFolder.at(options.state_dir)
    began = clock.monotonic()
    make_folder(folder.path)
    store = Store(folder.database)
    await stop.unless_pressed(stack.enter_async_context(store))
    return RunContext(
        config=config,
        options=options,
        scopes=Scopes(config),
        part=part_of(options.selection),
        log=log,
        stop=stop,
        clock=clock,
        began=began,
        new_run=new_run(clock),
        stack=stack,
        folder=folder,
        store=store,
        connections=Connections(config, store, log, stack, clock),
        locks=RunLocks(folder.path, options.lock_wait_s, log, stop, stack),
    )
