"""The parsers of the commands that check backups and read what earlier runs left."""

from __future__ import annotations

import click

from orchestrator.cli.parser.grammar import DURATION, Command, Group, Option, argument
from orchestrator.cli.parser.shared import ACCOUNT, CONFIG, FORMAT, OUTPUT, SELECTION, STATE_DIR, THROTTLE

_REPORT = argument("run", "[RUN|FILE]", "complete_reports", default="latest")

status = Command(
    "status",
    help="""Check how the backups of a run ended.

    RUN is a run id, the beginning of one, or latest (default): the newest run of this configuration. The command asks
    the API about each backup that has not ended, and updates the report of the run.""",
    arguments=[argument("run", "[RUN]", "complete_runs", default="latest")],
    groups={
        "Select the run": (CONFIG, STATE_DIR),
        "Set the speed": THROTTLE,
        "Output": (FORMAT, *OUTPUT),
    },
    examples=("wpe-backup status", "wpe-backup status 01JDX --format json"),
)

audit = Command(
    "audit",
    help="""Check the age of the newest backup of each install.

    INSTALL is the name or id of an install in the configuration. A backup counts if it is completed, whoever made it;
    its age counts from its create_time. The command reads one listing for each install and requests nothing. It exits
    with 3 if a backup is stale or missing, or if its age is unknown.""",
    arguments=[argument("install", "[INSTALL]...", "complete_installs", nargs=-1)],
    groups={
        "Select installs": (CONFIG, *SELECTION),
        "Audit": (
            Option(
                "--max-age",
                type=DURATION,
                help="Accept a backup up to this age, such as 26h",
                more="It replaces the `max_age` of every install.",
            ),
            STATE_DIR,
        ),
        "Set the speed": THROTTLE,
        "Output": (FORMAT, *OUTPUT),
    },
    examples=("wpe-backup audit --max-age 26h", "wpe-backup audit --tag client-a --format json"),
)

history = Command(
    "history",
    help="""List earlier runs with their totals, the newest first.

    The command only reads, so it never disturbs a run. An unfinished run shows the outcomes that it has so far.
    state.keep in the YAML says how long runs are kept.""",
    groups={
        "Select runs": (
            Option(
                "--limit",
                type=click.IntRange(0),
                default=20,
                metavar="N",
                help="List the newest N runs, 0 for all (default 20)",
            ),
            STATE_DIR,
        ),
        "Output": (FORMAT, *OUTPUT),
    },
    examples=("wpe-backup history --limit 5", "wpe-backup history --limit 0 --format json"),
)

installs = Command(
    "installs",
    help="""List the API's installs, or compare them with the configuration.

    Without a configuration, the command uses the credentials of the environment. With --diff, it lists installs that
    are unprotected (not in the YAML), pending (not in the YAML, and WP Engine is still making them), gone, renamed, or
    unknown because a listing failed. It exits with 3 if there is a difference or if a listing failed. Installs that are
    disabled, or that a discover entry leaves out, are no difference.""",
    groups={
        "Select installs": (
            CONFIG,
            Option("--diff", is_flag=True, help="Show only differences from the configuration"),
            ACCOUNT,
        ),
        "Set the speed": THROTTLE,
        "Output": (FORMAT, *OUTPUT),
    },
    examples=("wpe-backup installs", "wpe-backup installs --diff --format json"),
)

settle = Command(
    "settle",
    help="""Record whether an unconfirmed backup exists.

    Look in the User Portal first. RUN is a run id, the beginning of one, or latest. INSTALL must be unconfirmed in that
    run. If the backup exists, the install becomes accepted. If not, it becomes exhausted, and --retry-failed requests
    it. The command writes the report again.""",
    arguments=[argument("run", "RUN", "complete_runs"), click.Argument(["install"], metavar="INSTALL")],
    groups={
        "Answer": (
            Option("--exists", metavar="BACKUP_ID", help="The backup exists and has this id"),
            Option("--absent", is_flag=True, help="The backup does not exist"),
            STATE_DIR,
        ),
        "Output": OUTPUT,
    },
    examples=(
        "wpe-backup settle latest torquemag --exists BACKUP_ID",
        "wpe-backup settle latest torquemag --absent",
    ),
)

_SELECT_REPORT = """RUN is a run id, the beginning of one, or latest (default). FILE is a report. It may hold the
    reports of several runs. With --format json, the command prints one line for each run. It exits with 3 if a part of
    the report is damaged or missing."""

report = Group(
    "report",
    help="Read the report of a run.",
    commands=[
        Command(
            "summary",
            help=f"""Show the totals of a report.

    {_SELECT_REPORT}""",
            arguments=[_REPORT],
            groups={"Options": (FORMAT, STATE_DIR), "Output": OUTPUT},
            examples=("wpe-backup report summary", "wpe-backup report summary app.jsonl --format json"),
            module="report",
        ),
        Command(
            "failures",
            help=f"""List the installs that were not backed up, and why.

    {_SELECT_REPORT}""",
            arguments=[_REPORT],
            groups={"Options": (FORMAT, STATE_DIR), "Output": OUTPUT},
            examples=("wpe-backup report failures", "wpe-backup report failures 01JDX --format json"),
            module="report",
        ),
    ],
)
