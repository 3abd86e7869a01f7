"""Whether a backup whose fate is open exists: what its install's listing shows, and what follows from it. Pure.

===========================================  ====================  =====================================
the listing                                  within the grace      after it
===========================================  ====================  =====================================
shows a marker that is sought                accepted              accepted
does not, and that is proof                  look again after it   request it again (never after a 2xx)
does not, and that is no proof               look again after it   unconfirmed
cannot be had for the moment                 look again            look again, then unconfirmed
cannot be had at all                         unconfirmed           unconfirmed
===========================================  ====================  =====================================

The listing may lag behind the creation, and the gateway answers 504 while the backend works on: so absence counts only
once the grace is over. It is proof where markers are known to come back from this account's listings, and no backup
without one could be it by its time and by its description: a blank one, or one that begins like ours, may have been
filled in late or cut. Else only if no listed backup without a marker could be it by its time.
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
"""Times come in whole seconds, and the servers behind one address may disagree by some."""


LIKENESS = 12
"""Characters at the beginning of a description by which one that was cut, or escaped further on, is still known."""

_ELLIPSES = " \n\t.…"


@value
class Sought:
    """What is looked for: a marker of one of ``run_ids``.

    ``sent_at`` is when the first request of these was sent, in seconds since 1970 by the server's clock.
    ``description`` is what it was to be called, marker and all.
    """

    run_ids: tuple[str, ...]
    sent_at: float | None
    description: str


@value
class Sight:
    """What the pages of one listing that were read so far show.

    ``found`` are the backups with a marker that is sought. ``has_markers`` tells that some whole marker came back, of
    whichever run. ``has_unmarked`` tells of a backup without one that is not certainly older than the request;
    ``has_likely`` of such a one whose description could be ours, cut or not filled in yet.
    """

    found: tuple[Backup, ...] = ()
    has_markers: bool = False
    has_unmarked: bool = False
    has_likely: bool = False


class Fate(StrEnum):
    """What a whole listing says of a backup."""

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
    """Tell whether ``shown`` could be what became of the description ``sent``; a blank one could."""
    sent, shown = sent.strip(), shown.strip().rstrip(_ELLIPSES)
    return sent.startswith(shown) or shown.startswith(sent[:LIKENESS])


def _is_older(create_time: str | None, sent_at: float | None) -> bool:
    """Tell whether a backup was certainly made before the request."""
    at = seconds_of(create_time)
    return at is not None and sent_at is not None and at < sent_at - CLOCK_SLACK_S


def fate_of(sight: Sight, *, markers_come_back: bool) -> Fate:
    """Return what a listing that was read whole, after the grace, proves.

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
    """Return what follows from a read that could not be had: ``DONE`` means that it never will be.

    ``failed`` counts the failures in a row, this one included, 429s left out. ``is_over`` tells that the time is over
    during which it is repeated in any case, as that is of a look within the grace.
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
