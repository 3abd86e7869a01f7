"""Tables and reasons for the output of a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.report.columns import columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from orchestrator.model import ErrorInfo


def print_table(
    console: Console, names: Sequence[str], rows: Sequence[Sequence[object]], styles: Sequence[str]
) -> None:
    """Print ``rows`` in their ``styles`` below the names of the columns. Leave out the last column if it is empty."""
    width = len(names) if any(row[-1] for row in rows) else len(names) - 1
    for row, style in zip(columns(names[:width], (row[:width] for row in rows)), ("", *styles), strict=True):
        row.stylize(style)
        console.print(row, soft_wrap=True)


def why(error: ErrorInfo) -> str:
    """Return the message of ``error`` with its HTTP status, if there is one."""
    status = "" if error.status is None else str(error.status)
    return error.message if error.message.startswith(status) else f"{status} {error.message}"
