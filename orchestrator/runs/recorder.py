"""What becomes of each outcome: into the journal, then into the report, then into the tally, and said if it failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import StorageError
from orchestrator.journal import runs
from orchestrator.marker import marker
from orchestrator.model import OutcomeKind
from orchestrator.report.lines import line_of
from orchestrator.runs.batches import Batches
from orchestrator.summary import Tally

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.engine.ports import Log
    from orchestrator.journal.store import Store
    from orchestrator.model import Checkpoint, Outcome
    from orchestrator.report.write import ReportWriter
    from orchestrator.summary import Line


class Recorder:
    """Keep what happens to a run; the engine's ``Journal`` and ``OutcomeSink``."""

    def __init__(self, run_id: str, store: Store, report: ReportWriter, log: Log) -> None:
        """Write to ``store`` and ``report``, many at a time."""
        self._run_id = run_id
        self._store = store
        self._report = report
        self._log = log
        self._checkpoints = Batches(self._save_checkpoints)
        self._lines = Batches(self._keep_lines)
        self.tally = Tally()

    def has(self, lines: Iterable[Line]) -> None:
        """Count ``lines``, which journal and report have already."""
        for line in lines:
            self.tally.add(line)

    async def note(self, checkpoint: Checkpoint) -> None:
        """Return when ``checkpoint`` is on disk. Raises ``StorageError``."""
        await self._checkpoints.put(checkpoint)

    def note_soon(self, checkpoint: Checkpoint) -> None:
        """Keep ``checkpoint``; losing it costs a look at the listing, no more."""
        self._checkpoints.leave(checkpoint)

    async def record(self, outcome: Outcome) -> None:
        """Keep one outcome for good. Raises ``StorageError``."""
        line = line_of(self._run_id, outcome)
        self.tally.add(line)
        await self._lines.put(line)
        self._say(outcome)

    async def drain(self) -> None:
        """Return when nothing waits to be kept any more."""
        await self._checkpoints.drain()
        await self._lines.drain()

    async def _save_checkpoints(self, checkpoints: list[Checkpoint]) -> None:
        await runs.note(self._store, self._run_id, checkpoints)

    async def _keep_lines(self, lines: list[Line]) -> None:
        """Keep ``lines`` in both places: one that the journal cannot take may still be told by the report."""
        unkept: StorageError | None = None
        try:
            await runs.keep(self._store, self._run_id, lines)
        except StorageError as error:
            unkept = error
        await self._report.write(b"".join(line.data for line in lines))
        if unkept:
            raise unkept

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
