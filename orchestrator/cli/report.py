"""``wpe-backup report``: read a report again."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import rich_click as click
from rich.text import Text

from orchestrator.cli.completers import complete_reports
from orchestrator.cli.options import Output, format_option, output_options, state_dir_option
from orchestrator.report.read import Report, find_report, read_report
from orchestrator.report.text import doubts, totals
from orchestrator.report.text import failures as failure_rows

if TYPE_CHECKING:
    from pathlib import Path

_run_argument = click.argument("run", metavar="[RUN|FILE]", default="latest", shell_complete=complete_reports)


@click.group()
def report() -> None:
    """Read the report of a run: a run id, the beginning of one, latest, or a file."""


@report.command()
@_run_argument
@format_option
@state_dir_option
@output_options
def summary(*, run: str, output_format: str, state_dir: Path, output: Output) -> int:
    """Show the totals of a report."""
    found = read_report(find_report(state_dir, run))
    if output_format == "json":
        sys.stdout.write(json.dumps(found.summary or _unfinished(found)) + "\n")
    else:
        output.console(sys.stdout).print(totals(found), end="")
    return 0


@report.command()
@_run_argument
@format_option
@state_dir_option
@output_options
def failures(*, run: str, output_format: str, state_dir: Path, output: Output) -> int:
    """List the installs that were not backed up, and why."""
    found = read_report(find_report(state_dir, run))
    if output_format == "json":
        sys.stdout.write(json.dumps(found.failures) + "\n")
        return 0
    console = output.console(sys.stdout)
    for row in failure_rows(found.failures) if found.failures else ():
        console.print(row, soft_wrap=True)
    if not found.failures:
        console.print(Text(f"No failures among {found.outcomes.total()} installs."))
    for doubt in doubts(found):
        console.print(Text(doubt))
    return 0


def _unfinished(found: Report) -> dict[str, object]:
    """Return what can be said of a run without its summary line."""
    return {"type": "summary", "run_id": found.run_id, "outcomes": dict(found.outcomes), "exit_code": None}
