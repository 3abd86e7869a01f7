"""The thread that writes the state: it loses no record; with real files and real processes."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from states import LEARNED, Hold, fill, insert, keep, numbers, recall, with_store

from orchestrator.errors import StorageError
from orchestrator.journal.rates import remembered
from orchestrator.journal.store import FILE_NAME, Store
from orchestrator.model import Learned

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator
    from pathlib import Path

PROCESS = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from orchestrator.journal.rates import remember
from orchestrator.journal.store import Store
from orchestrator.model import Learned

async def main(path, name, count):
    print("ready", flush=True)
    sys.stdin.readline()
    async with Store(Path(path)) as store:
        async def one(number):
            await remember(store, (f"https://{name}", str(number)), Learned(number + 1.0, 0.0), datetime.now(UTC))
            print(number, flush=True)
        if count:
            await asyncio.gather(*map(one, range(count)))
        number = count
        while not count:
            await one(number)
            number += 1

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / FILE_NAME


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name == "state":
            thread.join(30)
            assert not thread.is_alive()


def test_a_full_disk_fails_the_records_that_do_not_fit_and_keeps_the_others(path: Path) -> None:
    def too_much(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO learned_rates (base_url, user_digest, rate, burst, updated_at) VALUES (?, '2', 1, 1, '')",
            ("u" * 100_000,),
        )

    async def main(store: Store) -> tuple[tuple[Any, ...], list[int]]:
        await store.write(partial(insert, number=0))
        await store.write(fill)
        hold = Hold(store)
        await hold.begun()
        together = asyncio.gather(
            store.write(partial(insert, number=1)),
            store.write(too_much),
            store.write(partial(insert, number=3)),
            return_exceptions=True,
        )
        await asyncio.sleep(0)
        await hold.release()
        ended = await together
        await store.write(partial(insert, number=4))
        return ended, await store.read(numbers)

    ended, kept = with_store(path, main)
    assert all("the disk is full; make room" in str(error) for error in ended if isinstance(error, StorageError))
    assert isinstance(ended[1], StorageError)
    told = {number for number, each in ((1, ended[0]), (3, ended[2])) if not isinstance(each, StorageError)}
    assert kept == sorted({0, 4} | told)


def process(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    """Start a process that prints ``ready``, waits for a line, and writes ``count`` rates (0: without end)."""
    arguments = [sys.executable, "-W", "error", "-c", PROCESS, str(path), name, str(count)]
    pipe = subprocess.PIPE
    child = subprocess.Popen(arguments, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert child.stdout
    assert child.stdout.readline() == "ready\n"
    return child


def test_several_processes_can_create_and_share_one_file(path: Path) -> None:
    children = [process(path, f"p{number}", 25) for number in range(4)]
    for child in children:
        assert child.stdin
        child.stdin.write("\n")
        child.stdin.flush()
    for child in children:
        with child:
            assert child.communicate(timeout=60)[1] == ""
            assert child.returncode == 0

    async def all_of_them(store: Store) -> list[Learned | None]:
        now = datetime.now(UTC)
        return [await remembered(store, (f"https://p{p}", str(n)), now) for p in range(4) for n in range(25)]

    assert with_store(path, all_of_them) == [Learned(n + 1.0, 0.0) for _ in range(4) for n in range(25)]


def test_written_records_survive_a_kill(path: Path) -> None:
    with process(path, "k", 0) as child:
        assert child.stdin
        assert child.stdout
        child.stdin.write("\n")
        child.stdin.flush()
        told = [int(child.stdout.readline()) for _ in range(20)]
        child.kill()
    assert told == list(range(20))
    for number in told:
        assert recall(path, ("https://k", str(number)), datetime.now(UTC)) == Learned(number + 1.0, 0.0)


def test_a_caller_goes_on_only_when_its_record_is_on_disk(path: Path) -> None:
    async def main(store: Store) -> None:
        for number in range(5):
            await store.write(partial(insert, number=number))
            with closing(sqlite3.connect(path)) as other:
                assert numbers(other) == list(range(number + 1))

    with_store(path, main)


@pytest.mark.parametrize("error", [ValueError("no"), StopIteration(), SystemExit(3)])
def test_a_record_that_fails_does_not_affect_the_others_that_wait(path: Path, error: BaseException) -> None:
    def failing(connection: sqlite3.Connection) -> None:
        insert(connection, 99)
        raise error

    async def main(store: Store) -> list[int]:
        hold = Hold(store)
        await hold.begun()
        before = asyncio.ensure_future(store.write(partial(insert, number=1)))
        bad = store_error(store.write(failing))
        twice = store_error(store.write(lambda connection: insert(connection, insert(connection, 98))))
        after = asyncio.ensure_future(store.write(partial(insert, number=2)))
        ended = asyncio.gather(before, bad, twice, after)
        await asyncio.sleep(0)
        await hold.release()
        one, raised, constraint, two = await ended
        assert (one, two) == (1, 2)
        assert raised is error or raised.__cause__ is error  # asyncio wraps StopIteration in a RuntimeError
        assert isinstance(constraint, StorageError)
        assert "UNIQUE constraint failed" in str(constraint)
        return await store.read(numbers)

    assert with_store(path, main) == [1, 2]


async def store_error(use: Awaitable[object]) -> BaseException:
    try:
        await use
    except BaseException as error:  # noqa: BLE001 - the test looks at it
        return error
    raise AssertionError


def test_a_record_that_ends_the_transaction_fails_and_the_next_is_written(path: Path) -> None:
    async def main(store: Store) -> list[int]:
        with pytest.raises(StorageError, match="cannot commit"):
            await store.write(lambda connection: connection.execute("ROLLBACK").rowcount)
        await store.write(partial(insert, number=1))
        return await store.read(numbers)

    assert with_store(path, main) == [1]


def test_a_read_changes_nothing_and_fails_alone(path: Path) -> None:
    async def main(store: Store) -> list[int]:
        assert await store.read(partial(insert, number=1)) == 1
        with pytest.raises(KeyError):
            await store.read(lambda _: os.environ["NOT SET"])
        with pytest.raises(StorageError, match=r"no such table: nowhere \(SQLITE_ERROR\)"):
            await store.read(lambda connection: connection.execute("SELECT * FROM nowhere").fetchall())
        return await store.read(numbers)

    assert with_store(path, main) == []


def test_a_read_that_ends_its_transaction_does_no_harm(path: Path) -> None:
    async def main(store: Store) -> list[int]:
        await store.read(lambda connection: connection.execute("COMMIT").rowcount)
        return await store.read(numbers)

    assert with_store(path, main) == []


def test_the_event_loop_goes_on_while_the_thread_is_busy(path: Path) -> None:
    async def main(store: Store) -> None:
        hold = Hold(store)
        await hold.begun()
        for _ in range(10):
            await asyncio.sleep(0)
        await hold.release()

    with_store(path, main)


def test_a_record_whose_caller_is_cancelled_is_written(path: Path) -> None:
    complaints: list[dict[str, Any]] = []

    async def main(store: Store) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
        hold = Hold(store)
        await hold.begun()
        writing = asyncio.ensure_future(store.write(partial(insert, number=1)))
        reading = asyncio.ensure_future(store.read(numbers))
        await asyncio.sleep(0)
        for task in (writing, reading):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await hold.release()

    with_store(path, main)
    assert complaints == []
    assert with_store(path, lambda store: store.read(numbers)) == [1]


def test_the_failure_of_a_record_whose_caller_is_cancelled_is_raised_at_the_end(path: Path) -> None:
    async def main(store: Store, error: Exception | None) -> None:
        hold = Hold(store)
        await hold.begun()
        writing = asyncio.ensure_future(store.write(lambda connection: connection.execute("INSERT INTO nowhere")))
        await asyncio.sleep(0)
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
        await hold.release()
        if error:
            raise error

    with pytest.raises(StorageError, match="cannot be used"):
        with_store(path, partial(main, error=None))
    with pytest.raises(KeyError):
        with_store(path, partial(main, error=KeyError("another")))


def test_a_cancelled_close_still_writes_waiting_records(path: Path) -> None:
    async def main() -> None:
        went_in = asyncio.Event()
        holds: list[Hold] = []

        async def use() -> None:
            async with Store(path) as store:
                holds.append(Hold(store))
                await holds[0].begun()
                waiting.append(asyncio.ensure_future(store.write(partial(insert, number=1))))
                await asyncio.sleep(0)
                went_in.set()

        waiting: list[asyncio.Future[int]] = []
        using = asyncio.ensure_future(use())
        await went_in.wait()
        await asyncio.sleep(0)
        using.cancel()
        with pytest.raises(asyncio.CancelledError):
            await using
        await holds[0].release()
        assert await waiting[0] == 1

    asyncio.run(main())
    assert with_store(path, lambda store: store.read(numbers)) == [1]


def test_no_record_is_lost_if_the_loop_ends_before_the_store_is_closed(path: Path) -> None:
    go = threading.Event()

    async def main() -> None:
        store = await Store(path).__aenter__()
        began = threading.Event()

        def wait(connection: sqlite3.Connection) -> None:
            began.set()
            assert go.wait(30)
            insert(connection, 1)

        tasks = [asyncio.ensure_future(store.write(wait)), asyncio.ensure_future(store.__aexit__(None, None, None))]
        assert await asyncio.to_thread(began.wait, 30)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    go.set()
    for thread in threading.enumerate():
        if thread.name == "state":
            thread.join(30)
    assert with_store(path, lambda store: store.read(numbers)) == [1]


def test_a_cancelled_open_leaves_neither_a_thread_nor_a_connection(path: Path) -> None:
    keep(path)

    async def main() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            opening = asyncio.ensure_future(Store(path).__aenter__())
            await asyncio.sleep(0)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening

    asyncio.run(main())
    assert recall(path) == LEARNED


def test_using_the_store_before_it_is_opened_or_after_it_is_closed_raises(path: Path) -> None:
    async def main() -> None:
        store = Store(path)
        with pytest.raises(RuntimeError, match="before it is opened"):
            await store.read(numbers)
        async with store:
            pass
        with pytest.raises(RuntimeError, match="after it is closed"):
            await store.write(partial(insert, number=1))

    asyncio.run(main())
