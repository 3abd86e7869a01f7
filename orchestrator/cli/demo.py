"""``wpe-backup demo``: a run against the stand-in, without credentials."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from orchestrator.cli.ending import say_end
from orchestrator.cli.options import Output, with_output
from orchestrator.cli.stopping import run_until_stopped
from orchestrator.cli.streams import say
from orchestrator.commands.demo import EXIT_CODES, FLEET_SIZE, RATE, DemoEnd, run_demo
from orchestrator.redaction import Redactor

CONTRADICTED = 1


@with_output
def demo(*, output: Output) -> int:
    """Run the demonstration; return 0 if its report agrees with the counts of the stand-in."""
    redactor = Redactor()
    log = output.log(redactor)
    folder = Path(tempfile.mkdtemp(prefix="wpe-backup-demo-"))
    if not output.is_quiet:
        say(
            f"A stand-in for the API allows {RATE:g} requests a second, but does not say so. "
            f"Backing up {FLEET_SIZE} installs …"
        )
    end = run_until_stopped(lambda stop: run_demo(folder, log, stop), is_last=True)
    exit_code = end.run.summary.exit_code
    if not output.is_quiet or end.contradictions:
        say_end(end.run, output, log, redactor, goes_on=False)
    if exit_code not in EXIT_CODES:
        return exit_code
    if not output.is_quiet or end.contradictions:
        _say_proof(end)
    return CONTRADICTED if end.contradictions else 0


def _say_proof(end: DemoEnd) -> None:
    stats = end.stats
    say(
        f"\nThe stand-in made {stats['backups_made']} backups of {stats['installs_backed_up']} installs, at most "
        f"{stats['most_per_install']} per install. It rejected {end.refused} installs and sent "
        f"{stats['throttled']} answer(s) of 429."
    )
    for contradiction in end.contradictions:
        say(f"The report is wrong: {contradiction}.")
    if not end.contradictions:
        say("The report agrees with it, line by line.")
    say(
        f"\nLook around:  {_program()} report failures {end.run.summary.report}\n"
        f"              less {end.run.summary.report}\n"
        f"              less {end.config_file}"
    )


def _program() -> str:
    """Return the name that calls this command from here."""
    return "wpe-backup" if shutil.which("wpe-backup") else str(Path(sys.argv[0]).absolute())
