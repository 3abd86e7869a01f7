"""Decide from an install's listing whether a backup in doubt exists. Pure.

==========================================  ==========================  =====================================
the listing                                 within the grace            after the grace
==========================================  ==========================  =====================================
shows a marker that is sought               accepted                    accepted
shows none, and this proves absence         look again after the grace  request again (never after a 2xx)
shows none, and this proves nothing         look again after the grace  unconfirmed
cannot be read for the moment               look again                  look again, then unconfirmed
cannot be read at all                       unconfirmed                 unconfirmed
==========================================  ==========================  =====================================

A new backup may appear late in the listing, and the gateway answers 504 while the backend still works. So absence
counts only after the grace.

Absence is proven if no listed backup could be the sought one. A backup with the marker of another request is never the
sought one. If this account's listings are known to show markers, a backup without a marker could be the sought one only
if both its time and its description fit. A blank description, or one that begins like ours, fits: the API may fill it
in late, or cut it. If it is unknown whether the listings show markers, a backup without a marker could be the sought
one if its time fits.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from orchestrator.marker import marker, runs_marked
from orchestrator.outcome import Answer, Decision, Step, backoff
from orchestrator.units import seconds_of
from orchestrator.value import value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.model import Backup
    from orchestrator.policies import RetryPolicy

CLOCK_SLACK_S = 5.0
"""Times are in whole seconds, and the clocks of the servers behind one address differ by a few seconds."""

LIKENESS = 12
"""Characters at the beginning that identify a description, even if its rest was cut or escaped."""

_ELLIPSES = " \n\t.…"


@value
class Sought:
    """What a lookup looks for: a backup with a marker of one of ``run_ids``.

    ``sent_at`` is when the first request of these runs was sent, in seconds since 1970 by the server's clock.
    ``description`` is the description of that request, with its marker.
    """

    run_ids: tuple[str, ...]
    sent_at: float | None
    description: str


@value
class Sight:
    """What the pages of one listing that are already read show.

    ``found`` are the backups with a sought marker. ``has_markers`` tells that some backup has a whole marker, of any
    run. ``has_unmarked`` tells that some backup has no marker and is not certainly older than the request.
    ``has_likely`` tells that the description of such a backup could be ours: cut, or not filled in yet.
    """

    found: tuple[Backup, ...] = ()
    has_markers: bool = False
    has_unmarked: bool = False
    has_likely: bool = False


class Fate(StrEnum):
    """What a whole listing proves about a backup."""

    FOUND = "found"
    ABSENT = "absent"
    OPEN = "open"


def seen(sight: Sight, backups: Iterable[Backup], sought: Sought) -> Sight:
    """Return ``sight`` with one more page of ``backups``."""
    markers = [marker(run_id) for run_id in sought.run_ids]
    found, has_markers = list(sight.found), sight.has_markers
    has_unmarked, has_likely = sight.has_unmarked, sight.has_likely
    for backup in backups:
        description = backup.description or ""
        if any(each in description for each in markers):
            found.append(backup)
            has_markers = True
        elif runs_marked(description):
            has_markers = True
        elif not _is_older(backup.create_time, sought.sent_at):
            has_unmarked = True
            has_likely = has_likely or _is_like(description, sought.description)
    return Sight(tuple(found), has_markers, has_unmarked, has_likely)


def _is_like(shown: str, sent: str) -> bool:
    """Tell whether a listing may show the description ``sent`` as ``shown``; a blank one is possible."""
    sent, shown = sent.strip(), shown.strip().rstrip(_ELLIPSES)
    return sent.startswith(shown) or shown.startswith(sent[:LIKENESS])


def _is_older(create_time: str | None, sent_at: float | None) -> bool:
    """Tell whether a backup was certainly made before the request."""
    at = seconds_of(create_time)
    return at is not None and sent_at is not None and at < sent_at - CLOCK_SLACK_S


def fate_of(sight: Sight, *, markers_come_back: bool) -> Fate:
    """Return what a whole listing proves after the grace.

    ``markers_come_back`` tells that another listing of the account has shown a whole marker.
    """
    if sight.found:
        return Fate.FOUND
    knows_markers = sight.has_markers or markers_come_back
    could_be_it = sight.has_likely if knows_markers else sight.has_unmarked
    return Fate.OPEN if could_be_it else Fate.ABSENT


def decide_failed_read(
    answer: Answer, failed: int, policy: RetryPolicy, draw: float, *, is_over: bool = True
) -> Decision:
    """Decide what to do after a read that failed. ``DONE`` means: give it up.

    ``failed`` counts the failures in a row, including this one, but no 429s. While ``is_over`` is false, a read that
    may yet succeed is repeated however often it fails, as in a lookup within the grace.
    """
    match answer:
        case Answer.THROTTLED:
            return Decision(Step.AGAIN)
        case Answer.NOT_SENT | Answer.AMBIGUOUS | Answer.UNREADABLE if failed < policy.max_attempts or not is_over:
            return Decision(Step.AGAIN, after_s=backoff(failed, draw))
        case Answer.CREDENTIALS:
            return Decision(Step.CHECK_CREDENTIALS)
        case Answer.QUOTA | Answer.MISCONFIGURED:
            return Decision(Step.STOP_ACCOUNT)
        case _:
            return Decision(Step.DONE)
