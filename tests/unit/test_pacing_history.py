"""What the limiter records of starts and refusals: values that share one list and still never change."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from orchestrator.pacing.history import MOST_REFUSALS, MOST_STARTS, History, Starts

SINCE = 10.0
"""When the present meeting with the limit began, unless a test says otherwise."""


def starts(*instants: float) -> Starts:
    return Starts(list(instants), len(instants))


def all_of(subject: Starts) -> list[float]:
    return subject.since(-math.inf)


def recorded(*instants: float) -> History:
    subject = History()
    for at in instants:
        subject = subject.started(at)
    return subject


def after_refusals(*refusals: tuple[float, bool], meeting_since: float = SINCE) -> tuple[float, ...]:
    """Return the refusals that are kept of one meeting. Each is its start, and whether it was a canary."""
    subject = History()
    for at, canary in refusals:
        subject = subject.refused(at, canary=canary, meeting_since=meeting_since)
    return subject.refusals


# -- starts ------------------------------------------------------------------------------------------------------------


def test_starts_that_grow_share_one_list() -> None:
    first = starts(1.0)
    later = first.added(2.0).added(3.0)
    assert later.shared is first.shared
    assert (all_of(later), len(later)) == ([1.0, 2.0, 3.0], 3)


def test_an_older_value_stays_the_same_when_a_newer_one_has_grown() -> None:
    older = starts(1.0, 2.0)
    older.added(3.0).added(4.0)
    assert (all_of(older), len(older)) == ([1.0, 2.0], 2)
    assert (older.before(9.0), older.between(0.0, 9.0), older.last_before(9.0)) == (2, 2, 2.0)
    assert (older.nth_last(1, 9.0), older.nth_last(3, 9.0)) == (2.0, None)
    assert older.without(3.0) is older


def test_two_values_that_grow_from_the_same_one_do_not_mix() -> None:
    older = starts(1.0, 2.0)
    one, other = older.added(3.0), older.added(7.0)
    other_still = other.added(8.0)
    assert (all_of(one), all_of(other), all_of(other_still)) == ([1.0, 2.0, 3.0], [1.0, 2.0, 7.0], [1.0, 2.0, 7.0, 8.0])


def test_beyond_the_most_starts_the_newer_half_is_kept() -> None:
    full = starts(*map(float, range(MOST_STARTS)))
    more = full.added(float(MOST_STARTS))
    assert all_of(more) == [float(at) for at in range(MOST_STARTS // 2, MOST_STARTS + 1)]
    assert len(full) == MOST_STARTS
    assert full.nth_last(MOST_STARTS, math.inf) == 0.0


def test_the_number_of_starts_is_bounded_for_ever() -> None:
    subject, most = Starts([], 0), 0
    for number in range(3 * MOST_STARTS):
        subject = subject.added(float(number))
        most = max(most, len(subject), len(subject.shared))
    assert most == MOST_STARTS
    assert subject.last_before(math.inf) == 3 * MOST_STARTS - 1
    assert all(first < later for first, later in pairwise(all_of(subject)))


def test_one_start_is_removed_and_the_older_value_keeps_it() -> None:
    subject = starts(1.0, 2.0, 2.0, 3.0)
    assert all_of(subject.without(2.0)) == [1.0, 2.0, 3.0]
    assert all_of(subject.without(2.0).without(2.0)) == [1.0, 3.0]
    assert all_of(subject) == [1.0, 2.0, 2.0, 3.0]
    assert subject.without(2.5) is subject
    assert all_of(subject.without(3.0).added(4.0)) == [1.0, 2.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("since", "until", "number"),
    [(1.0, 3.0, 3), (1.0, 3.1, 4), (1.1, 3.0, 2), (0.0, 1.0, 0), (3.1, 9.0, 0), (2.0, 2.0, 0)],
)
def test_a_start_at_the_beginning_of_a_time_counts_and_one_at_its_end_does_not(
    since: float, until: float, number: int
) -> None:
    assert starts(1.0, 2.0, 2.0, 3.0).between(since, until) == number


def test_the_starts_from_and_before_an_instant() -> None:
    subject = starts(1.0, 2.0, 3.0)
    assert (subject.since(2.0), subject.since(3.5), subject.before(2.0)) == ([2.0, 3.0], [], 1)
    assert (subject.last_before(3.0), subject.last_before(1.0)) == (2.0, -math.inf)
    assert [subject.nth_last(number, 3.0) for number in (1, 2, 3)] == [2.0, 1.0, None]


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_a_refused_request_is_no_start() -> None:
    subject = recorded(11.0, 12.0).refused(11.0, canary=False, meeting_since=SINCE)
    assert (all_of(subject.starts), subject.refusals, subject.last_refusal) == ([12.0], (11.0,), 11.0)
    assert History().last_refusal == -math.inf


def test_of_the_ordinary_refusals_of_a_meeting_the_last_to_start_is_kept() -> None:
    assert after_refusals((11.0, False), (13.0, False), (12.0, False)) == (13.0,)


def test_every_refused_canary_is_kept() -> None:
    assert after_refusals((11.0, False), (12.0, True), (13.0, True)) == (11.0, 12.0, 13.0)


def test_a_late_ordinary_refusal_does_not_replace_a_canary() -> None:
    assert after_refusals((11.0, False), (12.0, True), (13.0, True), (11.5, False)) == (11.0, 12.0, 13.0)


def test_the_refusals_of_an_earlier_meeting_stay() -> None:
    subject = History(refusals=(5.0, 6.0))
    for at in (11.0, 12.0):
        subject = subject.refused(at, canary=False, meeting_since=SINCE)
    assert subject.refusals == (5.0, 6.0, 12.0)


def test_only_the_last_refusals_are_kept() -> None:
    kept = after_refusals(*((11.0 + number, True) for number in range(MOST_REFUSALS + 5)))
    assert kept == tuple(11.0 + number for number in range(5, MOST_REFUSALS + 5))


def test_an_acquittal_removes_the_refusals_since_then_only() -> None:
    subject = History(refusals=(5.0, 10.0, 11.0))
    assert subject.acquitted(10.0).refusals == (5.0,)
    assert subject.acquitted(12.0) == subject


# -- what counts -------------------------------------------------------------------------------------------------------


def test_everything_counts_at_first() -> None:
    subject = recorded(1.0, 2.0).refused(3.0, canary=False, meeting_since=0.0)
    assert (subject.counted_starts, subject.counted_refusals, subject.taken) == ([1.0, 2.0], [3.0], [1.0, 2.0])


def test_what_is_forgotten_does_not_count_but_its_level_does() -> None:
    subject = recorded(1.0, 2.0, 3.0, 4.0)
    subject = subject.refused(4.0, canary=False, meeting_since=0.0).refused(5.0, canary=True, meeting_since=0.0)
    later = subject.forgotten(since=3.0, level=2)
    assert (later.counted_starts, later.taken) == ([3.0], [3.0, 3.0, 3.0])
    assert later.counted_refusals == [4.0, 5.0]
    assert later.forgotten(since=4.0, level=0).counted_refusals == [5.0]
    assert all_of(later.starts) == [1.0, 2.0, 3.0]
    assert (subject.counted_starts, subject.taken) == ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])


def test_a_request_that_was_not_sent_is_no_start() -> None:
    subject = recorded(1.0, 2.0)
    assert subject.unsent(1.0).taken == [2.0]
    assert subject.taken == [1.0, 2.0]


def test_the_newer_half_of_many_starts_still_counts() -> None:
    subject = recorded(*map(float, range(MOST_STARTS + 1)))
    assert subject.taken == [float(at) for at in range(MOST_STARTS // 2, MOST_STARTS + 1)]
