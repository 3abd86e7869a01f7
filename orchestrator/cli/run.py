"""``wpe-backup run``: request a backup of every install, report every outcome."""

from __future__ import annotations

import asyncio
import signal
import sys
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING

import rich_click as click
from rich.text import Text

from orchestrator.cli.options import (
    Output,
    config_option,
    option,
    output_options,
    parsed_by,
    read_config,
    state_dir_option,
)
from orchestrator.config.schema import parse_rate, parse_rate_or_auto
from orchestrator.engine.stop import StopSwitch
from orchestrator.logs import SecretFilter
from orchestrator.report.lines import backup_line, summary_line
from orchestrator.report.read import Report
from orchestrator.report.text import failures, totals
from orchestrator.usecases.run import RunEnd, RunOptions, run_backups
from orchestrator.visible import visible

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.engine.ports import Log
    from orchestrator.model import Config, ThrottlePolicy


def _rate(value: object) -> tuple[float | None]:
    """Wrap the rate, so that ``auto`` (no fixed rate) is not taken for an option that was not given."""
    return (parse_rate_or_auto(value),)


@click.command()
@config_option
@option(
    "-o",
    "--report",
    metavar="FILE",
    help="Where the JSON lines go; - is standard output. Default: the run's own folder.",
)
@state_dir_option
@option("--rate", metavar="auto|N", callback=parsed_by(_rate), help="Learn the rate, or keep to N requests per second.")
@option("--max-rate", metavar="N", callback=parsed_by(parse_rate), help="Never exceed N requests per second.")
@option("--concurrency", type=click.IntRange(1, 10_000), metavar="N", help="At most N requests in flight.")
@output_options
def run(
    *,
    config_file: str | None,
    report: str | None,
    state_dir: Path,
    output: Output,
    **throttle: object,
) -> int:
    """Request a backup of every install in the YAML; write the report.

    Exit codes: 0 every install succeeded, 2 bad usage or configuration, 3 at least one install failed, 4 the report or
    the state could not be written, 12 credentials refused, 130 and 143 stopped by a signal.
    """
    config = read_config(config_file)
    config = replace(config, throttle=_throttle(config.throttle, throttle))
    secrets = SecretFilter()
    for account in config.accounts.values():
        secrets.hide(account.user_id, account.password)
    log = output.log(secrets)
    options = RunOptions(state_dir, report, sys.stdout.buffer)
    end = asyncio.run(_run(config, options, log))
    say_end(end, output, log, secrets)
    return end.summary.exit_code


def _throttle(policy: ThrottlePolicy, given: dict[str, object]) -> ThrottlePolicy:
    """Return the configuration's policy with the options that were given in its place."""
    rate, ceiling, concurrency = given["rate"], given["max_rate"], given["concurrency"]
    if isinstance(rate, tuple):
        policy = replace(policy, fixed_rate=rate[0])
    if isinstance(ceiling, float):
        policy = replace(policy, ceiling=ceiling)
    if isinstance(concurrency, int):
        policy = replace(policy, concurrency=concurrency)
    return policy


async def _run(config: Config, options: RunOptions, log: Log) -> RunEnd:
    return await run_backups(config, options, log, stop_switch())


def stop_switch() -> StopSwitch:
    """Return a switch that SIGINT and SIGTERM press: the first drains the run, the second aborts it."""
    stop = StopSwitch()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.press, signum)
    return stop


def say_end(end: RunEnd, output: Output, log: Log, secrets: SecretFilter) -> None:
    """Say on standard error how the run ended: totals, first failures, where the report is."""
    if end.crash:
        trace = "".join(traceback.format_exception(end.crash))
        sys.stderr.write(f"wpe-backup: internal error, please report it:\n{secrets.clean(trace)}")
    if end.write_error:
        sys.stderr.write(f"wpe-backup: {end.write_error}\n")
        for outcome in end.unwritten:
            if outcome.backup:
                label = visible(outcome.planned.install.label)
                sys.stderr.write(f"not stored: {outcome.kind} {label} backup {visible(outcome.backup.id)}\n")
    if output.is_quiet and end.summary.exit_code == 0:
        return
    first = [backup_line(end.summary.run_id, outcome) for outcome in end.first_failures]
    if output.log_format == "json":
        emit = log.info if end.summary.exit_code == 0 else log.error
        emit("run.finished", **summary_line(end.summary), first_failures=first)
        return
    _show_end(end, output, first)


def _show_end(end: RunEnd, output: Output, first: list[dict[str, object]]) -> None:
    line = summary_line(end.summary)
    report = Report(end.summary.report, failures=first, summary=line, run_id=end.summary.run_id)
    report.outcomes.update(line["outcomes"])
    console = output.console(sys.stderr)
    console.print(totals(report), end="")
    if first:
        console.print(Text("First failures:"))
        console.print(failures(first))
        more = report.outcomes.total() - report.succeeded - len(first)
        if more:
            console.print(Text(f"… and {more} more"))
    where = "standard output" if end.summary.report == "-" else end.summary.report
    console.print(Text(f"Report: {where}"), soft_wrap=True)
