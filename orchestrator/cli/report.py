"""``wpe-backup report``: read a report again."""

from __future__ import annotations

import sys
from pathlib import Path

import rich_click as click
from rich.text import Text

from orchestrator.cli.completers import complete_reports
from orchestrator.cli.options import Output, format_option, output_options, state_dir_option
from orchestrator.cli.places import needed_state_dir
from orchestrator.cli.streams import print_json
from orchestrator.report.read import Report, find_report, is_path, read_report
from orchestrator.report.text import doubts, totals
from orchestrator.report.text import failures as failure_rows

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
    """Show the totals of a report."""
    found = _read(run, state_dir)
    if output_format == "json":
        print_json(found.summary or _unfinished(found))
    else:
        output.console(sys.stdout).print(totals(found), end="")
    return 0


@report.command()
@_run_argument
@format_option
@state_dir_option
@output_options
def failures(*, run: str, output_format: str, state_dir: Path | None, output: Output) -> int:
    """List the installs that were not backed up, and why."""
    found = _read(run, state_dir)
    if output_format == "json":
        print_json(found.failures)
        return 0
    console = output.console(sys.stdout)
    for row in failure_rows(found.failures) if found.failures else ():
        console.print(row, soft_wrap=True)
    if not found.failures:
        console.print(Text(f"No failures among {found.outcomes.total()} installs."))
    for doubt in doubts(found):
        console.print(Text(doubt))
    return 0


def _read(run: str, state_dir: Path | None) -> Report:
    """Return the report that ``run`` names: a file, or a run of the state."""
    return read_report(Path(run) if is_path(run) else find_report(needed_state_dir(state_dir), run))


def _unfinished(found: Report) -> dict[str, object]:
    """Return what can be said of a run without its summary line."""
    return {"type": "summary", "run_id": found.run_id, "outcomes": dict(found.outcomes), "exit_code": None}
