"""``wpe-backup config``: check the YAML without asking the API anything."""

from __future__ import annotations

import sys

import rich_click as click

from orchestrator.cli.options import Output, config_option, output_options, read_config


@click.group()
def config() -> None:
    """Look at the YAML, offline."""


@config.command()
@config_option
@output_options
def validate(*, config_file: str | None, output: Output) -> int:
    """Check the YAML: every problem at once, each with its place. Sends nothing."""
    checked = read_config(config_file)
    if not output.is_quiet:
        enabled = sum(install.enabled for install in checked.installs)
        sys.stdout.write(
            f"{checked.source}: valid; {len(checked.installs)} installs, {enabled} of them enabled, "
            f"{len(checked.accounts)} account(s)\n"
        )
    return 0
