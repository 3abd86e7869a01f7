"""Read reports of any version of this program, finished or not.

A file may hold the reports of several runs, one after the other, and lines of other programs between them. Each run has
its own report. A line that cannot be read is noted with its number, as damage of the run whose line came before.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from orchestrator.errors import UsageError
from orchestrator.model import OutcomeKind
from orchestrator.report.lines import SCHEMA
from orchestrator.run_names import LATEST, run_named

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_LINE = 4 * 1024 * 1024

_TRACES = ("report.jsonl", "summary.json")
"""Files in the directory of a run: it has at least one of these."""

_BEGINNING = b'{"type":"'
"""The first bytes of each line of a report."""

_OURS = {"backup", "summary"}
_KINDS = {kind.value for kind in OutcomeKind}
_SUCCESSES = {kind.value for kind in OutcomeKind if kind.is_success}
_GZIP = b"\x1f\x8b"


@dataclass(slots=True)
class Report:
    """The report of one run: its totals and failures.

    ``summary`` is ``None`` if the run did not end. ``outcomes`` counts installs by their lines, so it needs no summary.
    ``damage`` lists everything that cannot be read or is missing, with the number of its line (from 1) if it has one.
    ``covered`` has the account, name and id of each install.
    """

    path: str
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] | None = None
    run_id: str | None = None
    damage: list[str] = field(default_factory=list)
    covered: list[tuple[str, str | None, str | None]] = field(default_factory=list)

    @property
    def succeeded(self) -> int:
        """Return how many installs count as backed up."""
        return sum(count for outcome, count in self.outcomes.items() if outcome in _SUCCESSES)


@dataclass(frozen=True, slots=True)
class ReportFile:
    """The reports in one file, in the order of the file. ``foreign`` counts the lines of other programs."""

    path: str
    reports: tuple[Report, ...]
    foreign: int = 0

    @property
    def newest(self) -> Report:
        """Return the report of the latest run."""
        return max(self.reports, key=lambda report: report.run_id or "")

    @property
    def is_damaged(self) -> bool:
        """Tell whether a part of a report cannot be read or is missing."""
        return any(report.damage for report in self.reports)


def read_reports(path: Path) -> ReportFile:
    """Read the reports in the file ``path``. Raises ``UsageError`` if there are none."""
    reader = _Reader(str(path))
    try:
        with path.open("rb") as file:
            head = file.peek(2)[:2]
            for number, raw in _lines(file):
                reader.read(number, raw)
    except OSError as error:
        message = f"the report {path} cannot be read: {error.strerror}"
        raise UsageError(message) from error
    reports = reader.reports()
    if not reports:
        why = "it is empty" if not head else "it is compressed" if head == _GZIP else "; ".join(reader.unclaimed[:1])
        message = f"{path} is not a report: it has no backup line and no summary line{why and f' ({why})'}"
        raise UsageError(message)
    return ReportFile(str(path), reports, reader.foreign)


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield each line that is not blank, with its number. Cut off a line after ``LONGEST_LINE`` + 1 bytes."""
    number = 0
    while raw := file.readline(LONGEST_LINE + 1):
        number += 1
        rest = raw
        while len(rest) > LONGEST_LINE and not rest.endswith(b"\n"):
            rest = file.readline(LONGEST_LINE + 1)
        if raw.strip():
            yield number, raw


class _Reader:
    """Take lines one by one, and give each to its run."""

    def __init__(self, path: str) -> None:
        self.foreign = 0
        self.unclaimed: list[str] = []
        self._path = path
        self._runs: dict[str, _RunLines] = {}
        self._current: _RunLines | None = None

    def read(self, number: int, raw: bytes) -> None:
        """Take a line. If it begins with a line that was cut off, take the rest."""
        line = _parsed(raw)
        if line is None and (start := raw.rfind(_BEGINNING)) > 0:
            line = _parsed(raw[start:])
            if isinstance(line, dict):
                self._damaged(number, "begins with a line that was cut off")
        if line is None:
            self._damaged(number, _fault(raw))
        elif not isinstance(line, dict):
            self._damaged(number, "is not a JSON object")
        elif line.get("type") not in _OURS:
            self.foreign += 1
        elif line.get("schema", SCHEMA) != SCHEMA:
            known = f"this program knows only schema {SCHEMA}: upgrade this program"
            self._damaged(number, f"has schema {line['schema']}, but {known}")
        else:
            self._take(number, line)

    def reports(self) -> tuple[Report, ...]:
        """Return the reports in the order of the file."""
        for run in self._runs.values():
            run.damage[:0] = self.unclaimed
            self.unclaimed = []
        return tuple(run.report(self._path) for run in self._runs.values())

    def _take(self, number: int, line: dict[str, Any]) -> None:
        run_id = _text(line.get("run_id"))
        if self._current is None or run_id not in {None, self._current.run_id}:
            self._current = self._runs.setdefault(run_id or "", _RunLines(run_id))
        if line["type"] == "summary":
            self._current.summary = line
            return
        self._current.take(line)
        if run_id is None or not (_text(line.get("install_id")) or _text(line.get("name"))):
            self._damaged(number, "has no run_id, or no install_id and no name")
        elif line.get("outcome") not in _KINDS:
            self._damaged(number, "has an outcome that this program does not know")

    def _damaged(self, number: int, what: str) -> None:
        found = self.unclaimed if self._current is None else self._current.damage
        found.append(f"line {number} {what}")


