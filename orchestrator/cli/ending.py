"""Print the end of a run: totals, first failures, trouble, and the commands that go on."""

from __future__ import annotations

import shlex
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from orchestrator.cli.places import usual_state_dir
from orchestrator.cli.streams import say
from orchestrator.descriptors import PIPE_NAME, STDIN_NAME
from orchestrator.model import OutcomeKind
from orchestrator.report.lines import backup_line, summary_line
from orchestrator.report.read import Report
from orchestrator.report.text import failures, totals
from orchestrator.visible import visible

if TYPE_CHECKING:
    from orchestrator.cli.options import Output
    from orchestrator.engine.ports import Log
    from orchestrator.redaction import Redactor
    from orchestrator.runs.run import RunEnd


_NAMELESS = {STDIN_NAME: "-", PIPE_NAME: "<(…)"}
"""The name of a configuration from a pipe, in a command line."""


def say_end(end: RunEnd, output: Output, log: Log, redactor: Redactor, *, goes_on: bool = True) -> None:
    """Print the end of the run on standard error. If it ``goes_on``, print the commands that complete the run."""
    first = list(end.first_failures)
    is_well = end.summary.exit_code == 0
    if output.is_json:
        _log_trouble(end, log)
        (log.info if is_well else log.error)("run.finished", **summary_line(end.summary), first_failures=first)
        return
    for line in _trouble(end, redactor):
        say(line)
    if not (output.is_quiet and is_well):
        _show_end(end, output, first, _next_steps(end) if goes_on else [])


def _log_trouble(end: RunEnd, log: Log) -> None:
    if end.crash:
        log.error("run.crashed", trace="".join(traceback.format_exception(end.crash)))
    if end.write_error:
        log.error("report.incomplete", reason=str(end.write_error))
    for outcome in end.unwritten:
        log.error("backup.not_stored", **backup_line(end.summary.run_id, outcome))


def _trouble(end: RunEnd, redactor: Redactor) -> list[str]:
    """Return a line for each trouble of the run itself, and for each backup that the report lacks."""
    lines = []
    if end.crash:
        lines.append("wpe-backup: internal error, please report it:")
        lines.append(redactor.clean("".join(traceback.format_exception(end.crash))))
    if end.write_error:
        lines.append(f"wpe-backup: {visible(str(end.write_error))}")
    lines += [
        f"not stored: {outcome.kind.value} {visible(outcome.planned.install.label)} backup {visible(outcome.backup.id)}"
        for outcome in end.unwritten
        if outcome.backup
    ]
    return lines


def _show_end(end: RunEnd, output: Output, first: list[dict[str, Any]], steps: list[str]) -> None:
    line = summary_line(end.summary)
    report = Report(end.summary.report, failures=first, summary=line, run_id=end.summary.run_id)
    report.outcomes.update(line["outcomes"])
    console = output.console(sys.stderr)
    console.print(totals(report), end="")
    if first:
        console.print(Text("First failures:"))
        for row in failures(first):
            console.print(Text("  ") + row, soft_wrap=True)
        more = report.outcomes.total() - report.succeeded - len(first)
        if more:
            state = state_option(Path(end.options.state_dir))
            listed = f"wpe-backup report failures{state} {end.summary.run_id}"
            console.print(Text(f"  … and {more} more: {listed}"), soft_wrap=True)
    where = "standard output" if end.summary.report == "-" else visible(end.summary.report)
    for text in (f"Report: {where}", *steps):
        console.print(Text(text), soft_wrap=True)


def where_options(config: str, state_dir: Path) -> str:
    """Return the options that name configuration and state for the next command, with a space before each.

    ``<(…)`` stands for the command that writes a configuration to a pipe.
    """
    name = _NAMELESS.get(config) or shlex.quote(visible(config))
    return f" -c {name}{state_option(state_dir)}"


def state_option(state_dir: Path) -> str:
    """Return the option that names the state, with a space before it; nothing if the state is in its usual place.

    The variables of a systemd service do not count: the person who types the command does not have them.
    """
    is_usual = state_dir.absolute() == usual_state_dir()
    return "" if is_usual else f" --state-dir {shlex.quote(visible(str(state_dir)))}"


def _next_steps(end: RunEnd) -> list[str]:
    """Return the commands that complete the run, a line each."""
    run_id, outcomes = end.summary.run_id, end.summary.outcomes
    state_dir = Path(end.options.state_dir)
    state, where = state_option(state_dir), where_options(end.config, state_dir)
    steps = []
    is_incomplete = outcomes[OutcomeKind.INCOMPLETE] > 0
    if end.unfinished > 0 or end.write_error or is_incomplete:
        wait = " --wait" if end.options.waits or is_incomplete else ""
        steps.append(f"Finish it:     wpe-backup run{where}{wait} --resume {run_id}")
    if outcomes[OutcomeKind.UNCONFIRMED]:
        steps.append(f"Or settle it:  wpe-backup settle{state} {run_id} INSTALL --exists BACKUP_ID (or --absent)")
        steps.append("               (look in the User Portal first)")
    failed = any(outcomes[kind] for kind in (OutcomeKind.REJECTED, OutcomeKind.EXHAUSTED, OutcomeKind.ABORTED))
    if failed or end.summary.failed_sources:
        steps.append(f"Retry failed:  wpe-backup run{where} --retry-failed {run_id}")
    if outcomes[OutcomeKind.ACCEPTED] and not steps:
        steps.append(f"See it end:    wpe-backup status{where} {run_id}")
    return steps
