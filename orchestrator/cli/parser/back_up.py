"""The parser of ``wpe-backup run``."""

from __future__ import annotations

from orchestrator.cli.parser.grammar import DURATION, Command, Converted, Option, argument, completed_by
from orchestrator.cli.parser.shared import CONFIG, OUTPUT, SELECTION, STATE_DIR, THROTTLE, email

run = Command(
    "run",
    help="""Request backups of the selected installs and write the report.

    INSTALL is the name or id of an install in the configuration. Without INSTALL and selection options, the run backs
    up every enabled install.""",
    arguments=[argument("install", "[INSTALL]...", "complete_installs", nargs=-1)],
    groups={
        "Select installs": (
            CONFIG,
            *SELECTION,
            Option(
                "--strict",
                is_flag=True,
                help="Send nothing if an install cannot be resolved",
                more="A source of installs that cannot be read also stops the run. The exit code is 2.",
            ),
        ),
        "Describe the backups": (
            Option(
                "--description",
                type=Converted("TEXT", "options:template"),
                help="Use this description for the backups",
                more="It replaces the descriptions of the YAML and may hold the same `{fields}`.",
            ),
            email("It replaces the addresses of the YAML."),
        ),
        "Wait for completion": (
            Option("--wait", is_flag=True, help="Wait until every backup is completed or aborted"),
            Option(
                "--wait-timeout",
                type=DURATION,
                help="Wait at most this long for each backup",
                more="Default: `wait.timeout`.",
            ),
            Option(
                "--skip-if-recent",
                type=DURATION,
                help="Skip installs with a backup newer than this",
                more="A backup under way counts, too. With `--wait`, the run waits until that backup has ended.",
            ),
        ),
        "Set the speed": THROTTLE,
        "Stop early": (
            Option(
                "--deadline",
                type=DURATION,
                help="Request nothing more after this long",
                more="The remaining installs are `cancelled`, and the exit code is 10. Waiting goes on.",
            ),
            Option("--fail-fast", is_flag=True, help="Request nothing more after the first failure"),
            Option(
                "--max-failures",
                type=Converted("N|P%", "stopping:parse_failure_limit"),
                help="Request nothing more after N or P% failures",
                more="A percentage counts from 20 outcomes on.",
            ),
        ),
        "Continue an earlier run": (
            Option(
                "--resume",
                metavar="RUN",
                shell_complete=completed_by("complete_runs"),
                help="Finish an interrupted run",
                more="RUN is a run id, the beginning of one, or `latest`: the newest run of this configuration and "
                "shard. The run keeps its id and its report, and requests nothing twice.",
            ),
            Option(
                "--retry-failed",
                metavar="RUN|FILE",
                shell_complete=completed_by("complete_reports"),
                help="Back up the failed installs of an earlier run",
                more="This is a new run. It looks up each `unconfirmed` install before it requests a backup. FILE is a "
                "report. If the report is damaged, the run retries the lines that it can read and exits with 3.",
            ),
            Option(
                "--lock-wait",
                type=DURATION,
                help="Wait this long if another run is going on",
                more="That is another run of the same configuration and shard. Without this option, the exit code is "
                "11 immediately.",
            ),
        ),
        "Write the report": (
            Option(
                "-o",
                "--report",
                metavar="FILE",
                help="Write the report to FILE (- is standard output)",
                more="Default: `<state-dir>/runs/<run_id>/report.jsonl`.",
            ),
            Option(
                "-n",
                "--dry-run",
                is_flag=True,
                help="Print the plan and request nothing",
                more="The plan also says how many mails WP Engine will send.",
            ),
            STATE_DIR,
        ),
        "Output": OUTPUT,
    },
    examples=(
        "wpe-backup run --tag client-a --exclude '*staging' --dry-run",
        "wpe-backup run torquemag --wait --skip-if-recent 1h && ./deploy.sh",
        "wpe-backup run --deadline 4h --max-failures 5%",
        "wpe-backup run --resume latest",
    ),
    exit_codes=(
        " 0  every install was backed up",
        " 1  an internal error",
        " 2  bad usage or configuration, or nothing selected",
        " 3  an install failed, or a source of installs could not be read",
        " 4  the report or the state could not be written",
        "10  the deadline passed, and some installs were not tried",
        "11  another run of this configuration is going on",
        "12  the credentials of an account were refused",
        "129, 130, 143  stopped by SIGHUP, SIGINT, SIGTERM",
    ),
)
