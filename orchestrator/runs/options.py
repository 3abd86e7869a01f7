"""What a run is asked to do besides what its configuration says."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.report.write import STANDARD_OUTPUT
from orchestrator.selection import Selection

if TYPE_CHECKING:
    import os

    from orchestrator.model import Config, Install
    from orchestrator.summary import FailureLimit


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Where a run keeps its state and puts its report, what it is about, and what it goes on with.

    ``report`` of ``None`` is a file in the run's own folder, ``-`` the descriptor ``stdout_fd``, which is ``None``
    where standard output is closed. ``resume`` and ``retry_failed`` name an earlier run: its id, the beginning of one,
    or ``latest``. ``lock_wait_s`` is how long another run of the same configuration is waited for. ``description`` and
    ``emails`` stand in for what the configuration says. With ``strict``, whatever cannot be resolved ends the run
    before anything is sent. ``waits`` tells that accepted backups are waited for. ``recent_s`` is how old a completed
    backup may be that makes another needless. Requests end ``deadline_s`` seconds after the run began, or when the
    ``failure_limit`` is reached.
    """

    state_dir: str | os.PathLike[str]
    report: str | None = None
    stdout_fd: int | None = None
    resume: str | None = None
    retry_failed: str | None = None
    lock_wait_s: float = 0.0
    selection: Selection = field(default_factory=Selection)
    description: str | None = None
    emails: tuple[str, ...] | None = None
    strict: bool = False
    waits: bool = False
    recent_s: float | None = None
    deadline_s: float | None = None
    failure_limit: FailureLimit | None = None

    @property
    def is_new(self) -> bool:
        """Tell whether the run goes on with nothing."""
        return self.resume is None and self.retry_failed is None

    def report_or(self, default: str) -> str:
        """Return where the report goes: to ``default`` if nothing is said."""
        if self.report is None:
            return default
        return self.report if self.report == STANDARD_OUTPUT else str(Path(self.report).absolute())

    def in_words_of(self, install: Install) -> Install:
        """Return ``install`` with the description and the addresses of this run."""
        if self.description is not None:
            install = replace(install, description=self.description)
        if self.emails is not None:
            install = replace(install, notification_emails=self.emails)
        return install

    def applied_to(self, config: Config) -> Config:
        """Return ``config`` as this run takes it: its own words for every install."""
        if self.description is None and self.emails is None:
            return config
        installs = tuple(map(self.in_words_of, config.installs))
        return replace(config, installs=installs, discovered=self.in_words_of(config.discovered))
