"""The installs that failed in an earlier run, read from the journal or from a report file."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UsageError
from orchestrator.journal.runs import find, load
from orchestrator.listings import LONGEST_BACKUP_ID
from orchestrator.marker import runs_marked
from orchestrator.model import Backup, ErrorInfo, ErrorKind, FailedSource, Install, OutcomeKind
from orchestrator.report.lines import source_fields
from orchestrator.report.read import is_path, read_reports
from orchestrator.report.text import told_damage
from orchestrator.runs.scopes import Scope, run_meant
from orchestrator.selection import selection_from

if TYPE_CHECKING:
    from orchestrator.engine.ports import Log
    from orchestrator.journal.runs import Covered, StoredBackup
    from orchestrator.runs.context import RunContext
    from orchestrator.selection import Selection

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
    """One install that failed in the earlier run, with the details that are known.

    ``sought`` are the runs that may have made a backup of it. ``backup`` was accepted and had not ended: it is polled,
    and no other is requested. The other fields are as in ``Checkpoint``.
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
    """The failures of ``retried``, a run or a report file. ``scope`` is that of the retry, ``None`` for a report file.

    ``failed_sources`` are the sources that the earlier run could not read, as its summary has them. The installs that
    it missed are in its ``selection`` and not in ``covered``. Without a ``selection``, nobody knows which they are.
    ``unread`` describes the damage of a report: nobody knows which failures are missing.
    """

    retried: str
    failures: tuple[Failure, ...]
    scope: str | None = None
    failed_sources: tuple[dict[str, Any], ...] = ()
    selection: Selection | None = None
    covered: tuple[Covered, ...] = ()
    unread: str | None = None

    @property
    def reads_again(self) -> bool:
        """Return whether there are failed sources to read again, and the selection from them is known."""
        return bool(self.failed_sources) and self.selection is not None

    @property
    def unread_source(self) -> tuple[dict[str, Any], ...]:
        """Return the report as a failed source if it is damaged, in the form of the summary."""
        if self.unread is None:
            return ()
        return (source_fields(FailedSource(self.retried, None, ErrorInfo(ErrorKind.PROTOCOL, self.unread))),)


async def failures_of(context: RunContext) -> Failures:
    """Return the failures of the run or the report that the options name. Raises ``UsageError``, ``StorageError``."""
    word, config, store = context.options.retry_failed or "", context.config, context.store
    if is_path(word):
        # The file may be a pipe: a blocked read must not hold up a signal.
        return await asyncio.to_thread(_of_file, Path(word), context.log)
    run = await run_meant(store, config, word, context.options.state_dir, context.part)
    record = await find(store, run.id, context.where())
    stored = await load(store, run.id)
    if any(each.line is None for each in stored):
        message = f"run {run.id} is not finished: finish it first with --resume {run.id}"
        raise UsageError(message)
    failed = [each for each in stored if each.line and each.line.kind in _RETRIED]
    installs = (each.planned.install for each in stored)
    scopes = context.scopes
    return Failures(
        run.id,
        tuple(_failure(run.id, each) for each in failed),
        str(scopes.now(Scope.parsed(record.scope).part)) if scopes.has(record) else record.scope,
        record.failed_sources,
        selection_from(record.selection),
        (*record.covered, *((each.account, each.name, each.id) for each in installs)),
    )


def _failure(run_id: str, stored: StoredBackup) -> Failure:
    install, checkpoint = stored.planned.install, stored.checkpoint
    kind = stored.line.kind if stored.line else None
    if kind is OutcomeKind.INCOMPLETE and stored.line:
        return Failure(install, backup=Backup(**stored.line.fields()["backup"]))
    if kind not in {OutcomeKind.UNCONFIRMED, OutcomeKind.CANCELLED} or checkpoint is None:
        return Failure(install, (run_id,) if kind is OutcomeKind.UNCONFIRMED else ())
    sought = checkpoint.sought or ((run_id,) if kind is OutcomeKind.UNCONFIRMED else ())
    described = checkpoint.described or stored.planned.request.description
    return Failure(install, sought, checkpoint.sent_at, described, checkpoint.open_since, checkpoint.error)


def _of_file(path: Path, log: Log) -> Failures:
    """Return the failures that can be read in a report file. If it has several runs, read the newest.

    A damaged report may lack installs that the run covered, so its failed sources are not read again.
    """
    file = read_reports(path)
    report = file.newest
    if len(file.reports) > 1:
        log.info("report.several_runs", report=str(path), retried=report.run_id, others=len(file.reports) - 1)
    damage = list(report.damage)
    if report.summary is None:
        damage.append("there is no summary line, so the report is not complete")
    failures = []
    for line in report.failures:
        if not isinstance(line.get("run_id"), str) or line.get("outcome") not in _RETRIED:
            continue  # the reader has recorded this damage
        failure = _of_line(line)
        if isinstance(failure, Failure):
            failures.append(failure)
        else:
            damage.append(failure)
    unread = f"{told_damage(damage)}; the retry leaves out the failures that it cannot read there" if damage else None
    if unread:
        log.error("report.damaged", report=str(path), run_id=report.run_id, reason=unread)
    summary = report.summary or {}
    sources = summary.get("failed_sources")
    failed = tuple(each for each in sources if isinstance(each, dict)) if isinstance(sources, list) else ()
    return Failures(
        str(path),
        tuple(failures),
        failed_sources=tuple(map(_source, failed)),
        selection=None if unread else selection_from(summary.get("selection")),
        covered=tuple(report.covered),
        unread=unread,
    )


def _source(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a failed source with valid fields, whatever the file has."""
    account, error = fields.get("account"), _error(fields.get("error"))
    error = error or ErrorInfo(ErrorKind.UNAVAILABLE, "the report does not give its error")
    return source_fields(FailedSource(str(fields.get("source")), account if isinstance(account, str) else None, error))


def _of_line(line: dict[str, Any]) -> Failure | str:
    """Return the failure in ``line``, or the reason why it cannot be read."""
    install_id, name = line.get("install_id"), line.get("name")
    if not isinstance(install_id, str) and (install_id is not None or not isinstance(name, str)):
        return "an install has no install_id and no name"
    install = Install(
        install_id.lower() if isinstance(install_id, str) else None,
        str(line.get("account")),
        "-",
        (),
        name if isinstance(name, str) else None,
    )
    if line.get("outcome") == OutcomeKind.INCOMPLETE:
        backup = _backup(line.get("backup"))
        return Failure(install, backup=backup) if backup else f"{install.label} is incomplete but has no backup id"
    if line.get("outcome") != OutcomeKind.UNCONFIRMED:
        return Failure(install)
    sought = runs_marked(" ".join(map(str, line.get("look_for") or ()))) or {line["run_id"]}
    described = line.get("description")
    described = described if isinstance(described, str) else None
    return Failure(install, tuple(sorted(sought)), None, described, None, _error(line.get("error")))


def _backup(fields: object) -> Backup | None:
    fields = fields if isinstance(fields, dict) else {}
    backup_id = fields.get("id")
    if not isinstance(backup_id, str) or not 0 < len(backup_id.strip()) <= LONGEST_BACKUP_ID:
        return None
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
