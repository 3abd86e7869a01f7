"""The parsers of the commands that prepare a machine and a configuration."""

from __future__ import annotations

import click

from orchestrator.cli.parser.grammar import Command, Converted, Group, Option
from orchestrator.cli.parser.shared import CONFIG, FORMAT, OUTPUT, STATE_DIR, email

DEFAULT_FILE = "wpe-backup.yaml"

SHELLS = ("bash", "zsh", "fish")

NO_SECRETS = Option(
    "--no-secrets",
    is_flag=True,
    help="Check without credentials",
    more="The command reads no secret, runs no password command, and requires no credentials.",
)

init = Command(
    "init",
    help="""Write a commented configuration to begin with.

    The file is valid as it is and holds no secret. --from-api lists every install that the credentials can see. It uses
    WPE_API_USER_ID and WPE_API_PASSWORD, or the same names with _FILE or _COMMAND. Installs that WP Engine is still
    making are commented out. A local stand-in accepts any credentials.""",
    groups={
        "Options": (
            Option(
                "-c",
                "--config",
                "config_file",
                metavar="FILE",
                default=DEFAULT_FILE,
                help="Write to FILE (- is standard output)",
                more=f"Default: `{DEFAULT_FILE}`.",
            ),
            Option("--from-api", is_flag=True, help="List every install that the credentials see"),
            Option(
                "--base-url",
                type=Converted("URL", "options:base_url"),
                help="Use the API at this URL, which ends in /v1",
                more="Default: `https://api.wpengineapi.com/v1`.",
            ),
            email("WP Engine mails each address when a backup has completed. Without this option it mails nobody."),
            Option("--force", is_flag=True, help="Replace an existing file"),
        ),
        "Output": OUTPUT,
    },
    examples=("wpe-backup init --from-api --email ops@example.com", "wpe-backup init -c -"),
)

config = Group(
    "config",
    help="Check or print the configuration, without asking the API.",
    commands=[
        Command(
            "validate",
            help="""Check the configuration.

    The command reports every problem at once, each with its place. It sends nothing.""",
            groups={"Options": (CONFIG, NO_SECRETS), "Output": OUTPUT},
            examples=("wpe-backup config validate --no-secrets -c fleet.yaml",),
            module="config",
        ),
        Command(
            "show",
            help="""Print the configuration as the command understands it.

    Variables are replaced, defaults are written out, and secrets are masked.""",
            groups={"Options": (CONFIG, NO_SECRETS)},
            examples=("wpe-backup config show -c fleet.yaml",),
            module="config",
        ),
        Command("schema", help="Print the JSON Schema of the configuration, for editors.", module="config"),
    ],
)

doctor = Command(
    "doctor",
    help="""Check configuration, credentials, API, clock and disk.

    Each check has a verdict and a remedy. The command sends three reads for each account, requests no backup and
    creates no file. It exits with 3 if a check failed; a warning is no failure.""",
    groups={"Options": (CONFIG, STATE_DIR), "Output": (FORMAT, *OUTPUT)},
    examples=("wpe-backup doctor", "wpe-backup doctor --format json"),
)

completion = Command(
    "completion",
    help="""Print a completion script for your shell.

    The script completes commands, options, runs, accounts, tags and installs. It reads the state and the configuration,
    but no secret.

    \b
    bash, in ~/.bashrc:
        eval "$(wpe-backup completion bash)"
    zsh, in ~/.zshrc below compinit:
        eval "$(wpe-backup completion zsh)"
    fish:
        wpe-backup completion fish > ~/.config/fish/completions/wpe-backup.fish

    To keep the script in a file, save it as wpe-backup in a directory of bash-completion, or as _wpe-backup in a
    directory of zsh's $fpath.""",
    arguments=[click.Argument(["shell"], type=click.Choice(SHELLS))],
)
