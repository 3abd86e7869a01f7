"""The state's file: one SQLite database, and one thread that makes every call on it, one after the other.

Nothing of SQLite blocks the event loop, and no ``sqlite3.Error`` leaves this room: each becomes a ``StateError`` with
the path, the reason and the remedy. A disk takes milliseconds to keep a transaction, however much is in it, so whoever
has many records writes them together (``runs/recorder.py``). Imports the standard library and ``errors``; the rooms
above open a store, the other modules of this room use it.
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
"""How long another process may keep the file locked: far longer than it needs for a transaction, and short enough that
a run which was told to stop still ends within its time."""

_RETRY_S = 0.02

_AWAY = "move it away, with the files beside it that end in -wal and -shm, and a new one is made"
_WRITABLE = "make the file and its folder writable, or name another folder with --state-dir"
_REASONS = {
    sqlite3.SQLITE_NOTADB: ("it is no SQLite database", _AWAY),
    sqlite3.SQLITE_CORRUPT: ("it is damaged", _AWAY),
    sqlite3.SQLITE_CANTOPEN: ("it, or a file beside it, cannot be opened", _WRITABLE),
    sqlite3.SQLITE_PERM: ("it may not be written", _WRITABLE),
    sqlite3.SQLITE_READONLY: ("it may not be written", _WRITABLE),
    sqlite3.SQLITE_FULL: ("the disk is full", "make room, or name another folder with --state-dir"),
    sqlite3.SQLITE_BUSY: ("another process keeps it locked", "end that process, or try again later"),
}
"""Reason and remedy by SQLite's primary result code."""


def is_there(path: Path) -> bool:
    """Tell whether there is a state's file ``path``. Raises ``StateError`` where nobody may look."""
    try:
        return path.exists()
    except OSError as error:
        raise _refused(path, f"{error.strerror}", _WRITABLE) from error


