"""Locks between processes. Each lock is a file; the system unlocks it when its holder ends for any reason."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orchestrator.errors import LockedError, StateError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from orchestrator.model import Run

POLL_S = 0.2
LONGEST_WORD = 1000
"""How many bytes of a lock's file are read: more than a holder ever writes."""


def scope_lock(state_dir: Path, scope: str) -> Path:
    """Return the path of the lock of ``scope``."""
    return state_dir / "locks" / f"{hashlib.sha256(scope.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.lock"


def run_lock(state_dir: Path, run_id: str) -> Path:
    """Return the path of the lock that a run holds while it is alive."""
    return state_dir / "runs" / run_id / "lock"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for another process, in seconds.

    ``remedy`` ends the message of ``LockedError`` if there is no wait. ``say`` gets the reason once, as a wait begins.
    """

    wait_s: float = 0.0
    remedy: str = "wait until it ends"
    say: Callable[[str], None] | None = None


IMPATIENCE = Patience()


class HeldLock:
    """A lock that this process holds. Its file names the holder, so that a refused process can name it too."""

    def __init__(self, descriptor: int) -> None:
        """Take the open file, and write this process into it."""
        self._descriptor = descriptor
        self._say({"pid": os.getpid(), "host": os.uname().nodename})

    def tell(self, run: Run) -> None:
        """Write the run that holds the lock into the file."""
        started_at = run.started_at.isoformat()
        self._say({"pid": os.getpid(), "host": os.uname().nodename, "run_id": run.id, "started_at": started_at})

    def forget(self) -> None:
        """Empty the file before the lock is released."""
        self._say(None)

    def _say(self, word: dict[str, Any] | None) -> None:
        """Write ``word``. If that fails (a full disk), the lock is held all the same."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            if word is not None:
                os.pwrite(self._descriptor, json.dumps(word).encode() + b"\n", 0)


@contextlib.asynccontextmanager
async def locked(path: Path, what: str, patience: Patience = IMPATIENCE) -> AsyncIterator[HeldLock]:
    """Hold the lock ``path``, and wait with ``patience`` if another process holds it.

    ``what`` says in messages what the holder does, for example ``run X is going on``. Raises ``LockedError``, which
    names the holder if it is known, and ``StateError`` if the file cannot be created or locked.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        message = f"the lock {path} cannot be made: {error.strerror}; name another directory with --state-dir"
        raise StateError(message) from error
    held = None
    try:
        await _acquire(descriptor, path, what, patience)
        held = HeldLock(descriptor)
        yield held
    finally:
        if held:
            held.forget()
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
            message = f"{path} cannot be locked: {error.strerror}; name another directory with --state-dir"
            raise StateError(message) from error
        else:
            return


def _busy(what: str, path: Path) -> str:
    """Return ``what`` with the holder that the file names: run, start and process, as far as each is valid."""
    word = _word(path)
    run_id, started_at, pid, host = (word.get(key) for key in ("run_id", "started_at", "pid", "host"))
    said = [what]
    if isinstance(run_id, str) and re.fullmatch(r"[0-9A-Z]{1,40}", run_id) and run_id not in what:
        said.append(f"run {run_id}")
    if isinstance(started_at, str):
        with contextlib.suppress(ValueError, OverflowError):
            said.append(f"begun at {datetime.fromisoformat(started_at).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
    if isinstance(pid, int):
        elsewhere = f" on {host}" if isinstance(host, str) and host != os.uname().nodename else ""
        said.append(f"in process {pid}{elsewhere}")
    return ", ".join(said)


def _word(path: Path) -> dict[str, Any]:
    """Return the content of a lock's file; nothing if it is empty or invalid. Release 0.1 wrote only a process id."""
    try:
        with path.open("rb") as file:
            word = json.loads(file.read(LONGEST_WORD))
    except (OSError, ValueError, RecursionError):
        return {}
    if isinstance(word, int) and not isinstance(word, bool):
        return {"pid": word}
    return word if isinstance(word, dict) else {}
