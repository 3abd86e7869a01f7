"""Handle signals outside the event loop: the first one ends the command, from its first moment on.

``main`` calls ``arm`` before it imports anything else, so this module imports next to nothing. The system drops a
signal that process 1 of a container does not handle, so the time before ``arm`` must be short.
"""

from __future__ import annotations

import os
import select
import signal
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

AGAIN_S = 0.25
"""Seconds between two alarms. If a signal comes just before a system call, Python handles it after that call. An open
or a read of a pipe may never return, so the alarm interrupts it."""

BEFORE_THE_WORK, AFTER_THE_WORK = "stopped before anything was sent", "stopped"


class Interrupt(BaseException):
    """The signal ``signum`` ends the command. This is no ``Exception``, so no ``except Exception`` catches it."""

    def __init__(self, signum: int) -> None:
        """Keep the signal's number."""
        super().__init__(signum)
        self.signum = signum


class _Watch:
    """The signals that came so far. There is one watch for the process, because there is one set of handlers."""

    def __init__(self) -> None:
        self.armed: list[signal.Signals] = []
        self.first: int | None = None
        self.holds = False
        self.message = BEFORE_THE_WORK

    def came(self, signum: int, _frame: object) -> None:
        """Handle a signal: raise ``Interrupt`` in the main thread, or only remember it."""
        self.first = self.first or signum
        if not self.holds:
            ignore()  # a second signal must not interrupt the end
            raise Interrupt(signum)


_watch = _Watch()


def arm() -> None:
    """Let each signal raise ``Interrupt`` from now on. A signal that the parent ignores stays ignored."""
    not_ignored = (signal.SIG_DFL, signal.default_int_handler, _watch.came)
    _watch.armed = [signum for signum in SIGNALS if signal.getsignal(signum) in not_ignored]
    for signum in _watch.armed:
        signal.signal(signum, _watch.came)
    sys.unraisablehook = _end_even_here
    signal.signal(signal.SIGALRM, lambda _signum, _frame: None)
    _interrupt_every(AGAIN_S)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def block() -> None:
    """Let signals wait until this process, or its replacement by ``exec``, calls ``arm``."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    _interrupt_every(0.0)


def hold() -> None:
    """Only remember signals from now on, until the event loop handles them."""
    _watch.holds = True
    _interrupt_every(0.0)


def held() -> int | None:
    """Return the first signal that came and was not handled, ``None`` if there is none."""
    return _watch.first


def rearm() -> None:
    """Let each signal raise ``Interrupt`` again, now that the work is done."""
    _watch.first, _watch.holds, _watch.message = None, False, AFTER_THE_WORK
    for signum in _watch.armed:
        signal.signal(signum, _watch.came)
    if _watch.armed:
        _interrupt_every(AGAIN_S)


def ignore() -> None:
    """Ignore every signal from now on, during the end of the command."""
    _interrupt_every(0.0)
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def exit_code_of(interrupt: Interrupt) -> int:
    """Print the reason on standard error, if that does not block; return the exit code."""
    if sys.stderr is not None:
        try:
            waiting = select.poll()
            waiting.register(2, select.POLLOUT)
            if waiting.poll(0):
                os.write(2, f"wpe-backup: {_watch.message}\n".encode())
        except OSError:
            pass
    return 128 + interrupt.signum


def _interrupt_every(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)


def _end_even_here(unraisable: sys.UnraisableHookArgs) -> None:
    """End the command if ``Interrupt`` was raised where Python swallows exceptions, such as in ``__del__``."""
    if isinstance(unraisable.exc_value, Interrupt):
        os._exit(exit_code_of(unraisable.exc_value))
    sys.__unraisablehook__(unraisable)
