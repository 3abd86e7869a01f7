"""Write checkpoints and outcomes into the journal, then outcomes into the report, and log failures.

Only this module groups writes. Entries that arrive during one transaction wait for the next. So the run writes to
disk a few dozen times a second, at any number of requests. The report has a thread of its own: if its reader pauses,
checkpoints and requests go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.journal import runs
from orchestrator.marker import marker
from orchestrator.model import OutcomeKind
from orchestrator.report.lines import line_of
from orchestrator.summary import Tally
from orchestrator.value import value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.engine.ports import Log
    from orchestrator.journal.store import Store
    from orchestrator.model import Checkpoint, Outcome
    from orchestrator.report.write import ReportWriter
    from orchestrator.summary import Line

OnOutcome = Callable[["Outcome"], None]

MOST_TOGETHER = 1000
"""Most outcomes in one transaction. If a whole fleet is cancelled, a checkpoint must not wait for seconds."""


@value
class _Recorded:
    """An outcome with its line, and the callback for a failure to store it."""

    outcome: Outcome
    line: Line
    on_failure: Callable[[Outcome, Exception], None]


@dataclass(slots=True)
class _Gathered:
    """The entries for the next transaction, and the futures of callers that wait for their checkpoints."""

    checkpoints: list[Checkpoint] = field(default_factory=list)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)
    outcomes: list[_Recorded] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.checkpoints or self.outcomes)

    def taken(self) -> _Gathered:
        """Remove and return the entries of the next transaction, in order."""
        together = _Gathered(self.checkpoints, self.waiting, self.outcomes[:MOST_TOGETHER])
        self.checkpoints, self.waiting, self.outcomes = [], [], self.outcomes[MOST_TOGETHER:]
        return together


class Recorder:
    """Record a run. Implements the engine's ``Journal`` and ``OutcomeSink``."""

    def __init__(
        self, run_id: str, store: Store, report: ReportWriter, log: Log, on_outcome: OnOutcome | None = None
    ) -> None:
        """Write to ``store`` and ``report`` in groups. Call ``on_outcome`` with each recorded outcome."""
        self._run_id = run_id
        self._store = store
        self._report = report
        self._log = log.bind(run_id=run_id)
        self._on_outcome = on_outcome
        self._gathered = _Gathered()
        self._writing: asyncio.Task[None] | None = None
        self._reporting: set[asyncio.Task[None]] = set()
        self._bug: Exception | None = None
        self.tally = Tally()

    def has(self, lines: Iterable[Line]) -> None:
        """Count ``lines``, which are already recorded."""
        for line in lines:
            self.tally.add(line)

    async def note(self, checkpoint: Checkpoint) -> None:
        """Return when ``checkpoint`` is on disk. Raises ``StorageError``."""
        on_disk: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gathered.waiting.append(on_disk)
        self.note_soon(checkpoint)
        await on_disk

    def note_soon(self, checkpoint: Checkpoint) -> None:
        """Store ``checkpoint`` soon. If it is lost, the only cost is a lookup."""
        self._gathered.checkpoints.append(checkpoint)
        self._write()

    def record(self, outcome: Outcome, on_failure: Callable[[Outcome, Exception], None]) -> None:
        """Record one outcome soon. Call ``on_failure`` if the journal or the report cannot store it."""
        line = line_of(self._run_id, outcome)
        self.tally.add(line)
        self._gathered.outcomes.append(_Recorded(outcome, line, on_failure))
        self._write()

    async def drain(self) -> None:
        """Return when every outcome is recorded or has failed. Raises the exception of a callback that failed."""
        while self._writing or self._reporting:
            await asyncio.wait([*([self._writing] if self._writing else []), *self._reporting])
        if self._bug:
            raise self._bug

    def _write(self) -> None:
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())

    async def _write_all(self) -> None:
        try:
            while self._gathered:
                together = self._gathered.taken()
                error = await self._kept(together)
                for on_disk in together.waiting:
                    _end(on_disk, error)
                if together.outcomes:
                    reporting = asyncio.create_task(self._reported(together.outcomes, error))
                    self._reporting.add(reporting)
                    reporting.add_done_callback(self._has_reported)
        finally:
            self._writing = None

    async def _kept(self, together: _Gathered) -> Exception | None:
        lines = [each.line for each in together.outcomes]
        try:
            await runs.keep(self._store, self._run_id, lines, together.checkpoints)
        except Exception as error:  # noqa: BLE001 - the callers get it
            return error
        return None

    async def _reported(self, recorded: list[_Recorded], error: Exception | None) -> None:
        """Write ``recorded`` to the report even if the journal failed with ``error``: the report may still work."""
        try:
            await self._report.write(b"".join(each.line.data for each in recorded))
        except Exception as unwritten:  # noqa: BLE001 - on_failure gets it
            error = error or unwritten
        for each in recorded:
            if error:
                each.on_failure(each.outcome, error)
                continue
            self._say(each.outcome)
            if self._on_outcome:
                self._on_outcome(each.outcome)

    def _has_reported(self, reporting: asyncio.Task[None]) -> None:
        self._reporting.discard(reporting)
        bug = None if reporting.cancelled() else reporting.exception()
        if self._bug is None and isinstance(bug, Exception):
            self._bug = bug

    def _say(self, outcome: Outcome) -> None:
        install, error = outcome.planned.install.label, outcome.error
        event = f"backup.{outcome.kind.value}"
        if error is None:
            self._log.debug(event, install=install, backup=outcome.backup.id if outcome.backup else None)
        elif outcome.kind is OutcomeKind.CANCELLED:
            self._log.debug(event, install=install, kind=error.kind.value, reason=error.message)
        else:
            sought = {"look_for": [marker(each) for each in outcome.sought]} if outcome.sought else {}
            self._log.warning(
                event, install=install, kind=error.kind.value, status=error.status, reason=error.message, **sought
            )


def _end(on_disk: asyncio.Future[None], error: Exception | None) -> None:
    if on_disk.done():  # its caller was cancelled
        return
    if error:
        on_disk.set_exception(error)
    else:
        on_disk.set_result(None)
