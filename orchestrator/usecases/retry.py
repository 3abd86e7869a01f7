"""A new run of only the failures of an earlier one, which a run of the journal or a report's file names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.engine.lanes import Effort
from orchestrator.errors import UsageError
from orchestrator.journal.runs import find, load
from orchestrator.marker import runs_marked
from orchestrator.model import ErrorInfo, ErrorKind, Install, OutcomeKind, Run, Standing
from orchestrator.plan import make_plan
from orchestrator.report.read import is_path, read_report
from orchestrator.usecases.jobs import (
    CUT_OFF,
    Job,
    RunOptions,
    effort_in_doubt,
    gone_since,
    new_run_id,
    record_of,
    say_warnings,
    scope_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.engine.ports import Log
    from orchestrator.journal.runs import StoredBackup
    from orchestrator.journal.store import Store
    from orchestrator.model import Config, PlannedBackup

_RETRIED = {
    OutcomeKind.REJECTED,
    OutcomeKind.EXHAUSTED,
    OutcomeKind.ABORTED,
    OutcomeKind.CANCELLED,
    OutcomeKind.UNCONFIRMED,
}


@dataclass(frozen=True, slots=True)
class _Failure:
    """One failed install of the earlier run, as far as that is known. ``sought`` are the runs that may have made it."""

    install: Install
    sought: tuple[str, ...] = ()
    sent_at: float | None = None
    described: str | None = None
    open_since: float | None = None
    error: ErrorInfo | None = None


async def retried_job(config: Config, options: RunOptions, store: Store, log: Log) -> Job:
    """Return a new run of what failed in the run or the report that the options name, as ``config`` has it now.

    What is no longer in ``config`` is given up. Raises ``UsageError`` and ``WriteError``.
    """
    word = options.retry_failed or ""
    if is_path(word):
        retried, failures = _of_file(Path(word), log)
    else:
        retried, failures = await _of_run(config, options, word, store)
    run = Run(new_run_id(), datetime.now(UTC))
    by_id = {failure.install.id: failure for failure in sorted(failures, key=lambda each: bool(each.sought))}
    current = [install for install in config.installs if install.enabled and install.id in by_id]
    current_ids = {install.id for install in current}
    gone = [replace(each.install, enabled=True) for key, each in by_id.items() if key not in current_ids]
    plan = make_plan(replace(config, installs=(*current, *gone)), run)
    say_warnings(config, plan, log.bind(run_id=run.id))
    planned = plan.backups[: len(current)]
    given_up = tuple(
        replace(each, install=replace(each.install, enabled=False)) for each in plan.backups[len(current) :]
    )

    def effort(each: PlannedBackup) -> Effort:
        standing = _standing(Standing(each), by_id[each.install.id])
        return effort_in_doubt(standing) if standing.sought else Effort(each)

    return Job(
        record=record_of(config, options, run, 0, retried),
        planned=planned + given_up,
        efforts=tuple(map(effort, planned)),
        given_up=tuple(map(effort, given_up)),
        why=gone_since(retried),
    )


def _standing(standing: Standing, failure: _Failure) -> Standing:
    if not failure.sought:
        return standing
    return replace(
        standing,
        sought=failure.sought,
        sent_at=failure.sent_at,
        described=failure.described,
        open_since=failure.open_since,
        error=failure.error or CUT_OFF,
    )


async def _of_run(config: Config, options: RunOptions, word: str, store: Store) -> tuple[str, list[_Failure]]:
    record = await find(store, word, f"in {options.state_dir}", scope_of(config))
    stored = await load(store, record.run.id)
    if any(each.line is None for each in stored):
        message = f"run {record.run.id} did not come to its end: finish it first, with --resume {record.run.id}"
        raise UsageError(message)
    return record.run.id, [_failure(record.run.id, each) for each in stored if each.line and each.line.kind in _RETRIED]


def _failure(run_id: str, stored: StoredBackup) -> _Failure:
    install, standing = stored.planned.install, stored.standing
    kind = stored.line.kind if stored.line else None
    if kind not in {OutcomeKind.UNCONFIRMED, OutcomeKind.CANCELLED} or standing is None:
        return _Failure(install, (run_id,) if kind is OutcomeKind.UNCONFIRMED else ())
    sought = standing.sought or ((run_id,) if kind is OutcomeKind.UNCONFIRMED else ())
    described = standing.described or stored.planned.request.description
    return _Failure(install, sought, standing.sent_at, described, standing.open_since, standing.error)


def _of_file(path: Path, log: Log) -> tuple[str, list[_Failure]]:
    report = read_report(path)
    if report.summary is None or report.damaged:
        reason = f"{path} is not the whole report of a run: installs that it does not name are not retried"
        log.warning("plan.warning", reason=reason)
    kinds = {kind.value for kind in _RETRIED}
    return str(path), _readable(path, [line for line in report.failures if line.get("outcome") in kinds])


def _readable(path: Path, lines: Sequence[dict[str, Any]]) -> list[_Failure]:
    failures = []
    for line in lines:
        install_id, name, run_id = line.get("install_id"), line.get("name"), line.get("run_id")
        if not isinstance(install_id, str) or not isinstance(run_id, str):
            message = f"{path} cannot be retried: a line has no install_id or no run_id"
            raise UsageError(message)
        install = Install(
            install_id.lower(), str(line.get("account")), "-", (), name if isinstance(name, str) else None
        )
        if line.get("outcome") != OutcomeKind.UNCONFIRMED.value:
            failures.append(_Failure(install))
            continue
        sought = runs_marked(" ".join(map(str, line.get("look_for") or ()))) or {run_id}
        described = line.get("description")
        described = described if isinstance(described, str) else None
        failures.append(_Failure(install, tuple(sorted(sought)), None, described, None, _error(line.get("error"))))
    return failures


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