class _RunLines:
    """The lines of one run: for each install the last line, since a resumed run may have written its report again."""

    def __init__(self, run_id: str | None) -> None:
        self.run_id = run_id
        self.summary: dict[str, Any] | None = None
        self.damage: list[str] = []
        self._lines: dict[object, tuple[str, dict[str, Any] | None]] = {}
        self._covered: dict[object, tuple[str, str | None, str | None]] = {}

    def take(self, line: dict[str, Any]) -> None:
        """Take the line of one install. The first line after a summary starts the report again."""
        if self.summary is not None and self.run_id is not None:
            self.summary, self._lines, self._covered = None, {}, {}
        install_id, name = _text(line.get("install_id")), _text(line.get("name"))
        nameless = (_text(line.get("account")), name)
        if install_id:
            self._lines.pop(nameless, None)
            self._covered.pop(nameless, None)
        outcome = str(line.get("outcome"))
        key = install_id or (nameless if name else len(self._lines))
        self._lines[key] = outcome, None if outcome in _SUCCESSES else line
        self._covered[key] = str(line.get("account")), name, install_id

    def report(self, path: str) -> Report:
        """Return the report that the lines make."""
        planned, found = (self.summary or {}).get("planned"), len(self._lines)
        damage = list(self.damage)
        if isinstance(planned, int) and planned > found:
            damage.append(f"the summary counts {planned} installs, but the report has lines for only {found}")
        return Report(
            path=path,
            outcomes=Counter(outcome for outcome, _ in self._lines.values()),
            failures=[line for _, line in self._lines.values() if line is not None],
            summary=self.summary,
            run_id=self.run_id,
            damage=damage,
            covered=list(self._covered.values()),
        )


def _parsed(raw: bytes) -> object:
    """Return the JSON value of a line, ``None`` if it has none."""
    try:
        return json.loads(raw.decode("utf-8-sig"), parse_constant=_no_constant) if len(raw) <= LONGEST_LINE else None
    except (ValueError, RecursionError):
        return None


def _fault(raw: bytes) -> str:
    if len(raw) > LONGEST_LINE:
        return f"is longer than {LONGEST_LINE // 1024 // 1024} MiB"
    return "is not JSON" if raw.endswith(b"\n") else "is cut off"


def _no_constant(name: str) -> None:
    """Refuse ``NaN`` and ``Infinity``: Python reads them, but they are not JSON."""
    raise ValueError(name)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def run_of(path: Path) -> str | None:
    """Return the id of the run whose report is the regular file ``path``, ``None`` if it is not a report."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            fields = json.loads(file.readline(LONGEST_LINE))
    except (OSError, ValueError, RecursionError):
        return None
    return _text(fields.get("run_id")) if isinstance(fields, dict) else None


def is_path(run: str) -> bool:
    """Tell whether ``run`` is the path of a report, and not a run id or ``latest``."""
    return run != LATEST and ("/" in run or os.path.isfile(run))  # noqa: PTH113 - Path's raises if access is denied


def reports_meant(state_dir: Path, run: str) -> ReportFile:
    """Return the reports of ``run``. A run id, the unique beginning of one or ``latest`` gives the report of that run.

    A file's path gives all reports in the file. Raises ``UsageError``, which names the newest runs if there is no such
    run.
    """
    found = read_reports(find_report(state_dir, run))
    if is_path(run):
        return found
    folder = _run_folder(state_dir, run)
    mine = tuple(report for report in found.reports if report.run_id in {None, folder.name})
    if not mine:
        message = (
            f"{found.path} holds the report of another run, {found.newest.run_id}: write the report of {folder.name}"
            f" again with run --resume {folder.name}"
        )
        raise UsageError(message)
    return ReportFile(found.path, mine, found.foreign)


ANOTHER_FOLDER = "name another directory with --state-dir"


def find_report(state_dir: Path, run: str) -> Path:
    """Return the path of the report of ``run``: a run id, the unique beginning of one, ``latest``, or a file's path.

    Raises ``UsageError``, which names the newest runs if there is no such run.
    """
    return Path(run) if is_path(run) else _report_of(_run_folder(state_dir, run))


def _run_folder(state_dir: Path, run: str) -> Path:
    try:
        names = {path.parent.name for name in _TRACES for path in (state_dir / "runs").glob(f"*/{name}")}
    except OSError as error:
        message = f"the runs in {state_dir} cannot be read: {error.strerror}; name another directory with --state-dir"
        raise UsageError(message) from error
    return state_dir / "runs" / run_named(run, sorted(names), f"in {state_dir}", "run or file", ANOTHER_FOLDER)


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
            f"run {folder.name} wrote its report elsewhere: name the file of the report, or write the report again"
            f" with run --resume {folder.name} -o FILE"
        )
        raise UsageError(message)
    path = Path(written_to)
    if not path.exists():
        message = f"the report {path} is gone: write it again with run --resume {folder.name}"
        raise UsageError(message)
    return path
