"""``wpe-backup config``: check or print the YAML, without asking the API."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from orchestrator.cli.options import Output, config_text, with_output
from orchestrator.cli.streams import print_data, print_json, say
from orchestrator.config import config_schema, read_yaml
from orchestrator.visible import visible

if TYPE_CHECKING:
    from orchestrator.config import CheckedYaml


@with_output
def validate(*, config_file: str | None, no_secrets: bool, output: Output) -> int:
    """Print the problems of the YAML, or that it is valid, and return the exit code."""
    fleet = _fleet(config_file, no_secrets=no_secrets)
    for empty in fleet.empty:
        say(f"warning: {visible(f'{empty.source}: {empty.reason}')}")
    if not output.is_quiet:
        sys.stdout.write(f"{visible(fleet.source)}: valid; {told(fleet, no_secrets=no_secrets)}\n")
    return 0


def told(fleet: CheckedYaml, *, no_secrets: bool) -> str:
    """Return a summary of a YAML in one line."""
    installs = fleet.sections.installs
    discoveries = sum(source.discover is not None for source in fleet.sections.inventory)
    return (
        f"{len(installs)} installs, {sum(install.enabled for install in installs)} of them enabled, "
        + (f"{discoveries} discover section(s), resolved when the plan is made, " if discoveries else "")
        + f"{len(fleet.sections.accounts)} account(s){', credentials not checked' if no_secrets else ''}"
    )


def show(*, config_file: str | None, no_secrets: bool) -> None:
    """Print the YAML with variables replaced, defaults written out and secrets masked."""
    print_data(_fleet(config_file, no_secrets=no_secrets).shown())


def schema() -> None:
    """Print the JSON Schema of the YAML."""
    print_json(config_schema(), indent=2)


def _fleet(config_file: str | None, *, no_secrets: bool) -> CheckedYaml:
    name, text = config_text(config_file)
    return read_yaml(text, name, os.environ, with_secrets=not no_secrets, is_strict=True)
