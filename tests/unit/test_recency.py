"""Installs with a recent backup are skipped, by their listings, in virtual time."""

from __future__ import annotations

import signal
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from engine_bench import (
    ACCEPT,
    BEGAN_S,
    CANCEL,
    COMPLETE,
    HOUR_S,
    INCOMPLETE,
    INTERVAL_S,
    SKIP,
    TIMEOUT_S,
    WAIT,
    Bench,
    status,
)
from fakes import (
    DISCONNECTED,
    EPOCH,
    GARBAGE,
    GATEWAY_TIMEOUT,
    NOT_FOUND,
    OK,
    QUOTA,
    REFUSED,
    RUN_ID,
    THROTTLED,
    UNAUTHORIZED,
    FakeApi,
    FakeThrottle,
    backup_of,
    error_of,
    listing,
    planned,
)

from orchestrator.engine.completion import LAST_POLL_S
from orchestrator.engine.pending import PendingBackup, RecencyCheck
from orchestrator.marker import marker
from orchestrator.model import AttemptResult, Backup, ErrorKind
from orchestrator.paging import MOST_PAGES

STARTED_S = EPOCH.timestamp() + BEGAN_S
"""The start of a run, in seconds since 1970."""


def made(age_s: float, status_: str = "completed", backup_id: str = "r-1") -> Backup:
    """Return a backup that is ``age_s`` old at the start of a run."""
    at = datetime.fromtimestamp(STARTED_S - age_s, UTC)
    return Backup(backup_id, status_, "Nightly", at.isoformat().replace("+00:00", "Z"))


def screening(*pages: AttemptResult, **fields: Any) -> Bench:
    """Return a bench of one install with a scripted listing. A backup is recent if it is younger than an hour."""
    bench = Bench(**{"recent_s": HOUR_S} | fields)
    bench.api.checks = [replace(OK, server_at=STARTED_S)]
    if pages:
        bench.api.script_listing(0, *pages)
    return bench


# -- recent, or not ----------------------------------------------------------------------------------------------------


def test_an_install_with_a_recent_completed_backup_is_skipped() -> None:
    bench = screening(listing(made(7200, backup_id="old"), made(600), made(900, backup_id="older")))
    bench.run()
    assert (bench.only.kind, bench.only.error, bench.posted()) == (SKIP, None, [])
    assert bench.only.backup == made(600)
    assert bench.only.reason == "there is a completed backup, 10m old: younger than 1h"
    assert (bench.only.spent.attempts, bench.only.duration_s) == (0, 0.0)


@pytest.mark.parametrize(
    "listed",
    [
        [],
        [made(3601)],
        [made(10, "aborted")],
        [made(3601, "in_progress")],
        [Backup("b", "completed")],
        [Backup("b", "completed", create_time="yesterday")],
        [Backup("b", "completed", create_time="2026-01-01T00:16:00")],
        [replace(made(3601), complete_time="2026-01-01T00:16:39Z")],
        [made(-100)],
    ],
    ids=["none", "stale", "aborted", "slow", "undated", "garbage", "no zone", "finished late", "in the future"],
)
def test_an_install_without_a_recent_backup_is_requested_once(listed: list[Backup]) -> None:
    bench = screening(listing(*listed))
    bench.run()
    assert (bench.only.kind, bench.requested()) == (ACCEPT, [f"x {marker(RUN_ID)}"])


def test_the_age_of_a_backup_is_measured_by_the_servers_clock() -> None:
    page = replace(listing(made(600)), server_at=STARTED_S + 7200)
    bench = screening(page)
    bench.run()
    assert bench.only.kind is ACCEPT
    bench = screening(replace(listing(made(7200)), server_at=STARTED_S - 7000))
    bench.run()
    assert bench.only.kind is SKIP


def test_without_the_servers_clock_a_backup_is_requested() -> None:
    bench = screening(listing(made(600)))
    bench.api.checks = [OK]
    bench.run()
    assert (bench.only.kind, len(bench.posted())) == (ACCEPT, 1)
    assert "no Date" in str(bench.log.events)


