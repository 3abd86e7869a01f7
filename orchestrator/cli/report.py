"""``wpe-backup report``: print totals and failures of a report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from orchestrator.cli.options import Output, with_output
from orchestrator.cli.places import needed_state_dir
from orchestrator.cli.streams import print_json
from orchestrator.errors import ExitCode
from orchestrator.redaction import Redactor
from orchestrator.report.read import is_path, reports_meant
from orchestrator.report.text import caveats, told_damage, totals
from orchestrator.report.text import failures as failure_rows
from orchestrator.visible import visible

if TYPE_CHECKING:
    from orchestrator.report.read import Report, ReportFile


@with_output
def summary(*, run: str, output_format: str, state_dir: Path | None, output: Output) -> int:
    """Print the totals of the reports, and return the exit code."""
    found = _meant(run, state_dir)
    if output_format == "json":
        for report in found.reports:
            print_json(report.summary or _unfinished(report))
    else:
        console = output.console(sys.stdout)
        for report in found.reports:
            console.print(totals(report), end="")
    return _say_trouble(found, output, has_said=output_format != "json")


@with_output
def failures(*, run: str, output_format: str, state_dir: Path | None, output: Output) -> int:
    """Print the installs that were not backed up, and why; return the exit code."""
    found = _meant(run, state_dir)
    if output_format == "json":
        for report in found.reports:
            print_json(report.failures)
        return _say_trouble(found, output, has_said=False)
    console = output.console(sys.stdout)
    for report in found.reports:
        if len(found.reports) > 1:
            console.print(Text(f"Run {visible(report.run_id or '?')}:"))
        for row in failure_rows(report.failures) if report.failures else ():
            console.print(row, soft_wrap=True)
        if not report.failures:
            console.print(Text(f"No failures among {report.outcomes.total()} installs."))
        for caveat in caveats(report):
            console.print(Text(caveat), soft_wrap=True)
    return _say_trouble(found, output, has_said=True)


def _say_trouble(found: ReportFile, output: Output, *, has_said: bool) -> int:
    """Log the trouble that standard output does not show, and return the exit code."""
    log = output.log(Redactor())
    if found.foreign:
        log.info("report.foreign_lines", report=found.path, lines=found.foreign)
    for report in found.reports:
        if report.damage and not has_said:
            log.error("report.damaged", report=found.path, run_id=report.run_id, reason=told_damage(report.damage))
    return ExitCode.FAILED if found.is_damaged else ExitCode.OK


def _meant(run: str, state_dir: Path | None) -> ReportFile:
    """Return the reports in the file, or of the run, that ``run`` names."""
    return reports_meant(Path() if is_path(run) else needed_state_dir(state_dir), run)


def _unfinished(found: Report) -> dict[str, object]:
    """Return a summary of a run that has no summary line."""
    return {"type": "summary", "run_id": found.run_id, "outcomes": dict(found.outcomes), "exit_code": None}
