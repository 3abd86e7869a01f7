"""Amend a run that is over with newer outcomes: in the journal, its report and its summary."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.journal import runs
from orchestrator.journal.locks import locked, run_lock
from orchestrator.model import OutcomeKind
from orchestrator.report.lines import encode
from orchestrator.report.write import rewrite, write_summary
from orchestrator.summary import exit_code_now

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AsyncExitStack
    from datetime import datetime

    from orchestrator.journal.runs import RunRecord, StoredBackup
    from orchestrator.journal.store import Store
    from orchestrator.runs.folder import StateFolder
    from orchestrator.summary import Line


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run that no process works on, with its plan and its outcomes."""

    record: RunRecord
    stored: list[StoredBackup]

    @property
    def lines(self) -> list[Line]:
        """Return the lines of its outcomes, in the order of the report."""
        return runs.in_report_order(self.stored)

    @property
    def is_whole(self) -> bool:
        """Return whether the run has ended and each planned backup has an outcome."""
        return self.record.has_ended and all(each.line for each in self.stored)


async def run_at_rest(stack: AsyncExitStack, store: Store, folder: StateFolder, run_id: str) -> StoredRun:
    """Lock a run while ``stack`` is open, and return it as stored.

    Raises ``LockedError`` if the run is going on, and ``StorageError``.
    """
    await stack.enter_async_context(locked(run_lock(folder.path, run_id), f"run {run_id} is going on"))
    record = await runs.find(store, run_id, f"in {folder.path}")
    return StoredRun(record, await runs.load(store, run_id))


async def amend_run(
    store: Store, folder: StateFolder, run: StoredRun, changed: Sequence[Line], now: datetime
) -> str | None:
    """Replace lines of the run with ``changed``, and write its report and summary again.

    Return the path of the report, ``None`` if it is not a regular file. The journal's summary is written last: if its
    counts differ from the lines, an amendment was interrupted. Raises ``StorageError``.
    """
    record, run_id = run.record, run.record.run.id
    news = {line.position: line for line in changed}
    lines = [news.get(line.position, line) for line in run.lines]
    await runs.amend(store, run_id, changed)
    report = folder.report_of(record)
    summary = summary_now(record, lines, report) if run.is_whole else None
    data = b"".join(line.data for line in lines) + (b"" if summary is None else encode(summary))
    is_file = rewrite(report, data, is_private=report == folder.own_report(run_id))
    if summary is not None:
        write_summary(folder.of_run(run_id), summary)
        await runs.end(store, run_id, now, summary)
    return report if is_file else None


def summary_now(record: RunRecord, lines: Iterable[Line], report: str) -> dict[str, Any] | None:
    """Return the run's summary line with its outcomes counted again, ``None`` if it never had a summary."""
    if record.summary is None:
        return None
    counts: Counter[OutcomeKind] = Counter()
    by_account: dict[str, Counter[OutcomeKind]] = {}
    for line in lines:
        counts[line.kind] += 1
        by_account.setdefault(line.account, Counter())[line.kind] += 1
    return record.summary | {
        "outcomes": {kind.value: counts[kind] for kind in OutcomeKind},
        "accounts": {
            name: totals | {"outcomes": {kind.value: count for kind, count in by_account.get(name, {}).items()}}
            for name, totals in record.summary["accounts"].items()
        },
        "exit_code": exit_code_now(record.summary["exit_code"], counts, len(record.failed_sources)),
        "report": report,
    }
