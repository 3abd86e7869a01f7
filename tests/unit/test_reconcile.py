"""Conclusions from a listing: each row has something that a server may show, and the conclusion."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from html import escape

import pytest
from fakes import EARLIER_RUN_ID, RUN_ID, shown
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.marker import marker
from orchestrator.model import Backup, OutcomeKind
from orchestrator.outcome import Answer, Decision, Step
from orchestrator.policies import RetryPolicy
from orchestrator.reconcile import CLOCK_SLACK_S, LIKENESS, Fate, Sight, Sought, decide_failed_read, fate_of, seen

SENT = datetime(2026, 11, 23, 1, 0, 0, tzinfo=UTC)
OURS = f"Before the upgrade of all plugins {marker(RUN_ID)}"
SOUGHT = Sought((RUN_ID,), SENT.timestamp(), OURS)
POLICY = RetryPolicy(max_attempts=3)


def at(seconds: float) -> str:
    """Return the time ``seconds`` after the request was sent, in the API's format."""
    return (SENT + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def sight_of(*backups: Backup, sought: Sought = SOUGHT) -> Sight:
    return seen(Sight(), backups, sought)


def fates(*backups: Backup, sought: Sought = SOUGHT) -> tuple[Fate, Fate]:
    """Return the conclusion if nothing is known about markers, and the one if markers are known to come back."""
    sight = sight_of(*backups, sought=sought)
    return fate_of(sight, markers_come_back=False), fate_of(sight, markers_come_back=True)


ABSENT, OPEN, FOUND = Fate.ABSENT, Fate.OPEN, Fate.FOUND

# -- the marker --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "description",
    [
        marker(RUN_ID),
        OURS,
        f"{marker(RUN_ID)} at the beginning",
        f"in the{marker(RUN_ID)}middle",
        f"{marker(EARLIER_RUN_ID)} and {marker(RUN_ID)}",
        f"<p>{escape('A & B')} {marker(RUN_ID)}</p>",
        f"two lines\n{marker(RUN_ID)}\r\n",
        f"an ellipsis… {marker(RUN_ID)}",
    ],
)
@pytest.mark.parametrize("create_time", [None, at(-86_400), at(0), at(86_400), "yesterday"])
def test_a_complete_marker_is_found_anywhere_in_the_description_and_at_any_time(
    description: str, create_time: str | None
) -> None:
    backup = Backup("b", "completed", description, create_time)
    assert sight_of(backup) == Sight(found=(backup,), has_markers=True)
    assert fates(backup) == (FOUND, FOUND)


@pytest.mark.parametrize(
    "description",
    [
        marker(RUN_ID)[:-1],
        marker(RUN_ID)[1:],
        marker(RUN_ID[:-1]),
        marker(RUN_ID + "0"),
        marker("0" + RUN_ID),
        marker(RUN_ID[1:]),
        marker(RUN_ID).lower(),
        marker(RUN_ID).replace(" ", "  "),
        marker(RUN_ID).replace("[", "&#91;"),
        marker(RUN_ID).replace("[", "%5B").replace("]", "%5D"),
        f"wpe-backup {RUN_ID}",
        RUN_ID,
    ],
)
def test_text_similar_to_our_marker_is_no_marker(description: str) -> None:
    backup = Backup("b", "completed", description, at(0))
    sight = sight_of(backup)
    assert (sight.found, sight.has_markers, sight.has_unmarked) == ((), False, True)
    assert fates(backup)[0] is OPEN


@pytest.mark.parametrize("description", [marker(EARLIER_RUN_ID), f"[wpe-backup {EARLIER_RUN_ID}/2]"])
def test_a_backup_of_another_run_is_not_ours_and_shows_that_markers_come_back(description: str) -> None:
    other = Backup("b", "completed", f"x {description}", at(1))
    assert sight_of(other) == Sight(has_markers=True)
    assert fates(other) == (ABSENT, ABSENT)


def test_the_second_backup_of_this_run_is_not_taken_for_the_first() -> None:
    assert sight_of(shown("b", f"x [wpe-backup {RUN_ID}/2]")) == Sight(has_markers=True)


def test_the_marker_of_each_sought_run_is_found() -> None:
    mine, earlier, strange = shown("1"), shown("2", marker(EARLIER_RUN_ID)), shown("3", marker(RUN_ID[:-1] + "7"))
    sought = Sought((EARLIER_RUN_ID, RUN_ID), SENT.timestamp(), OURS)
    assert sight_of(strange, mine, earlier, sought=sought).found == (mine, earlier)


def test_pages_add_up_and_no_page_undoes_another() -> None:
    pages = [[shown("1")], [], [shown("2", "")], [shown("3", "Nightly")], [shown("4"), shown("5", OURS)]]
    sight = Sight()
    for page in pages:
        sight = seen(sight, page, SOUGHT)
    assert sight == sight_of(*(backup for page in pages for backup in page))
    assert [backup.id for backup in sight.found] == ["1", "4", "5"]
    assert (sight.has_markers, sight.has_unmarked, sight.has_likely) == (True, True, True)


