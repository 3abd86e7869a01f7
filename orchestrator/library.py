"""The library: what the command ``wpe-backup run`` does, for a program of yours.

Nothing is printed, no signal handled, no global logging touched. ``orchestrator.__all__`` names what is public.
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
    """What a run came to.

    ``exit_code`` is what the command would have returned, and ``summary`` the object of the report's last line.
    ``error`` is what went wrong with the run itself, ``None`` if nothing did: a ``StorageError`` if its report or its
    state could not be written, any other exception is a bug.
    """

    run_id: str
    exit_code: int
    summary: dict[str, Any]
    error: Exception | None = None


def load_config(path: str | os.PathLike[str], environment: Mapping[str, str] | None = None) -> Config:
    """Return the checked configuration of the YAML file ``path``, with the inventory files that it names.

    ``environment`` is where ``${VARIABLES}`` and credentials are looked up, by default this process's. Raises
    ``ConfigError``, whose ``problems`` are all that is wrong, each with its file, line, column, path and message.
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
    """Request a backup of every install that ``options`` mean, once, and report every outcome.

    ``on_outcome`` is called with each outcome the moment it is kept, in this event loop; if it raises, the run goes on,
    and the first such exception is raised at its end. ``log`` is a logger of structlog or of the standard library.

    Cancelling drains the run as a first signal does: what is in flight ends, what is left is reported as cancelled, the
    report is completed, and then ``CancelledError`` is raised. Cancelling once more breaks off what is in flight.

    Raises ``UsageError`` if there is nothing to do, ``LockedError`` if another process runs the same configuration, and
    ``StorageError`` if the state or the report cannot be begun; no backup was requested then.
    """
    told = make_silent_log() if log is None else make_log_to(log, redactor_of(config))
    listener, stop = _Listener(on_outcome), StopSwitch()
    end = await _drained_if_cancelled(run_backups(config, options, told, stop, listener), stop)
    if listener.error:
        raise listener.error
    summary = summary_line(end.summary)
    return RunResult(end.summary.run_id, end.summary.exit_code, summary, end.crash or end.write_error)


async def _drained_if_cancelled(work: Coroutine[object, object, RunEnd], stop: StopSwitch) -> RunEnd:
    """Return what the run comes to; each cancelling presses ``stop``, and is raised when the run has ended."""
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
    """Tell the caller of each outcome, and keep the first exception that comes of it."""

    def __init__(self, on_outcome: Callable[[Outcome], None] | None) -> None:
        self._on_outcome = on_outcome
        self.error: Exception | None = None

    def __call__(self, outcome: Outcome) -> None:
        if self._on_outcome is None:
            return
        try:
            self._on_outcome(outcome)
        except Exception as error:  # noqa: BLE001 - it is raised again at the end of the run
            self.error = self.error or error
