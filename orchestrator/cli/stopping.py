"""Run work in an event loop that signals can stop."""

from __future__ import annotations

import asyncio
import re
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli import signals
from orchestrator.engine.stop import StopSwitch
from orchestrator.errors import StoppedError
from orchestrator.summary import FailureLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

LINGER_S = 1.0
"""Seconds to wait for threads at the end of the command."""

_FAILURES = re.compile(r"(\d{1,6})|(\d{1,3}(?:\.\d{1,6})?)%", re.ASCII)
WHOLE_PERCENT = 100.0

MAX_FAILURES, FAIL_FAST = "--max-failures", "--fail-fast"


def parse_failure_limit(value: str, _option: click.Parameter | None = None) -> FailureLimit:
    """Return the limit that ``--max-failures`` asks for. Raises ``click.BadParameter``."""
    match = _FAILURES.fullmatch(value)
    failures, percent = (match[1], match[2]) if match else (None, None)
    if failures and int(failures) >= 1:
        return FailureLimit(failures=int(failures), option=MAX_FAILURES)
    if percent and 0 < float(percent) <= WHOLE_PERCENT:
        return FailureLimit(percent=float(percent), option=MAX_FAILURES)
    message = f"{value!r} is neither a number from 1, such as 10, nor a percentage above 0%, such as 5%"
    raise click.BadParameter(message)


def run_until_stopped(work: Callable[[StopSwitch], Coroutine[object, object, T]], *, is_last: bool = False) -> T:
    """Run ``work`` in an event loop and return its result. Signals press the switch that it gets.

    The first SIGINT, SIGTERM or SIGHUP drains a run, and the second aborts it. A command that is started with nohup
    ignores SIGHUP. After the work, a signal ends the command. If the work ``is_last``, signals are ignored instead: the
    summary has the exit code already, and only the closing words are left to print. Raises ``StoppedError`` if a signal
    came before the work could begin.
    """
    signals.hold()
    try:
        with asyncio.Runner() as runner:
            runner.get_loop().set_default_executor(_LoneThreads())
            return runner.run(_stoppable(work))
    finally:
        if not is_last:
            signals.rearm()


async def _stoppable(work: Callable[[StopSwitch], Coroutine[object, object, T]]) -> T:
    stop = StopSwitch()
    loop = asyncio.get_running_loop()
    signums = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signums.append(signal.SIGHUP)
    for signum in signums:
        loop.add_signal_handler(signum, stop.press, signum)
    try:
        came = signals.held()
        if came is not None:
            raise StoppedError(came)
        return await work(stop)
    finally:
        for signum in signums:
            loop.remove_signal_handler(signum)
        signals.ignore()


class _LoneThreads(ThreadPoolExecutor):
    """Run each call in a thread of its own that does not delay the end of the command.

    Without an answer of a DNS server, the look-up of a name takes minutes, and nothing can interrupt it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._running: set[threading.Thread] = set()

    def submit(self, call: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:  # noqa: ANN401 - the arguments of the call
        """Begin ``call``, and return its future."""
        future: Future[Any] = Future()
        thread = threading.Thread(target=self._work, args=(future, partial(call, *given, **named)), daemon=True)
        self._running.add(thread)
        thread.start()
        return future

    def _work(self, future: Future[Any], call: Callable[[], Any]) -> None:
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - the future raises it again
                future.set_exception(error)
        self._running.discard(threading.current_thread())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - the executor's signature
        """Wait up to ``LINGER_S`` for calls under way, such as opening a file."""
        super().shutdown(wait=False, cancel_futures=cancel_futures)
        until = time.monotonic() + LINGER_S
        while wait and self._running and time.monotonic() < until:
            time.sleep(0.01)
