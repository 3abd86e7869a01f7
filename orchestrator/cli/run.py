"""``wpe-backup run``: request a backup of every install, report every outcome."""

from __future__ import annotations

import asyncio
import gc
import shlex
import signal
import sys
import traceback
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from rich.text import Text

from orchestrator.cli.open_files import within_open_files
from orchestrator.cli.options import (
    Output,
    config_option,
    default_state_dir,
    option,
    output_options,
    parsed_by,
    read_config,
    state_dir_option,
)
from orchestrator.config.values import parse_duration, parse_rate, parse_rate_or_auto
from orchestrator.engine.stop import StopSwitch
from orchestrator.errors import UsageError
from orchestrator.logs import forgiving
from orchestrator.model import OutcomeKind
from orchestrator.redaction import Redactor
from orchestrator.report.lines import backup_line, summary_line
from orchestrator.report.read import Report
from orchestrator.report.text import failures, totals
from orchestrator.usecases.jobs import RunOptions
from orchestrator.usecases.run import RunEnd, run_backups
from orchestrator.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

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
@option(
    "--resume",
    metavar="RUN",
    help="Finish an interrupted run: same run id, same report, nothing requested twice. A run id, the beginning of "
    "one, or latest.",
)
@option(
    "--retry-failed",
    metavar="RUN|FILE",
    help="A new run of only the failed installs of an earlier one, or of a report's file.",
)
@option(
    "--lock-wait",
    metavar="DURATION",
    callback=parsed_by(parse_duration),
    help="Wait for another run of the same YAML, as 10m, instead of exit code 11.",
)
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
    **settings: object,
) -> int:
    """Request a backup of every install in the YAML; write the report.

    Exit codes: 0 every install succeeded, 1 a bug, 2 bad usage or configuration, 3 at least one install failed, 4 the
    report or the state could not be written, 11 another run of the same YAML is going on, 12 credentials refused, 129,
    130 and 143 stopped by a signal.
    """
    options = _options(state_dir, report, settings)
    config = read_config(config_file)
    _refuse_to_overwrite(config.source, report)
    config = replace(config, throttle=_throttle(config.throttle, settings))
    redactor = Redactor()
    for account in config.accounts.values():
        redactor = redactor.knowing(account.user_id, account.password)
    log = output.log(redactor)
    config = within_open_files(config, log)
    _collect_garbage_seldom()
    end = asyncio.run(_run(config, options, log))
    say_end(end, output, log, redactor)
    return end.summary.exit_code


