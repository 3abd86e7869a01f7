"""The operator's word on an unconfirmed install, after a look in the portal: into the journal, then into the report."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UsageError
from orchestrator.journal import runs
from orchestrator.journal.locks import locked, run_lock
from orchestrator.journal.store import FILE_NAME, Store
from orchestrator.model import Backup, OutcomeKind
from orchestrator.report.lines import encode
from orchestrator.report.write import rewrite, write_summary
from orchestrator.summary import exit_code_now
from orchestrator.usecases.jobs import report_of

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from orchestrator.journal.runs import RunRecord, StoredBackup
    from orchestrator.summary import Line

OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Settled:
    """What was recorded. ``report`` is the report that says so now, ``None`` if it cannot be written again."""

    run_id: str
    install: str
    kind: OutcomeKind
    report: str | None


async def settle(state_dir: Path, run: str, install: str, backup_id: str | None, now: datetime) -> Settled:
    """Record that the backup of ``install`` exists as ``backup_id``, or with ``None`` that there is none.

    Raises ``UsageError`` if there is no such run or install, or its outcome is not unconfirmed, ``LockedError`` if the
    run is alive, ``WriteError``.
    """
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(Store(_state_file(state_dir)))
        record = await runs.find(store, run, f"in {state_dir}")
        lock = locked(run_lock(state_dir, record.run.id), f"run {record.run.id} is going on")
        await stack.enter_async_context(lock)
        stored = await runs.load(store, record.run.id)
        meant = _unconfirmed(stored, install, record.run.id)
        line = _settled(meant, backup_id)
        await runs.keep(store, record.run.id, [line])
        lines = [line if each is meant.line else each for each in (one.line for one in stored) if each is not None]
        report = report_of(record, state_dir)
        summary = _summary(record, lines, report) if record.has_ended and len(lines) == len(stored) else None
        if summary is not None:
            await runs.end(store, record.run.id, now, summary)
            write_summary(state_dir / "runs" / record.run.id, summary)
        data = b"".join(each.data for each in lines) + (b"" if summary is None else encode(summary))
        is_file = rewrite(report, data)
        return Settled(record.run.id, meant.planned.install.label, line.kind, report if is_file else None)


def _state_file(state_dir: Path) -> Path:
    """Return the state's file, which is not made just to be looked into."""
    path = state_dir / FILE_NAME
    if not path.exists():
        message = f"there are no runs in {state_dir} yet; name the folder with --state-dir"
        raise UsageError(message)
    return path


def _unconfirmed(stored: list[StoredBackup], install: str, run_id: str) -> StoredBackup:
    """Return the one that ``install`` names, by id or by name."""
    by_id = [each for each in stored if each.planned.install.id == install.lower()]
    matches = by_id or [each for each in stored if each.planned.install.name == install]
    if len(matches) != 1:
        found = (
            f"{len(matches)} installs are named {install}; give an id" if matches else f"there is no install {install}"
        )
        message = f"run {run_id}: {found}"
        raise UsageError(message)
    (meant,) = matches
    if meant.line is None or meant.line.kind is not OutcomeKind.UNCONFIRMED:
        outcome = meant.line.kind.value if meant.line else "without an outcome: finish the run with --resume"
        message = f"run {run_id}: {install} is {outcome}; only an unconfirmed install can be settled"
        raise UsageError(message)
    return meant


def _settled(meant: StoredBackup, backup_id: str | None) -> Line:
    if meant.line is None:
        message = "only a line can be settled"
        raise TypeError(message)
    fields = meant.line.fields()
    if backup_id is None:
        kind, error, backup = OutcomeKind.EXHAUSTED, fields["error"], None
        error = error and error | {"message": f"{error['message']}; the operator found no backup"}
    else:
        kind, error, backup = OutcomeKind.ACCEPTED, None, asdict(Backup(backup_id))
    fields |= {"outcome": kind.value, "error": error, "backup": backup, "settled_by": OPERATOR, "look_for": []}
    return replace(meant.line, kind=kind, data=encode(fields))


def _summary(record: RunRecord, lines: list[Line], report: str) -> dict[str, Any] | None:
    """Return the run's summary line with its outcomes counted anew; ``None`` if it never came to one."""
    if record.summary is None:
        return None
    counts = Counter(line.kind for line in lines)
    outcomes = {kind.value: counts[kind] for kind in OutcomeKind}
    code = exit_code_now(record.summary["exit_code"], counts, len(record.failed_sources))
    return record.summary | {"outcomes": outcomes, "exit_code": code, "report": report}
