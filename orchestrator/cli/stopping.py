"""Signals, and the options by which a run stops by itself."""

from __future__ import annotations

import asyncio
import re
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.engine.stop import StopSwitch
from orchestrator.summary import Brake

if TYPE_CHECKING:
    from collections.abc import Iterator

_FAILURES = re.compile(r"(\d{1,6})|(\d{1,3}(?:\.\d{1,6})?)%", re.ASCII)
WHOLE_PERCENT = 100.0


def parse_brake(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Brake | None:
    """Return the brake that ``--max-failures`` asks for. Raises ``click.BadParameter``."""
    if value is None:
        return None
    match = _FAILURES.fullmatch(value)
    failures, percent = (match[1], match[2]) if match else (None, None)
    if failures and int(failures) >= 1:
        return Brake(failures=int(failures))
    if percent and 0 < float(percent) <= WHOLE_PERCENT:
        return Brake(percent=float(percent))
    message = f"{value!r} is neither a number of installs from 1 on, as 10, nor a share above 0%, as 5%"
    raise click.BadParameter(message)


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
