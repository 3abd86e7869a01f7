"""The runs in the state, read without changing it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from fakes import planned
from states import AT, by_hand, with_store

from orchestrator.cli.commands import cli
from orchestrator.errors import StorageError
from orchestrator.journal.history import PastRun, _read, past_runs
from orchestrator.journal.runs import RunRecord, begin, end, keep, reopen
from orchestrator.journal.store import FILE_NAME, Store
from orchestrator.model import Checkpoint, OutcomeKind, Run
from orchestrator.summary import Line

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

IDS = [f"01JD{number}00000000000000000000{number}" for number in range(3)]
PLAN = [planned(number) for number in range(4)]
SUMMARY = {
    "planned": 4,
    "finished_at": "2026-11-23T01:01:15.000Z",
    "duration_s": 74.877,
    "outcomes": {"accepted": 3, "rejected": 1, "aborted": 0},
    "exit_code": 3,
}


def record(run_id: str, retried: str | None = None) -> RunRecord:
    config = "/caf\udce9/fleet.yaml"
    return RunRecord(Run(run_id, AT), "/f.yaml", config, "/r.jsonl", {}, disabled=2, retried=retried)


async def began(store: Store, run_id: str, *kinds: OutcomeKind) -> None:
    """Begin a run of four installs, and store some of its outcomes."""
    await begin(store, record(run_id), PLAN, [])
    lines = [Line(position, kind, 0, reconciled=False, data=b"{}\n") for position, kind in enumerate(kinds)]
    await keep(store, run_id, lines)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a state with three runs: one has ended, one has not, and one was resumed after its end."""

    async def main(store: Store) -> None:
        await began(store, IDS[0], *[OutcomeKind.ACCEPTED] * 3, OutcomeKind.REJECTED)
        await end(store, IDS[0], AT + timedelta(days=1), SUMMARY)
        await began(store, IDS[1], OutcomeKind.ACCEPTED, OutcomeKind.REJECTED, OutcomeKind.ACCEPTED)
        await began(store, IDS[2], *[OutcomeKind.CANCELLED] * 4)
        await end(store, IDS[2], AT, SUMMARY)
        await reopen(store, record(IDS[2]), [Checkpoint(PLAN[0]), Checkpoint(PLAN[1])])

    path = tmp_path / FILE_NAME
    with_store(path, main)
    return path


def test_an_ended_run_comes_from_its_summary_and_an_open_run_from_its_outcomes(path: Path) -> None:
    newest, going_on, ended = past_runs(path)
    assert [(each.succeeded, each.failed) for each in (newest, going_on, ended)] == [(0, 2), (2, 1), (3, 1)]
    assert ended == PastRun(
        id=IDS[0],
        started_at=AT,
        config="/caf\udce9/fleet.yaml",
        report="/r.jsonl",
        retried=None,
        disabled=2,
        planned=4,
        outcomes={"accepted": 3, "rejected": 1},
        finished_at=datetime(2026, 11, 23, 1, 1, 15, tzinfo=UTC),
        duration_s=74.877,
        exit_code=3,
    )
    assert (going_on.id, going_on.planned, going_on.outcomes) == (IDS[1], 4, {"accepted": 2, "rejected": 1})
    assert (newest.id, newest.planned, newest.outcomes) == (IDS[2], 4, {"cancelled": 2})
    for each in (going_on, newest):
        assert (each.finished_at, each.duration_s, each.exit_code) == (None, None, None)


def test_the_newest_runs_come_first_up_to_the_limit(path: Path) -> None:
    assert [each.id for each in past_runs(path, 2)] == [IDS[2], IDS[1]]
    assert past_runs(path, 99) == past_runs(path)


def test_reading_changes_and_leaves_nothing(path: Path) -> None:
    def found() -> list[tuple[str, bytes, int]]:
        return [(each.name, each.read_bytes(), each.stat().st_mtime_ns) for each in sorted(path.parent.iterdir())]

    before = found()
    path.chmod(0o400)
    path.parent.chmod(0o500)
    try:
        assert len(past_runs(path)) == 3
    finally:
        path.parent.chmod(0o700)
    assert found() == before
    assert len(before) == 1


def test_records_in_the_write_ahead_log_are_seen(path: Path) -> None:
    async def main() -> list[PastRun]:
        async with Store(path) as store:
            await begin(store, record("01JD9", retried=IDS[0]), PLAN[:1], [])
            assert path.with_name(FILE_NAME + "-wal").exists()
            return past_runs(path, 1)

    (run,) = asyncio.run(main())
    assert (run.id, run.retried, run.planned, run.outcomes) == ("01JD9", IDS[0], 1, {})


