"""``wpe-backup doctor``: print a verdict and a remedy for each check."""

from __future__ import annotations

import io
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from orchestrator.cli.config import told
from orchestrator.cli.open_files import most_in_flight
from orchestrator.cli.options import Output, config_text, with_output
from orchestrator.cli.places import NO_STATE_DIR, STATE_DIR_REMEDY
from orchestrator.cli.stopping import run_until_stopped
from orchestrator.cli.streams import print_json
from orchestrator.commands.doctor import ACCOUNT_CHECKS, account_checks
from orchestrator.commands.machine import Check, Grade, config_file_check, machine_checks, time_zone_check
from orchestrator.config import load_config, read_yaml
from orchestrator.config.secrets import holds_password
from orchestrator.errors import ConfigError, ExitCode, UsageError
from orchestrator.logs import make_log
from orchestrator.redaction import Redactor, redactor_of
from orchestrator.report.columns import columns
from orchestrator.session.inventory import MOST_SAID
from orchestrator.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.config import CheckedYaml
    from orchestrator.model import Config

INDENT = " " * 9
_STYLES = {Grade.OK: "green", Grade.WARN: "yellow", Grade.FAIL: "bold red"}


@with_output
def doctor(*, config_file: str | None, output_format: str, state_dir: Path | None, output: Output) -> int:
    """Print a verdict and a remedy for each check, and return the exit code."""
    config, first = _configuration(config_file)
    machine = _of_machine(state_dir, config)
    accounts = _of_accounts(config, output, {each.name for each in first})
    checks = [*first, *accounts, *machine, _open_files(config)]
    is_well = all(each.grade in {Grade.OK, Grade.SKIPPED} for each in checks)
    if output_format == "json":
        print_json([_fields(each) for each in checks])
    elif not (output.is_quiet and is_well):
        _show(checks, output)
    return ExitCode.FAILED if any(each.grade is Grade.FAIL for each in checks) else ExitCode.OK


def _configuration(config_file: str | None) -> tuple[Config | None, list[Check]]:
    """Return the configuration (``None`` if it is unusable) and the checks of it."""
    try:
        name, text = config_text(config_file)
        fleet = read_yaml(text, name, os.environ, with_secrets=False)
    except UsageError as error:
        remedy = "write one with wpe-backup init --from-api, or name one with -c FILE"
        return None, [Check("configuration", Grade.FAIL, str(error), remedy)]
    except ConfigError as error:
        return None, [_wrong("configuration", error, "correct it; wpe-backup config validate shows each line")]
    found = f"{fleet.source}: {told(fleet, no_secrets=False)}"
    checks = [Check("configuration", Grade.OK, found), *_inventory(fleet)]
    checks.append(config_file_check(Path(name), holds_password=holds_password(text, name)))
    try:
        return load_config(text, name, os.environ), checks
    except ConfigError as error:
        return None, [*checks, _wrong("credentials", error, "provide them as the message says")]


def _inventory(fleet: CheckedYaml) -> list[Check]:
    """Return the check of the YAML's inventory files, if there are any."""
    if not any(source.files for source in fleet.sections.inventory):
        return []
    failed, empty = (
        [*lines[:MOST_SAID], *([f"and {len(lines) - MOST_SAID} more"] if len(lines) > MOST_SAID else [])]
        for lines in (
            [f"{each.source}: {each.error.message}" for each in fleet.failed],
            [f"{each.source}: {each.reason}" for each in fleet.empty],
        )
    )
    if failed:
        remedy = "a run backs up the other installs and exits with 3: ask the owners to correct these files"
        return [Check("inventory", Grade.FAIL, "; ".join(failed + empty), remedy)]
    if empty:
        remedy = "correct the YAML, or put the files in their places"
        return [Check("inventory", Grade.WARN, "; ".join(empty), remedy)]
    return [Check("inventory", Grade.OK, "every file can be read")]


def _wrong(name: str, error: ConfigError, remedy: str) -> Check:
    return Check(name, Grade.FAIL, "; ".join(map(str, error.problems)), remedy)


def _of_accounts(config: Config | None, output: Output, checked: set[str]) -> list[Check]:
    if config is None:
        names = [name for name in ACCOUNT_CHECKS if name not in checked]
        return [Check(name, Grade.SKIPPED, "there is no usable configuration") for name in names]
    nowhere = make_log(io.StringIO(), Redactor(), as_json=True, colors=False, verbosity=-1)
    log = output.log(redactor_of(config)) if output.verbosity > 0 else nowhere
    return run_until_stopped(lambda stop: account_checks(config, log, stop))


def _of_machine(state_dir: Path | None, config: Config | None) -> Iterable[Check]:
    if state_dir is None:
        return [Check("state_dir", Grade.FAIL, NO_STATE_DIR, STATE_DIR_REMEDY), time_zone_check(config)]
    return machine_checks(state_dir.absolute(), config)


def _open_files(config: Config | None) -> Check:
    if config is None:
        return Check("open_files", Grade.SKIPPED, "there is no usable configuration")
    most, files = most_in_flight(config)
    wanted = config.throttle.concurrency
    if wanted <= most:
        return Check("open_files", Grade.OK, f"{files} may be open, enough for {wanted} requests in flight")
    found = f"{files} may be open, enough for {most} requests in flight instead of {wanted}"
    return Check("open_files", Grade.WARN, found, "raise the hard limit (ulimit -Hn), or lower throttle.concurrency")


def _show(checks: Sequence[Check], output: Output) -> None:
    console = output.console(sys.stdout)
    names, *rows = columns(("verdict", "check", "found"), map(_cells, checks))
    console.print(names)
    for row, check in zip(rows, checks, strict=True):
        row.stylize(_STYLES.get(check.grade, ""), 0, len(check.grade))
        console.print(row, soft_wrap=True)
        if check.remedy:
            console.print(Text(f"{INDENT}remedy: {visible(check.remedy)}"), soft_wrap=True)
    counts = Counter(each.grade for each in checks)
    total = ", ".join(f"{counts[grade]} {grade}" for grade in Grade if counts[grade])
    console.print(Text(f"{len(checks)} checks: {total}"), soft_wrap=True)


def _cells(check: Check) -> tuple[object, ...]:
    name = check.name if check.account is None else f"{check.name} {check.account}"
    return check.grade.value, name, check.found


def _fields(check: Check) -> dict[str, object]:
    return {
        "check": check.name,
        "account": check.account,
        "verdict": check.grade.value,
        "found": check.found,
        "remedy": check.remedy or None,
    }
