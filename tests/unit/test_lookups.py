"""Doubts are looked up: the engine against fakes, in virtual time."""

from __future__ import annotations

import signal
from collections import defaultdict
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from engine_bench import ACCEPT, BEGAN_S, CANCEL, EXHAUST, FAILS, GRACE_S, UNKNOWN, Bench
from fakes import (
    ACCEPTED,
    BROKEN_OFF,
    CERTIFICATE,
    DISCONNECTED,
    EARLIER_RUN_ID,
    GARBAGE,
    GATEWAY_TIMEOUT,
    NOT_FOUND,
    OK,
    QUOTA,
    REFUSED,
    RUN_ID,
    THROTTLED,
    UNAUTHORIZED,
    UNREADABLE,
    FakeApi,
    FakeClock,
    FakeJournal,
    FakeThrottle,
    backup_of,
    error_of,
    install_id,
    listing,
    planned,
    shown,
)

from orchestrator.engine.pending import InDoubt, PendingBackup
from orchestrator.listings import Page
from orchestrator.marker import marker
from orchestrator.model import AttemptResult, Backup, BackupRequest, ErrorInfo, ErrorKind, Outcome, OutcomeKind
from orchestrator.paging import MOST_PAGES
from orchestrator.policies import RetryPolicy

SERVER_AHEAD_S = 1_767_225_600.0
"""The server's clock is ahead of virtual time by this, so that it equals the fakes' wall clock."""
NIGHTLY = shown("n-1", "Nightly")


def looked(bench: Bench, number: int = 0) -> list[int]:
    """Return the seconds in which an install's listing was read."""
    return [round(at) for at in bench.looked(number)]


def posted(bench: Bench, number: int = 0) -> list[int]:
    """Return the seconds in which an install was requested."""
    return [round(at) for at in bench.posted(number)]


def lost(*results: AttemptResult, **fields: Any) -> Bench:
    """Return a bench of one install with a scripted listing. Its POST makes a backup and is answered 504."""
    bench = Bench(**fields)
    bench.api.lose(0, GATEWAY_TIMEOUT)
    if results:
        bench.api.script_listing(0, *results)
    return bench


def not_made(*results: AttemptResult, **fields: Any) -> Bench:
    """Return a bench of one install with a scripted listing. Its first POST makes no backup and is answered 504."""
    bench = Bench(**fields)
    bench.api.script(0, GATEWAY_TIMEOUT, ACCEPTED)
    if results:
        bench.api.script_listing(0, *results)
    return bench


def assert_open(outcome: Outcome, kind: ErrorKind, message: str, status: int | None = None) -> None:
    """Assert that ``outcome`` has its ambiguous answer, and says that the lookup did not come to its end."""
    error = error_of(outcome)
    assert (error.kind, error.status) == (kind, status)
    assert error.message.startswith(f"{message}; the lookup was cut short: ")


# -- found, or absent --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("result", [GATEWAY_TIMEOUT, DISCONNECTED, UNREADABLE], ids=["504", "reset", "202"])
def test_a_listed_backup_is_accepted_immediately_with_its_listed_id(result: AttemptResult) -> None:
    bench = Bench()
    bench.api.lose(0, result)
    bench.run()
    assert (posted(bench), looked(bench)) == ([0], [0])
    assert (bench.only.kind, bench.only.reconciled, bench.only.error) == (ACCEPT, True, None)
    assert [backup_of(bench.only).id] == bench.api.made(0)


def test_an_absent_backup_is_looked_up_again_after_the_grace_and_requested_once_more() -> None:
    bench = not_made()
    bench.run()
    assert (looked(bench), posted(bench)) == ([0, 120], [0, 120])
    assert bench.api.post_times[install_id(0)][1] - bench.api.post_times[install_id(0)][0] > GRACE_S
    assert (bench.only.kind, bench.only.reconciled, bench.only.spent.attempts) == (ACCEPT, False, 2)