def test_an_empty_listing_proves_absence() -> None:
    assert fates() == (ABSENT, ABSENT)


# -- the time ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("create_time", "is_older"),
    [
        (at(-86_400), True),
        (at(-CLOCK_SLACK_S - 1), True),
        ("2026-11-23T00:59:54.999Z", True),
        ("2026-11-23T01:59:54+01:00", True),
        ("2026-11-22T20:59:54-04:00", True),
        ("2026-11-23 00:59:54+00:00", True),
        ("0001-01-01T00:00:00+23:59", True),
        (at(-CLOCK_SLACK_S), False),
        ("2026-11-23T00:59:55.001Z", False),
        ("2026-11-23T00:59:54-00:01", False),
        (at(0), False),
        (at(86_400), False),
        ("9999-12-31T23:59:59-23:59", False),
        ("2026-11-22T01:00:00", False),
        ("2026-11-22", False),
        ("Sun, 22 Nov 2026 01:00:00 GMT", False),
        ("1700000000", False),
        ("yesterday", False),
        ("", False),
        ("\ud800", False),
        (None, False),
    ],
)
def test_only_a_time_with_a_zone_surely_before_the_request_makes_a_backup_older(
    create_time: str | None,
    is_older: bool,  # noqa: FBT001 - a column of the table
) -> None:
    assert fates(Backup("b", "completed", "Nightly", create_time))[0] is (ABSENT if is_older else OPEN)


def test_without_the_servers_clock_no_backup_is_older() -> None:
    undated = Sought((RUN_ID,), None, OURS)
    assert fates(Backup("b", "completed", "Nightly", at(-86_400)), sought=undated)[0] is OPEN
    assert fates(sought=undated)[0] is ABSENT


# -- the description ---------------------------------------------------------------------------------------------------

BLANK = [None, "", " ", "\n\t", "…", "..."]
CUT = [
    OURS[:1],
    OURS[:20],
    OURS[:20] + "…",
    OURS[:20] + "...",
    OURS[:20] + " …",
    f"  {OURS[:20]}  ",
    OURS[:-1],
    OURS[: OURS.index("]")] + "…",
    OURS.removesuffix(marker(RUN_ID)).rstrip(),
]
BEGINS_LIKE_OURS = [
    OURS.replace("[", "&#91;"),
    escape(f"{OURS[:LIKENESS]} A & B") + " [wpe-backup",
    OURS[:LIKENESS] + "something else altogether",
    OURS.replace(RUN_ID, RUN_ID[::-1].lower()),
]
OTHERS = ["Nightly", "Automatic backup", "before the upgrade", "the upgrade of all plugins", "x"]


@pytest.mark.parametrize("description", [*BLANK, *CUT, *BEGINS_LIKE_OURS])
def test_a_description_that_could_be_ours_prevents_proof_even_if_markers_come_back(description: str | None) -> None:
    backup = Backup("b", "requested", description, at(1))
    assert fates(backup) == (OPEN, OPEN)
    assert fates(backup, shown("1", marker(EARLIER_RUN_ID))) == (OPEN, OPEN)


@pytest.mark.parametrize("description", OTHERS)
def test_another_description_could_be_ours_only_until_markers_are_known_to_come_back(description: str) -> None:
    backup = Backup("b", "requested", description, at(1))
    assert fates(backup) == (OPEN, ABSENT)
    assert fates(backup, shown("1", marker(EARLIER_RUN_ID))) == (ABSENT, ABSENT)


@pytest.mark.parametrize("description", [*BLANK, *CUT, *BEGINS_LIKE_OURS, *OTHERS])
def test_an_older_backup_is_not_ours_whatever_its_description(description: str | None) -> None:
    assert fates(Backup("b", "completed", description, at(-60))) == (ABSENT, ABSENT)


@pytest.mark.parametrize(
    "spoiled", [" Before", "Before the", "Before the upgrade of all…", " Before the upgrade of all"]
)
def test_a_description_that_begins_with_a_blank_is_recognised_even_if_trimmed_and_cut(spoiled: str) -> None:
    ours = Sought((RUN_ID,), SENT.timestamp(), f" {OURS}")  # "{environment} Before …" without an environment
    assert fates(Backup("b", "requested", spoiled, at(1)), sought=ours) == (OPEN, OPEN)


# -- random listings ---------------------------------------------------------------------------------------------------


@st.composite
def sent_descriptions(draw: st.DrawFn) -> str:
    return " " * draw(st.integers(0, 1)) + f"{draw(st.text(max_size=40))} {marker(RUN_ID)}"


