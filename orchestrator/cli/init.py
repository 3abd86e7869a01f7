"""``wpe-backup init``: write a commented YAML to begin with."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.cli.environment import config_of_environment, made_up_credentials
from orchestrator.cli.options import Output, with_output
from orchestrator.cli.parser.set_up import DEFAULT_FILE
from orchestrator.cli.stopping import run_until_stopped
from orchestrator.cli.streams import print_data, say
from orchestrator.cli.tables import why
from orchestrator.commands.init import VisibleInstalls, check_target, visible_installs, write_starter
from orchestrator.config.source import STANDARD_INPUT
from orchestrator.config.starter import starter
from orchestrator.config.values import DEFAULT_BASE_URL
from orchestrator.model import ErrorInfo, ErrorKind
from orchestrator.redaction import redactor_of
from orchestrator.summary import Ending, exit_code
from orchestrator.visible import visible

MOST_ACCOUNTS = 5
"""Most names of WP Engine's accounts in a message."""


@dataclass(frozen=True, slots=True)
class _Target:
    """The place of the YAML; ``-`` is standard output."""

    file: str
    replaces: bool

    @property
    def is_printed(self) -> bool:
        return self.file == STANDARD_INPUT

    @property
    def option(self) -> str:
        """Return the option that names the file for other commands, with a space before it."""
        return f" -c {shlex.quote(visible(self.file))}" if self.file not in {STANDARD_INPUT, DEFAULT_FILE} else ""


@with_output
def init(
    *,
    config_file: str,
    from_api: bool,
    base_url: str | None,
    output: Output,
    **given: Any,  # noqa: ANN401 - the values of the options, by name
) -> int:
    """Write the starter configuration, and return the exit code."""
    target = _Target(config_file, given["force"])
    if not target.is_printed:
        check_target(Path(config_file), replaces=target.replaces)
    found = None
    if from_api:
        config = config_of_environment(base_url)
        log = output.log(redactor_of(config))
        answer = run_until_stopped(lambda stop: visible_installs(config, log, stop))
        if isinstance(answer, ErrorInfo):
            return _say_failure(answer)
        found = answer
        if not found.installs:
            return _say_nothing_is_seen(found, base_url or DEFAULT_BASE_URL)
        if found.unnamed:
            log.warning("accounts.unnamed", reason=why(found.unnamed))
    groups = None if found is None else found.groups
    text = starter(given["email"], base_url, groups, made_up_credentials(base_url))
    if target.is_printed:
        print_data(text)
    else:
        write_starter(Path(config_file), text, replaces=target.replaces)
    if not output.is_quiet:
        _say_what_is_next(target, found)
    return 0


def _say_failure(error: ErrorInfo) -> int:
    say(f"wpe-backup: the installs could not be listed, so nothing was written: {visible(why(error))}")
    return exit_code(Ending(credentials_refused=error.kind is ErrorKind.CREDENTIALS, failed=1))


def _say_nothing_is_seen(found: VisibleInstalls, base_url: str) -> int:
    """Print that the credentials show no install, with the likely reasons."""
    seen = "no install" if found.unnamed else "no account and no install"
    if found.accounts:
        names = [*map(visible, found.accounts[:MOST_ACCOUNTS]), *("…" for _ in found.accounts[MOST_ACCOUNTS:][:1])]
        seen = f"no install of the account(s) {', '.join(names)}"
    say(
        f"wpe-backup: {base_url} accepts the credentials but shows {seen}, so nothing was written. Check in the "
        "User Portal that the user who generated the credentials has access to the account (Users), that API access is "
        "enabled for it (API Access), and that --base-url is the right API."
    )
    return exit_code(Ending(failed=1))


def _say_what_is_next(target: _Target, found: VisibleInstalls | None) -> None:
    """Print the next steps on standard error, since the YAML may be on standard output."""
    lines = [] if target.is_printed else [f"Wrote {visible(target.file)}{_told(found)}"]
    if target.is_printed:
        lines.append("Save it as wpe-backup.yaml, then:")
    elif found is None:
        lines.append("Add your installs at its end, or list all of them with --from-api --force, then:")
    steps = {
        f"config validate{target.option}": "check the YAML",
        f"doctor{target.option}": "check credentials, API, clock and disk",
        f"run{target.option} --dry-run": "print the plan",
    }
    widest = max(map(len, steps))
    lines += [f"  wpe-backup {command:<{widest}}   # {why_it}" for command, why_it in steps.items()]
    say("\n".join(lines))


def _told(found: VisibleInstalls | None) -> str:
    if found is None:
        return ""
    installs = found.installs
    pending = sum(each.is_pending for each in installs)
    said = f": {len(installs) - pending} install{'' if len(installs) - pending == 1 else 's'}"
    return said + (f", and {pending} pending that are commented out" if pending else "")
