"""Record every request to the stand-in and its answer, for the pages below ``/_admin``."""

from __future__ import annotations

import uuid
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import web

    from orchestrator.simulator.world import World

REQUESTS_KEPT = 1_000_000
"""Number of requests kept. Beyond that, the oldest are dropped; the counts stay complete."""


@dataclass(slots=True)
class Tally:
    """Counts of one stand-in.

    ``posts`` counts by install, ``asked`` by operation and install. ``refused`` holds the installs whose backup a fault
    of installs prevents. ``in_flight`` counts the requests that were let in and are not answered yet.
    """

    posts: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int | None] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    refused: set[str] = field(default_factory=set)
    requests: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=REQUESTS_KEPT))
    in_flight: int = 0
    most_in_flight: int = 0

    def enter(self) -> None:
        """Count a request that was let in."""
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def leave(self) -> None:
        """Note that a request that was let in has been answered."""
        self.in_flight -= 1

    def begin(self, at: float, request: web.Request) -> dict[str, Any]:
        """Record a request that has arrived, and return its record. Its answer is noted there later."""
        noted = {
            "at": at,
            "ended_at": None,
            "method": request.method,
            "path": request.path,
            "request_id": str(uuid.uuid4()),
            "status": None,
            "retry_after": None,
            "fault": None,
        }
        self.requests.append(noted)
        return noted

    def end(self, noted: dict[str, Any], at: float) -> None:
        """Note the end of a request, and count its status: ``None`` if it got no answer."""
        noted["ended_at"] = at
        self.statuses[noted["status"]] += 1

    def stats(self, world: World) -> dict[str, Any]:
        """Return the totals: requests by status, backups made, and the most backups of one install."""
        made = [len(backups) for backups in world.backups.values()]
        return {
            "requests": self.statuses.total(),
            "posts": self.posts.total(),
            "by_status": {
                "none" if status is None else str(status): count
                for status, count in sorted(self.statuses.items(), key=lambda item: item[0] or 0)
            },
            "throttled": self.statuses[429],
            "in_flight": self.in_flight,
            "faults": dict(sorted(self.faults.items())),
            "most_in_flight": self.most_in_flight,
            "backups_made": sum(made),
            "installs_backed_up": len(made),
            "most_per_install": max(made, default=0),
        }
