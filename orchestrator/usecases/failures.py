"""What failed in an earlier run, read from the journal or from a report's file."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UsageError
from orchestrator.inventory import LONGEST_BACKUP_ID
from orchestrator.journal.runs import find, load
from orchestrator.marker import runs_marked
from orchestrator.model import Backup, ErrorInfo, ErrorKind, Install, OutcomeKind
from orchestrator.report.read import is_path, read_report
from orchestrator.usecases.jobs import RunOptions, scope_of

if TYPE_CHECKING:
    from orchestrator.engine.ports import Log
    from orchestrator.journal.runs import StoredBackup
    from orchestrator.journal.store import Store
    from orchestrator.model import Config

_RETRIED = {
    OutcomeKind.REJECTED,
    OutcomeKind.EXHAUSTED,
    OutcomeKind.ABORTED,
    OutcomeKind.INCOMPLETE,
    OutcomeKind.CANCELLED,
    OutcomeKind.UNCONFIRMED,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed install of the earlier run, as far as that is known.

    ``sought`` are the runs that may have made a backup of it; ``backup`` is one that was accepted and had not ended,
    which is polled and never requested again.
    """

    install: Install
    sought: tuple[str, ...] = ()
    sent_at: float | None = None
    described: str | None = None
    open_since: float | None = None
    error: ErrorInfo | None = None
    backup: Backup | None = None


@dataclass(frozen=True, slots=True)
class Failures:
    """What failed in ``retried``, a run or a report. ``scope`` is of that run, ``None`` where it is not known."""

    retried: str
    failures: tuple[Failure, ...]
    scope: str | None = None


async def failures_of(config: Config, options: RunOptions, store: Store, log: Log) -> Failures:
    """Return the failures of the run or the report that the options name. Raises ``UsageError`` and ``WriteError``."""
    word = options.retry_failed or ""
    if is_path(word):
        return await asyncio.to_thread(_of_file, Path(word), log)  # it may be a pipe, and a signal must get through
    scope = scope_of(config, options.selection)
    record = await find(store, word, f"in {options.state_dir}", scope)
    stored = await load(store, record.run.id)
    if any(each.line is None for each in stored):
        message = f"run {record.run.id} did not come to its end: finish it first, with --resume {record.run.id}"
        raise UsageError(message)
    failed = [each for each in stored if each.line and each.line.kind in _RETRIED]
    return Failures(record.run.id, tuple(_failure(record.run.id, each) for each in failed), record.scope)


def _failure(run_id: str, stored: StoredBackup) -> Failure:
    install, standing = stored.planned.install, stored.standing
    kind = stored.line.kind if stored.line else None
    if kind is OutcomeKind.INCOMPLETE and stored.line:
        return Failure(install, backup=Backup(**stored.line.fields()["backup"]))
    if kind not in {OutcomeKind.UNCONFIRMED, OutcomeKind.CANCELLED} or standing is None:
        return Failure(install, (run_id,) if kind is OutcomeKind.UNCONFIRMED else ())
    sought = standing.sought or ((run_id,) if kind is OutcomeKind.UNCONFIRMED else ())
    described = standing.described or stored.planned.request.description
    return Failure(install, sought, standing.sent_at, described, standing.open_since, standing.error)


def _of_file(path: Path, log: Log) -> Failures:
    report = read_report(path)
    if report.summary is None or report.damaged:
        reason = f"{path} is not the whole report of a run: installs that it does not name are not retried"
        log.warning("plan.warning", reason=reason)
    kinds = {kind.value for kind in _RETRIED}
    lines = (line for line in report.failures if line.get("outcome") in kinds)
    return Failures(str(path), tuple(_of_line(path, line) for line in lines))


def _of_line(path: Path, line: dict[str, Any]) -> Failure:
    install_id, name, run_id = line.get("install_id"), line.get("name"), line.get("run_id")
    is_known = isinstance(install_id, str) or (install_id is None and isinstance(name, str))
    if not is_known or not isinstance(run_id, str):
        message = f"{path} cannot be retried: a line has no install_id or no run_id"
        raise UsageError(message)
    install = Install(
        install_id.lower() if isinstance(install_id, str) else None,
        str(line.get("account")),
        "-",
        (),
        name if isinstance(name, str) else None,
    )
    if line.get("outcome") == OutcomeKind.INCOMPLETE:
        return Failure(install, backup=_backup(path, line.get("backup")))
    if line.get("outcome") != OutcomeKind.UNCONFIRMED:
        return Failure(install)
    sought = runs_marked(" ".join(map(str, line.get("look_for") or ()))) or {run_id}
    described = line.get("description")
    described = described if isinstance(described, str) else None
    return Failure(install, tuple(sorted(sought)), None, described, None, _error(line.get("error")))


def _backup(path: Path, fields: object) -> Backup:
    fields = fields if isinstance(fields, dict) else {}
    backup_id = fields.get("id")
    if not isinstance(backup_id, str) or not 0 < len(backup_id.strip()) <= LONGEST_BACKUP_ID:
        message = f"{path} cannot be retried: a line that is incomplete has no backup with an id"
        raise UsageError(message)
    texts = {key: value for key, value in fields.items() if isinstance(value, str)}
    return Backup(
        backup_id,
        texts.get("status"),
        texts.get("description"),
        texts.get("create_time"),
        texts.get("complete_time"),
        texts.get("wordpress_version"),
    )


def _error(error: object) -> ErrorInfo | None:
    if not isinstance(error, dict):
        return None
    kinds = {kind.value: kind for kind in ErrorKind}
    status = error.get("status")
    return ErrorInfo(
        kind=kinds.get(str(error.get("kind")), ErrorKind.UNAVAILABLE),
        message=str(error.get("message") or ""),
        status=status if isinstance(status, int) else None,
    )
