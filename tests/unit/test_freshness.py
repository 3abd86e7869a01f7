"""How recent an install's backups are by its listing, and the order of an audit's rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import RUN_ID, planned

from orchestrator.commands.audit import Audited, AuditEnd, run_of, worst_first
from orchestrator.freshness import NO_CLOCK, Freshness, Verdict, judged, recent
from orchestrator.marker import marker, second
from orchestrator.model import Backup, ErrorInfo, ErrorKind, FailedSource
from orchestrator.units import seconds_of

NOW_S = seconds_of("2026-11-23T12:00:00Z") or 0.0
HOUR_S = 3600.0
WHY = ErrorInfo(ErrorKind.UNAVAILABLE, "503")


def made(hour: int, status: str | None = "completed", zone: str = "Z") -> Backup:
    return Backup(f"b-{hour}", status, create_time=f"2026-11-23T{hour:02}:00:00{zone}")


UNDATED = Backup("b-?", "completed")


@pytest.mark.parametrize(
    ("backups", "verdict", "newest", "under_way"),
    [
        ([], Verdict.MISSING, None, None),
        ([made(9), made(11), made(10)], Verdict.OK, "b-11", None),
        ([made(9), made(8)], Verdict.STALE, "b-9", None),
        ([made(10)], Verdict.OK, "b-10", None),
        ([made(13)], Verdict.UNKNOWN, None, None),
        ([made(13), made(11)], Verdict.OK, "b-11", None),
        ([made(15), made(9)], Verdict.STALE, "b-9", None),
        ([made(15)], Verdict.UNKNOWN, None, None),
        ([made(11, "aborted"), made(9)], Verdict.STALE, "b-9", None),
        ([made(11, "requested"), made(9)], Verdict.STALE, "b-9", "b-11"),
        ([made(8, "initiated"), made(9)], Verdict.STALE, "b-9", None),
        ([made(11, "in_progress"), made(10, "queued")], Verdict.MISSING, None, "b-11"),
        ([Backup("b-!", None), made(9)], Verdict.STALE, "b-9", "b-!"),
        ([UNDATED], Verdict.UNKNOWN, None, None),
        ([made(11, zone="")], Verdict.UNKNOWN, None, None),
        ([UNDATED, made(9)], Verdict.STALE, "b-9", None),
    ],
)
def test_the_verdict_depends_on_status_and_create_time(
    backups: list[Backup], verdict: Verdict, newest: str | None, under_way: str | None
) -> None:
    found = judged(backups, NOW_S, 2 * HOUR_S)
    assert found.verdict is verdict
    assert (found.newest and found.newest.id, found.under_way and found.under_way.id) == (newest, under_way)
    assert (found.age_s is None) is (newest is None)
    assert (found.error is not None) is (verdict is Verdict.UNKNOWN)


def test_the_clocks_behind_the_api_may_be_a_minute_apart() -> None:
    backup = Backup("b", "completed", create_time="2026-11-23T12:01:00Z")
    assert judged([backup], NOW_S, HOUR_S).verdict is Verdict.OK
    assert judged([backup], NOW_S - 1.0, HOUR_S).verdict is Verdict.UNKNOWN
    assert recent([backup], NOW_S, HOUR_S) is not None
    assert recent([backup], NOW_S - 1.0, HOUR_S) is None


def test_without_the_servers_clock_the_age_of_a_backup_is_unknown() -> None:
    found = judged([made(11)], None, HOUR_S)
    assert (found.verdict, found.newest, found.error) == (Verdict.UNKNOWN, None, NO_CLOCK)
    assert recent([made(11)], None, HOUR_S) is None


def test_the_worst_verdict_comes_first_and_within_a_verdict_the_oldest_backup() -> None:
    found = [
        Freshness(Verdict.OK, made(11), HOUR_S),
        Freshness(Verdict.STALE, made(9), 3 * HOUR_S),
        Freshness(Verdict.UNKNOWN, error=WHY),
        Freshness(Verdict.STALE, made(8), 4 * HOUR_S),
        Freshness(Verdict.OK, made(10), 2 * HOUR_S),
        Freshness(Verdict.MISSING),
    ]
    rows = worst_first(Audited(planned(n).install, HOUR_S, each) for n, each in enumerate(found))
    assert [row.install.name for row in rows] == [f"install{n}" for n in (5, 2, 3, 1, 4, 0)]


@pytest.mark.parametrize(
    ("description", "run_id"),
    [
        (f"Nightly {marker(RUN_ID)}", RUN_ID),
        (f"Nightly {marker(second(RUN_ID))}", RUN_ID),
        ("Automatic backup", None),
        (f"[wpe-backup {RUN_ID.lower()}]", None),
        (None, None),
    ],
)
def test_a_backup_is_ours_by_the_marker_in_its_description(description: str | None, run_id: str | None) -> None:
    backup = replace(made(11), description=description)
    assert run_of(backup) == run_id
    assert Audited(planned(0).install, HOUR_S, Freshness(Verdict.OK, backup, 0.0)).run_id == run_id


def test_the_exit_code_is_0_only_if_everything_is_known_and_recent() -> None:
    good = Audited(planned(0).install, HOUR_S, Freshness(Verdict.OK, made(11), HOUR_S))
    end = AuditEnd((good, good), (), None, credentials_refused=False)
    bad = [replace(good, freshness=Freshness(each)) for each in (Verdict.STALE, Verdict.MISSING, Verdict.UNKNOWN)]
    assert end.exit_code == 0
    assert replace(end, installs=()).exit_code == 0
    assert [replace(end, installs=(good, each)).exit_code for each in bad] == [3, 3, 3]
    assert replace(end, failed=(FailedSource("f.yaml:3", "default", WHY),)).exit_code == 3
    assert replace(end, installs=(bad[0],), credentials_refused=True).exit_code == 12
    assert replace(end, signum=2, credentials_refused=True).exit_code == 130
