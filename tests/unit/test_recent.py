"""Which backup makes a request unnecessary, and how an answer with fewer fields is merged."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from orchestrator.freshness import Recent, age_s, has_ended, merged, newest_completed, recent
from orchestrator.model import Backup

NOW_S = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
HOUR_S = 3600.0


def made(age: float, status: str | None = "completed", backup_id: str = "b") -> Backup:
    return Backup(backup_id, status, create_time=datetime.fromtimestamp(NOW_S - age, UTC).isoformat())


@pytest.mark.parametrize(
    ("status", "ended"),
    [("completed", True), ("aborted", True), ("Completed", False), ("requested", False), ("", False), (None, False)],
)
def test_only_the_status_decides_whether_a_backup_has_ended(status: str | None, ended: bool) -> None:  # noqa: FBT001 - a column
    assert has_ended(Backup("b", status, complete_time="2026-11-23T12:00:00Z")) is ended


@pytest.mark.parametrize(
    ("backups", "found"),
    [
        ([], None),
        ([made(HOUR_S - 1)], 0),
        ([made(HOUR_S)], None),
        ([made(HOUR_S + 1)], None),
        ([made(0)], 0),
        ([made(-60)], 0),
        ([made(-HOUR_S)], None),
        ([made(-1e8), made(60)], 1),
        ([made(30, "aborted"), made(60)], 1),
        ([made(30, "in_progress"), made(3000)], 1),
        ([made(60), made(30)], 1),
        ([made(60, "requested"), made(30, "odd")], 1),
        ([made(60, None)], 0),
        ([made(HOUR_S, "in_progress"), made(HOUR_S + 9)], None),
        ([Backup("b", "completed"), Backup("b", "completed", create_time="")], None),
    ],
)
def test_the_newest_completed_backup_counts_or_else_the_newest_under_way(
    backups: list[Backup], found: int | None
) -> None:
    result = recent(backups, NOW_S, HOUR_S)
    assert (result and result.backup) == (None if found is None else backups[found])
    if result:
        assert result.age_s == NOW_S - datetime.fromisoformat(result.backup.create_time or "").timestamp()
        assert result.is_completed is (result.backup.status == "completed")


@pytest.mark.parametrize("within_s", [0.0, 1e-9, math.inf])
def test_zero_means_no_backup_is_recent_and_infinity_means_every_backup_is(within_s: float) -> None:
    assert (recent([made(0)], NOW_S, within_s) is None) is (within_s == 0)
    assert (recent([made(1e9)], NOW_S, within_s) is None) is not math.isinf(within_s)


def test_the_reason_names_the_backup_and_its_age() -> None:
    said = Recent(made(60), 7500.0, is_completed=True).reason(26 * HOUR_S)
    assert said == "there is a completed backup, 2h 5m old: younger than 1d 2h"
    assert Recent(made(60), 40.4, is_completed=False).reason(HOUR_S).startswith("there is a backup under way, 40s old")


def test_an_age_is_measured_from_create_time_in_any_zone() -> None:
    assert age_s(Backup("b", create_time="2026-11-23T13:00:00+02:00"), NOW_S) == HOUR_S
    assert age_s(Backup("b", create_time="2026-11-23T12:00:00.500Z"), NOW_S) == -0.5
    assert age_s(Backup("b", complete_time="2026-11-23T12:00:00Z"), NOW_S) is None


def test_the_newest_completed_backup_must_have_a_time() -> None:
    dated = [made(60, backup_id="old"), made(30, backup_id="new"), made(10, "aborted"), Backup("?", "completed")]
    newest = newest_completed(dated)
    assert newest
    assert newest.id == "new"
    assert newest_completed([Backup("?", "completed"), made(1, "requested")]) is None


def test_fields_that_an_answer_lacks_stay_known() -> None:
    known = Backup("b", "requested", "x", "T1", None, "6.8")
    assert merged(known, Backup("B", "completed", complete_time="T2")) == Backup(
        "B", "completed", "x", "T1", "T2", "6.8"
    )
    assert merged(known, Backup("b")) == known
    assert merged(known, Backup("b", "", "")) == Backup("b", "", "", "T1", None, "6.8")
