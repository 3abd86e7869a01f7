"""``wpe-backup settle``: record whether an unconfirmed backup exists."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from orchestrator.cli.options import Output, with_output
from orchestrator.cli.places import needed_state_dir
from orchestrator.cli.stopping import run_until_stopped
from orchestrator.commands.settle import Settled, Statement
from orchestrator.commands.settle import settle as settled_by
from orchestrator.errors import UsageError
from orchestrator.listings import LONGEST_BACKUP_ID
from orchestrator.model import OutcomeKind
from orchestrator.redaction import Redactor
from orchestrator.session.clock import SYSTEM_CLOCK
from orchestrator.visible import visible

if TYPE_CHECKING:
    from pathlib import Path


@with_output
def settle(*, run: str, install: str, state_dir: Path | None, output: Output, **word: object) -> int:
    """Record whether the backup of an ``unconfirmed`` install exists, and return the exit code."""
    backup_id = _backup_id(word["exists"], absent=bool(word["absent"]))
    state, now = needed_state_dir(state_dir).absolute(), SYSTEM_CLOCK.now()
    end = run_until_stopped(lambda stop: settled_by(state, Statement(run, install, backup_id), now, stop))
    if output.is_json:
        output.log(Redactor()).info("install.settled", **asdict(end), backup=backup_id)
    elif not output.is_quiet:
        output.console(sys.stderr).print(Text(_said(end, backup_id)), soft_wrap=True)
    return 0


def _backup_id(exists: object, *, absent: bool) -> str | None:
    if (exists is None) is not absent:
        message = "use either --exists BACKUP_ID or --absent"
        raise UsageError(message)
    if exists is None:
        return None
    backup_id = str(exists)
    if not backup_id.isprintable() or len(backup_id.split()) != 1 or len(backup_id) > LONGEST_BACKUP_ID:
        message = f"--exists: {backup_id!r} is not a backup id"
        raise UsageError(message)
    return backup_id


def _said(end: Settled, backup_id: str | None) -> str:
    backup = f", backup {visible(backup_id or '')}" if end.kind is OutcomeKind.ACCEPTED else ""
    where = written_again(end.report)
    return f"Run {end.run_id}: {visible(end.install)} is {end.kind.value} now{backup}. Report: {where}"


def written_again(report: str | None) -> str:
    """Return the place where the report was written again; ``None`` is nowhere."""
    return visible(report) if report else "not written again, because it is not a file"
