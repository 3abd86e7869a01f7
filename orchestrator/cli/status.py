"""``wpe-backup status``: print the state of the backups of a run."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.text import Text

from orchestrator.cli.ending import where_options
from orchestrator.cli.open_files import within_open_files
from orchestrator.cli.options import Output, read_config, throttled, with_output
from orchestrator.cli.places import needed_state_dir
from orchestrator.cli.settle import written_again
from orchestrator.cli.stopping import run_until_stopped
from orchestrator.cli.streams import print_json
from orchestrator.cli.tables import print_table, why
from orchestrator.commands.status import Condition, run_status
from orchestrator.redaction import redactor_of
from orchestrator.report.lines import backup_fields, error_fields
from orchestrator.session.queries import NOT_ASKED
from orchestrator.units import age_text

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.commands.status import Known, StatusEnd
    from orchestrator.engine.ports import Log

_NAMES = ("install", "account", "outcome", "backup is", "took", "backup id", "why")
_STYLES = {Condition.ABORTED: "red", Condition.UNKNOWN: "yellow", Condition.UNDER_WAY: "yellow"}


@with_output
def status(
    *,
    run: str,
    config_file: str | None,
    output_format: str,
    state_dir: Path | None,
    output: Output,
    **given: Any,  # noqa: ANN401 - the values of the options, by name
) -> int:
    """Print the state of the backups of a run, update its report, and return the exit code."""
    config = read_config(config_file)
    config = replace(config, throttle=throttled(config.throttle, given))
    log = output.log(redactor_of(config))
    config, state = within_open_files(config, log), needed_state_dir(state_dir)
    end = run_until_stopped(lambda stop: run_status(config, state.absolute(), run, log, stop))
    if not (output.is_quiet and end.exit_code == 0):
        _show(end, output, as_json=output_format == "json")
        _say_end(end, output, log, where_options(config.source, state))
    return end.exit_code


def _show(end: StatusEnd, output: Output, *, as_json: bool) -> None:
    if as_json:
        print_json([_fields(end.run_id, each) for each in end.backups])
        return
    console = output.console(sys.stdout)
    shown = [each for each in end.backups if each.error is not NOT_ASKED]
    if shown:
        print_table(console, _NAMES, [*map(_cells, shown)], [_STYLES.get(each.condition, "") for each in shown])
    console.print(Text(_totals(end)), soft_wrap=True)


def _fields(run_id: str, known: Known) -> dict[str, Any]:
    """Return a backup as a JSON object with the field names of the report."""
    install = known.install
    return {
        "run_id": run_id,
        "install_id": install.id,
        "name": install.name,
        "account": install.account,
        "environment": install.environment,
        "outcome": known.line.kind.value,
        "backup": backup_fields(known.backup),
        "age_s": known.age_s,
        "took_s": known.took_s,
        "error": known.error and error_fields(known.error),
    }


def _cells(known: Known) -> tuple[object, ...]:
    took = known.took_s if known.age_s is None else known.age_s
    so_far = "" if known.age_s is None else " so far"
    return (
        known.install.label,
        known.install.account,
        known.line.kind.value,
        known.backup.status,
        None if took is None else age_text(took) + so_far,
        known.backup.id,
        known.error and why(known.error),
    )


def _totals(end: StatusEnd) -> str:
    counts = end.counts
    parts = [f"{counts[condition]} {condition}" for condition in reversed(Condition) if counts[condition]]
    said = f"Run {end.run_id}: {', '.join(parts) or 'no backup with an outcome'}"
    return f"{said}; without a backup: {end.failures}" if end.failures else said


def _say_end(end: StatusEnd, output: Output, log: Log, where: str) -> None:
    """Print on standard error the notes that the table lacks, and the commands that go on."""
    if output.is_json:
        counts = {condition.name.lower(): count for condition, count in end.counts.items()}
        fields = {"asked": end.asked, "report": end.report, "exit_code": end.exit_code, **counts}
        (log.error if end.exit_code else log.info)("status.finished", run_id=end.run_id, **fields)
        return
    console = output.console(sys.stderr)
    lines = []
    if not end.asked and not end.counts[Condition.UNKNOWN]:
        lines.append("No backup of this run is under way, so the API was not asked")
    if end.unfinished:
        lines.append(
            f"The run is not finished: {end.unfinished} of its installs have no outcome, and backups of"
            " them may exist. --resume knows which backups were requested"
        )
        lines.append(f"Finish it:     wpe-backup run{where} --resume {end.run_id}")
    if end.counts[Condition.ABORTED]:
        lines.append(f"Retry failed:  wpe-backup run{where} --retry-failed {end.run_id}")
    if end.has_news:
        lines.append(f"Report: {written_again(end.report)}")
    for line in lines:
        console.print(Text(line), soft_wrap=True)