class Patience:
    """How long to wait where another process keeps the file locked, and whether that has been given up.

    SQLite would wait too, but nothing can break that off.
    """

    def __init__(self, wait_s: float, given_up: threading.Event | None = None) -> None:
        """Wait ``wait_s`` seconds at most, and no longer once ``given_up`` is set."""
        self.wait_s = wait_s
        self._given_up = given_up or threading.Event()

    def until_unlocked(self, step: Callable[[], T]) -> T:
        """Return what ``step`` returns, which is called anew while the file is locked. Raises ``sqlite3.Error``."""
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

    Two of one new file within one process, opened at the same moment, could take away each other's locks
    (see ``_create``).
    """

    def __init__(self, path: Path, patience_s: float = PATIENCE_S) -> None:
        """Prepare to open ``path``, and to wait ``patience_s`` seconds wherever another process keeps it locked."""
        self._path = path.absolute()
        self._patience_s = patience_s
        self._calls: queue.SimpleQueue[_Call[Any]] = queue.SimpleQueue()
        self._abandoned: list[_Call[Any]] = []
        self._is_open = False
        self._given_up = threading.Event()
        # The thread keeps the interpreter from ending, so that what waits is written even if nobody waits for it.
        self._thread = threading.Thread(target=self._serve, name="state")
        self.journal_mode = ""

    async def __aenter__(self) -> Self:
        """Open the file, made new where there is none, and prove that it can be written. Raises ``StateError``.

        ``journal_mode`` is ``wal`` from here on, or what SQLite has instead where the file system does not allow that.
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
        """Write what waits, and close the file.

        Raises ``StateError`` if a record that its caller no longer waited for could not be written, unless another
        exception is already under way. Cancelling this does not keep the rest from being written.
        """
        self._is_open = False
        closing = _Call(sqlite3.Connection.close, _Kind.CLOSE)
        self._calls.put(closing)
        await self._ended(closing)
        self._thread.join()  # it has nothing left to do
        if kind is None:
            for call in self._abandoned:
                await self._ended(call)

    async def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``change(connection)`` in the writer's thread and return its value when what it did is on disk.

        It runs within a transaction of its own, which it must not end. What it raises is raised here, and what it
        changed is undone. It returns plain data, never a cursor. A caller that is cancelled goes on at once, and its
        record is written all the same. Raises ``StateError``, after which what was
        to be written may still be found on disk: a disk that reports an error may have kept the data.
        """
        return await self._run(_Call(partial(_in_transaction, change), _Kind.WRITE))

    async def read(self, look: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``look(connection)`` in the writer's thread, all of it on one state of the file, and return its value.

        It sees only what is on disk and returns plain data, never a cursor. What it changes is undone. Raises
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
        """Be the thread: open the file, then make one call after the other, until it is to be closed."""
        opening = self._calls.get()
        try:
            connection = _opened(self._path, Patience(self._patience_s, self._given_up))
        except BaseException as error:  # noqa: BLE001 - it is raised again where it is waited for
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
    """What a call does: a write is done although nobody waits for it any more, and nothing comes after the close."""

    WRITE = auto()
    READ = auto()
    CLOSE = auto()


class _Call(Generic[T]):
    """Something to do with the connection, what came of it, and the caller who waits for that."""

    def __init__(self, work: Callable[[sqlite3.Connection], T], kind: _Kind) -> None:
        self.kind = kind
        self.error: BaseException | None = None
        self._work = work
        self._values: list[T] = []
        self._done = asyncio.get_running_loop().create_future()

    def run(self, connection: sqlite3.Connection) -> None:
        """Do it, in the thread."""
        try:
            self._values.append(self._work(connection))
        except BaseException as error:  # noqa: BLE001 - it is raised again where it is waited for
            self.error = error

    def settle(self) -> None:
        """Let the caller go on, from the thread."""
        with contextlib.suppress(RuntimeError):  # the loop may have been closed meanwhile
            self._done.get_loop().call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        if not self._done.done():  # it is, if the caller was cancelled
            self._done.set_result(None)

    async def ended(self) -> T:
        """Wait for the end, and return or raise what came of it."""
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
    with contextlib.suppress(sqlite3.Error):  # the error before this one is the one that is told
        connection.rollback()


def _opened(path: Path, patience: Patience, migrations: Sequence[str] = MIGRATIONS) -> sqlite3.Connection:
    """Open ``path`` with the newest schema, for this thread. Raises ``StateError`` and ``sqlite3.Error``."""
    try:
        _create(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise _refused(path, f"{reason}", _WRITABLE) from error
    connection = patience.until_unlocked(partial(_opened_at_once, path, migrations))
    connection.execute(f"PRAGMA busy_timeout = {round(patience.wait_s * 1000)}")
    return connection


def _opened_at_once(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    # With mode=rw SQLite makes no file by itself, which everyone might read.
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
    """Make the file and its folders for their owner alone; SQLite gives the files beside it the same permissions.

    A file that exists is not opened here: closing it again would take away the locks that this process has on it.
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
    """Return the file's schema version. Raises ``StateError`` for one that this program does not know."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if not 0 <= version <= newest:
        reason = f"it has schema version {version}, and this program knows those up to {newest}"
        raise _refused(path, reason, f"upgrade this program, or {_AWAY}")
    return version


def _configure(connection: sqlite3.Connection) -> None:
    """Ask for WAL and for commits that survive a loss of power."""
    connection.execute("PRAGMA journal_mode = WAL")
    # Without WAL a commit is the removal of a file, and only EXTRA has the folder on disk before the commit returns.
    level = "FULL" if _journal_mode(connection) == "wal" else "EXTRA"
    connection.execute(f"PRAGMA synchronous = {level}")
    # Text that a damaged file has in it is nonsense, not an exception.
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    """Bring the schema up to date in one transaction; an exception leaves it to be rolled back with the connection.

    The version is written even where it stays the same, so that a disk that takes no data shows here.
    """
    connection.execute("BEGIN IMMEDIATE")
    version = _check_version(connection, path, len(migrations))  # another process may have been here meanwhile
    for script in migrations[version:]:
        for statement in _statements(script):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(migrations)}")
    connection.execute("COMMIT")


def _statements(script: str) -> Iterator[str]:
    """Split a script: ``executescript`` would end the transaction."""
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
    """Return SQLite's primary result code; -1 for what the module ``sqlite3`` raises by itself."""
    extended = getattr(error, "sqlite_errorcode", None)
    return extended & 0xFF if isinstance(extended, int) else -1


def _unusable(path: Path, error: sqlite3.Error) -> StateError:
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    unforeseen = f"{error} ({name})", "see whether the disk is full or failing, or name another folder with --state-dir"
    return _refused(path, *_REASONS.get(_code(error), unforeseen))


def _refused(path: Path, reason: str, remedy: str) -> StateError:
    return StateError(f"the state in {path} cannot be used: {reason}; {remedy}")
