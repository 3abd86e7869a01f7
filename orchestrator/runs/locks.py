"""The locks of a run: only one process at a time works on its scopes, and on the run itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.journal.locks import HeldLock, Patience, locked, run_lock, scope_lock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AsyncExitStack
    from pathlib import Path

    from orchestrator.engine.ports import Log
    from orchestrator.engine.stop import StopSwitch
    from orchestrator.model import Run
    from orchestrator.runs.scopes import Scope


@dataclass(frozen=True, slots=True)
class RunLocks:
    """Take locks in ``state_dir`` and hold them while ``stack`` is open. Wait up to ``wait_s`` seconds for each."""

    state_dir: Path
    wait_s: float
    log: Log
    stop: StopSwitch
    stack: AsyncExitStack
    held: list[HeldLock] = field(default_factory=list)

    async def take_scopes(self, scopes: Sequence[Scope], config: str) -> None:
        """Lock ``scopes`` of the configuration ``config``. Raises ``LockedError``.

        Every process takes the locks in the same order, which prevents a deadlock.
        """
        for path in sorted(scope_lock(self.state_dir, str(scope)) for scope in scopes):
            self.held.append(await self._take(path, f"a run of {config} is going on"))

    async def take_run(self, run_id: str) -> None:
        """Lock the run ``run_id``. Raises ``LockedError``."""
        self.held.append(await self._take(run_lock(self.state_dir, run_id), f"run {run_id} is going on"))

    def tell(self, run: Run) -> None:
        """Write ``run`` into all lock files as the holder."""
        for each in self.held:
            each.tell(run)

    async def _take(self, path: Path, what: str) -> HeldLock:
        return await self.stop.unless_pressed(self.stack.enter_async_context(locked(path, what, self._patience())))

    def _patience(self) -> Patience:
        def say(busy: str) -> None:
            self.log.info("lock.waiting", reason=busy, at_most_s=self.wait_s)

        return Patience(self.wait_s, "wait for its end, or use --lock-wait 10m", say)