@pytest.mark.parametrize(("lag_s", "looks"), [(0.05, 1), (1.0, 2), (60.0, 2), (119.0, 2)])
def test_a_listing_that_lags_within_the_grace_causes_no_second_backup(lag_s: float, looks: int) -> None:
    bench = lost()
    bench.api.lists_after_s = lag_s
    bench.run()
    assert (len(looked(bench)), posted(bench)) == (looks, [0])
    assert (bench.only.kind, bench.only.reconciled) == (ACCEPT, True)


def test_an_unreadable_202_that_is_never_listed_is_unconfirmed_and_not_repeated() -> None:
    bench = Bench()
    bench.api.script(0, UNREADABLE)
    bench.run()
    assert (looked(bench), posted(bench)) == ([0, 120], [0])
    assert bench.only.kind is UNKNOWN
    assert error_of(bench.only).message == "no JSON; its listing does not show the backup"


@pytest.mark.parametrize(
    ("statuses", "first"),
    [
        (("completed", "requested"), 0),
        (("requested", "completed"), 0),
        (("aborted", "requested"), 1),
        (("aborted", "aborted", "in_progress"), 2),
        (("aborted", "aborted"), 0),
    ],
)
def test_if_several_backups_are_found_one_that_is_not_aborted_counts_and_all_are_reported(
    statuses: tuple[str, ...], first: int
) -> None:
    found = [shown(f"b-{number}", status=status) for number, status in enumerate(statuses)]
    bench = lost(listing(*found))
    bench.run()
    assert bench.only.kind is ACCEPT
    assert bench.only.backup == found[first]
    assert set(bench.only.earlier) == {*found} - {found[first]}
    assert ("backup.made_twice" in bench.log.names, posted(bench)) == (True, [0])


# -- pages -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [0, 1, 2])
def test_pages_are_read_until_the_backup_is_found(page: int) -> None:
    others = [replace(NIGHTLY, id=f"nightly {number}") for number in range(3)]
    pages = [listing(shown("b") if page == number else others[number], next_offset=number + 1) for number in range(3)]
    bench = lost(*pages, replace(pages[2], page=None, status=500))
    bench.run()
    assert bench.offsets() == list(range(page + 1))
    assert (bench.only.kind, posted(bench)) == (ACCEPT, [0])


def test_absence_is_proved_by_all_pages_and_each_lookup_begins_at_the_first() -> None:
    pages = [listing(shown(str(n), marker(EARLIER_RUN_ID)), next_offset=(100, 200, None)[n]) for n in range(3)]
    bench = not_made(*pages * 2)
    bench.run()
    assert bench.offsets() == [0, 100, 200] * 2
    assert (bench.only.kind, posted(bench)) == (ACCEPT, [0, 120])


def test_a_failed_page_is_read_again_without_the_pages_before_it() -> None:
    bench = lost(listing(NIGHTLY, next_offset=100), DISCONNECTED, THROTTLED, listing(shown("b")))
    bench.run()
    assert bench.offsets() == [0, 100, 100, 100]
    assert bench.only.kind is ACCEPT


def test_an_endless_listing_is_given_up() -> None:
    bench = lost(*[listing(replace(NIGHTLY, id=str(number)), next_offset=number + 1) for number in range(200)])
    bench.run()
    assert (len(looked(bench)), posted(bench)) == (MOST_PAGES, [0])
    assert bench.only.kind is UNKNOWN
    assert "its listing does not end within" in error_of(bench.only).message


def test_a_listing_that_repeats_the_same_page_is_at_its_end() -> None:
    bench = not_made(listing(NIGHTLY, shown("e", marker(EARLIER_RUN_ID)), next_offset=2))
    bench.run()
    assert bench.offsets() == [0, 2] * 2
    assert (bench.only.kind, posted(bench)) == (ACCEPT, [0, 120])


def page(*backups: Backup, total: int, next_offset: int | None) -> AttemptResult:
    return replace(OK, page=Page(backups, next_offset, total))


