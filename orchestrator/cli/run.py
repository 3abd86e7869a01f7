"""``wpe-backup run``: back up the selected installs and print the end of the run."""

from __future__ import annotations

import gc
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from orchestrator.cli.ending import say_end
from orchestrator.cli.open_files import within_open_files
from orchestrator.cli.options import Output, read_config, throttled, with_output
from orchestrator.cli.places import needed_state_dir
from orchestrator.cli.selecting import check_accounts, with_selection
from orchestrator.cli.stopping import FAIL_FAST, run_until_stopped
from orchestrator.cli.streams import print_json
from orchestrator.commands.preview import previewed
from orchestrator.errors import ExitCode, UsageError
from orchestrator.redaction import redactor_of
from orchestrator.report.plan_text import plan_lines, plan_table, plan_totals
from orchestrator.runs.options import RunOptions
from orchestrator.runs.run import run_backups
from orchestrator.selection import Selection
from orchestrator.summary import FailureLimit

if TYPE_CHECKING:
    from orchestrator.engine.ports import Log
    from orchestrator.model import Config


@with_output
@with_selection
def run(*, config_file: str | None, output: Output, **given: Any) -> int:  # noqa: ANN401 - the values of the options, by name
    """Back up the installs that the options select, and return the exit code."""
    options = _options(given)
    config = read_config(config_file, is_strict=options.strict)
    check_accounts(options.selection, config.accounts)
    _refuse_to_overwrite(config.source, options.report)
    config = replace(config, throttle=throttled(config.throttle, given))
    if given["wait_timeout"] is not None:
        config = replace(config, wait=replace(config.wait, timeout_s=given["wait_timeout"]))
    redactor = redactor_of(config)
    log = output.log(redactor)
    config = within_open_files(config, log)
    if given["dry_run"]:
        return _show_plan(config, options, output, log)
    _collect_garbage_seldom()
    end = run_until_stopped(lambda stop: run_backups(config, options, log, stop), is_last=True)
    say_end(end, output, log, redactor)
    return end.summary.exit_code


def _collect_garbage_seldom() -> None:
    """Keep the plan and the libraries out of garbage collection, which took a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)


def _options(given: dict[str, Any]) -> RunOptions:
    options = RunOptions(
        state_dir=Path() if given["dry_run"] else needed_state_dir(given["state_dir"]),  # --dry-run uses no state
        report=given["report"],
        stdout_fd=None if sys.__stdout__ is None else sys.__stdout__.fileno(),
        resume=given["resume"],
        retry_failed=given["retry_failed"],
        lock_wait_s=given["lock_wait"] or 0.0,
        selection=replace(given["selection"], names=given["install"]),
        description=given["description"],
        emails=given["email"] or None,
        strict=given["strict"],
        waits=given["wait"],
        recent_s=given["skip_if_recent"],
        deadline_s=given["deadline"],
        failure_limit=FailureLimit(failures=1, option=FAIL_FAST, is_first=True)
        if given["fail_fast"]
        else given["max_failures"],
    )
    _check_together(options, dry_run=given["dry_run"])
    return options


def _check_together(options: RunOptions, *, dry_run: bool) -> None:
    """Raise ``UsageError`` for options that contradict each other."""
    earlier = "--resume" if options.resume is not None else "--retry-failed"
    if options.resume is not None and options.retry_failed is not None:
        message = "--resume finishes a run, and --retry-failed begins a new one: use only one of them"
    elif options.is_new:
        return
    elif replace(options.selection, shard=None) != Selection():
        message = f"{earlier} takes its installs from the earlier run: remove INSTALL and selections except --shard"
    elif options.resume is not None and (options.description is not None or options.emails is not None):
        message = "--resume finishes the requests of an earlier run: remove --description and --email"
    elif dry_run:
        message = f"--dry-run shows the plan of a new run: it cannot be used with {earlier}"
    else:
        return
    raise UsageError(message)


def _refuse_to_overwrite(config_file: str, report: str | None) -> None:
    with suppress(OSError, ValueError):
        if report and Path(config_file).samefile(report):
            message = f"the report would overwrite the configuration {config_file}: name another file with -o"
            raise UsageError(message)


def _show_plan(config: Config, options: RunOptions, output: Output, log: Log) -> int:
    """Print the plan; return 3 if a part of it could not be resolved, 12 if credentials were refused."""
    planned, is_refused = run_until_stopped(lambda stop: previewed(config, options, log, stop))
    plan = planned.plan
    for position, each in planned.presettled.items():
        event, label = f"backup.{each.kind.value}", plan.backups[position].install.label
        log.warning(event, install=label, reason=each.error and each.error.message)
    lacking = ExitCode.FAILED if planned.presettled or planned.failed else ExitCode.OK
    code = ExitCode.CREDENTIALS if is_refused else lacking
    if output.is_json:
        for line in plan_lines(plan):
            print_json(line)
    else:
        console = output.console(sys.stdout)
        for row in plan_table(plan):
            console.print(row, soft_wrap=True)
        ending = f"; a run would end with exit code {code}" if code else ""
        console.print(Text(plan_totals(plan) + ending), soft_wrap=True)
    return code
