"""The recorder: one transaction for all waiting records, then outcomes in the report; failures reach their callers."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from fakes import RUN_ID, ListLog, planned
from states import Hold, fill

from orchestrator.journal.runs import RunRecord, begin, load
from orchestrator.journal.store import FILE_NAME, Store
from orchestrator.model import Backup, Checkpoint, Outcome, OutcomeKind, Run
from orchestrator.report.write import ReportWriter
from orchestrator.runs.recorder import MOST_TOGETHER, Recorder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


COUNT = 500
PLAN = [planned(number) for number in range(MOST_TOGETHER + COUNT)]


class Bench:
    """A recorder on a real state and a real report, with the outcomes that it stored and that failed."""

    def __init__(self, folder: Path, report: str | None = None) -> None:
        self.report = report or str(folder / "report.jsonl")
        self.state = folder / FILE_NAME
        self.failed: list[Outcome] = []
        self.kept: list[Outcome] = []
        self.on_outcome: Callable[[Outcome], None] = self.kept.append

    def run(self, use: Callable[[Bench], Awaitable[None]]) -> None:
        async def main() -> None:
            async with AsyncExitStack() as stack:
                self.store = await stack.enter_async_context(Store(self.state))
                self.writer = ReportWriter(self.report, None)
                await stack.enter_async_context(self.writer)
                run = Run(RUN_ID, datetime.now(UTC))
                await begin(self.store, RunRecord(run, "s", "fleet.yaml", self.report, {}), PLAN, [])
                self.recorder = Recorder(RUN_ID, self.store, self.writer, ListLog(), self.on_outcome)
                await use(self)

        asyncio.run(main())

    def record(self, number: int) -> Outcome:
        outcome = Outcome(PLAN[number], OutcomeKind.ACCEPTED, datetime.now(UTC), backup=Backup(f"b-{number}"))
        self.recorder.record(outcome, self._not_kept)
        return outcome

    def _not_kept(self, outcome: Outcome, _error: Exception) -> None:
        self.failed.append(outcome)

    async def stored(self) -> tuple[int, int]:
        """Return the numbers of checkpoints and of outcomes in the journal."""
        stored = await load(self.store, RUN_ID)
        return sum(each.checkpoint is not None for each in stored), sum(each.line is not None for each in stored)

    def reported(self) -> list[str]:
        with open(self.report, encoding="utf-8") as report:  # noqa: PTH123 - it may be a pipe's name
            return report.readlines()


def checkpoint(number: int) -> Checkpoint:
    return Checkpoint(PLAN[number], sought=(RUN_ID,))


def test_records_that_come_during_a_transaction_go_into_the_next_one_together(tmp_path: Path) -> None:
    async def use(bench: Bench) -> None:
        traced: list[str] = []
        await bench.store.read(lambda connection: connection.set_trace_callback(traced.append))
        hold = Hold(bench.store)
        await hold.begun()
        first = asyncio.create_task(bench.recorder.note(checkpoint(0)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # now its transaction waits for the store
        notes = [asyncio.create_task(bench.recorder.note(checkpoint(number))) for number in range(1, COUNT)]
        await asyncio.sleep(0)
        outcomes = [bench.record(number) for number in range(COUNT)]
        await hold.release()
        await asyncio.gather(first, *notes)
        await bench.recorder.drain()
        assert sum(statement == "COMMIT" for statement in traced) == 3  # the hold, the first record, all others
        assert await bench.stored() == (COUNT, COUNT)
        assert bench.kept == outcomes
        assert (len(bench.reported()), bench.failed) == (COUNT, [])

    Bench(tmp_path).run(use)


def test_many_outcomes_at_the_same_time_are_split_into_transactions_in_order(tmp_path: Path) -> None:
    async def use(bench: Bench) -> None:
        outcomes = [bench.record(number) for number in range(len(PLAN))]
        await bench.recorder.drain()
        assert bench.kept == outcomes
        told = [json.loads(line)["backup"]["id"] for line in bench.reported()]
        assert told == [f"b-{number}" for number in range(len(PLAN))]

    Bench(tmp_path).run(use)


def test_a_caller_goes_on_only_when_its_checkpoint_is_on_disk(tmp_path: Path) -> None:
    async def use(bench: Bench) -> None:
        for number in range(3):
            await bench.recorder.note(checkpoint(number))
            assert await bench.stored() == (number + 1, 0)

    Bench(tmp_path).run(use)


def test_a_full_disk_fails_waiting_callers_but_each_outcome_is_still_reported(tmp_path: Path) -> None:
    async def use(bench: Bench) -> None:
        await bench.store.write(fill)
        notes = [bench.recorder.note(checkpoint(number)) for number in range(COUNT)]
        outcomes = [bench.record(number) for number in range(COUNT)]
        ended = await asyncio.gather(*notes, return_exceptions=True)
        await bench.recorder.drain()
        assert {str(each).partition(": ")[2].partition(";")[0] for each in ended} == {"the disk is full"}
        assert (bench.failed, bench.kept) == (outcomes, [])
        assert len(bench.reported()) == COUNT

    Bench(tmp_path).run(use)


def test_a_failed_report_fails_outcomes_but_no_checkpoint(tmp_path: Path) -> None:
    async def use(bench: Bench) -> None:
        bench.writer.abandon()
        outcome = bench.record(0)
        await bench.recorder.note(checkpoint(1))
        await bench.recorder.drain()
        assert (bench.failed, bench.kept) == ([outcome], [])
        assert await bench.stored() == (1, 1)

    Bench(tmp_path).run(use)


def test_a_cancelled_caller_affects_no_other_and_its_checkpoint_is_stored(tmp_path: Path) -> None:
    async def use(bench: Bench) -> None:
        notes = [asyncio.create_task(bench.recorder.note(checkpoint(number))) for number in range(3)]
        await asyncio.sleep(0)
        notes[1].cancel()
        ended = await asyncio.gather(*notes, return_exceptions=True)
        assert [type(each) for each in ended] == [type(None), asyncio.CancelledError, type(None)]
        await bench.recorder.drain()
        assert await bench.stored() == (3, 0)

    Bench(tmp_path).run(use)


def test_a_checkpoint_without_a_waiter_is_stored_soon_and_its_failure_is_ignored(tmp_path: Path) -> None:
    async def use(bench: Bench) -> None:
        bench.recorder.note_soon(checkpoint(0))
        await bench.recorder.drain()
        assert await bench.stored() == (1, 0)
        await bench.store.write(fill)
        for number in range(1, COUNT):
            bench.recorder.note_soon(checkpoint(number))
        await bench.recorder.drain()

    Bench(tmp_path).run(use)


def test_a_paused_reader_of_the_report_delays_no_checkpoint(tmp_path: Path) -> None:
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    async def use(bench: Bench) -> None:
        for number in range(COUNT):  # more than a pipe holds
            bench.record(number)
        while bench.writer.stuck_s() < 0.05:  # noqa: ASYNC110 - a thread changes the value
            await asyncio.sleep(0)
        await bench.recorder.note(checkpoint(0))
        assert await bench.stored() == (1, COUNT)
        draining = asyncio.create_task(bench.recorder.drain())
        got = b""
        while not draining.done():
            await asyncio.sleep(0)
            try:
                got += os.read(reader, 1_000_000)
            except BlockingIOError:
                continue
        await draining
        assert got.count(b"\n") >= 1
        assert len(bench.kept) == COUNT

    Bench(tmp_path, pipe).run(use)
    os.close(reader)


def test_a_bug_during_a_write_is_raised_in_the_waiting_caller(
    tmp_path: Path,
) -> None:
    async def use(bench: Bench) -> None:
        odd = replace(checkpoint(0), described=object())  # type: ignore[arg-type]  # on purpose: JSON knows no such thing
        outcome = bench.record(1)
        with pytest.raises(TypeError):
            await bench.recorder.note(odd)
        await bench.recorder.drain()
        assert (bench.failed, bench.kept) == ([outcome], [])
        await bench.recorder.note(checkpoint(2))

    Bench(tmp_path).run(use)


def test_a_bug_after_an_outcome_was_stored_is_raised_at_the_end_and_others_are_stored(tmp_path: Path) -> None:
    def fail(outcome: Outcome) -> None:
        if outcome.planned.position == 0:
            raise ZeroDivisionError

    async def use(bench: Bench) -> None:
        bench.record(0)
        await asyncio.sleep(0)
        bench.record(1)
        with pytest.raises(ZeroDivisionError):
            await bench.recorder.drain()
        assert await bench.stored() == (0, 2)

    bench = Bench(tmp_path)
    bench.on_outcome = fail
    bench.run(use)