def test_a_listing_that_changes_while_its_account_stops_stays_open_and_blocks_nothing() -> None:
    bench = Bench(installs=2)
    first = page(NIGHTLY, total=3, next_offset=1)
    for number, second in enumerate((QUOTA, page(replace(NIGHTLY, id="n2"), total=2, next_offset=None))):
        bench.api.lose(number, GATEWAY_TIMEOUT)
        bench.api.script_listing(number, first, second)
    bench.run()
    assert bench.kinds() == {UNKNOWN: 2}


def test_a_listing_that_changes_between_two_pages_is_read_again_from_the_first() -> None:
    first, moved = page(NIGHTLY, total=3, next_offset=1), page(replace(NIGHTLY, id="n2"), total=2, next_offset=None)
    bench = lost(first, moved, page(NIGHTLY, shown("b"), total=2, next_offset=None))
    bench.run()
    assert bench.offsets() == [0, 1, 0]
    assert (bench.only.kind, posted(bench)) == (ACCEPT, [0])


# -- unreadable listings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [302, 400, 403, 404, 405])
def test_without_a_listing_an_install_is_unconfirmed_immediately(status: int) -> None:
    bench = lost(replace(NOT_FOUND, status=status, message="no such thing"))
    bench.run()
    assert (looked(bench), posted(bench), bench.only.kind) == ([0], [0], UNKNOWN)
    assert bench.only.sought == (RUN_ID,)
    assert (error_of(bench.only).status, error_of(bench.only).kind) == (504, ErrorKind.UNAVAILABLE)
    assert error_of(bench.only).message == "Endpoint request timed out; its listing cannot be read (no such thing)"


@pytest.mark.parametrize("failures", [[GATEWAY_TIMEOUT], [DISCONNECTED, REFUSED, GARBAGE, GATEWAY_TIMEOUT] * 2])
def test_a_lookup_waits_for_a_listing_that_fails_for_a_while(failures: list[AttemptResult]) -> None:
    bench = lost(*failures, listing(shown("b")))
    bench.run()
    assert (len(looked(bench)), posted(bench)) == (len(failures) + 1, [0])
    assert (bench.only.kind, bench.only.reconciled) == (ACCEPT, True)


@pytest.mark.parametrize("failure", [GATEWAY_TIMEOUT, DISCONNECTED, REFUSED, GARBAGE])
def test_a_listing_that_always_fails_is_given_up_once_the_grace_is_over(failure: AttemptResult) -> None:
    bench = lost(failure)
    bench.run()
    assert (bench.only.kind, posted(bench)) == (UNKNOWN, [0])
    assert GRACE_S < bench.seconds < GRACE_S + 60
    assert len(looked(bench)) < 20
    assert "its listing cannot be read" in error_of(bench.only).message


def test_the_lookup_after_the_grace_has_all_attempts_for_each_page() -> None:
    page = listing(next_offset=100)
    bench = not_made(listing(), DISCONNECTED, DISCONNECTED, page, DISCONNECTED, DISCONNECTED, listing())
    bench.run()
    assert (len(looked(bench)), len(posted(bench)), bench.only.kind) == (7, 2, ACCEPT)


def test_a_lookup_that_began_within_the_grace_is_no_proof_even_if_its_answer_comes_later() -> None:
    bench = not_made()
    bench.api.list_takes_s = 130.0
    bench.run()
    assert (looked(bench), posted(bench)) == ([0, 130], [0, 260])


def test_a_throttled_listing_is_read_again_and_does_not_count_as_failed() -> None:
    bench = lost(*[THROTTLED] * 50, listing(shown("b")))
    bench.run()
    assert (bench.only.kind, bench.only.spent.throttled, bench.accounts[0].throttled) == (ACCEPT, 0, 50)


def test_a_refused_listing_leaves_the_install_unconfirmed_and_the_account_goes_on() -> None:
    bench = lost(UNAUTHORIZED, installs=6)
    bench.run()
    assert bench.kinds() == {ACCEPT: 5, UNKNOWN: 1}
    assert bench.api.checked == 2
    assert "its listing is refused (Bad Credentials)" in error_of(bench.sink.of(0)).message


