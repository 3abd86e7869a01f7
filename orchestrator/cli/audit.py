"""``wpe-backup audit``: print the age of the newest completed backup of each install."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.text import Text

from orchestrator.cli.open_files import within_open_files
from orchestrator.cli.options import Output, read_config, throttled, with_output
from orchestrator.cli.selecting import check_accounts, with_selection
from orchestrator.cli.stopping import run_until_stopped
from orchestrator.cli.streams import print_json
from orchestrator.cli.tables import print_table, why
from orchestrator.commands.audit import AuditOptions, audited
from orchestrator.freshness import Verdict
from orchestrator.redaction import redactor_of
from orchestrator.report.lines import backup_fields, error_fields
from orchestrator.session.queries import NOT_ASKED
from orchestrator.units import age_text, duration_text

if TYPE_CHECKING:
    from orchestrator.commands.audit import Audited, AuditEnd
    from orchestrator.selection import Selection

_NAMES = ("install", "account", "environment", "age", "max age", "verdict", "made by", "backup id", "note")
_STYLES = {Verdict.MISSING: "red", Verdict.UNKNOWN: "yellow", Verdict.STALE: "red"}


@with_output
@with_selection
def audit(
    *,
    install: tuple[str, ...],
    config_file: str | None,
    selection: Selection,
    output_format: str,
    output: Output,
    **given: Any,  # noqa: ANN401 - the values of the options, by name
) -> int:
    """Print the age of each install's newest completed backup, and return the exit code."""
    config = read_config(config_file)
    options = AuditOptions(replace(selection, names=install), given["max_age"], given["state_dir"])
    check_accounts(options.selection, config.accounts)
    config = replace(config, throttle=throttled(config.throttle, given))
    log = output.log(redactor_of(config))
    config = within_open_files(config, log)
    end = run_until_stopped(lambda stop: audited(config, options, log, stop))
    if not (output.is_quiet and end.exit_code == 0):
        _show(end, output, as_json=output_format == "json")
    return end.exit_code


def _show(end: AuditEnd, output: Output, *, as_json: bool) -> None:
    if as_json:
        print_json([_fields(each) for each in end.installs])
        return
    console = output.console(sys.stdout)
    shown = [each for each in end.installs if each.freshness.error is not NOT_ASKED]
    if shown:
        print_table(console, _NAMES, [*map(_cells, shown)], [_STYLES.get(each.freshness.verdict, "") for each in shown])
    console.print(Text(_totals(end)), soft_wrap=True)


def _fields(row: Audited) -> dict[str, Any]:
    """Return an install as a JSON object with the field names of the report."""
    install, found = row.install, row.freshness
    newest, under_way = found.newest, found.under_way
    return {
        "install_id": install.id,
        "name": install.name,
        "account": install.account,
        "environment": install.environment,
        "verdict": found.verdict.value,
        "max_age_s": row.max_age_s,
        "age_s": found.age_s,
        "create_time": newest and newest.create_time,
        "ours": None if newest is None else row.run_id is not None,
        "run_id": row.run_id,
        "backup": newest and backup_fields(newest),
        "under_way": under_way and backup_fields(under_way),
        "error": found.error and error_fields(found.error),
    }


def _cells(row: Audited) -> tuple[object, ...]:
    install, found = row.install, row.freshness
    newest = found.newest
    notes = [why(found.error)] if found.error else []
    if found.under_way:
        notes.append(f"another backup is under way: {found.under_way.id}")
    return (
        install.label,
        install.account,
        install.environment,
        None if found.age_s is None else age_text(found.age_s),
        duration_text(row.max_age_s),
        found.verdict.value,
        None if newest is None else "ours" if row.run_id else "other",
        newest and newest.id,
        "; ".join(notes),
    )


def _totals(end: AuditEnd) -> str:
    counts = end.counts
    parts = [f"{counts[verdict]} {verdict}" for verdict in reversed(Verdict) if counts[verdict]]
    ours = sum(each.run_id is not None for each in end.installs)
    said = f"{len(end.installs)} install{'' if len(end.installs) == 1 else 's'}" + (
        f": {', '.join(parts)}; made by wpe-backup: {ours}" if parts else ""
    )
    return f"{said}; sources that could not be read: {len(end.failed)}" if end.failed else said