# -- the journal of earlier runs---------------------------------------------------------------------------------------


def known(*backups: Backup | None) -> list[PendingBackup]:
    """Return pending backups; for each, the journal knows a completed backup or none."""
    return [PendingBackup(planned(number), state=RecencyCheck(each)) for number, each in enumerate(backups)]


def test_an_install_with_a_recent_backup_in_the_journal_is_skipped_after_one_request() -> None:
    bench = screening(pending=known(made(600), made(1200, backup_id="r-2")))
    bench.run()
    assert bench.kinds() == {SKIP: 2}
    assert bench.sink.of(0).reason == "there is a completed backup, 10m old: younger than 1h"
    assert (bench.api.checked, dict(bench.api.looks), bench.posted()) == (1, {}, [])


@pytest.mark.parametrize("seconds", [3 * 86_400.0, 3601.0, 100.0])
def test_the_journal_is_not_trusted_after_this_machines_clock_was_set_back(seconds: float) -> None:
    """By this clock the journal's backup would be recent; by the server's it is older, or in the future."""
    bench = screening(pending=known(made(-seconds), made(seconds + HOUR_S, backup_id="r-2")))
    bench.run()
    assert bench.kinds() == {ACCEPT: 2}
    assert len(bench.api.looks) == 2, "their listings are read first"


def test_the_journal_is_not_trusted_without_the_servers_clock() -> None:
    bench = screening(pending=known(made(600)))
    bench.api.checks = [OK]
    bench.run()
    assert (bench.only.kind, len(bench.api.looks)) == (ACCEPT, 1)


def test_the_journal_is_not_trusted_for_an_account_with_refused_credentials() -> None:
    bench = screening(pending=known(made(600)))
    bench.api.checks = [replace(UNAUTHORIZED, server_at=STARTED_S)]
    bench.run()
    assert bench.kinds() == {CANCEL: 1}


def test_a_completed_backup_counts_before_one_under_way() -> None:
    bench = screening(listing(made(10, "in_progress", "u"), made(3000, backup_id="c")), wait=WAIT)
    bench.run()
    assert bench.only.kind is SKIP
    assert (backup_of(bench.only).id, bench.polled()) == ("c", [])


# -- under way ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["requested", "in_progress", "odd"])
def test_a_backup_under_way_is_enough_for_a_run_that_does_not_wait(name: str) -> None:
    bench = screening(listing(made(60, name)))
    bench.run()
    assert (bench.only.kind, bench.posted(), bench.polled()) == (SKIP, [], [])
    assert bench.only.reason
    assert "a backup under way, 1m old" in bench.only.reason


def gate(**fields: Any) -> Bench:
    """Return a bench that waits for, and polls, a backup of others that is under way."""
    return screening(listing(made(60, "in_progress")), **{"wait": WAIT} | fields)


def test_a_run_waits_for_a_backup_under_way_and_skips_the_install() -> None:
    bench = gate()
    bench.api.on_poll = lambda *_: status("completed" if _[2] == 3 else "in_progress", "r-1")
    bench.run()
    assert (bench.only.kind, bench.posted(), len(bench.polled())) == (SKIP, [], 3)
    assert (backup_of(bench.only).status, backup_of(bench.only).description) == ("completed", "Nightly")
    assert bench.only.reason == ("a recent backup was under way; the run waited for it, and it is completed")


def test_an_aborted_backup_of_others_is_replaced_by_a_request_with_the_first_marker() -> None:
    bench = gate()
    bench.api.on_poll = lambda _install, backup, _nth: status("aborted", "r-1") if backup == "r-1" else None
    bench.run()
    assert (bench.only.kind, bench.only.earlier) == (COMPLETE, ())
    assert bench.requested() == [f"x {marker(RUN_ID)}"]
    assert backup_of(bench.only).id == "b-1"


def test_the_replacement_of_a_backup_that_aborted_late_has_its_own_wait() -> None:
    bench = gate()
    bench.api.ends_after_s = TIMEOUT_S - 50
    bench.api.on_poll = lambda _install, backup, nth: (
        None if backup != "r-1" else status("aborted" if nth > 30 else "slow", "r-1")
    )
    bench.run()
    assert bench.only.kind is COMPLETE


