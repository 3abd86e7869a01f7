"""Locks between real processes; waits are in virtual time."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from virtual import run_virtual

from orchestrator.errors import LockedError, StorageError
from orchestrator.journal.locks import POLL_S, Patience, locked, run_lock, scope_lock
from orchestrator.model import Run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOLDER = """
import asyncio, sys
from pathlib import Path
from orchestrator.journal.locks import Patience, locked

async def main():
    async with locked(Path(sys.argv[1]), "a run is going on"):
        print("held", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "locks" / "a.lock"


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Yield a process that holds the lock until it reads a line or is killed."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def take(path: Path, wait_s: float = 0.0) -> list[str]:
    """Take the lock and release it. Return the messages of the wait."""
    said: list[str] = []

    async def main() -> None:
        async with locked(path, "a run is going on", Patience(wait_s, say=said.append)):
            pass

    run_virtual(main())
    return said


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def test_a_lock_held_by_another_process_is_refused_and_the_process_is_named(path: Path) -> None:
    with holder(path) as process:
        with pytest.raises(LockedError) as caught:
            take(path)
        expected = f"a run is going on, in process {process.pid}; wait until it ends"
        assert (str(caught.value), caught.value.exit_code) == (expected, 11)


def test_a_killed_holder_frees_the_lock(path: Path) -> None:
    with holder(path) as process:
        end(process)
        take(path)


def test_a_waiter_gets_the_lock_when_the_holder_ends_and_reports_the_wait_once(path: Path) -> None:
    said: list[str] = []

    async def main(process: subprocess.Popen[str]) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        loop.call_later(20.1, end, process)
        async with locked(path, "a run is going on", Patience(30.0, say=said.append)):
            return loop.time() - began

    with holder(path) as process:
        assert 20.1 <= run_virtual(main(process)) <= 20.1 + POLL_S
        assert said == [f"a run is going on, in process {process.pid}"]
    assert take(path) == []


def test_a_wait_ends_after_its_time(path: Path) -> None:
    with holder(path), pytest.raises(LockedError, match=r"in process \d+; it did not end within 0.3 s"):
        take(path, 0.3)


def test_a_cancelled_wait_leaves_nothing_locked(path: Path) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), locked(path, "a run is going on", Patience(30.0)):
                pass

    with holder(path) as process:
        run_virtual(main())
        end(process)
        take(path)


def test_a_lock_is_free_after_an_exception_and_can_be_taken_again(path: Path) -> None:
    async def main() -> None:
        async with locked(path, "a run is going on"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run_virtual(main())
    take(path)
    take(path)


def test_two_tasks_of_one_process_exclude_each_other_too(path: Path) -> None:
    async def main() -> None:
        async with locked(path, "a run is going on"):
            async with locked(path.with_name("other.lock"), "another"):
                pass
            with pytest.raises(LockedError):
                async with locked(path, "a run is going on"):
                    pass

    run_virtual(main())


def test_the_file_of_a_lock_is_readable_by_its_owner_only_and_names_the_holder(path: Path) -> None:
    with holder(path) as process:
        assert json.loads(path.read_text()) == {"pid": process.pid, "host": os.uname().nodename}
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


ODD_WORDS = [
    *("", "no number", "\xff" * 100, '{"pid": 12', "true", "[7]", "[" * 900, "{}\n" + "x" * 5000),
    '{"pid": "7", "host": 7, "run_id": 7, "started_at": 7}',
    '{"run_id": "\\u001b[31m", "started_at": "yesterday"}',
    '{"run_id": "", "started_at": "0001-01-01T00:00:00+14:00"}',
]


@pytest.mark.parametrize("content", ODD_WORDS)
def test_a_held_lock_whose_file_names_nobody_is_still_refused(path: Path, content: str) -> None:
    with holder(path):
        path.write_text(content, encoding="latin-1")
        with pytest.raises(LockedError, match=r"^a run is going on; wait"):
            take(path)


def test_the_refusal_names_the_run_its_start_and_its_process(path: Path) -> None:
    run = Run("01JD0000000000000000000000", datetime(2026, 11, 23, 3, 0, tzinfo=timezone(timedelta(hours=2))))

    async def main(what: str) -> str:
        async with locked(path, what) as held:
            held.tell(run)
            with pytest.raises(LockedError) as caught:
                async with locked(path, what):
                    pass
        return str(caught.value)

    since = f"begun at 2026-11-23 01:00:00 UTC, in process {os.getpid()}; wait until it ends"
    assert asyncio.run(main("a run of f.yaml is going on")) == f"a run of f.yaml is going on, run {run.id}, {since}"
    assert asyncio.run(main(f"run {run.id} is going on")) == f"run {run.id} is going on, {since}"


def test_the_refusal_names_another_machine_and_understands_an_older_releases_file(path: Path) -> None:
    with holder(path):
        for word, told in (('{"pid": 7, "host": "pod-1"}', "in process 7 on pod-1"), ("7\n", "in process 7")):
            path.write_text(word)
            with pytest.raises(LockedError, match=f"^a run is going on, {told}; wait"):
                take(path)


def test_the_content_of_a_file_is_no_lock_and_is_erased_with_the_lock(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"pid": os.getpid(), "host": os.uname().nodename, "run_id": "R1"}))
    take(path)
    assert path.read_bytes() == b""


def test_shorter_content_replaces_longer_content_completely(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("9" * 2000)
    with holder(path) as process:
        assert json.loads(path.read_text())["pid"] == process.pid


def test_a_lock_whose_file_cannot_be_made_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "file" / "a.lock", tmp_path / "link"):
        with pytest.raises(StorageError, match="--state-dir") as caught:
            take(path)
        assert str(path) in str(caught.value)
    assert not (tmp_path / "elsewhere").exists()


def test_each_scope_and_each_run_has_its_own_lock(tmp_path: Path) -> None:
    scopes = ["/a/fleet.yaml", "/a/fleet.yam", "/A/fleet.yaml", "<standard input> 0", "/a/\udcff.yaml", "x" * 5000]
    paths = {*(scope_lock(tmp_path, scope) for scope in scopes), run_lock(tmp_path, "R1"), run_lock(tmp_path, "R2")}
    assert len(paths) == len(scopes) + 2
    assert scope_lock(tmp_path, scopes[0]) == scope_lock(tmp_path, scopes[0])
    for path in paths:
        take(path)
