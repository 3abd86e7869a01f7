"""How old the backups of an install are, and whether one is recent enough. Pure.

A backup's ``status`` alone decides how it stands, never its ``complete_time``. Its age counts from ``create_time``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.units import age_text, seconds_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.model import Backup

COMPLETED, ABORTED = "completed", "aborted"
ENDED = {COMPLETED, ABORTED}
"""The statuses after which nothing changes any more; any other, also one that nobody knows, is under way."""


@dataclass(frozen=True, slots=True)
class Recent:
    """A backup that makes a request needless, and its age in seconds. ``is_completed`` or still under way."""

    backup: Backup
    age_s: float
    is_completed: bool

    def said(self, within_s: float) -> str:
        """Say why nothing is requested."""
        what = "completed backup" if self.is_completed else "backup under way"
        return f"there is a {what}, {age_text(self.age_s)} old: younger than {age_text(within_s)} (--skip-if-recent)"


def has_ended(backup: Backup) -> bool:
    """Tell whether a backup is completed or aborted."""
    return backup.status in ENDED


def age_s(backup: Backup, now_s: float) -> float | None:
    """Return the age of a backup, in seconds, at ``now_s`` seconds since 1970, ``None`` if it does not say."""
    at = seconds_of(backup.create_time)
    return None if at is None else now_s - at


def newest_completed(backups: Iterable[Backup]) -> Backup | None:
    """Return the completed backup that was made last, ``None`` if there is none that says when."""
    dated = ((seconds_of(each.create_time), each) for each in backups if each.status == COMPLETED)
    known = [(at, each) for at, each in dated if at is not None]
    return max(known, key=lambda entry: entry[0])[1] if known else None


def recent(backups: Iterable[Backup], now_s: float, within_s: float) -> Recent | None:
    """Return the backup, younger than ``within_s`` seconds, that makes a request needless, if there is one.

    The newest that is completed, else the newest that is under way.
    """
    young = [
        Recent(each, age, each.status == COMPLETED)
        for each in backups
        if each.status != ABORTED and (age := age_s(each, now_s)) is not None and age < within_s
    ]
    return min(young, key=lambda each: (not each.is_completed, each.age_s), default=None)
