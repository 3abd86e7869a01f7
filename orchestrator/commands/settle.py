"""Record what the operator found in the portal about an unconfirmed install: in the journal, then in the report."""

from __future__ import annotations

import shlex
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.errors import UsageError
from orchestrator.journal import runs
from orchestrator.journal.store import Store
from orchestrator.model import Backup, OutcomeKind
from orchestrator.report.lines import encode
from orchestrator.runs.amend import amend_run, run_at_rest
from orchestrator.runs.folder import StateFolder

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from orchestrator.engine.stop import StopSwitch
    from orchestrator.journal.runs import StoredBackup
    from orchestrator.summary import Line

OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Settled:
    """The recorded outcome. ``report`` is the rewritten report, ``None`` if it cannot be written again."""

    run_id: str
    install: str
    kind: OutcomeKind
    report: str | None


@dataclass(frozen=True, slots=True)
class Statement:
    """The operator's statement: ``install`` has the backup ``backup_id`` in ``run``; ``None`` means no backup."""

    run: str
    install: str
    backup_id: str | None


async def settle(state_dir: Path, statement: Statement, now: datetime, stop: StopSwitch) -> Settled:
    """Record the operator's ``statement``.

    Raises ``UsageError`` if the run or the install does not exist, or if its outcome is not unconfirmed. Raises
    ``LockedError`` if the run is alive, ``StoppedError`` if a signal comes before anything is recorded, and
    ``StorageError`` if the state or the report cannot be read or written.
    """
    async with AsyncExitStack() as stack:
        folder = StateFolder.at(state_dir)
        store = Store(folder.existing_database())
        await stop.unless_pressed(stack.enter_async_context(store))
        run_id = (await runs.find(store, statement.run, f"in {state_dir}")).run.id
        stored_run = await stop.unless_pressed(run_at_rest(stack, store, folder, run_id))
        meant = _unconfirmed(stored_run.stored, statement.install, run_id)
        line = _settled(meant, statement.backup_id)
        report = await amend_run(store, folder, stored_run, [line], now)
        return Settled(run_id, meant.planned.install.label, line.kind, report)


def _unconfirmed(stored: list[StoredBackup], install: str, run_id: str) -> StoredBackup:
    """Return the unconfirmed backup of the install with this id or name. Raises ``UsageError``."""
    by_id = [each for each in stored if each.planned.install.id == install.lower()]
    matches = by_id or [each for each in stored if each.planned.install.name == install]
    if len(matches) != 1:
        name = shlex.quote(install)
        found = f"{len(matches)} installs are named {name}; give an id" if matches else f"there is no install {name}"
        message = f"run {run_id}: {found}"
        raise UsageError(message)
    (meant,) = matches
    if meant.line is None or meant.line.kind is not OutcomeKind.UNCONFIRMED:
        fault = f"is {meant.line.kind.value}" if meant.line else "has no outcome yet (finish the run with --resume)"
        message = f"run {run_id}: {install} {fault}; only an unconfirmed install can be settled"
        raise UsageError(message)
    return meant


def _settled(meant: StoredBackup, backup_id: str | None) -> Line:
    if meant.line is None:
        message = "a backup without a line cannot be settled"
        raise TypeError(message)
    fields = meant.line.fields()
    if backup_id is None:
        kind, error, backup = OutcomeKind.EXHAUSTED, fields["error"], None
        error = error and error | {"message": f"{error['message']}; the operator found no backup"}
    else:
        kind, error, backup = OutcomeKind.ACCEPTED, None, asdict(Backup(backup_id))
    fields |= {"outcome": kind.value, "error": error, "backup": backup, "settled_by": OPERATOR, "look_for": []}
    return replace(meant.line, kind=kind, data=encode(fields))
