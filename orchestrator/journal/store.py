"""The state's file: one SQLite database, and one thread that makes all calls on it, one at a time.

SQLite never blocks the event loop. No ``sqlite3.Error`` leaves this package: each becomes a ``StateError`` with the
path, the reason and the remedy. A transaction takes the disk milliseconds, whatever its size, so a caller with many
records writes them together (``runs/recorder.py``). This module imports the standard library, ``errors`` and
``schema``. The packages above open a store, and the other modules of this package use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import stat
import threading
import time
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from orchestrator.errors import StateError
from orchestrator.journal.schema import MIGRATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

T = TypeVar("T")

FILE_NAME = "state.db"

PATIENCE_S = 20.0
"""How long to wait while another process keeps the file locked.

Far longer than a transaction takes, and short enough that a stopped run still ends in time.
"""

_RETRY_S = 0.02

_AWAY = "move it away together with its -wal and -shm files; the next run makes a new one"
_WRITABLE = "make the file and its directory writable, or name another directory with --state-dir"
_REASONS = {
    sqlite3.SQLITE_NOTADB: ("it is not an SQLite database", _AWAY),
    sqlite3.SQLITE_CORRUPT: ("it is damaged", _AWAY),
    sqlite3.SQLITE_CANTOPEN: ("it or a file beside it cannot be opened", _WRITABLE),
    sqlite3.SQLITE_PERM: ("it is not writable", _WRITABLE),
    sqlite3.SQLITE_READONLY: ("it is not writable", _WRITABLE),
    sqlite3.SQLITE_FULL: ("the disk is full", "make room, or name another directory with --state-dir"),
    sqlite3.SQLITE_BUSY: ("another process keeps it locked", "end that process, or try again later"),
}
"""The reason and the remedy, by SQLite's primary result code."""


def is_there(path: Path) -> bool:
    """Tell whether the state's file ``path`` exists. Raises ``StateError`` if that cannot be checked."""
    try:
        return path.exists()
    except OSError as error:
        raise _refused(path, f"{error.strerror}", _WRITABLE) from error


class Patience:
    """How long to wait while another process keeps the file locked, and whether to stop waiting early.

    SQLite can wait by itself, but nothing can interrupt that wait.
    """

    def __init__(self, wait_s: float, given_up: threading.Event | None = None) -> None:
        """Wait ``wait_s`` seconds at most, and stop waiting when ``given_up`` is set."""
        self.wait_s = wait_s
        self._given_up = given_up or threading.Event()

    def until_unlocked(self, step: Callable[[], T]) -> T:
        """Call ``step`` again while the file is locked, and return its value. Raises ``sqlite3.Error``."""
        until = time.monotonic() + self.wait_s
        while True:
            try:
                return step()
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY or self._given_up.is_set() or time.monotonic() >= until:
                    raise
            time.sleep(_RETRY_S)


