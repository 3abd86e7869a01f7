"""``wpe-backup report``: read a report again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from rich.text import Text

from orchestrator.cli.completers import complete_reports
from orchestrator.cli.options import Output, format_option, output_options, state_dir_option
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


_run_argument = click.argument("run", metavar="[RUN|FILE]", default="latest", shell_complete=complete_reports)


@click.group()
def report() -> None:
    """Read the report of a run: a run id, the beginning of one, latest, or a file."""


@report.command()
@_run_argument
@format_option
@state_dir_option
@output_options
def summary(*, run: str, output_format: str, state_dir: Path | None, output: Output) -> int:
    """Show the totals of a report, run by run.

    A file may hold the reports of several runs; as JSON, each is an object on a line of its own. Exit codes: 0, 2 if
    there is no report, 3 if a part of it cannot be read or is missing.
    """
    found = _meant(run, state_dir)
    if output_format == "json":
        for report in found.reports:
            print_json(report.summary or _unfinished(report))
    else:
        console = output.console(sys.stdout)
        for report in found.reports:
            console.print(totals(report), end="")
    return _say_trouble(found, output, has_said=output_format != "json")


@report.command()
@_run_argument
@format_option
@state_dir_option
@output_options
def failures(*, run: str, output_format: str, state_dir: Path | None, output: Output) -> int:
    """List the installs that were not backed up, and why, run by run.

    A file may hold the reports of several runs; as JSON, each is a list on a line of its own. Exit codes: 0, 2 if
    there is no report, 3 if a part of it cannot be read or is missing.
    """
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
    """Say on standard error what standard output does not, and return the exit code."""
    log = output.log(Redactor())
    if found.foreign:
        log.info("report.foreign_lines", report=found.path, lines=found.foreign)
    for report in found.reports:
        if report.damage and not has_said:
            log.error("report.damaged", report=found.path, run_id=report.run_id, reason=told_damage(report.damage))
    return ExitCode.FAILED if found.is_damaged else ExitCode.OK


def _meant(run: str, state_dir: Path | None) -> ReportFile:
    """Return the reports that ``run`` names: those of a file, or of a run of the state."""
    return reports_meant(Path() if is_path(run) else needed_state_dir(state_dir), run)


def _unfinished(found: Report) -> dict[str, object]:
    """Return what can be said of a run without its summary line."""
    return {"type": "summary", "run_id": found.run_id, "outcomes": dict(found.outcomes), "exit_code": None}
