"""The state's file is made, opened or refused; with real files."""

from __future__ import annotations

import os
import resource
import sqlite3
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from states import AT, KEY, LEARNED, by_hand, insert, keep, recall, refusal, with_store

from orchestrator.errors import StorageError
from orchestrator.journal import rates as rates_module
from orchestrator.journal import store as store_module
from orchestrator.journal.rates import remember
from orchestrator.journal.schema import MIGRATIONS, iso
from orchestrator.journal.store import FILE_NAME, Store
from orchestrator.model import Learned, LearnedWindow
from orchestrator.value import replace

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS_OF_VERSION_1 = "base_url, user_digest, rate, burst, in_flight, latency_s, updated_at"
COLUMNS_OF_VERSION_5 = "low, high, window_requests, window_low_s, window_high_s, window_fixed"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / FILE_NAME


# --- the rates


# --- the file


def test_the_file_is_readable_by_its_owner_only(path: Path) -> None:
    old = os.umask(0)
    try:

        async def modes(store: Store) -> dict[str, int]:
            await store.write(partial(insert, number=1))
            return {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}

        assert with_store(path, modes) == dict.fromkeys(["state.db", "state.db-wal", "state.db-shm"], 0o600)
    finally:
        os.umask(old)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["state.db"]


def test_a_commit_is_synced_to_a_write_ahead_log(path: Path) -> None:
    async def settings(store: Store) -> tuple[str, int, int]:
        def look(connection: sqlite3.Connection) -> tuple[int, int]:
            names = ("synchronous", "busy_timeout")
            one, other = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
            return one, other

        return store.journal_mode, *(await store.read(look))

    assert with_store(path, settings, patience_s=1.5) == ("wal", 2, 1500)


def test_without_a_write_ahead_log_a_commit_also_syncs_the_folder(path: Path) -> None:
    path.parent.mkdir()
    address = f"file:{path}?vfs=unix-dotfile"  # this VFS of SQLite has no shared memory
    with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as connection:
        store_module._configure(connection)
        assert store_module._journal_mode(connection) == "delete"
        assert connection.execute("PRAGMA synchronous").fetchone() == (3,)
        store_module._migrate(connection, path, MIGRATIONS)
        assert insert(connection, 1) == 1