def test_an_aborted_replacement_is_requested_once_more() -> None:
    bench = gate(wait=replace(WAIT, retry_aborted=True))
    bench.api.on_poll = lambda _install, backup, _nth: status("aborted", backup) if backup in {"r-1", "b-1"} else None
    bench.run()
    assert (bench.only.kind, [each.id for each in bench.only.earlier]) == (COMPLETE, ["b-1"])
    assert len(bench.posted()) == 2


@pytest.mark.parametrize("held_after_s", [None, 1.0], ids=["slow", "held"])
def test_a_backup_under_way_that_does_not_end_in_time_is_incomplete(held_after_s: float | None) -> None:
    bench = gate(held_after_s=held_after_s)
    bench.api.on_poll = lambda *_: status("in_progress", "r-1")
    bench.run()
    assert (bench.only.kind, bench.posted()) == (INCOMPLETE, [])
    assert (backup_of(bench.only).id, error_of(bench.only).kind) == ("r-1", ErrorKind.TIMEOUT)
    assert TIMEOUT_S <= bench.seconds < TIMEOUT_S + LAST_POLL_S + 1


@pytest.mark.parametrize(
    ("failure", "kind"), [(UNAUTHORIZED, ErrorKind.CREDENTIALS), (QUOTA, ErrorKind.QUOTA)], ids=["401", "quota"]
)
def test_an_install_with_a_backup_of_others_under_way_is_cancelled_if_its_account_stops(
    failure: AttemptResult, kind: ErrorKind
) -> None:
    bench = gate()
    bench.api.checks.append(UNAUTHORIZED)
    bench.api.on_poll = lambda *_: failure
    bench.run()
    assert (bench.only.kind, error_of(bench.only).kind, bench.only.backup) == (CANCEL, kind, None)


def test_the_deadline_does_not_end_the_wait_for_a_backup_under_way_but_prevents_its_replacement() -> None:
    bench = gate(deadline_s=20.0)
    bench.api.on_poll = lambda *_: status("completed" if _[2] == 3 else "in_progress", "r-1")
    assert not bench.run().deadline_passed
    assert bench.only.kind is SKIP
    bench = gate(deadline_s=20.0)
    bench.api.on_poll = lambda *_: status("aborted" if _[2] == 3 else "in_progress", "r-1")
    assert bench.run().deadline_passed
    assert (bench.only.kind, error_of(bench.only).kind, bench.posted()) == (CANCEL, ErrorKind.DEADLINE, [])


# -- the listing -------------------------------------------------------------------------------------------------------


def test_every_page_of_the_listing_is_read() -> None:
    bench = screening(listing(made(9000), next_offset=100), DISCONNECTED, listing(made(60, backup_id="2")))
    bench.run()
    assert (bench.offsets(), bench.only.kind) == ([0, 100, 100], SKIP)


def test_an_endless_listing_is_given_up_and_a_backup_is_requested() -> None:
    pages = [listing(made(9000 + n, backup_id=str(n)), next_offset=n + 1) for n in range(MOST_PAGES + 50)]
    bench = screening(*pages)
    bench.run()
    assert (len(bench.offsets()), bench.only.kind) == (MOST_PAGES, ACCEPT)


def test_a_listing_that_repeats_the_same_page_is_at_its_end() -> None:
    bench = screening(listing(made(9000), next_offset=100))
    bench.run()
    assert (bench.offsets(), bench.only.kind) == ([0, 100], ACCEPT)


