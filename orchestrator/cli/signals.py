"""What signals do to a command outside the event loop: the first one ends it, from its first moment on.

``main`` arms this before anything else is imported, so this imports next to nothing. A signal that comes meanwhile must
not be lost: process 1 of a container has no default to fall back on, since the system drops a signal that process 1
does not handle.
"""

from __future__ import annotations

import os
import select
import signal
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

AGAIN_S = 0.25
"""Between two alarms. Python handles a signal that comes just before a system call only when that returns, which an
open or a read of a pipe may never do: the alarm interrupts it."""

BEFORE_THE_WORK, AFTER_THE_WORK = "stopped before anything was sent", "stopped"


class Interrupt(BaseException):
    """Say that the signal ``signum`` ends the command, past everything that catches an ``Exception``."""

    def __init__(self, signum: int) -> None:
        """Keep the signal's number."""
        super().__init__(signum)
        self.signum = signum


class _Watch:
    """What has come so far, and what is done about it. There is one for the process, as there is of its handlers."""

    def __init__(self) -> None:
        self.armed: list[signal.Signals] = []
        self.first: int | None = None
        self.holds = False
        self.message = BEFORE_THE_WORK

    def came(self, signum: int, _frame: object) -> None:
        """Handle a signal: raise ``Interrupt`` in the main thread, or only remember it."""
        self.first = self.first or signum
        if not self.holds:
            ignore()  # the end has begun, and a second signal must not cut it short
            raise Interrupt(signum)


_watch = _Watch()


def arm() -> None:
    """Let each signal raise ``Interrupt`` from now on; one that the parent has this command ignore stays ignored."""
    not_ignored = (signal.SIG_DFL, signal.default_int_handler, _watch.came)
    _watch.armed = [signum for signum in SIGNALS if signal.getsignal(signum) in not_ignored]
    for signum in _watch.armed:
        signal.signal(signum, _watch.came)
    sys.unraisablehook = _end_even_here
    signal.signal(signal.SIGALRM, lambda _signum, _frame: None)
    _interrupt_every(AGAIN_S)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def block() -> None:
    """Let signals wait until this process, or what takes its place, calls ``arm``."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    _interrupt_every(0.0)


def hold() -> None:
    """Only remember signals from now on, until the event loop handles them."""
    _watch.holds = True
    _interrupt_every(0.0)


def held() -> int | None:
    """Return the first signal that has come and was not acted on, ``None`` if there is none."""
    return _watch.first


def rearm() -> None:
    """Let each signal raise ``Interrupt`` again, now that the work is done."""
    _watch.first, _watch.holds, _watch.message = None, False, AFTER_THE_WORK
    for signum in _watch.armed:
        signal.signal(signum, _watch.came)
    if _watch.armed:
        _interrupt_every(AGAIN_S)


def ignore() -> None:
    """Ignore every signal from now on: only the end is left."""
    _interrupt_every(0.0)
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def exit_code_of(interrupt: Interrupt) -> int:
    """Say on standard error why the command ends, unless that would have to wait, and return its exit code."""
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
    """End the command although ``Interrupt`` was raised where Python lets no exception out, as in a ``__del__``."""
    if isinstance(unraisable.exc_value, Interrupt):
        os._exit(exit_code_of(unraisable.exc_value))
    sys.__unraisablehook__(unraisable)
