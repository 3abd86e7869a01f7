"""How the API's answer about a backup changes its outcome, and the run."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest
from fakes import RUN_ID, SUMMARY, planned
from schemas import report_line_problems
from states import AT

from orchestrator.commands.status import Condition, Known, StatusEnd, known_now, known_of
from orchestrator.journal.runs import RunRecord, StoredBackup
from orchestrator.model import Backup, ErrorInfo, ErrorKind, Outcome, OutcomeKind, Run, Spent
from orchestrator.report.lines import line_of, summary_line
from orchestrator.runs.amend import summary_now

if TYPE_CHECKING:
    from orchestrator.summary import Line

K = OutcomeKind
BEGUN = Backup("b-1", "requested", "x", "2026-11-23T01:00:00Z", None, "6.8.1")
DONE = replace(BEGUN, status="completed", complete_time="2026-11-23T01:04:00Z")
GONE_WRONG = replace(BEGUN, status="aborted")
WHY = ErrorInfo(ErrorKind.TIMEOUT, "still requested")


def line(kind: OutcomeKind, number: int = 0, backup: Backup | None = BEGUN, account: str = "default") -> Line:
    error = None if kind.is_success or kind is K.ABORTED else WHY
    reason = "there is one under way" if kind is K.SKIPPED else None
    spent = Spent(1, 1, 0, AT)
    made = planned(number, account)
    return line_of(RUN_ID, Outcome(made, kind, AT, backup=backup, error=error, spent=spent, reason=reason))


def known(kind: OutcomeKind, backup: Backup = BEGUN) -> Known:
    found = known_of(StoredBackup(planned(0), None, line(kind, 0, backup)))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("before", "shown", "after", "condition"),
    [
        (K.ACCEPTED, DONE, K.COMPLETED, Condition.COMPLETED),
        (K.ACCEPTED, GONE_WRONG, K.ABORTED, Condition.ABORTED),
        (K.ACCEPTED, replace(BEGUN, status="in_progress"), K.ACCEPTED, Condition.UNDER_WAY),
        (K.ACCEPTED, replace(BEGUN, status="of tomorrow"), K.ACCEPTED, Condition.UNDER_WAY),
        (K.INCOMPLETE, DONE, K.COMPLETED, Condition.COMPLETED),
        (K.INCOMPLETE, GONE_WRONG, K.ABORTED, Condition.ABORTED),
        (K.INCOMPLETE, BEGUN, K.INCOMPLETE, Condition.UNDER_WAY),
        (K.SKIPPED, DONE, K.SKIPPED, Condition.COMPLETED),
        (K.SKIPPED, GONE_WRONG, K.ABORTED, Condition.ABORTED),
        (K.COMPLETED, DONE, K.COMPLETED, Condition.COMPLETED),
    ],
)
def test_an_outcome_follows_its_backup(
    before: OutcomeKind, shown: Backup, after: OutcomeKind, condition: Condition
) -> None:
    now = known_now(known(before), shown, 90.0)
    fields: dict[str, Any] = now.line.fields()
    assert (now.line.kind, fields["outcome"], now.condition) == (after, after.value, condition)
    assert fields["backup"] == asdict(shown)
    assert report_line_problems(fields) == []
    assert now.age_s == (90.0 if condition is Condition.UNDER_WAY else None)
    assert now.took_s == (240.0 if shown is DONE else None)


def test_an_unchanged_line_keeps_every_byte() -> None:
    assert known_now(known(K.INCOMPLETE), BEGUN) == known(K.INCOMPLETE)


def test_fields_that_an_answer_lacks_stay_known() -> None:
    now = known_now(known(K.ACCEPTED), Backup("b-1", "completed"))
    assert now.backup == replace(BEGUN, status="completed")
    assert now.took_s is None


@pytest.mark.parametrize("kind", [K.REJECTED, K.EXHAUSTED, K.UNCONFIRMED, K.CANCELLED])
def test_an_install_without_a_backup_needs_no_request(kind: OutcomeKind) -> None:
    assert known_of(StoredBackup(planned(0), None, line(kind, 0, None))) is None
    assert known_of(StoredBackup(planned(0), None, None)) is None


def test_the_exit_code_is_0_only_if_every_backup_is_completed() -> None:
    done, begun = known(K.COMPLETED, DONE), known(K.ACCEPTED)
    end = StatusEnd(RUN_ID, (done, known(K.SKIPPED, DONE)), 0, 3, 0, False, None, None, False)  # noqa: FBT003 - the fields' order
    assert end.exit_code == 0
    bad = (begun, known(K.ABORTED, GONE_WRONG), replace(begun, error=WHY))
    assert [replace(end, backups=(done, each)).exit_code for each in bad] == [3, 3, 3]
    assert replace(end, unfinished=1).exit_code == 3
    assert replace(end, backups=(bad[2],), credentials_refused=True).exit_code == 12
    assert replace(end, signum=15, credentials_refused=True).exit_code == 143


def test_a_new_summary_counts_outcomes_in_total_and_by_account() -> None:
    told = json.loads(json.dumps(summary_line(SUMMARY)))
    record = RunRecord(Run(RUN_ID, AT), "s", "c", "r", {}, summary=told, has_ended=True)
    lines = [line(K.COMPLETED), line(K.ABORTED, 1), line(K.COMPLETED, 2, account="b")]
    now = summary_now(record, lines, "/elsewhere.jsonl")
    assert now is not None
    assert {kind: count for kind, count in now["outcomes"].items() if count} == {"completed": 2, "aborted": 1}
    by_account = {name: totals["outcomes"] for name, totals in now["accounts"].items()}
    assert by_account == {"default": {"completed": 1, "aborted": 1}, "b": {"completed": 1}}
    assert (now["exit_code"], now["report"], now["requests"]) == (3, "/elsewhere.jsonl", told["requests"])
    well = summary_now(record, [line(K.COMPLETED)], "r")
    assert well is not None
    assert well["exit_code"] == 0
    assert summary_now(replace(record, summary=None), lines, "r") is None