def _collect_garbage_seldom() -> None:
    """Leave what stays for the whole run (the plan, the libraries) out of every collection: a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)


def _options(state_dir: Path, report: str | None, given: dict[str, object]) -> RunOptions:
    resume, retry_failed, wait_s = (given[name] for name in ("resume", "retry_failed", "lock_wait"))
    if resume is not None and retry_failed is not None:
        message = "--resume finishes a run, --retry-failed begins a new one: give one of them"
        raise UsageError(message)
    return RunOptions(
        state_dir=state_dir,
        report=report,
        stdout_fd=None if sys.__stdout__ is None else sys.__stdout__.fileno(),
        resume=resume if isinstance(resume, str) else None,
        retry_failed=retry_failed if isinstance(retry_failed, str) else None,
        lock_wait_s=wait_s if isinstance(wait_s, float) else 0.0,
    )


def _refuse_to_overwrite(config_file: str, report: str | None) -> None:
    with suppress(OSError, ValueError):
        if report and Path(config_file).samefile(report):
            message = f"the report would take the place of the configuration {config_file}: name another file with -o"
            raise UsageError(message)


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
    with stopped_by_signals() as stop:
        return await run_backups(config, options, log, stop)


@contextmanager
def stopped_by_signals() -> Iterator[StopSwitch]:
    """Yield a switch that signals press: the first SIGINT or SIGTERM drains the run, the second aborts it.

    So does SIGHUP, when a terminal is closed, unless the command was started with nohup. Afterwards they are ignored:
    the exit code is in the summary by then, and only the closing words are left to be said.
    """
    stop = StopSwitch()
    loop = asyncio.get_running_loop()
    signums = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signums.append(signal.SIGHUP)
    for signum in signums:
        loop.add_signal_handler(signum, stop.press, signum)
    try:
        yield stop
    finally:
        for signum in signums:
            loop.remove_signal_handler(signum)
            signal.signal(signum, signal.SIG_IGN)


def say_end(end: RunEnd, output: Output, log: Log, redactor: Redactor) -> None:
    """Say on standard error how the run ended: totals, first failures, where the report is."""
    first = list(end.first_failures)
    is_well = end.summary.exit_code == 0
    if output.is_json:
        _log_trouble(end, log)
        (log.info if is_well else log.error)("run.finished", **summary_line(end.summary), first_failures=first)
        return
    stream = forgiving(sys.stderr)
    for line in _trouble(end, redactor):
        stream.write(line + "\n")
    if not (output.is_quiet and is_well):
        _show_end(end, output, first)


def _log_trouble(end: RunEnd, log: Log) -> None:
    if end.crash:
        log.error("run.crashed", trace="".join(traceback.format_exception(end.crash)))
    if end.write_error:
        log.error("report.incomplete", reason=str(end.write_error))
    for outcome in end.unwritten:
        log.error("backup.not_stored", **backup_line(end.summary.run_id, outcome))


def _trouble(end: RunEnd, redactor: Redactor) -> list[str]:
    """Say what went wrong with the run itself, and which backups were made that the report does not tell of."""
    lines = []
    if end.crash:
        lines.append("wpe-backup: internal error, please report it:")
        lines.append(redactor.clean("".join(traceback.format_exception(end.crash))))
    if end.write_error:
        lines.append(f"wpe-backup: {visible(str(end.write_error))}")
    lines += [
        f"not stored: {outcome.kind.value} {visible(outcome.planned.install.label)} backup {visible(outcome.backup.id)}"
        for outcome in end.unwritten
        if outcome.backup
    ]
    return lines


def _show_end(end: RunEnd, output: Output, first: list[dict[str, Any]]) -> None:
    line = summary_line(end.summary)
    report = Report(end.summary.report, failures=first, summary=line, run_id=end.summary.run_id)
    report.outcomes.update(line["outcomes"])
    console = output.console(sys.stderr)
    console.print(totals(report), end="")
    if first:
        console.print(Text("First failures:"))
        for row in failures(first):
            console.print(Text("  ") + row, soft_wrap=True)
        more = report.outcomes.total() - report.succeeded - len(first)
        if more:
            console.print(Text(f"  … and {more} more"))
    where = "standard output" if end.summary.report == "-" else visible(end.summary.report)
    console.print(Text(f"Report: {where}"), soft_wrap=True)
    for step in _next_steps(end):
        console.print(Text(step), soft_wrap=True)


def _next_steps(end: RunEnd) -> list[str]:
    """Say what can be done about what is missing, each as one command."""
    run_id, outcomes = end.summary.run_id, end.summary.outcomes
    config = "" if end.config.startswith("<") else f" -c {shlex.quote(visible(end.config))}"
    is_default = end.state_dir.absolute() == default_state_dir().absolute()
    state = "" if is_default else f" --state-dir {shlex.quote(visible(str(end.state_dir)))}"
    steps = []
    if end.unfinished > 0 or end.write_error:
        steps.append(f"Finish it:     wpe-backup run{config}{state} --resume {run_id}")
    if outcomes[OutcomeKind.UNCONFIRMED]:
        steps.append(f"Or settle it:  wpe-backup settle{state} {run_id} INSTALL --exists BACKUP_ID (or --absent)")
    if any(outcomes[kind] for kind in (OutcomeKind.REJECTED, OutcomeKind.EXHAUSTED, OutcomeKind.ABORTED)):
        steps.append(f"Retry failed:  wpe-backup run{config}{state} --retry-failed {run_id}")
    return steps