@pytest.mark.parametrize(
    ("look", "check", "kind"),
    [
        (UNAUTHORIZED, UNAUTHORIZED, ErrorKind.CREDENTIALS),
        (QUOTA, OK, ErrorKind.QUOTA),
        (CERTIFICATE, OK, ErrorKind.NETWORK),
        (replace(THROTTLED, retry_after_s=3600.0), OK, ErrorKind.THROTTLED),
    ],
)
def test_a_lookup_that_stops_the_account_leaves_its_install_unconfirmed_and_cancels_the_others(
    look: AttemptResult, check: AttemptResult, kind: ErrorKind
) -> None:
    bench = lost(look, installs=20, throttle=FakeThrottle(1))
    bench.api.checks = [OK, check]
    end = bench.run()
    assert bench.sink.of(0).kind is UNKNOWN
    assert_open(bench.sink.of(0), ErrorKind.UNAVAILABLE, GATEWAY_TIMEOUT.message, 504)
    assert end.stops["default"].kind is kind
    assert bench.kinds()[CANCEL] > 15
    assert bench.api.posts[install_id(0)] == 1


# -- markers that come back, or not ------------------------------------------------------------------------------------


def beside(specimen: list[AttemptResult | None], *own: Backup, sent: bool = False) -> Bench:
    """Return a bench of a healthy install with a scripted listing, and of one in doubt whose listing has ``own``.

    The first POST of the install in doubt makes no backup. If an earlier process sent it, the grace is half over;
    with ``sent`` this process sends it.
    """
    doubted = PendingBackup(planned(1)) if sent else in_doubt(1, since=BEGAN_S - GRACE_S / 2)
    bench = Bench(pending=[PendingBackup(planned(0)), doubted])
    bench.api.script(1, *([GATEWAY_TIMEOUT] if sent else []), ACCEPTED)
    bench.api.script_listing(0, *specimen)
    bench.api.script_listing(1, listing(*own))
    return bench


def in_doubt(number: int, since: float = BEGAN_S, ago_s: float | None = None) -> PendingBackup:
    """Return a resumed backup in doubt; its request was given up ``ago_s`` ago by the server's clock."""
    server_since = None if ago_s is None else BEGAN_S + SERVER_AHEAD_S - ago_s
    doubt = InDoubt(ErrorInfo(ErrorKind.INTERRUPTED, "cut off"), since, server_since=server_since, is_inherited=True)
    return PendingBackup(planned(number), tries=1, attempts=1, sought=(RUN_ID,), state=doubt)


SPOILED = listing(shown("b-1", "x"))


def test_if_a_specimen_shows_its_marker_absence_is_proof() -> None:
    bench = beside([None], NIGHTLY, sent=True)
    bench.run()
    assert bench.kinds() == {ACCEPT: 2}
    assert (looked(bench, 0), looked(bench, 1), posted(bench, 1)) == ([0], [0, 120], [0, 120])


@pytest.mark.parametrize("description", ["", " ", "x", "x [wpe-back…"])
def test_even_if_markers_come_back_a_backup_that_could_be_ours_prevents_proof(description: str) -> None:
    bench = beside([None], shown("b", description), sent=True)
    bench.run()
    assert (bench.sink.of(1).kind, posted(bench, 1)) == (UNKNOWN, [0])


def test_if_a_specimen_does_not_show_its_marker_after_the_grace_absence_is_no_proof() -> None:
    bench = beside([SPOILED], NIGHTLY, sent=True)
    bench.run()
    assert (bench.sink.of(1).kind, posted(bench, 1)) == (UNKNOWN, [0])
    assert (looked(bench, 0), looked(bench, 1)) == ([0, 120], [0, 120])
    assert "a backup that has no marker and may come from this run" in error_of(bench.sink.of(1)).message


@pytest.mark.parametrize(("later", "kind", "posts"), [(SPOILED, UNKNOWN, []), (None, ACCEPT, [120])])
def test_a_specimen_without_its_marker_also_gets_the_grace(
    later: AttemptResult | None, kind: OutcomeKind, posts: list[int]
) -> None:
    bench = beside([SPOILED, later], NIGHTLY)
    bench.run()
    assert (looked(bench, 0), looked(bench, 1)) == ([60, 120], [0, 60, 120])
    assert (bench.sink.of(1).kind, posted(bench, 1)) == (kind, posts)


