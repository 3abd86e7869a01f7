"""The parsers of the commands that need no credentials: the demonstration and the stand-in for the API."""

from __future__ import annotations

import click

from orchestrator.cli.parser.grammar import DURATION, RATE, Command, Option
from orchestrator.cli.parser.shared import OUTPUT

RETRY_AFTER = (
    "none",
    "seconds",
    "decimal",
    "date",
    "rfc850",
    "asctime",
    "past_date",
    "zero",
    "negative",
    "words",
    "odd",
    "empty",
    "huge",
    "hour",
)


def _share(name: str, words: str) -> Option:
    return Option(name, type=click.FloatRange(0.0, 1.0), metavar="SHARE", help=words)


demo = Command(
    "demo",
    help="""Back up a made-up fleet, without credentials.

    The command starts a local stand-in for the API, backs up 200 installs and compares the report with the backups that
    the stand-in made. It exits with 0 if they agree.""",
    groups={"Output": OUTPUT},
    examples=("wpe-backup demo",),
)

simulate = Command(
    "simulate",
    help="""Serve a local stand-in for the API, for rehearsals.

    The command prints the base URL of the stand-in. The stand-in accepts WPE_API_USER_ID and WPE_API_PASSWORD if they
    are set, else any credentials. /_admin/stats shows totals, /_admin/backups the backups that it made, and
    /_admin/requests the requests. A SHARE is a number from 0 to 1.""",
    groups={
        "Serve": (
            Option(
                "--port",
                type=click.IntRange(0, 65535),
                metavar="N",
                default=8080,
                help="Listen on this port, 0 for any (default 8080)",
            ),
            Option("--host", metavar="ADDRESS", default="127.0.0.1", help="Listen on this address (default 127.0.0.1)"),
            Option(
                "--scenario",
                metavar="FILE",
                help="Follow this scenario (- is standard input)",
                more="A YAML file; [scenarios.md](scenarios.md) lists its keys. Limits and "
                "faults from options add to those of the scenario. Other options override it.",
            ),
        ),
        "Limit requests": (
            Option("--bucket-rate", type=RATE, help="Allow N requests a second (default: no limit)"),
            Option(
                "--bucket-burst",
                type=click.IntRange(min=1),
                metavar="N",
                default=10,
                help="Allow N requests at once (default 10)",
            ),
            Option(
                "--retry-after",
                type=click.Choice(RETRY_AFTER),
                metavar="FORM",
                help="Send this form of Retry-After with a 429",
                more=f"One of {', '.join(f'`{form}`' for form in RETRY_AFTER)}. The default is `none`: the real "
                "gateway sends no such header.",
            ),
        ),
        "Answer slowly": (
            Option("--latency-min", type=DURATION, help="Answer no sooner than this (default 20ms)"),
            Option("--latency-max", type=DURATION, help="Answer no later than this (default 80ms)"),
            Option("--completes-after", type=DURATION, help="Complete a backup after this long (default 2s)"),
        ),
        "Answer with faults": (
            _share("--invalid", "Answer 400 for this share of the installs"),
            _share("--forbidden", "Answer 403 for this share of the installs"),
            _share("--not-found", "Answer 404 for this share of the installs"),
            _share("--unavailable", "Answer 503 to this share of the POSTs"),
            _share("--timed-out", "Answer 504 to a SHARE of POSTs, make no backup"),
            _share("--timed-out-created", "Answer 504 to a SHARE of POSTs, make the backup"),
            Option("--seed", type=int, metavar="N", help="Choose the affected installs by this seed"),
        ),
    },
    examples=(
        "wpe-backup simulate --bucket-rate 5 --not-found 0.2 --seed 4",
        "wpe-backup simulate --scenario examples/scenarios/lost-answers.yaml",
    ),
)
