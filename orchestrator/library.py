"""The library: do what ``wpe-backup run`` does, from your own program.

It prints nothing, handles no signal and changes no global logging. ``orchestrator.__all__`` lists the public names.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.config import load_config as checked_config
from orchestrator.config.source import yaml_text
from orchestrator.engine.stop import StopSwitch
from orchestrator.errors import StoppedError
from orchestrator.logs import make_log_to, make_silent_log
from orchestrator.redaction import redactor_of
from orchestrator.report.lines import summary_line
from orchestrator.runs.run import run_backups

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Coroutine, Mapping

    from orchestrator.model import Config, Outcome
    from orchestrator.runs.options import RunOptions
    from orchestrator.runs.run import RunEnd


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of a run.

    ``exit_code`` is the code that the command would have returned. ``summary`` is the object of the report's last line.
    ``error`` is set if the run itself failed: a ``StorageError`` if it could not write its report or its state. Any
    other exception is a bug.
    """

    run_id: str
    exit_code: int
    summary: dict[str, Any]
    error: Exception | None = None


def load_config(path: str | os.PathLike[str], environment: Mapping[str, str] | None = None) -> Config:
    """Return the checked configuration of the YAML file ``path`` and of the inventory files that it names.

    ``${VARIABLES}`` and credentials come from ``environment`` (default: that of this process). Raises ``ConfigError``:
    its ``problems`` are everything that is wrong, each with its file, line, column, path and message.
    """
    name, text = yaml_text(os.fspath(path))
    return checked_config(text, name, os.environ if environment is None else environment)


async def back_up(
    config: Config,
    options: RunOptions,
    *,
    on_outcome: Callable[[Outcome], None] | None = None,
    log: logging.Logger | Any | None = None,  # noqa: ANN401 - structlog's loggers share no class
) -> RunResult:
    """Request one backup of every install that ``options`` select, and report every outcome.

    ``on_outcome`` is called in this event loop with each outcome, as soon as it is recorded. If it raises, the run goes
    on, and ``back_up`` raises the first such exception at the end. ``log`` is a logger of structlog or of the standard
    library.

    Cancelling drains the run, as a first signal does. Requests in flight end, the remaining installs are reported as
    cancelled, the report is completed, and then ``CancelledError`` is raised. A second cancel breaks off the requests
    in flight.

    Raises ``UsageError`` if there is nothing to do, ``LockedError`` if another process runs the same configuration, and
    ``StorageError`` if the state or the report cannot be opened. No backup was requested in these cases.
    """
    told = make_silent_log() if log is None else make_log_to(log, redactor_of(config))
    listener, stop = _Listener(on_outcome), StopSwitch()
    end = await _drained_if_cancelled(run_backups(config, options, told, stop, listener), stop)
    if listener.error:
        raise listener.error
    summary = summary_line(end.summary)
    return RunResult(end.summary.run_id, end.summary.exit_code, summary, end.crash or end.write_error)


async def _drained_if_cancelled(work: Coroutine[object, object, RunEnd], stop: StopSwitch) -> RunEnd:
    """Return the end of the run. A cancel presses ``stop``, and is raised when the run has ended."""
    running = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError as error:
            cancelled = error
            stop.press(signal.SIGTERM)
    if cancelled is None:
        return await running
    if running.exception() is not None and not isinstance(running.exception(), StoppedError):
        raise cancelled from running.exception()
    raise cancelled


class _Listener:
    """Pass each outcome to ``on_outcome``, and keep the first exception that it raises."""

    def __init__(self, on_outcome: Callable[[Outcome], None] | None) -> None:
        self._on_outcome = on_outcome
        self.error: Exception | None = None

    def __call__(self, outcome: Outcome) -> None:
        if self._on_outcome is None:
            return
        try:
            self._on_outcome(outcome)
        except Exception as error:  # noqa: BLE001 - ``back_up`` raises it at the end of the run
            self.error = self.error or error
