"""The options of one run, beside its configuration."""

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
    """The places of a run's state and report, its selection, the earlier run that it continues, and its limits.

    If ``report`` is ``None``, the report is a file in the run's own folder. If it is ``-``, the report goes to the
    descriptor ``stdout_fd``, which is ``None`` if standard output is closed. ``resume`` and ``retry_failed`` name an
    earlier run by its id, a prefix of the id, or ``latest``; ``retry_failed`` may also be a report file. The run waits
    up to ``lock_wait_s`` seconds for another run of the same configuration. ``description`` and ``emails`` replace
    those of the configuration. With ``strict``, the run ends before anything is sent if something is unresolved. With
    ``waits``, the run waits for accepted backups. A completed backup younger than ``recent_s`` seconds makes a request
    needless. Requests end ``deadline_s`` seconds after the run began, or when the ``failure_limit`` is reached.
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
        """Return whether the run neither resumes nor retries an earlier run."""
        return self.resume is None and self.retry_failed is None

    def report_or(self, default: str) -> str:
        """Return the target of the report: ``default`` if no option names one."""
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
        """Return ``config`` with the description and the addresses of this run for every install."""
        if self.description is None and self.emails is None:
            return config
        installs = tuple(map(self.in_words_of, config.installs))
        return replace(config, installs=installs, discovered=self.in_words_of(config.discovered))