@pytest.mark.parametrize("failure", [NOT_FOUND, UNAUTHORIZED, listing(NIGHTLY, next_offset=100)], ids=str)
def test_a_specimen_with_an_unreadable_listing_proves_nothing(failure: AttemptResult) -> None:
    bench = beside([failure], NIGHTLY)
    bench.run()
    assert (bench.sink.of(0).kind, bench.sink.of(1).kind, posted(bench, 1)) == (ACCEPT, UNKNOWN, [])


def test_a_specimen_with_an_unreadable_listing_does_not_end_the_doubt_before_the_grace() -> None:
    bench = beside([NOT_FOUND], NIGHTLY, sent=True)
    bench.api.script_listing(1, listing(NIGHTLY), listing(NIGHTLY, shown("b")))
    bench.run()
    assert (bench.sink.of(1).kind, bench.sink.of(1).reconciled, looked(bench, 1)) == (ACCEPT, True, [0, 120])


def test_the_listing_of_a_specimen_is_read_again_if_it_fails_for_a_while() -> None:
    bench = beside([DISCONNECTED, THROTTLED, None], NIGHTLY)
    bench.run()
    assert bench.kinds() == {ACCEPT: 2}
    assert len(looked(bench, 0)) == 3


def test_no_specimen_is_needed_if_the_installs_own_listing_shows_markers() -> None:
    bench = beside([SPOILED], NIGHTLY, shown("e", marker(EARLIER_RUN_ID)))
    bench.run()
    assert bench.kinds() == {ACCEPT: 2}
    assert (looked(bench, 0), posted(bench, 1)) == ([], [60])


def test_markers_in_one_listing_count_for_the_whole_account() -> None:
    bench = Bench(installs=2)
    bench.api.script(0, GATEWAY_TIMEOUT, ACCEPTED)
    bench.api.script(1, GATEWAY_TIMEOUT, ACCEPTED)
    bench.api.script_listing(0, listing(shown("e", marker(EARLIER_RUN_ID))))
    bench.api.script_listing(1, listing(NIGHTLY))
    bench.run()
    assert bench.kinds() == {ACCEPT: 2}
    assert (posted(bench, 0), posted(bench, 1)) == ([0, 120], [0, 120])


@pytest.mark.parametrize(
    ("create_time", "server_at", "kind"),
    [
        ("2026-01-01T00:16:30Z", BEGAN_S + SERVER_AHEAD_S, ACCEPT),
        ("2026-01-01T00:16:37Z", BEGAN_S + SERVER_AHEAD_S, UNKNOWN),
        ("2026-01-01T00:16:30Z", None, UNKNOWN),
        ("2026-01-01T00:16:30Z", BEGAN_S + SERVER_AHEAD_S - 3600, UNKNOWN),
        ("2025-12-31T23:16:30Z", BEGAN_S + SERVER_AHEAD_S - 3600, ACCEPT),
    ],
)
def test_without_markers_only_backups_that_are_older_by_the_servers_clock_prove_absence(
    create_time: str, server_at: float | None, kind: OutcomeKind
) -> None:
    bench = not_made(listing(shown("n", "Nightly", create_time=create_time)))
    bench.api.checks = [replace(OK, server_at=server_at)]
    bench.run()
    assert (bench.only.kind, len(posted(bench))) == (kind, 2 if kind is ACCEPT else 1)


def test_a_backup_whose_marker_was_cut_is_not_requested_again() -> None:
    bench = Bench(installs=2)
    long = replace(planned(1).request, description=f"{'Before the upgrade of all plugins, ' * 3}{marker(RUN_ID)}")
    bench.pending = [PendingBackup(planned(0)), PendingBackup(replace(planned(1), request=long))]
    bench.api.lose(1, GATEWAY_TIMEOUT)
    cut = shown("made-0", long.description[:64], create_time="2026-01-01T00:20:00Z")
    bench.api.script_listing(1, listing(cut))
    bench.run()
    assert bench.api.posts == {install_id(0): 1, install_id(1): 1}
    assert bench.sink.of(1).kind is UNKNOWN


