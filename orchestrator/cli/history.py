"""``wpe-backup history``: print the runs in the state."""

from __future__ import annotations

import sys
from datetime import UTC
from typing import TYPE_CHECKING, Any

from rich.text import Text

from orchestrator.cli.options import Output, with_output
from orchestrator.cli.places import needed_state_dir
from orchestrator.cli.streams import print_json
from orchestrator.cli.tables import print_table
from orchestrator.journal.history import past_runs
from orchestrator.journal.store import FILE_NAME
from orchestrator.report.lines import iso
from orchestrator.units import age_text
from orchestrator.visible import visible

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.journal.history import PastRun

_NAMES = ("run", "started (UTC)", "took", "installs", "backed up", "failed", "exit code", "config")


@with_output
def history(*, limit: int, output_format: str, state_dir: Path | None, output: Output) -> int:
    """Print the runs in the state, the newest first."""
    state = needed_state_dir(state_dir)
    runs = past_runs(state / FILE_NAME, limit or None)
    if output_format == "json":
        print_json([_fields(run) for run in runs])
        return 0
    console = output.console(sys.stdout)
    if not runs:
        where = visible(str(state))
        console.print(Text(f"There are no runs in {where}; name another directory with --state-dir"), soft_wrap=True)
        return 0
    print_table(console, _NAMES, [*map(_cells, runs)], [*map(_style, runs)])
    return 0


def _fields(run: PastRun) -> dict[str, Any]:
    """Return a run as a JSON object with the field names of the summary."""
    return {
        "run_id": run.id,
        "started_at": iso(run.started_at),
        "finished_at": iso(run.finished_at),
        "duration_s": run.duration_s,
        "planned": run.planned,
        "disabled": run.disabled,
        "outcomes": run.outcomes,
        "succeeded": run.succeeded,
        "failed": run.failed,
        "exit_code": run.exit_code,
        "config": run.config,
        "report": run.report,
        "retried": run.retried,
    }


def _cells(run: PastRun) -> tuple[object, ...]:
    return (
        run.id,
        f"{run.started_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
        None if run.duration_s is None else age_text(run.duration_s),
        run.planned,
        run.succeeded,
        run.failed,
        "not finished" if run.exit_code is None else run.exit_code,
        run.config,
    )


def _style(run: PastRun) -> str:
    if run.exit_code is None:
        return "yellow"
    return "red" if run.exit_code else ""
