"""``wpe-backup config``: look at the YAML without asking the API anything."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import Output, config_option, config_text, option, output_options
from orchestrator.config import config_schema, read_fleet
from orchestrator.logs import forgiving
from orchestrator.visible import visible

if TYPE_CHECKING:
    from orchestrator.config import Fleet

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
    for warning in fleet.warnings:
        forgiving(sys.stderr).write(f"warning: {visible(warning)}\n")
    if not output.is_quiet:
        sys.stdout.write(f"{visible(fleet.source)}: valid; {told(fleet, no_secrets=no_secrets)}\n")
    return 0


def told(fleet: Fleet, *, no_secrets: bool) -> str:
    """Return what a YAML comes to, in one line."""
    sections = fleet.sections
    disabled = sum(not each.enabled for each in sections.installs)
    discoveries = sum(source.discover is not None for source in sections.inventory)
    parts = [
        f"{_counted(len(sections.installs), 'install')}, {len(sections.installs) - disabled} of them enabled",
        f"{_counted(discoveries, 'discovery', 'discoveries')} when the plan is made" if discoveries else "",
        _counted(len(sections.accounts), "account"),
        "credentials not looked at" if no_secrets else "",
    ]
    return ", ".join(part for part in parts if part)


def _counted(count: int, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or f'{one}s'}"


@config.command()
@config_option
@no_secrets_option
def show(*, config_file: str | None, no_secrets: bool) -> None:
    """Print the YAML as it is understood: variables replaced, every default written out, secrets masked."""
    sys.stdout.write(_fleet(config_file, no_secrets=no_secrets).shown())


@config.command()
def schema() -> None:
    """Print the JSON Schema of the YAML, for editors."""
    sys.stdout.write(json.dumps(config_schema(), indent=2) + "\n")


def _fleet(config_file: str | None, *, no_secrets: bool) -> Fleet:
    name, text = config_text(config_file)
    return read_fleet(text, name, os.environ, with_secrets=not no_secrets)
