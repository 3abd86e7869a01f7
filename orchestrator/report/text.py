"""Show a report to people: totals and failures, from the report's own lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from orchestrator.model import OutcomeKind
from orchestrator.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.report.read import Report

_SECONDS_PER_MINUTE = 60


def totals(report: Report) -> Text:
    """Return a report's totals: one sentence, then a line an outcome, then what the API was asked."""
    summary = report.summary or {}
    total = report.outcomes.total()
    failed = total - report.succeeded
    text = Text()
    text.append(f"Run {visible(report.run_id or '?')}: ")
    text.append(f"{report.succeeded} of {total} installs backed up", "green" if not failed else "")
    if failed:
        text.append(f", {failed} not", "bold red")
    text.append(f" in {_duration(summary['duration_s'])}\n" if "duration_s" in summary else "\n")
    for kind in OutcomeKind:
        if report.outcomes[kind.value]:
            text.append(f"  {kind.value:<12}{report.outcomes[kind.value]:>8}\n", "" if kind.is_success else "red")
    if summary:
        text.append(
            f"  {summary.get('requests', 0)} requests to the API, answered 429: {summary.get('throttled', 0)}, "
            f"retries: {summary.get('retries', 0)}\n"
        )
    else:
        text.append("  There is no summary line: the run did not come to its end.\n", "yellow")
    if report.damaged:
        numbers = ", ".join(map(str, report.damaged[:5]))
        text.append(f"  {len(report.damaged)} damaged lines were passed over: {numbers}\n", "yellow")
    return text


def failures(lines: Iterable[dict[str, Any]]) -> Table:
    """Return a table of failures, one a row, given as lines of the report."""
    table = Table(box=box.SIMPLE, pad_edge=False, show_edge=False)
    for column in ("install", "account", "outcome", "why", "status", "message", "request id"):
        table.add_column(column, overflow="fold")
    for line in lines:
        error = _mapping(line.get("error"))
        cells = (
            line.get("name") or line.get("install_id"),
            line.get("account"),
            line.get("outcome"),
            error.get("kind"),
            error.get("status"),
            _message(error),
            error.get("request_id") or line.get("request_id"),
        )
        table.add_row(*(Text("" if cell is None else visible(str(cell))) for cell in cells))
    return table


def _message(error: dict[str, Any]) -> str:
    """Return an error's message, and behind it what is wrong with which field of the request."""
    parts = [str(error.get("message") or "")]
    entries = error.get("errors")
    parts += [
        " ".join(str(entry[key]) for key in ("field", "message") if entry.get(key))
        for entry in map(_mapping, entries if isinstance(entries, list) else [])
    ]
    return "; ".join(part for part in parts if part)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _duration(seconds: float) -> str:
    if seconds < _SECONDS_PER_MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _SECONDS_PER_MINUTE)
    hours, minutes = divmod(minutes, _SECONDS_PER_MINUTE)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
