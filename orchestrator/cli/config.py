"""``wpe-backup config``: look at the YAML without asking the API anything."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import Output, config_option, config_text, option, output_options
from orchestrator.cli.streams import print_data, print_json, say
from orchestrator.config import config_schema, read_yaml
from orchestrator.visible import visible

if TYPE_CHECKING:
    from orchestrator.config import CheckedYaml

no_secrets_option = option(
    "--no-secrets",
    is_flag=True,
    help="Do without the credentials: none is missed, no file of theirs is read, no command of theirs run.",
)


@click.group()
def config() -> None:
    """Look at the YAML, offline."""


@config.command()
@config_option
@no_secrets_option
@output_options
def validate(*, config_file: str | None, no_secrets: bool, output: Output) -> int:
    """Check the YAML: every problem at once, each with its place. Sends nothing."""
    fleet = _fleet(config_file, no_secrets=no_secrets)
    for empty in fleet.empty:
        say(f"warning: {visible(f'{empty.source}: {empty.reason}')}")
    if not output.is_quiet:
        sys.stdout.write(f"{visible(fleet.source)}: valid; {told(fleet, no_secrets=no_secrets)}\n")
    return 0


def told(fleet: CheckedYaml, *, no_secrets: bool) -> str:
    """Return what a YAML comes to, in one line."""
    installs = fleet.sections.installs
    discoveries = sum(source.discover is not None for source in fleet.sections.inventory)
    return (
        f"{len(installs)} installs, {sum(install.enabled for install in installs)} of them enabled, "
        + (f"{discoveries} discover section(s) for more, asked when the plan is made, " if discoveries else "")
        + f"{len(fleet.sections.accounts)} account(s){', credentials not looked at' if no_secrets else ''}"
    )


@config.command()
@config_option
@no_secrets_option
def show(*, config_file: str | None, no_secrets: bool) -> None:
    """Print the YAML as it is understood: variables replaced, every default written out, secrets masked."""
    print_data(_fleet(config_file, no_secrets=no_secrets).shown())


@config.command()
def schema() -> None:
    """Print the JSON Schema of the YAML, for editors."""
    print_json(config_schema(), indent=2)


def _fleet(config_file: str | None, *, no_secrets: bool) -> CheckedYaml:
    name, text = config_text(config_file)
    return read_yaml(text, name, os.environ, with_secrets=not no_secrets, is_strict=True)