def test_an_empty_file_becomes_a_state(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    keep(path)
    assert recall(path) == LEARNED


def test_a_path_may_hold_any_character(tmp_path: Path) -> None:
    path = tmp_path / "50%25?mode=ro#x é\udcff" / FILE_NAME
    keep(path)
    assert recall(path) == LEARNED
    assert path.exists()


def test_a_link_to_a_state_is_followed_and_a_dangling_link_is_refused(path: Path, tmp_path: Path) -> None:
    keep(path)
    (tmp_path / "link").symlink_to(path)
    assert recall(tmp_path / "link") == LEARNED
    (tmp_path / "dangling").symlink_to(tmp_path / "elsewhere")
    assert "No such file" in refusal(tmp_path / "dangling")
    assert not (tmp_path / "elsewhere").exists()


def test_the_schema_version_is_in_the_file(path: Path) -> None:
    keep(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


def test_an_older_file_is_migrated_and_keeps_its_content(path: Path) -> None:
    keep(path)
    script = """
        CREATE TABLE more (a TEXT DEFAULT 'a;b');
        CREATE TRIGGER t AFTER INSERT ON more BEGIN
            DELETE FROM more;
        END;
        ALTER TABLE learned_rates ADD COLUMN note TEXT
    """
    with closing(store_module._opened(path, store_module.Patience(1.0), (*MIGRATIONS, script))) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
        assert connection.execute("SELECT rate, a, note FROM learned_rates LEFT JOIN more").fetchall() == [
            (LEARNED.rate, None, None)
        ]
    assert f"schema version {len(MIGRATIONS) + 1}" in refusal(path)


def test_a_file_of_the_first_version_keeps_its_rates_and_gets_tables_for_runs(path: Path) -> None:
    path.parent.mkdir()
    with closing(store_module._opened(path, store_module.Patience(1.0), MIGRATIONS[:1])) as connection:
        assert insert(connection, 1) == 1
        assert tables(connection) == ["learned_rates"]
        rows = connection.execute(f"SELECT {COLUMNS_OF_VERSION_1} FROM learned_rates").fetchall()  # noqa: S608 - a constant
    with closing(store_module._opened(path, store_module.Patience(1.0), MIGRATIONS)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        later = [
            "circumstances",
            "learned_rates",
            "made",
            "outcomes",
            "planned_backups",
            "report_order",
            "runs",
            "standings",
        ]
        assert tables(connection) == later
        kept = connection.execute(f"SELECT {COLUMNS_OF_VERSION_1} FROM learned_rates").fetchall()  # noqa: S608 - a constant
        assert kept == rows


def test_a_file_of_the_fourth_version_keeps_its_limits_without_bounds_or_window(path: Path) -> None:
    path.parent.mkdir()
    with closing(store_module._opened(path, store_module.Patience(1.0), MIGRATIONS[:4])) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (4,)
        write_as_version_4(connection, LEARNED)
    assert recall(path) == LEARNED
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        found = connection.execute(f"SELECT {COLUMNS_OF_VERSION_5} FROM learned_rates")  # noqa: S608 - a constant
        assert found.fetchall() == [(None,) * 6]


def test_a_program_of_the_fourth_version_still_writes_to_a_migrated_file(path: Path) -> None:
    keep(path, replace(LEARNED, low=40.0, high=50.0, window=LearnedWindow(100, 2.0, 2.5, fixed=True)))
    assert recall(path) != LEARNED
    with closing(sqlite3.connect(path)) as connection, connection:
        write_as_version_4(connection, LEARNED)
    assert recall(path) == LEARNED


def write_as_version_4(connection: sqlite3.Connection, learned: Learned) -> None:
    """Store a limit with the statement of the programs that know schema version 4."""
    values = (learned.rate, learned.burst, learned.in_flight, learned.latency_s)
    connection.execute(
        "INSERT OR REPLACE INTO learned_rates"
        " (base_url, user_digest, rate, burst, in_flight, latency_s, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*rates_module._stored_key(KEY), *values, iso(AT)),
    )


def tables(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return [name for (name,) in rows]


def test_a_migration_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    keep(path)
    with closing(sqlite3.connect(path)) as connection:
        before = list(connection.iterdump())
    with pytest.raises(sqlite3.OperationalError, match="table more already exists"):
        store_module._opened(
            path, store_module.Patience(1.0), (*MIGRATIONS, "CREATE TABLE more (a);\nCREATE TABLE more (a);\n")
        )
    assert recall(path) == LEARNED
    with closing(sqlite3.connect(path)) as connection:
        assert list(connection.iterdump()) == before
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


@pytest.mark.parametrize("version", [len(MIGRATIONS) + 1, 2_000_000_000, -1])
def test_a_file_with_another_schema_is_refused_and_not_changed(path: Path, version: int) -> None:
    path.parent.mkdir()
    by_hand(path, "CREATE TABLE theirs (a)", f"PRAGMA user_version = {version}")
    before = path.read_bytes()
    message = refusal(path)
    assert f"schema version {version}" in message
    assert f"up to {len(MIGRATIONS)}" in message
    assert "upgrade this program, or move it away" in message
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_not_changed(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"to whom it may concern " * 100)
    message = refusal(path)
    assert "it is not an SQLite database; move it away" in message
    assert path.read_bytes() == b"to whom it may concern " * 100


def test_a_damaged_file_is_refused_when_the_damage_is_found(path: Path) -> None:
    keep(path)
    raw = path.read_bytes()
    path.write_bytes(raw[:4096] + b"\xff" * (len(raw) - 4096))
    with pytest.raises(StorageError, match="it is damaged; move it away"):
        recall(path)
    with pytest.raises(StorageError, match="it is damaged; move it away"):
        keep(path)
    path.write_bytes(raw[:100] + b"\xff" * 3996)
    assert "it is damaged; move it away" in refusal(path)


def test_a_folder_in_place_of_the_file_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    assert "it is not a regular file; move it away" in refusal(path)


def test_a_state_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = refusal(tmp_path / "file" / "state" / FILE_NAME)
    assert (
        "Not a directory; make the file and its directory writable, or name another directory with --state-dir"
        in message
    )


def test_a_path_with_a_null_character_is_refused(tmp_path: Path) -> None:
    assert "null" in refusal(tmp_path / "a\0b" / FILE_NAME)


def test_a_state_whose_log_file_cannot_be_made_is_refused(path: Path) -> None:
    keep(path)
    (path.parent / "state.db-wal").mkdir()
    assert "it or a file beside it cannot be opened; make" in refusal(path)


def test_a_read_only_file_is_refused_with_the_reason(path: Path) -> None:
    async def refused(store: Store) -> None:
        await store.read(lambda connection: connection.execute("PRAGMA query_only = ON").fetchone())
        await remember(store, KEY, LEARNED, AT)

    with pytest.raises(StorageError, match="it is not writable; make the file and its directory writable"):
        with_store(path, refused)


def test_a_disk_error_is_reported_with_its_sqlite_name(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        message = refusal(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "disk I/O error (SQLITE_IOERR" in message
    assert "check whether the disk is full or failing, or name another directory with --state-dir" in message


def test_a_file_that_stays_locked_is_refused_with_the_reason(path: Path) -> None:
    async def refused(store: Store) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageError, match="another process keeps it locked; end that process, or try again"):
                await remember(store, KEY, LEARNED, AT)
        await remember(store, KEY, LEARNED, AT)

    with_store(path, refused, patience_s=0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert "another process keeps it locked" in refusal(path, patience_s=0.05)


def test_the_store_waits_for_a_new_file_that_another_process_prepares(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE t (a)")
        other.execute("BEGIN")
        other.execute("SELECT * FROM t").fetchall()  # a reader prevents the change to WAL
        assert "another process keeps it locked" in refusal(path, patience_s=0.05)

        class Locked(sqlite3.Connection):
            """A connection that ends the other one's transaction after its own first refusal."""

            def execute(self, *arguments: Any) -> sqlite3.Cursor:
                try:
                    return super().execute(*arguments)
                except sqlite3.OperationalError:
                    refused.append(arguments)
                    other.rollback()
                    raise

        refused: list[object] = []
        with closing(sqlite3.connect(path, isolation_level=None, timeout=0, factory=Locked)) as ours:
            store_module.Patience(30.0).until_unlocked(lambda: store_module._configure(ours))
            assert ours.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert refused == [("PRAGMA journal_mode = WAL",)]
    keep(path)
    assert recall(path) == LEARNED


# --- the thread


def test_the_store_waits_for_a_lock_even_if_sqlite_reports_it_immediately(path: Path) -> None:
    keep(path)
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as other,
        closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as ours,
    ):
        other.execute("BEGIN IMMEDIATE")

        def step() -> None:
            try:
                ours.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                other.rollback()
                raise

        store_module.Patience(30.0).until_unlocked(step)
        assert ours.in_transaction