@st.composite
def backups_beside(draw: st.DrawFn, ours: str) -> Backup:
    """Draw a backup: ours (complete, cut or blank) or somebody else's, with any time or none."""
    cut = st.integers(0, len(ours) - 1).map(lambda length: ours[:length])
    description = draw(
        st.none()
        | st.text(max_size=30)
        | st.text(alphabet=" \t\n.…", max_size=4)
        | cut
        | st.tuples(cut, st.sampled_from(["…", "...", " …", " "])).map("".join)
        | st.sampled_from([marker(EARLIER_RUN_ID), f"Nightly {marker(EARLIER_RUN_ID)}"])
    )
    moments = st.integers(-200, 200).map(at)
    create_time = draw(st.none() | moments | moments.map(lambda text: text.rstrip("Z")) | st.text(max_size=25))
    return Backup("b", "requested", description, create_time)


def could_be(backup: Backup, sought: Sought) -> bool:
    """Tell, independently of the code, whether ``backup`` may be the request's backup with a spoiled description.

    A spoiled description is blank, or cut with or without an ellipsis, and may be trimmed.
    """
    try:
        at = datetime.fromisoformat(backup.create_time or "")
        age_s = (sought.sent_at or 0) - (at.timestamp() if at.tzinfo else float("inf"))
    except ValueError:
        age_s = float("-inf")
    if sought.sent_at is not None and age_s > CLOCK_SLACK_S:
        return False
    text = backup.description or ""
    return not text.strip(" \n\t.…") or any(
        text.strip() == (ours[:length] + end).strip()
        for ours in (sought.description, sought.description.lstrip())
        for length in range(1, len(ours))
        for end in ("", "…", "...", " …")
    )


@given(st.data(), sent_descriptions(), st.none() | st.just(SENT.timestamp()), st.booleans())
def test_absence_is_never_concluded_while_a_backup_that_could_be_ours_is_listed(
    data: st.DataObject,
    ours: str,
    sent_at: float | None,
    markers_come_back: bool,  # noqa: FBT001 - drawn
) -> None:
    sought = Sought((RUN_ID,), sent_at, ours)
    pages = data.draw(st.lists(st.lists(backups_beside(ours), max_size=4), max_size=4))
    sight = Sight()
    for page in pages:
        sight = seen(sight, page, sought)
    if any(could_be(backup, sought) for page in pages for backup in page):
        assert fate_of(sight, markers_come_back=markers_come_back) is OPEN


@given(st.data(), sent_descriptions(), st.booleans())
def test_a_backup_with_our_marker_is_found_among_any_others(
    data: st.DataObject,
    ours: str,
    markers_come_back: bool,  # noqa: FBT001 - drawn
) -> None:
    listed = data.draw(st.lists(backups_beside(ours), max_size=6))
    listed.insert(data.draw(st.integers(0, len(listed))), Backup("ours", "requested", ours))
    sight = sight_of(*listed, sought=Sought((RUN_ID,), None, ours))
    assert "ours" in {backup.id for backup in sight.found}
    assert fate_of(sight, markers_come_back=markers_come_back) is FOUND


# -- unreadable pages --------------------------------------------------------------------------------------------------

AGAIN = Decision(Step.AGAIN, after_s=0.375)
LATER = Decision(Step.AGAIN, after_s=1.5)
UNCONFIRMED = Decision(Step.DONE, OutcomeKind.UNCONFIRMED)
CHECK, STOP = Decision(Step.CHECK_CREDENTIALS), Decision(Step.STOP_ACCOUNT)
PASSING = (Answer.NOT_SENT, Answer.AMBIGUOUS, Answer.UNREADABLE)
WHATEVER = [(failed, is_over) for failed in (0, 1, 3, 50) for is_over in (False, True)]


@pytest.mark.parametrize(
    ("answer", "failed", "is_over", "decision"),
    [
        *((answer, 1, is_over, AGAIN) for answer in PASSING for is_over in (False, True)),
        *((answer, 3, False, LATER) for answer in PASSING),
        *((answer, 50, False, Decision(Step.AGAIN, after_s=22.5)) for answer in PASSING),
        *((answer, failed, True, UNCONFIRMED) for answer in PASSING for failed in (3, 4, 50)),
        *((Answer.THROTTLED, failed, is_over, Decision(Step.AGAIN)) for failed, is_over in WHATEVER),
        *((Answer.PERMANENT, failed, is_over, UNCONFIRMED) for failed, is_over in WHATEVER),
        *((Answer.CREDENTIALS, failed, is_over, CHECK) for failed, is_over in WHATEVER),
        *((answer, *each, STOP) for answer in (Answer.QUOTA, Answer.MISCONFIGURED) for each in WHATEVER),
    ],
)
def test_each_failure_to_read_a_page_has_its_decision(
    answer: Answer,
    failed: int,
    is_over: bool,  # noqa: FBT001 - a column of the table
    decision: Decision,
) -> None:
    assert decide_failed_read(answer, failed, POLICY, 0.5, is_over=is_over) == decision