# -- time limits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retry", "posts"),
    [
        (RetryPolicy(3, 3600.0), 3),
        (RetryPolicy(1, 3600.0), 1),
        (RetryPolicy(10, 200.0), 2),
        (RetryPolicy(10, 100.0), 1),
    ],
)
def test_an_install_that_stays_absent_is_exhausted_by_its_attempts_or_its_deadline(
    retry: RetryPolicy, posts: int
) -> None:
    bench = Bench(retry=retry)
    bench.api.script(0, GATEWAY_TIMEOUT)
    bench.run()
    assert (bench.only.kind, len(posted(bench))) == (EXHAUST, posts)
    assert (bench.only.spent.attempts, bench.only.sought) == (posts, ())
    assert bench.only.error == ErrorInfo(ErrorKind.UNAVAILABLE, GATEWAY_TIMEOUT.message, 504)
    assert posts * GRACE_S < bench.seconds < posts * GRACE_S + 10


def test_a_thousand_doubts_wait_for_the_same_grace() -> None:
    bench = Bench(installs=1000, api=FakeApi(takes_s=0.01), throttle=FakeThrottle(64))
    for number in range(1000):
        bench.api.script(number, GATEWAY_TIMEOUT, ACCEPTED)
    bench.run()
    assert bench.kinds() == {ACCEPT: 1000}
    assert set(bench.api.posts.values()) == {2}
    assert GRACE_S < bench.seconds < 1.1 * GRACE_S


class SteppedClock(FakeClock):
    """A wall clock that jumps forward and back by days each time it is read."""

    def __init__(self) -> None:
        self._read = 0

    def now(self) -> datetime:
        self._read += 1
        return super().now() + timedelta(days=(-1) ** self._read * self._read)


def test_jumps_of_the_wall_clock_do_not_change_the_requests() -> None:
    requests = []
    for clock in (FakeClock(), SteppedClock()):
        bench = Bench(installs=3, clock=clock)
        bench.api.checks = [replace(OK, server_at=BEGAN_S + SERVER_AHEAD_S)]
        bench.api.script(0, GATEWAY_TIMEOUT, ACCEPTED)
        bench.api.lose(1, DISCONNECTED)
        bench.run()
        assert bench.kinds() == {ACCEPT: 3}
        requests.append((bench.api.post_times, bench.api.looks))
    assert requests[0] == requests[1]


@pytest.mark.parametrize(
    ("ago_s", "knows_clock", "looks", "post"),
    [
        (1000.0, True, [0], 0),
        (60.0, True, [0, 60], 60),
        (0.0, True, [0, 120], 120),
        (-500.0, True, [0, 120], 120),
        (None, True, [0, 120], 120),
        (1000.0, False, [0, 120], 120),
    ],
)
def test_the_grace_of_a_resumed_doubt_restarts_unless_the_servers_clock_shows_its_age(
    ago_s: float | None,
    knows_clock: bool,  # noqa: FBT001 - a column of the table
    looks: list[int],
    post: int,
) -> None:
    bench = Bench(pending=[in_doubt(0, ago_s=ago_s)], clock=SteppedClock())
    bench.api.checks = [replace(OK, server_at=BEGAN_S + SERVER_AHEAD_S if knows_clock else None)]
    bench.run()
    assert (looked(bench), posted(bench)) == (looks, [post])
    assert (bench.only.kind, bench.only.spent.attempts) == (ACCEPT, 2)


def test_a_resumed_doubt_is_found_by_the_marker_of_any_run_that_may_have_made_it() -> None:
    pending = in_doubt(0)
    pending.sought = (EARLIER_RUN_ID, RUN_ID)
    bench = Bench(pending=[pending])
    bench.api.script_listing(0, listing(shown("b", marker(EARLIER_RUN_ID))))
    bench.run()
    assert (bench.only.kind, bench.only.reconciled, posted(bench)) == (ACCEPT, True, [])


