"""What the stand-in counted: every request with its answer, for the pages below ``/_admin``."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.simulator.world import World

REQUESTS_KEPT = 200_000


@dataclass(slots=True)
class Tally:
    """Counts of one stand-in.

    ``posts`` counts by install, ``asked`` by operation and install. ``refused`` holds the installs that a fault of
    their own keeps from being backed up. ``in_flight`` counts the requests that were let in and not answered yet.
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
        """Count it as answered."""
        self.in_flight -= 1

    def note(self, request: dict[str, Any]) -> None:
        """Remember a request with its ``status``, ``None`` for one that got no answer."""
        self.statuses[request["status"]] += 1
        self.requests.append(request)

    def stats(self, world: World) -> dict[str, Any]:
        """Return the totals: requests by status, backups made, and the most that one install got."""
        made = [len(backups) for backups in world.backups.values()]
        return {
            "requests": self.statuses.total(),
            "posts": self.posts.total(),
            "by_status": {
                "none" if status is None else str(status): count
                for status, count in sorted(self.statuses.items(), key=lambda item: item[0] or 0)
            },
            "throttled": self.statuses[429],
            "faults": dict(sorted(self.faults.items())),
            "most_in_flight": self.most_in_flight,
            "backups_made": sum(made),
            "installs_backed_up": len(made),
            "most_per_install": max(made, default=0),
        }
