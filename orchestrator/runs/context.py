"""The context of a run, which all its steps share. Options and configuration are combined here, once."""

from __future__ import annotations

from dataclasses import replace
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
    from orchestrator.engine.ports import Log
    from orchestrator.engine.stop import StopSwitch
    from orchestrator.model import Config
    from orchestrator.runs.options import RunOptions


class RunContext:
    """A run's configuration and options, with its state, locks and connections, which are open while ``stack`` is.

    ``began`` is the monotonic instant at which the command began. ``new_run`` is the run that begins then, unless an
    earlier one is resumed. ``scopes`` are those of the configuration, and ``part`` is its selected part.
    ``persistence`` limits the time for reading listings while the run is planned.
    """

    def __init__(self, config: Config, options: RunOptions, log: Log, stop: StopSwitch, stack: AsyncExitStack) -> None:
        """Apply ``options`` to ``config``. Make and open nothing yet."""
        self.clock = SYSTEM_CLOCK
        self.began = self.clock.monotonic()
        self.new_run = new_run(self.clock)
        self.log = log
        self.stop = stop
        self.stack = stack
        self.options = options
        self.config = options.applied_to(config)
        self.scopes = Scopes(self.config)
        self.part = part_of(options.selection)
        self.persistence = Persistence(options.deadline_s)
        self.folder = StateFolder.at(options.state_dir)
        self.locks = RunLocks(self.folder.path, options.lock_wait_s, log, stop, stack)
        self.store = Store(self.folder.database)
        self.connections = Connections(self.config, self.store, log, stack, self.clock)

    async def open_state(self) -> None:
        """Open the state, and make it if there is none. Raises ``StateError``."""
        make_folder(self.folder.path)
        await self.stop.unless_pressed(self.stack.enter_async_context(self.store))

    def limits(self) -> RunLimits:
        """Return the limits of the run, with the seconds that are left until the deadline."""
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
        """Return the place of the runs, as messages name it."""
        return f"in {self.options.state_dir}"