# -- early ends --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("list_takes_s", "after_s"), [(30.0, 5.0), (0.1, 60.0), (0.1, 0.15)], ids=["in a lookup", "waiting", "in the POST"]
)
def test_a_signal_leaves_an_install_in_doubt_unconfirmed_and_waits_for_no_lookup(
    list_takes_s: float, after_s: float
) -> None:
    bench = lost(listing(), signals=((after_s, signal.SIGTERM),))
    bench.api.list_takes_s = list_takes_s
    end = bench.run()
    assert (bench.only.kind, posted(bench)) == (UNKNOWN, [0])
    assert_open(bench.only, ErrorKind.UNAVAILABLE, GATEWAY_TIMEOUT.message, 504)
    assert (end.interrupted, bench.seconds <= after_s + 0.1) == (True, True)


def test_the_second_signal_leaves_a_request_in_flight_unconfirmed_immediately() -> None:
    bench = Bench(api=FakeApi(takes_s=30.0), signals=((40.0, signal.SIGINT), (41.0, signal.SIGTERM)))
    bench.run()
    assert (bench.only.kind, posted(bench), looked(bench)) == (UNKNOWN, [30], [])
    assert_open(bench.only, ErrorKind.INTERRUPTED, BROKEN_OFF.message)
    assert bench.seconds == pytest.approx(41.0)


def test_an_account_that_stops_leaves_an_install_unconfirmed_that_waits_for_its_last_lookup() -> None:
    bench = not_made(installs=3)
    bench.api.script(1, REFUSED, REFUSED, QUOTA)
    bench.run()
    kinds = [bench.sink.of(number).kind for number in range(3)]
    assert kinds == [UNKNOWN, CANCEL, ACCEPT]
    assert bench.seconds < GRACE_S


@pytest.mark.parametrize("result", [GATEWAY_TIMEOUT, DISCONNECTED, UNREADABLE], ids=["504", "reset", "202"])
def test_without_lookups_an_install_in_doubt_is_unconfirmed_immediately(result: AttemptResult) -> None:
    bench = Bench(reconcile=FAILS)
    bench.api.lose(0, result)
    bench.run()
    assert (bench.only.kind, posted(bench), looked(bench)) == (UNKNOWN, [0], [])
    assert bench.seconds < 1


# -- intents -----------------------------------------------------------------------------------------------------------


def test_each_post_has_its_own_intent_on_disk_before_it_is_sent() -> None:
    bench = Bench(installs=4, journal=FakeJournal(takes_s=0.5))
    bench.api.script(0, GATEWAY_TIMEOUT, ACCEPTED)
    bench.api.script(1, THROTTLED, REFUSED, ACCEPTED)
    bench.api.lose(2, UNREADABLE)
    sent: dict[str, int] = defaultdict(int)

    def hold(request: BackupRequest) -> None:
        sent[request.install_id] += 1
        intents = [each for each in bench.journal.noted if each.planned.request == request]
        assert len(intents) == sent[request.install_id]
        assert (intents[-1].sought, intents[-1].error) == ((RUN_ID,), None)

    bench.api.on_request = hold
    bench.run()
    assert bench.kinds() == {ACCEPT: 4}
    assert (sum(sent.values()), len(bench.journal.noted)) == (7, 7)


@pytest.mark.parametrize("full_after", [0, 1, 7])
def test_if_an_intent_cannot_be_stored_nothing_is_sent_and_the_run_ends(full_after: int) -> None:
    bench = Bench(installs=40, journal=FakeJournal(full_after=full_after))
    end = bench.run()
    assert str(end.write_error) == "the journal's disk is full"
    assert bench.api.posts.total() == len(bench.journal.noted) <= full_after
    assert bench.kinds() == {CANCEL: 40 - full_after} | ({ACCEPT: full_after} if full_after else {})
    assert (bench.api.looks, end.unwritten) == ({}, [])
