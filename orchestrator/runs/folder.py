"""The state directory: the places of the database, and of each run's directory, own report and lock."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import UsageError
from orchestrator.journal.runs import ANOTHER_FOLDER
from orchestrator.journal.store import FILE_NAME, is_there
from orchestrator.report.read import run_of
from orchestrator.report.write import OWN_REPORT, STANDARD_OUTPUT

if TYPE_CHECKING:
    import os

    from orchestrator.journal.runs import RunRecord


@dataclass(frozen=True, slots=True)
class StateFolder:
    """The state directory at ``path``, which is absolute."""

    path: Path

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> StateFolder:
        """Return the directory at ``path``, which need not exist."""
        return cls(Path(path).absolute())

    @property
    def database(self) -> Path:
        """Return the path of the database."""
        return self.path / FILE_NAME

    def existing_database(self) -> Path:
        """Return the path of the database. Raises ``UsageError`` if it does not exist, and does not make it."""
        if not is_there(self.database):
            message = f"there are no runs in {self.path} yet; {ANOTHER_FOLDER}"
            raise UsageError(message)
        return self.database

    def of_run(self, run_id: str) -> Path:
        """Return the directory of a run."""
        return self.path / "runs" / run_id

    def own_report(self, run_id: str) -> str:
        """Return the path of a run's own report, which is the default."""
        return str(self.of_run(run_id) / OWN_REPORT)

    def report_of(self, record: RunRecord) -> str:
        """Return the target of a run's report.

        If it is the own report, return its present path: the state directory may have moved. If another run has written
        its report to the same path meanwhile, return the own report, too.
        """
        own = self.own_report(record.run.id)
        is_own = Path(record.report).parts[-2:] == Path(own).parts[-2:]
        is_taken = record.report != STANDARD_OUTPUT and run_of(Path(record.report)) not in {None, record.run.id}
        return own if is_own or is_taken else record.report
