"""Locks between processes: a file each, which the system unlocks when its holder ends, however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.errors import LockedError, WriteError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

POLL_S = 0.2


def scope_lock(state_dir: Path, scope: str) -> Path:
    """Return the lock of what only one run at a time may do."""
    return state_dir / "locks" / f"{hashlib.sha256(scope.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.lock"


def run_lock(state_dir: Path, run_id: str) -> Path:
    """Return the lock that a run holds for as long as it is alive."""
    return state_dir / "runs" / run_id / "lock"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long another process is waited for, in seconds, and what is said: the remedy, and that one waits."""

    wait_s: float = 0.0
    remedy: str = "wait for its end"
    say: Callable[[str], None] | None = None


IMPATIENCE = Patience()


@contextlib.asynccontextmanager
async def locked(path: Path, what: str, patience: Patience = IMPATIENCE) -> AsyncIterator[None]:
    """Hold the lock ``path``, for which another process is waited for with ``patience``.

    ``what`` says what is going on while somebody holds it. Raises ``LockedError``, and ``WriteError`` if there can be
    no such file.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        message = f"the lock {path} cannot be made: {error.strerror}; name another folder with --state-dir"
        raise WriteError(message) from error
    try:
        await _acquire(descriptor, path, what, patience)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


async def _acquire(descriptor: int, path: Path, what: str, patience: Patience) -> None:
    until = asyncio.get_running_loop().time() + patience.wait_s
    has_said = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            left_s = until - asyncio.get_running_loop().time()
            busy = _busy(what, path)
            if left_s <= 0:
                remedy = f"it did not end within {patience.wait_s:g} s" if patience.wait_s else patience.remedy
                message = f"{busy}; {remedy}"
                raise LockedError(message) from None
            if patience.say and not has_said:
                patience.say(busy)
            has_said = True
            await asyncio.sleep(min(POLL_S, left_s))
        except OSError as error:
            message = f"{path} cannot be locked: {error.strerror}; name another folder with --state-dir"
            raise WriteError(message) from error
        else:
            return


def _busy(what: str, path: Path) -> str:
    holder = ""
    with contextlib.suppress(OSError, ValueError):
        holder = f", in process {int(path.read_bytes()[:20])}"
    return f"{what}{holder}"
