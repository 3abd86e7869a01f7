"""Read a report again, whichever version of this program wrote it, finished or not."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UsageError
from orchestrator.model import OutcomeKind
from orchestrator.run_names import LATEST, run_named

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_LINE = 4 * 1024 * 1024

_TRACES = ("report.jsonl", "summary.json")
"""What a run leaves in its folder: at least one of these."""

_SUCCESSES = {kind.value for kind in OutcomeKind if kind.is_success}


@dataclass(slots=True)
class Report:
    """A report's totals and failures. ``summary`` is ``None`` if the run did not come to its end.

    ``outcomes`` counts lines, which says more than the summary where that is missing. ``damaged`` are the numbers of
    lines, from 1, that are no JSON object.
    """

    path: str
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] | None = None
    run_id: str | None = None
    damaged: list[int] = field(default_factory=list)

    @property
    def succeeded(self) -> int:
        """Return how many installs count as backed up."""
        return sum(count for outcome, count in self.outcomes.items() if outcome in _SUCCESSES)


def read_report(path: Path) -> Report:
    """Read the report at ``path``. Raises ``UsageError`` if there is none."""
    report = Report(str(path))
    try:
        with path.open("rb") as file:
            for number, line in _objects(file):
                _take(report, number, line)
    except OSError as error:
        message = f"the report {path} cannot be read: {error.strerror}"
        raise UsageError(message) from error
    if not report.outcomes and report.summary is None:
        message = f"{path} is not a report: no line of it is a backup or a summary"
        raise UsageError(message)
    return report


def _objects(lines: Iterator[bytes] | Any) -> Iterator[tuple[int, dict[str, Any] | None]]:  # noqa: ANN401 - any binary file
    for number, raw in enumerate(lines, 1):
        if not raw.strip():
            continue
        try:
            line = json.loads(raw, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            line = None
        yield number, line if isinstance(line, dict) else None


def _take(report: Report, number: int, line: dict[str, Any] | None) -> None:
    if line is None:
        report.damaged.append(number)
        return
    match line.get("type"):
        case "backup":
            outcome = str(line.get("outcome"))
            report.outcomes[outcome] += 1
            report.run_id = report.run_id or _text(line.get("run_id"))
            if outcome not in _SUCCESSES:
                report.failures.append(line)
        case "summary":
            report.summary = line
            report.run_id = report.run_id or _text(line.get("run_id"))
        case _:
            report.damaged.append(number)


def _no_constant(name: str) -> None:
    """Refuse ``NaN`` and ``Infinity``, which Python reads and JSON does not have."""
    raise ValueError(name)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def run_of(path: Path) -> str | None:
    """Return the run whose report the regular file ``path`` is, ``None`` if it is none."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            fields = json.loads(file.readline(LONGEST_LINE))
    except (OSError, ValueError, RecursionError):
        return None
    return _text(fields.get("run_id")) if isinstance(fields, dict) else None


def is_path(run: str) -> bool:
    """Tell whether ``run`` is a report's path and not the name of a run."""
    return run != LATEST and ("/" in run or os.path.isfile(run))  # noqa: PTH113 - Path's raises where it may not look


def find_report(state_dir: Path, run: str) -> Path:
    """Return the path of the report of ``run``: a run id, a unique prefix of one, ``latest``, or a file's path.

    Raises ``UsageError``, saying which runs there are.
    """
    if is_path(run):
        return Path(run)
    try:
        names = {path.parent.name for name in _TRACES for path in (state_dir / "runs").glob(f"*/{name}")}
    except OSError as error:
        message = f"the runs in {state_dir} cannot be looked at: {error.strerror}; name another folder with --state-dir"
        raise UsageError(message) from error
    return _report_of(state_dir / "runs" / run_named(run, sorted(names), f"in {state_dir}", "run or file"))


def _report_of(folder: Path) -> Path:
    own = folder / "report.jsonl"
    if own.exists():
        return own
    try:
        written_to = json.loads((folder / "summary.json").read_bytes()).get("report", "")
    except (OSError, ValueError, AttributeError):
        written_to = ""
    if written_to in {"", "-"}:
        message = (
            f"run {folder.name} wrote its report elsewhere: name the file that it went to, or have it written again"
            f" with run --resume {folder.name} -o FILE"
        )
        raise UsageError(message)
    return Path(written_to)
