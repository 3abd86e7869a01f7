"""Judge how old the backups of an install are, and whether one is recent enough. Pure.

Only a backup's ``status`` tells whether it has ended, never its ``complete_time``. Its age counts from ``create_time``.
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
"""Seconds that a backup's time may be in the future: the clocks behind the API differ a little."""

COMPLETED, ABORTED = "completed", "aborted"
ENDED = {COMPLETED, ABORTED}
"""The final statuses. A backup with any other status, even an unknown one, is under way."""

FOUND_UNDER_WAY = "a recent backup was under way; the run waited for it, and it is completed"
"""The reason for requesting nothing if the recent backup was still under way when it was found."""


@dataclass(frozen=True, slots=True)
class Recent:
    """A backup that makes a request unnecessary, and its age in seconds. It is completed or under way."""

    backup: Backup
    age_s: float
    is_completed: bool

    def reason(self, within_s: float) -> str:
        """Return the reason for requesting nothing."""
        what = "completed backup" if self.is_completed else "backup under way"
        return f"there is a {what}, {age_text(self.age_s)} old: younger than {age_text(within_s)}"


class Verdict(StrEnum):
    """How recent the newest completed backup of an install is, the worst first."""

    MISSING = "missing"
    UNKNOWN = "unknown"
    STALE = "stale"
    OK = "ok"


UNDATED = ErrorInfo(ErrorKind.PROTOCOL, "the listing gives no usable creation time for its completed backups")

NO_CLOCK = ErrorInfo(ErrorKind.PROTOCOL, "the API's answers have no Date header, so the age of a backup is unknown")


@dataclass(frozen=True, slots=True)
class Freshness:
    """The verdict on an install. ``age_s`` is the age of its ``newest`` completed backup, in seconds.

    ``under_way`` is a later backup that has not ended. ``error`` says why the verdict is unknown.
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
    """Return the age of a backup in seconds at ``now_s``, seconds since 1970; ``None`` if either time is unknown."""
    at = seconds_of(backup.create_time)
    return None if at is None or now_s is None else now_s - at


def newest_completed(backups: Iterable[Backup]) -> Backup | None:
    """Return the completed backup with the latest ``create_time``, ``None`` if no completed backup has that time."""
    dated = ((seconds_of(each.create_time), each) for each in backups if each.status == COMPLETED)
    known = [(at, each) for at, each in dated if at is not None]
    return max(known, key=lambda entry: entry[0])[1] if known else None


def recent(backups: Iterable[Backup], now_s: float | None, within_s: float) -> Recent | None:
    """Return the recent backup that makes a request unnecessary, or ``None``. Recent is younger than ``within_s``.

    The newest completed backup comes first, then the newest one under way. A backup with a time in the future does not
    count: its age is unknown, and it would stay recent for too long. ``now_s`` is in seconds since 1970, by the
    server's clock.
    """
    young = [
        Recent(each, age, each.status == COMPLETED)
        for each in backups
        if each.status != ABORTED and (age := age_s(each, now_s)) is not None and -FUTURE_S <= age < within_s
    ]
    return min(young, key=lambda each: (not each.is_completed, each.age_s), default=None)


def judged(backups: Sequence[Backup], now_s: float | None, max_age_s: float) -> Freshness:
    """Return the verdict on an install whose listing shows ``backups``.

    The verdict is stale if the newest completed backup is older than ``max_age_s`` seconds at ``now_s``, in seconds
    since 1970. As in ``recent``, a backup with a time in the future does not count. The verdict is unknown if ``now_s``
    is ``None``, because the server does not tell the time, or if no completed backup has a usable time.
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
    """Return the newest backup that has not ended and is not older than ``newest``."""
    since = -math.inf if newest is None else seconds_of(newest.create_time) or -math.inf
    dated = [(seconds_of(each.create_time) or math.inf, each) for each in backups if not has_ended(each)]
    return max((entry for entry in dated if entry[0] >= since), key=lambda entry: entry[0], default=(0.0, None))[1]


def merged(known: Backup, shown: Backup) -> Backup:
    """Return ``shown``. Take the fields that it lacks from ``known``."""
    lacking = {each.name: getattr(known, each.name) for each in fields(shown) if getattr(shown, each.name) is None}
    return replace(shown, **lacking)
