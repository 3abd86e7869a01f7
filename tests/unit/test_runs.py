"""The runs in the journal, with a real file."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fakes import EARLIER_RUN_ID, RUN_ID, install_id, planned
from hypothesis import given, settings
from hypothesis import strategies as st
from states import AT, with_store

from orchestrator.errors import UsageError
from orchestrator.journal.runs import (
    KnownRun,
    RunRecord,
    StoredBackup,
    begin,
    end,
    ended_before,
    find,
    forget,
    keep,
    known,
    load,
    reopen,
)
from orchestrator.journal.store import FILE_NAME, Store
from orchestrator.model import (
    BackupRequest,
    Checkpoint,
    ErrorInfo,
    ErrorKind,
    FieldError,
    Install,
    OutcomeKind,
    PlannedBackup,
    Run,
    Spent,
)
from orchestrator.summary import Line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

SCOPE, OTHER_SCOPE = "/etc/fleet.yaml", "/etc/other.yaml"
IDS = [f"01JD{number}00000000000000000000{number}" for number in range(5)]
PLAN = [planned(number) for number in range(3)]
ERROR = ErrorInfo(
    kind=ErrorKind.UNAVAILABLE,
    message="Endpoint request timed out",
    status=504,
    documentation_url="https://developers.example/backups",
    errors=(FieldError("Backup", "description", "invalid", "422", "is too long"), FieldError()),
    request_id="r-1",
    retry_after_s=1.5,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / FILE_NAME


def record(run_id: str = RUN_ID, scope: str = SCOPE, **fields: Any) -> RunRecord:
    accounts = {"default": "https://api.wpengineapi.com/v1", "b": "http://127.0.0.1:8080/v1"}
    return replace(RunRecord(Run(run_id, AT), scope, "fleet.yaml", "/r/report.jsonl", accounts), **fields)


def line(position: int, kind: OutcomeKind = OutcomeKind.ACCEPTED, data: bytes = b"{}\n", **fields: Any) -> Line:
    return replace(Line(position, kind, 0, reconciled=False, data=data, account="default"), **fields)


def checkpoint(position: int, **fields: Any) -> Checkpoint:
    return replace(Checkpoint(PLAN[position], sought=(RUN_ID,)), **fields)


def with_run(path: Path, use: Callable[[Store], Awaitable[Any]], *begun: Checkpoint) -> list[StoredBackup]:
    """Begin a run of three installs, call ``use``, reopen the file and return the stored backups."""

    async def main(store: Store) -> None:
        await begin(store, record(), PLAN, begun)
        await use(store)

    with_store(path, main)
    return with_store(path, lambda store: load(store, RUN_ID))


async def begin_all(store: Store) -> None:
    """Begin five runs in order; their scopes alternate."""
    for number, run_id in enumerate(IDS):
        await begin(store, record(run_id, (SCOPE, OTHER_SCOPE)[number % 2]), PLAN, [])


def found(path: Path, word: str) -> str:
    return with_store(path, lambda store: find(store, word, "in /state")).run.id


async def old(store: Store, before: datetime) -> list[str]:
    return [each.id for each in await ended_before(store, before)]


# -- round trips -------------------------------------------------------------------------------------------------------


def test_a_new_run_has_only_its_plan_in_order(path: Path) -> None:
    async def nothing(_: Store) -> None:
        pass

    assert with_run(path, nothing) == [StoredBackup(each, None, None) for each in PLAN]


def test_a_record_is_read_back_completely(path: Path) -> None:
    whole = record(disabled=7, retried=EARLIER_RUN_ID, report="-")
    with_store(path, lambda store: begin(store, whole, [], []))
    assert with_store(path, lambda store: find(store, RUN_ID, "in /state")) == whole


def test_a_start_in_another_zone_is_the_same_instant(path: Path) -> None:
    at = datetime(2026, 11, 23, 6, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    with_store(path, lambda store: begin(store, record(run=Run(RUN_ID, at)), [], []))
    started_at = with_store(path, lambda store: find(store, RUN_ID, "in /state")).run.started_at
    assert (started_at, started_at.utcoffset()) == (at, timedelta(0))


@pytest.mark.parametrize(
    "kept",
    [
        Checkpoint(PLAN[1]),
        Checkpoint(
            PLAN[1], Spent(3, 2, 40, AT), (RUN_ID, EARLIER_RUN_ID), 1.5, "as once", 2.5, may_repeat=False, error=ERROR
        ),
        Checkpoint(PLAN[1], error=ErrorInfo(ErrorKind.NETWORK, "")),
        Checkpoint(PLAN[1], sought=(RUN_ID,), sent_at=0.0, described=""),
    ],
)
def test_a_checkpoint_is_read_back_completely_from_the_start_or_from_later(path: Path, kept: Checkpoint) -> None:
    stored = with_run(path, lambda store: keep(store, RUN_ID, [], [kept]))
    assert [each.checkpoint for each in stored] == [None, kept, None]
    again = with_run(path.with_name("again.db"), lambda store: keep(store, RUN_ID, [], []), kept)
    assert [each.checkpoint for each in again] == [None, kept, None]


@pytest.mark.parametrize("kind", OutcomeKind)
def test_a_line_is_read_back_byte_for_byte(path: Path, kind: OutcomeKind) -> None:
    kept = line(2, kind, '{"name":"ß\\u0000…"}\n'.encode() + bytes(range(256)), retries=3, reconciled=True)
    stored = with_run(path, lambda store: keep(store, RUN_ID, [kept]))
    assert [each.line for each in stored] == [None, None, kept]


TEXTS = st.text(max_size=20)
INSTALLS = st.builds(
    Install,
    id=st.uuids().map(str),
    account=TEXTS,
    description=TEXTS,
    notification_emails=st.lists(TEXTS, max_size=2).map(tuple),
    name=st.none() | TEXTS,
    environment=st.none() | TEXTS,
    tags=st.lists(TEXTS, max_size=2).map(tuple),
    enabled=st.booleans(),
)
ERRORS = st.builds(
    ErrorInfo,
    kind=st.sampled_from(ErrorKind),
    message=TEXTS,
    status=st.none() | st.integers(100, 599),
    documentation_url=st.none() | TEXTS,
    errors=st.lists(st.builds(FieldError, *[st.none() | TEXTS] * 5), max_size=2).map(tuple),
    request_id=st.none() | TEXTS,
    retry_after_s=st.none() | st.floats(0, 1e9),
)


@given(INSTALLS, TEXTS, st.none() | TEXTS, st.none() | ERRORS, st.binary(max_size=40))
@settings(max_examples=30)
def test_any_texts_are_read_back_unchanged(
    install: Install, description: str, described: str | None, error: ErrorInfo | None, data: bytes
) -> None:
    backup = PlannedBackup(0, install, BackupRequest(install.id or "", description, install.notification_emails))
    stands = Checkpoint(backup, described=described, error=error)
    of_texts = record(scope=description, report=description, config=description, accounts={description: description})

    async def main(store: Store) -> tuple[RunRecord, list[StoredBackup]]:
        await begin(store, of_texts, [backup], [stands])
        await keep(store, RUN_ID, [line(0, data=data, account=install.account)])
        return await find(store, "latest", ""), await load(store, RUN_ID)

    with tempfile.TemporaryDirectory() as folder:
        assert with_store(Path(folder) / FILE_NAME, main) == (
            of_texts,
            [StoredBackup(backup, stands, line(0, data=data, account=install.account))],
        )


@pytest.mark.parametrize("where", ["scope", "config", "report", "retried"])
def test_a_path_that_is_no_utf_8_is_read_back(path: Path, where: str) -> None:
    odd = record(**{where: "/home/caf\udce9/fleet"})
    with_store(path, lambda store: begin(store, odd, [], []))
    assert with_store(path, lambda store: find(store, RUN_ID, "in /state")) == odd


def test_a_description_with_half_a_character_is_read_back(path: Path) -> None:
    half = checkpoint(1, described="x \ud83d")
    stored = with_run(path, lambda store: keep(store, RUN_ID, [], [half]))
    assert stored[1].checkpoint == half


# -- later records win -------------------------------------------------------------------------------------------------


def test_a_later_checkpoint_replaces_an_earlier_one_of_the_same_install_only(path: Path) -> None:
    async def main(store: Store) -> None:
        await keep(store, RUN_ID, [], [checkpoint(0), checkpoint(1)])
        await keep(
            store, RUN_ID, [], [checkpoint(0, spent=Spent(tries=1)), checkpoint(0, sought=(), spent=Spent(tries=2))]
        )

    stored = with_run(path, main)
    assert [each.checkpoint for each in stored] == [checkpoint(0, sought=(), spent=Spent(tries=2)), checkpoint(1), None]


def test_a_later_line_replaces_an_earlier_one(path: Path) -> None:
    async def main(store: Store) -> None:
        await keep(store, RUN_ID, [line(0, OutcomeKind.CANCELLED), line(1)])
        await keep(store, RUN_ID, [line(0, data=b'{"later":1}\n')])

    assert [each.line for each in with_run(path, main)] == [line(0, data=b'{"later":1}\n'), line(1), None]


def test_reopening_a_run_removes_only_the_lines_of_installs_that_go_on(path: Path) -> None:
    async def main(store: Store) -> None:
        await keep(store, RUN_ID, [line(0), line(1, OutcomeKind.CANCELLED), line(2, OutcomeKind.UNCONFIRMED)])
        await end(store, RUN_ID, AT, {"exit_code": 130})
        assert await old(store, AT + timedelta(days=1)) == [RUN_ID]
        await reopen(store, record(report="/new/report.jsonl"), [checkpoint(1, sought=()), checkpoint(2, error=ERROR)])

    stored = with_run(path, main)
    assert [each.line for each in stored] == [line(0), None, None]
    assert [each.checkpoint for each in stored] == [None, checkpoint(1, sought=()), checkpoint(2, error=ERROR)]
    reopened = with_store(path, lambda store: find(store, RUN_ID, ""))
    assert reopened == record(report="/new/report.jsonl", summary={"exit_code": 130})
    assert with_store(path, lambda store: old(store, AT + timedelta(days=1))) == []


def test_the_last_summary_replaces_earlier_ones(path: Path) -> None:
    async def main(store: Store) -> None:
        await end(store, RUN_ID, AT, {"exit_code": 130})
        await end(store, RUN_ID, AT + timedelta(hours=1), {"exit_code": 0, "text": "ß"})

    with_run(path, main)
    assert with_store(path, lambda store: find(store, RUN_ID, "")).summary == {"exit_code": 0, "text": "ß"}
    assert with_store(path, lambda store: old(store, AT + timedelta(minutes=30))) == []


def test_runs_do_not_affect_each_other(path: Path) -> None:
    async def main(store: Store) -> tuple[list[StoredBackup], list[StoredBackup]]:
        await begin_all(store)
        await keep(store, IDS[1], [], [checkpoint(0)])
        await keep(store, IDS[1], [line(0)])
        await reopen(store, record(IDS[2]), [checkpoint(0)])
        return await load(store, IDS[0]), await load(store, IDS[1])

    first, second = with_store(path, main)
    assert first == [StoredBackup(each, None, None) for each in PLAN]
    assert second[0] == StoredBackup(PLAN[0], checkpoint(0), line(0))


# -- finding runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("word", "run"), [("latest", 4), (IDS[1], 1), (IDS[1].lower(), 1), ("01JD2", 2), ("01jd3", 3)])
def test_a_run_is_found_by_its_id_by_the_start_of_it_or_as_the_latest(path: Path, word: str, run: int) -> None:
    with_store(path, begin_all)
    assert found(path, word) == IDS[run]


def test_every_run_is_listed_in_order_of_time_with_its_scope_and_source(path: Path) -> None:
    with_store(path, begin_all)
    scopes = [SCOPE, OTHER_SCOPE] * 3
    runs = [KnownRun(run_id, scope, "fleet.yaml") for run_id, scope in zip(IDS, scopes, strict=False)]
    assert with_store(path, known) == runs


def test_the_latest_run_is_the_one_stored_last_even_if_a_clock_was_set_back(path: Path) -> None:
    with_store(path, begin_all)
    with_store(path, lambda store: begin(store, record("01AA0000000000000000000000"), PLAN, []))
    assert found(path, "latest") == "01AA0000000000000000000000"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("01JD", "01JD is the beginning of several run ids; give more characters"),
        ("01ZZ", f"there is no run 01ZZ; the newest runs in /state are {IDS[4]}, {IDS[3]}, {IDS[2]}"),
        (IDS[0] + "0", "there is no run"),
        ("", "there is no run"),
        ("%", "there is no run %"),
    ],
)
def test_an_id_that_fits_no_run_or_several_is_refused(path: Path, word: str, message: str) -> None:
    with_store(path, begin_all)
    with pytest.raises(UsageError) as caught:
        found(path, word)
    assert str(caught.value).startswith(message)


def test_without_any_runs_the_message_says_so(path: Path) -> None:
    with pytest.raises(UsageError, match=r"^there are no runs in /state; name another directory with --state-dir$"):
        found(path, "latest")


# -- removing runs -----------------------------------------------------------------------------------------------------


def test_only_runs_that_ended_before_the_moment_are_old(path: Path) -> None:
    async def main(store: Store) -> list[list[str]]:
        await begin_all(store)
        for hours, run_id in enumerate(IDS[:4]):
            await end(store, run_id, AT + timedelta(hours=hours), {})
        moments: Sequence[timedelta] = [timedelta(0), timedelta(milliseconds=1), timedelta(hours=1), timedelta(days=9)]
        return [await old(store, AT + moment) for moment in moments]

    assert with_store(path, main) == [[], [IDS[0]], [IDS[0]], IDS[:4]]


def test_a_moment_in_another_zone_is_compared_as_an_instant(path: Path) -> None:
    async def main(store: Store) -> list[str]:
        await begin_all(store)
        await end(store, IDS[0], AT.astimezone(timezone(timedelta(hours=-8))), {})
        return await old(store, (AT + timedelta(seconds=1)).astimezone(UTC))

    assert with_store(path, main) == [IDS[0]]


def test_a_forgotten_run_is_removed_completely_and_no_other_is(path: Path) -> None:
    async def main(store: Store) -> tuple[list[int], list[StoredBackup]]:
        await begin_all(store)
        for run_id in IDS:
            await keep(store, run_id, [], [checkpoint(0)])
            await keep(store, run_id, [line(0)])
        await forget(store, IDS[:4])
        tables = ("runs", "planned_backups", "standings", "outcomes")
        counts = [await store.read(partial(rows, table=table)) for table in tables]
        return counts, await load(store, IDS[4])

    counts, left = with_store(path, main)
    assert counts == [1, 3, 1, 1]
    assert left[0] == StoredBackup(PLAN[0], checkpoint(0), line(0))
    assert found(path, "latest") == IDS[4]
    assert [each.planned.install.id for each in left] == [install_id(number) for number in range(3)]


def rows(connection: Any, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - our own words


def test_forgetting_an_unknown_run_changes_nothing(path: Path) -> None:
    with_store(path, begin_all)
    with_store(path, lambda store: forget(store, [RUN_ID]))
    assert found(path, "latest") == IDS[4]
