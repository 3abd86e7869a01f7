"""What the stand-in knows and counts: the backups it really made, and every request with its answer."""

from __future__ import annotations

import uuid
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

REQUESTS_KEPT = 200_000


class TokenBucket:
    """API Gateway's limiter: ``rate`` tokens a second, at most ``burst`` saved up, one a request."""

    def __init__(self, rate: float, burst: int, now: float) -> None:
        """Start full at ``now``."""
        self._rate, self._burst = rate, float(burst)
        self._tokens, self._at = float(burst), now

    def take(self, now: float) -> bool:
        """Take one token if there is one."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def next_s(self) -> float:
        """Return the seconds until there is a token."""
        return max(0.0, (1 - self._tokens) / self._rate)


@dataclass(slots=True)
class MadeBackup:
    """One backup that was really made. ``made_at`` is monotonic, ``create_time`` what the API shows."""

    id: str
    install_id: str
    description: str
    notification_emails: list[str]
    made_at: float
    create_time: datetime

    def as_json(self, now: float, completes_after_s: float) -> dict[str, Any]:
        """Return the Backup as the API shows it at ``now``."""
        age_s = now - self.made_at
        completed = age_s >= completes_after_s
        status = "completed" if completed else "in_progress" if age_s >= completes_after_s / 2 else "requested"
        return {
            "id": self.id,
            "status": status,
            "description": self.description,
            "create_time": _iso(self.create_time),
            "complete_time": _iso(self.create_time + timedelta(seconds=completes_after_s)) if completed else None,
            "wordpress_version": "6.8.1",
        }


@dataclass(slots=True)
class World:
    """Everything that the admin pages show."""

    backups: dict[str, list[MadeBackup]] = field(default_factory=dict)
    posts: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    requests: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=REQUESTS_KEPT))

    def make(self, install_id: str, body: dict[str, Any], now: float) -> MadeBackup:
        """Make a backup."""
        backup = MadeBackup(
            id=str(uuid.uuid4()),
            install_id=install_id,
            description=body["description"],
            notification_emails=body["notification_emails"],
            made_at=now,
            create_time=datetime.now(UTC),
        )
        self.backups.setdefault(install_id, []).append(backup)
        return backup

    def stats(self) -> dict[str, Any]:
        """Return the totals: requests by status, backups made, and the most that one install got."""
        made = [len(backups) for backups in self.backups.values()]
        return {
            "requests": self.statuses.total(),
            "posts": self.posts.total(),
            "by_status": {str(status): count for status, count in sorted(self.statuses.items())},
            "throttled": self.statuses[429],
            "backups_made": sum(made),
            "installs_backed_up": len(made),
            "most_per_install": max(made, default=0),
        }


def _iso(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