def test_without_a_state_there_are_no_runs_and_no_file_is_made(tmp_path: Path) -> None:
    assert past_runs(tmp_path / "gone" / FILE_NAME) == []
    assert list(tmp_path.iterdir()) == []
    (tmp_path / FILE_NAME).touch()
    assert past_runs(tmp_path / FILE_NAME) == []


def test_the_known_columns_of_a_newer_file_are_read(path: Path) -> None:
    before = [asdict(each) for each in past_runs(path)]
    by_hand(path, "ALTER TABLE runs ADD COLUMN later TEXT", "PRAGMA user_version = 99")
    assert [asdict(each) for each in past_runs(path)] == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE runs SET summary = '{' WHERE ended_at IS NOT NULL", "it is damaged"),
        ("UPDATE runs SET summary = '[]' WHERE ended_at IS NOT NULL", "it is damaged"),
        ("UPDATE runs SET summary = '{}' WHERE ended_at IS NOT NULL", "it is damaged"),
        ('UPDATE runs SET summary = \'{"planned": 1, "outcomes": 7}\' WHERE ended_at IS NOT NULL', "it is damaged"),
        ("UPDATE runs SET started_at = 'x'", "it is damaged"),
        ("DROP TABLE outcomes", "no such table: outcomes"),
    ],
)
def test_a_damaged_file_gives_one_message(path: Path, change: str, reason: str) -> None:
    by_hand(path, change)
    with pytest.raises(StorageError, match=f"{reason}; name another directory with --state-dir$"):
        past_runs(path)


def test_a_file_that_is_no_state_gives_one_message(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError, match="file is not a database"):
        past_runs(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageError, match="cannot be read: unable to open"):
        past_runs(path)


def test_a_state_that_changes_while_it_is_read_is_read_again(
    path: Path,
) -> None:
    found: list[list[str]] = []

    def ids(connection: sqlite3.Connection) -> list[str]:
        if not found:
            by_hand(path, f"DELETE FROM runs WHERE id = '{IDS[0]}'")  # noqa: S608 - our own words
        found.append([run_id for (run_id,) in connection.execute("SELECT id FROM runs ORDER BY id DESC")])
        return found[-1]

    assert _read(path, ids) == [IDS[2], IDS[1]]
    assert len(found) == 2


# -- the command -------------------------------------------------------------------------------------------------------


def history(folder: Path, *arguments: str) -> Any:
    return cli.main(["history", "--state-dir", str(folder), *arguments], standalone_mode=False)


def test_the_command_shows_totals_in_aligned_lines(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = json.dumps("<stdin>\x1b[2J" + "x" * 200)
    by_hand(path, f"UPDATE runs SET config = '{odd}' WHERE id = '{IDS[1]}'")  # noqa: S608 - our own words
    assert history(path.parent) == 0
    names, *rows = capsys.readouterr().out.splitlines()
    starts = [
        names.index(name) for name in ("run", "started", "took", "installs", "backed", "failed", "exit", "config")
    ]
    cells = [[row[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)] for row in rows]
    started = "2026-11-23 01:00:00"
    assert cells == [
        [IDS[2], started, "-", "4", "0", "2", "not finished", "/caf\\udce9/fleet.yaml"],
        [IDS[1], started, "-", "4", "2", "1", "not finished", "<stdin>\\x1b[2J" + "x" * 200],
        [IDS[0], started, "1m 15s", "4", "3", "1", "3", "/caf\\udce9/fleet.yaml"],
    ]


def test_the_json_of_the_command_has_the_names_of_the_summary(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert history(path.parent, "--format", "json", "--limit", "0") == 0
    runs = json.loads(capsys.readouterr().out)
    assert [(run["run_id"], run["exit_code"]) for run in runs] == [(IDS[2], None), (IDS[1], None), (IDS[0], 3)]
    assert runs[2] == {
        "run_id": IDS[0],
        "started_at": "2026-11-23T01:00:00.123Z",
        "finished_at": "2026-11-23T01:01:15.000Z",
        "duration_s": 74.877,
        "planned": 4,
        "disabled": 2,
        "outcomes": {"accepted": 3, "rejected": 1},
        "succeeded": 3,
        "failed": 1,
        "exit_code": 3,
        "config": "/caf\udce9/fleet.yaml",
        "report": "/r.jsonl",
        "retried": None,
    }
    history(path.parent, "--format", "json", "--limit", "1")
    assert json.loads(capsys.readouterr().out) == runs[:1]


def test_without_any_run_the_command_says_so_and_makes_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert history(tmp_path / "gone") == 0
    assert capsys.readouterr().out.startswith(f"There are no runs in {tmp_path / 'gone'}; ")
    assert history(tmp_path / "gone", "--format", "json") == 0
    assert capsys.readouterr().out == "[]\n"
    assert list(tmp_path.iterdir()) == []
