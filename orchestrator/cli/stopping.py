"""Signals, and the options by which a run stops by itself."""

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
"""Seconds that a thread may go on when all else has ended, before nobody waits for it any more."""

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
    message = f"{value!r} is neither a number of installs from 1 on, as 10, nor a share above 0%, as 5%"
    raise click.BadParameter(message)


def run_until_stopped(work: Callable[[StopSwitch], Coroutine[object, object, T]], *, is_last: bool = False) -> T:
    """Return what ``work`` comes to in an event loop, where signals press the switch that it is given.

    The first SIGINT or SIGTERM drains a run, the second aborts it; so does SIGHUP, when a terminal is closed, unless
    the command was started with nohup. Once the work has ended, signals end the command again. If the work ``is_last``,
    they are ignored instead: the exit code is in a run's summary by then, and only the closing words are left to be
    said. Raises ``StoppedError`` if a signal came before the work could begin.
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
    """Run each call in a thread of its own, which does not keep the command from ending.

    A look-up of a name can take minutes where no DNS server answers, and nothing can break it off.
    """

    def __init__(self) -> None:
        super().__init__()
        self._running: set[threading.Thread] = set()

    def submit(self, call: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:  # noqa: ANN401 - whatever the call takes
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
            except BaseException as error:  # noqa: BLE001 - it is raised again where it is waited for
                future.set_exception(error)
        self._running.discard(threading.current_thread())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - the executor's signature
        """Let what is under way end within ``LINGER_S``, as a file that is being opened does."""
        super().shutdown(wait=False, cancel_futures=cancel_futures)
        until = time.monotonic() + LINGER_S
        while wait and self._running and time.monotonic() < until:
            time.sleep(0.01)