class Store:
    """The open file. Use it as an asynchronous context manager, one for each process and file.

    If one process opens the same new file twice at the same moment, one store may drop the other's locks (see
    ``_create``).
    """

    def __init__(self, path: Path, patience_s: float = PATIENCE_S) -> None:
        """Prepare to open ``path``. While another process keeps it locked, wait up to ``patience_s`` seconds."""
        self._path = path.absolute()
        self._patience_s = patience_s
        self._calls: queue.SimpleQueue[_Call[Any]] = queue.SimpleQueue()
        self._abandoned: list[_Call[Any]] = []
        self._is_open = False
        self._given_up = threading.Event()
        # Not a daemon: the interpreter waits for this thread, so queued records are written even if no caller waits.
        self._thread = threading.Thread(target=self._serve, name="state")
        self.journal_mode = ""

    async def __aenter__(self) -> Self:
        """Open the file, create it if it is missing, and prove that it is writable. Raises ``StateError``.

        ``journal_mode`` is then ``wal``, or SQLite's other mode if the file system does not allow WAL.
        """
        opening = _Call(_journal_mode, _Kind.READ)
        self._calls.put(opening)
        self._thread.start()
        try:
            self.journal_mode = await self._ended(opening)
        except BaseException:
            self._given_up.set()
            self._calls.put(_Call(sqlite3.Connection.close, _Kind.CLOSE))
            raise
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write all queued records, and close the file.

        Raises ``StateError`` if a cancelled caller's record could not be written, unless another exception is already
        being raised. All records are written even if the close is cancelled.
        """
        self._is_open = False
        closing = _Call(sqlite3.Connection.close, _Kind.CLOSE)
        self._calls.put(closing)
        await self._ended(closing)
        self._thread.join()  # returns at once: the close was its last call
        if kind is None:
            for call in self._abandoned:
                await self._ended(call)

    async def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``change(connection)`` in the store's thread, and return its value once its changes are on disk.

        ``change`` runs in its own transaction, and must not end it. It returns plain data, never a cursor. If it
        raises, its changes are undone and the exception is raised here. A cancelled caller continues at once, and its
        record is still written. Raises ``StateError``. The data may be on disk even then: a disk that reports an error
        may have kept it.
        """
        return await self._run(_Call(partial(_in_transaction, change), _Kind.WRITE))

    async def read(self, look: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``look(connection)`` in the store's thread in one read transaction, and return its value.

        ``look`` sees only data that is on disk, and returns plain data, never a cursor. Its changes are undone. Raises
        ``StateError``.
        """
        return await self._run(_Call(partial(_on_one_state, look), _Kind.READ))

    async def _run(self, call: _Call[T]) -> T:
        if not self._is_open:
            message = "the state is used before it is opened, or after it is closed"
            raise RuntimeError(message)
        self._calls.put(call)
        try:
            return await self._ended(call)
        except asyncio.CancelledError:
            if call.kind is _Kind.WRITE:
                self._abandoned.append(call)
            raise

    async def _ended(self, call: _Call[T]) -> T:
        try:
            return await call.ended()
        except sqlite3.Error as error:
            raise _unusable(self._path, error) from error

    def _serve(self) -> None:
        """Run in the thread: open the file, then make one call after the other, until the close."""
        opening = self._calls.get()
        try:
            connection = _opened(self._path, Patience(self._patience_s, self._given_up))
        except BaseException as error:  # noqa: BLE001 - raised again for the caller that waits
            opening.error = error
            opening.settle()
            return
        opening.run(connection)
        opening.settle()
        kind = opening.kind
        while kind is not _Kind.CLOSE:
            call = self._calls.get()
            call.run(connection)
            call.settle()
            kind = call.kind


class _Kind(Enum):
    """The kind of a call. A write is made even if its caller was cancelled. The close is the last call."""

    WRITE = auto()
    READ = auto()
    CLOSE = auto()


class _Call(Generic[T]):
    """Work for the connection, its result or exception, and the caller that waits for it."""

    def __init__(self, work: Callable[[sqlite3.Connection], T], kind: _Kind) -> None:
        self.kind = kind
        self.error: BaseException | None = None
        self._work = work
        self._values: list[T] = []
        self._done = asyncio.get_running_loop().create_future()

    def run(self, connection: sqlite3.Connection) -> None:
        """Do the work, in the thread."""
        try:
            self._values.append(self._work(connection))
        except BaseException as error:  # noqa: BLE001 - raised again for the caller that waits
            self.error = error

    def settle(self) -> None:
        """Wake the caller. The thread calls this."""
        with contextlib.suppress(RuntimeError):  # the loop may be closed by now
            self._done.get_loop().call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        if not self._done.done():  # it is done if the caller was cancelled
            self._done.set_result(None)

    async def ended(self) -> T:
        """Wait for the call to end, then return its value or raise its exception."""
        if not self._done.cancelled():
            await self._done
        if self.error is not None:
            raise self.error
        return self._values[0]


def _in_transaction(change: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        value = change(connection)
        connection.execute("COMMIT")
    except BaseException:
        _roll_back(connection)
        raise
    return value


def _on_one_state(look: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
    connection.execute("BEGIN")
    try:
        return look(connection)
    finally:
        _roll_back(connection)


def _roll_back(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):  # the first error is the one to report
        connection.rollback()


def _opened(path: Path, patience: Patience, migrations: Sequence[str] = MIGRATIONS) -> sqlite3.Connection:
    """Open ``path`` for this thread, with the newest schema. Raises ``StateError`` and ``sqlite3.Error``."""
    try:
        _create(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise _refused(path, f"{reason}", _WRITABLE) from error
    connection = patience.until_unlocked(partial(_opened_at_once, path, migrations))
    connection.execute(f"PRAGMA busy_timeout = {round(patience.wait_s * 1000)}")
    return connection


def _opened_at_once(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    # With mode=rw SQLite does not create the file: others could read a file that SQLite creates.
    connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=0.0, isolation_level=None)
    try:
        _check_version(connection, path, len(migrations))
        _configure(connection)
        _migrate(connection, path, migrations)
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: Path) -> None:
    """Create the file and its directories for their owner only. SQLite gives the files beside it the same mode.

    This does not open a file that exists: closing it again would drop all locks that this process holds on it.
    """
    for folder in reversed(path.parents):
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _refused(path, "it is not a regular file", _AWAY) from None


def _check_version(connection: sqlite3.Connection, path: Path, newest: int) -> int:
    """Return the file's schema version. Raises ``StateError`` if this program does not know that version."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if not 0 <= version <= newest:
        reason = f"it has schema version {version}, but this program knows only versions up to {newest}"
        raise _refused(path, reason, f"upgrade this program, or {_AWAY}")
    return version


def _configure(connection: sqlite3.Connection) -> None:
    """Ask for WAL and for commits that survive a loss of power."""
    connection.execute("PRAGMA journal_mode = WAL")
    # Without WAL a commit deletes a file. Only EXTRA writes the directory to disk before the commit returns.
    level = "FULL" if _journal_mode(connection) == "wal" else "EXTRA"
    connection.execute(f"PRAGMA synchronous = {level}")
    # Damaged text is read as nonsense, and raises nothing.
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    """Bring the schema up to date in one transaction. After an exception, closing the connection rolls it back.

    The version is always written, even if it does not change: a disk that accepts no data then fails here.
    """
    connection.execute("BEGIN IMMEDIATE")
    version = _check_version(connection, path, len(migrations))  # another process may have migrated the file meanwhile
    for script in migrations[version:]:
        for statement in _statements(script):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(migrations)}")
    connection.execute("COMMIT")


def _statements(script: str) -> Iterator[str]:
    """Split a script into statements, since ``executescript`` would end the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    yield statement


def _journal_mode(connection: sqlite3.Connection) -> str:
    return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code; -1 for an error that the module ``sqlite3`` itself raises."""
    extended = getattr(error, "sqlite_errorcode", None)
    return extended & 0xFF if isinstance(extended, int) else -1


def _unusable(path: Path, error: sqlite3.Error) -> StateError:
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    remedy = "check whether the disk is full or failing, or name another directory with --state-dir"
    return _refused(path, *_REASONS.get(_code(error), (f"{error} ({name})", remedy)))


def _refused(path: Path, reason: str, remedy: str) -> StateError:
    return StateError(f"the state in {path} cannot be used: {reason}; {remedy}")