@pytest.mark.parametrize(
    ("failure", "reads"),
    [
        (NOT_FOUND, 1),
        (replace(NOT_FOUND, status=302), 1),
        (GATEWAY_TIMEOUT, 3),
        (DISCONNECTED, 3),
        (REFUSED, 3),
        (GARBAGE, 3),
        (UNAUTHORIZED, 1),
    ],
    ids=["404", "302", "504", "reset", "refused", "garbage", "401"],
)
def test_if_the_listing_cannot_be_read_a_backup_is_requested(failure: AttemptResult, reads: int) -> None:
    bench = screening(failure)
    end = bench.run()
    assert end.stops == {}
    assert (len(bench.offsets()), bench.only.kind) == (reads, ACCEPT)
    assert failure is UNAUTHORIZED or "backup.not_screened" in bench.log.names


def test_a_throttled_listing_is_read_again_and_does_not_count_as_failed() -> None:
    bench = screening(*[THROTTLED] * 20, listing(made(60)))
    bench.run()
    assert (len(bench.offsets()), bench.only.kind) == (21, SKIP)


@pytest.mark.parametrize(("failure", "kind"), [(UNAUTHORIZED, ErrorKind.CREDENTIALS), (QUOTA, ErrorKind.QUOTA)])
def test_an_account_that_stops_during_recency_checks_requests_nothing_and_others_go_on(
    failure: AttemptResult, kind: ErrorKind
) -> None:
    bench = screening(failure, installs=5, others=5, throttle=FakeThrottle(concurrency=1))
    bench.api.checks = [OK, UNAUTHORIZED]
    end = bench.run()
    assert {name: stop.kind for name, stop in end.stops.items()} == {"default": kind}
    assert bench.kinds() == {ACCEPT: 5 + sum(bench.api.posts.values()), CANCEL: 5 - sum(bench.api.posts.values())}
    assert bench.sink.of(0).kind is CANCEL


def test_served_listings_keep_an_account_going_even_without_posts() -> None:
    """Listings are served between the two failures, so no time to give up has passed."""
    bench = screening(installs=600, throttle=FakeThrottle(concurrency=1), api=FakeApi(takes_s=1.0))
    for number in range(600):
        bench.api.script_listing(number, *[GATEWAY_TIMEOUT] * (number in {0, 590}), listing(made(60)))
    bench.give_up_s = 300.0
    end = bench.run()
    assert end.stops == {}
    assert bench.kinds() == {SKIP: 600}


def test_a_server_that_serves_no_listing_is_given_up() -> None:
    bench = screening(THROTTLED, api=FakeApi(takes_s=10.0), give_up_s=300.0)
    end = bench.run()
    assert end.stops["default"].kind is ErrorKind.THROTTLED
    assert (bench.only.kind, bench.posted()) == (CANCEL, [])


# -- stopping ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 4, 50])
def test_an_install_in_its_recency_check_at_the_deadline_is_cancelled(concurrency: int) -> None:
    bench = screening(installs=40, deadline_s=1.05, throttle=FakeThrottle(concurrency=concurrency))
    bench.api.list_takes_s = 0.7
    end = bench.run()
    kinds = bench.kinds()
    assert kinds.pop(ACCEPT, 0) == sum(bench.api.posts.values())
    assert set(kinds) <= {CANCEL}
    assert end.deadline_passed is bool(kinds)
    assert {each.error.kind for each in bench.sink.outcomes if each.error} <= {ErrorKind.DEADLINE}
    assert all(at < BEGAN_S + 1.06 for each in bench.api.post_times.values() for at in each)


def test_a_signal_during_a_recency_check_cancels_and_sends_nothing_more() -> None:
    bench = screening(installs=10, signals=((1.0, signal.SIGTERM),))
    bench.api.list_takes_s = 3600.0
    bench.run()
    assert bench.kinds() == {CANCEL: 10}
    assert {each.error.kind for each in bench.sink.outcomes if each.error} == {ErrorKind.INTERRUPTED}
    assert bench.seconds < 2


def test_a_signal_during_the_wait_for_a_backup_of_others_cancels_the_install() -> None:
    bench = gate(signals=((2 * INTERVAL_S, signal.SIGTERM),))
    bench.api.on_poll = lambda *_: status("in_progress", "r-1")
    bench.run()
    assert (bench.only.kind, error_of(bench.only).kind, bench.only.backup) == (CANCEL, ErrorKind.INTERRUPTED, None)
