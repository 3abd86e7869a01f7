"""``wpe-backup installs``: print the installs that the API shows, or the differences from the YAML."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.text import Text

from orchestrator.cli.environment import config_of_environment
from orchestrator.cli.options import Output, read_config, throttled, with_output
from orchestrator.cli.selecting import check_accounts
from orchestrator.cli.stopping import run_until_stopped
from orchestrator.cli.streams import print_json
from orchestrator.cli.tables import print_table
from orchestrator.commands.installs import InstallsEnd, SeenInstall, installs_seen
from orchestrator.drift import Difference, DriftKind
from orchestrator.errors import UsageError
from orchestrator.redaction import redactor_of
from orchestrator.selection import Selection

if TYPE_CHECKING:
    from orchestrator.listings import ListedInstall
    from orchestrator.model import Config

_NAMES = ("name", "id", "environment", "status", "account", "WP Engine account", "domain")
_STYLES = {DriftKind.PENDING: "", DriftKind.RENAMED: "yellow", DriftKind.UNKNOWN: "yellow"}


@with_output
def installs(
    *,
    config_file: str | None,
    diff: bool,
    accounts: tuple[str, ...],
    output_format: str,
    output: Output,
    **given: Any,  # noqa: ANN401 - the values of the options, by name
) -> int:
    """Print the installs that the API shows, or the differences; return the exit code."""
    config = _config(config_file, needs_file=diff)
    check_accounts(Selection(accounts=accounts), config.accounts)
    if accounts:
        config = replace(config, accounts={name: config.accounts[name] for name in config.accounts if name in accounts})
    config = replace(config, throttle=throttled(config.throttle, given))
    log = output.log(redactor_of(config))
    end = run_until_stopped(lambda stop: installs_seen(config, log, stop, compares=diff))
    if not (output.is_quiet and diff and end.exit_code == 0):
        _show(end, output, compares=diff, as_json=output_format == "json")
    return end.exit_code


def _config(config_file: str | None, *, needs_file: bool) -> Config:
    try:
        return read_config(config_file)
    except UsageError as missing:
        if needs_file:
            raise
        try:
            return config_of_environment()
        except UsageError as error:
            message = f"{missing}\n{error}"
            raise UsageError(message) from None


def _show(end: InstallsEnd, output: Output, *, compares: bool, as_json: bool) -> None:
    rows = end.differences if compares else end.installs
    if as_json:
        print_json([_fields(row, end.names) for row in rows])
        return
    console = output.console(sys.stdout)
    if compares and end.differences:
        styles = [_STYLES.get(each.kind, "red") for each in end.differences]
        print_table(
            console, ("kind", *_NAMES, "note"), [_of_difference(each, end.names) for each in end.differences], styles
        )
    elif rows:
        cells = [(*_cells(each.listed, each.account, end.names),) for each in end.installs]
        print_table(console, _NAMES, cells, ["" for _ in cells])
    console.print(Text(_totals(end, compares=compares)), soft_wrap=True)


def _cells(listed: ListedInstall, account: str | None, names: dict[str, str]) -> tuple[object, ...]:
    owner = listed.account_id and names.get(listed.account_id, listed.account_id)
    return listed.name, listed.id, listed.environment, listed.status, account, owner, listed.primary_domain


def _of_difference(each: Difference, names: dict[str, str]) -> tuple[object, ...]:
    if each.listed:
        return (each.kind.value, *_cells(each.listed, each.account, names), _note(each))
    install = each.configured
    known = (install.name, install.id, install.environment) if install else (None, None, None)
    return (each.kind.value, *known, None, each.account, None, None, _note(each))


def _note(each: Difference) -> str:
    """Describe a difference, with its place in the YAML."""
    place = each.configured.place if each.configured else ""
    return "; ".join(part for part in (each.note, place) if part)


def _fields(row: SeenInstall | Difference, names: dict[str, str]) -> dict[str, Any]:
    """Return a row as a JSON object with the field names of the report."""
    listed = row.listed
    fields: dict[str, Any] = {}
    if isinstance(row, Difference):
        fields["kind"] = row.kind.value
    configured = row.configured if isinstance(row, Difference) else None
    known = listed or configured
    fields |= {
        "name": known and known.name,
        "install_id": known and known.id,
        "environment": known and known.environment,
        "status": listed and listed.status,
        "account": row.account,
        "wpengine_account_id": listed and listed.account_id,
        "wpengine_account": listed and names.get(listed.account_id or ""),
        "primary_domain": listed and listed.primary_domain,
    }
    if isinstance(row, Difference):
        fields |= {
            "configured_name": configured and configured.name,
            "place": configured and configured.place,
            "note": row.note or None,
        }
    return fields


def _totals(end: InstallsEnd, *, compares: bool) -> str:
    count = len(end.installs)
    said = f"{count} install{'' if count == 1 else 's'}"
    pending = sum(each.listed.is_pending for each in end.installs)
    said += f", {pending} of them pending" if pending else ""
    if compares and not end.differences:
        said += ": no difference; the YAML lists each install or leaves it out"
    elif compares:
        counts = Counter(each.kind for each in end.differences)
        said += "; " + ", ".join(f"{counts[kind]} {kind}" for kind in DriftKind if counts[kind])
    elif end.failed:
        said += f"; listings that could not be read: {len(end.failed)}"
    return said
