"""How old the backups of an install are, and whether one is recent enough. Pure.

A backup's ``status`` alone decides how it stands, never its ``complete_time``. Its age counts from ``create_time``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from orchestrator.model import ErrorInfo, ErrorKind
from orchestrator.units import age_text, seconds_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.model import Backup

FUTURE_S = 60.0
"""How far in the future a backup's time may lie: the clocks behind the API need not agree to the second."""

COMPLETED, ABORTED = "completed", "aborted"
ENDED = {COMPLETED, ABORTED}
"""The statuses after which nothing changes any more; any other, also one that nobody knows, is under way."""


FOUND_UNDER_WAY = "a recent backup was under way; it was waited for, and is completed"
"""Why nothing is requested where a recent backup had not ended when it was found."""


@dataclass(frozen=True, slots=True)
class Recent:
    """A backup that makes a request needless, and its age in seconds. ``is_completed`` or still under way."""

    backup: Backup
    age_s: float
    is_completed: bool

    def reason(self, within_s: float) -> str:
        """Say why nothing is requested."""
        what = "completed backup" if self.is_completed else "backup under way"
        return f"there is a {what}, {age_text(self.age_s)} old: younger than {age_text(within_s)}"


class Verdict(StrEnum):
    """How recent the newest completed backup of an install is, the worst first."""

    MISSING = "missing"
    UNKNOWN = "unknown"
    STALE = "stale"
    OK = "ok"


UNDATED = ErrorInfo(ErrorKind.PROTOCOL, "the listing does not say when its completed backups were made, or not rightly")

NO_CLOCK = ErrorInfo(ErrorKind.PROTOCOL, "the answers of the API have no Date, so the age of a backup is not known")


@dataclass(frozen=True, slots=True)
class Freshness:
    """The verdict on an install, with its ``newest`` completed backup and the age of that in seconds.

    ``under_way`` is a later one that has not ended. ``error`` says why the verdict is unknown.
    """

    verdict: Verdict
    newest: Backup | None = None
    age_s: float | None = None
    under_way: Backup | None = None
    error: ErrorInfo | None = None


def has_ended(backup: Backup) -> bool:
    """Tell whether a backup is completed or aborted."""
    return backup.status in ENDED


def age_s(backup: Backup, now_s: float | None) -> float | None:
    """Return the age of a backup, in seconds, at ``now_s`` seconds since 1970, ``None`` if nobody can say."""
    at = seconds_of(backup.create_time)
    return None if at is None or now_s is None else now_s - at


def newest_completed(backups: Iterable[Backup]) -> Backup | None:
    """Return the completed backup that was made last, ``None`` if there is none that says when."""
    dated = ((seconds_of(each.create_time), each) for each in backups if each.status == COMPLETED)
    known = [(at, each) for at, each in dated if at is not None]
    return max(known, key=lambda entry: entry[0])[1] if known else None


def recent(backups: Iterable[Backup], now_s: float | None, within_s: float) -> Recent | None:
    """Return the backup, younger than ``within_s`` seconds, that makes a request needless, if there is one.

    The newest that is completed, else the newest that is under way. One from the future is none: nobody knows how old
    it is, and it would be recent for ever. ``now_s`` is the seconds since 1970 by the server's clock.
    """
    young = [
        Recent(each, age, each.status == COMPLETED)
        for each in backups
        if each.status != ABORTED and (age := age_s(each, now_s)) is not None and -FUTURE_S <= age < within_s
    ]
    return min(young, key=lambda each: (not each.is_completed, each.age_s), default=None)


def judged(backups: Sequence[Backup], now_s: float | None, max_age_s: float) -> Freshness:
    """Return the verdict on an install whose listing shows ``backups``, of which one must be completed.

    It is stale if that is older than ``max_age_s`` seconds at ``now_s`` seconds since 1970. As for ``recent``, one from
    the future does not count. ``now_s`` of ``None``, where the server does not tell the time, leaves it unknown.
    """
    if now_s is None:
        return Freshness(Verdict.UNKNOWN, error=NO_CLOCK)
    newest = newest_completed(each for each in backups if (age_s(each, now_s) or 0.0) >= -FUTURE_S)
    under_way = _newest_under_way(backups, newest)
    age = None if newest is None else age_s(newest, now_s)
    if age is not None:
        verdict = Verdict.STALE if age > max_age_s else Verdict.OK
        return Freshness(verdict, newest, age, under_way)
    if any(each.status == COMPLETED for each in backups):
        return Freshness(Verdict.UNKNOWN, under_way=under_way, error=UNDATED)
    return Freshness(Verdict.MISSING, under_way=under_way)


def _newest_under_way(backups: Sequence[Backup], newest: Backup | None) -> Backup | None:
    """Return the last of those that have not ended and are not older than ``newest``."""
    since = -math.inf if newest is None else seconds_of(newest.create_time) or -math.inf
    dated = [(seconds_of(each.create_time) or math.inf, each) for each in backups if not has_ended(each)]
    return max((entry for entry in dated if entry[0] >= since), key=lambda entry: entry[0], default=(0.0, None))[1]


def merged(known: Backup, shown: Backup) -> Backup:
    """Return ``shown`` with what it does not say from ``known``."""
    lacking = {each.name: getattr(known, each.name) for each in fields(shown) if getattr(shown, each.name) is None}
    return replace(shown, **lacking)
