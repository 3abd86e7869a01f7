"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.parser.grammar import RATE, Converted, Option, completed_by
from orchestrator.cli.places import default_state_dir
from orchestrator.listings import ENVIRONMENTS


def email(more: str) -> Option:
    """Return the option that names the addresses to notify; ``more`` says what it replaces."""
    return Option(
        "--email",
        type=Converted("ADDRESS", "options:email"),
        multiple=True,
        help="Have WP Engine notify this address",
        more=more,
    )


CONFIG = Option(
    "-c",
    "--config",
    "config_file",
    metavar="FILE",
    help="Read this configuration (- is standard input)",
    more="Default: `./wpe-backup.yaml`, then `$XDG_CONFIG_HOME/wpe-backup/config.yaml`, then "
    "`/etc/wpe-backup/config.yaml`.",
)

STATE_DIR = Option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    default=default_state_dir,
    help="Keep state and reports in this directory",
    more="Default: `$STATE_DIRECTORY` (set by systemd), else `$XDG_STATE_HOME/wpe-backup`, which is usually "
    "`~/.local/state/wpe-backup`.",
)

FORMAT = Option(
    "--format",
    "output_format",
    type=click.Choice(["table", "json"]),
    metavar="FORMAT",
    default="table",
    help="table for people (default), json for programs",
)

OUTPUT = (
    Option("-v", "--verbose", is_flag=True, help="Also log every attempt and every change of rate"),
    Option("-q", "--quiet", is_flag=True, help="Print nothing when all is well"),
    Option(
        "--log-format",
        type=click.Choice(["auto", "console", "json"]),
        metavar="FORMAT",
        default="auto",
        help="auto (default), console or json",
        more="`json` writes one JSON object a line to standard error. `auto` is `json` in Kubernetes if "
        "standard error is no terminal, else `console`.",
    ),
    Option(
        "--no-color",
        is_flag=True,
        help="Print without colours",
        more="`NO_COLOR` does the same; `FORCE_COLOR` forces colours.",
    ),
)

THROTTLE = (
    Option(
        "--rate",
        type=Converted("auto|N", "options:rate_or_auto"),
        help="Learn the rate, or send N requests a second",
        more="Default: `throttle.rate`, which is `auto`.",
    ),
    Option("--max-rate", type=RATE, help="Never send more than N requests a second"),
    Option("--concurrency", type=click.IntRange(1, 10_000), metavar="N", help="Keep at most N requests in flight"),
)

ACCOUNT = Option(
    "--account",
    "accounts",
    multiple=True,
    metavar="NAME",
    shell_complete=completed_by("complete_accounts"),
    help="Only installs of this account",
    more="NAME is the name of an account in the YAML.",
)

SELECTION = (
    Option(
        "--only",
        multiple=True,
        metavar="GLOB",
        shell_complete=completed_by("complete_installs"),
        help="Only installs whose name or id matches GLOB",
        more="Quote the glob, as in `--only 'shop*'`.",
    ),
    Option(
        "--exclude",
        multiple=True,
        metavar="GLOB",
        shell_complete=completed_by("complete_installs"),
        help="Skip installs whose name or id matches GLOB",
        more="`--exclude` overrides every other option that selects installs.",
    ),
    Option(
        "--tag",
        "tags",
        multiple=True,
        metavar="TAG",
        shell_complete=completed_by("complete_tags"),
        help="Only installs with this tag",
    ),
    Option(
        "--environment",
        "environments",
        multiple=True,
        metavar="ENV",
        type=click.Choice(ENVIRONMENTS),
        help="Only production, staging or development",
    ),
    ACCOUNT,
    Option(
        "--installs-from",
        metavar="FILE",
        help="Only names and ids in FILE (- is standard input)",
        more="One name or id a line. Empty lines and lines that begin with `#` do not count.",
    ),
    Option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N of the selected installs"),
    Option(
        "--shard",
        type=Converted("I/N", "selecting:parse_shard"),
        help="Only part I of N stable parts, such as 1/4",
        more="The hash of an install's id decides its part. If an install is added, the others stay in their parts.",
    ),
)
