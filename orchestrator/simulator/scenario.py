"""What a stand-in does: its limit, its latency, its faults. Pure data, and the seeded draws over it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum


class RetryAfter(StrEnum):
    """How a 429 names the moment to come back; the real gateway does not."""

    NONE = "none"
    SECONDS = "seconds"
    DATE = "date"


class Fate(StrEnum):
    """How one POST ends, beyond the limiter and the credentials."""

    ACCEPTED = "accepted"
    INVALID = "invalid"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    UNAVAILABLE = "unavailable"
    TIMED_OUT = "timed_out"
    TIMED_OUT_CREATED = "timed_out_created"


@dataclass(frozen=True, slots=True)
class Scenario:
    """The behaviour of one stand-in. Rates in requests per second, shares from 0 to 1, times in seconds.

    ``rate`` is ``None`` for no limit. ``invalid``, ``forbidden`` and ``not_found`` are shares of the installs: the
    same install always gets the same answer. ``unavailable`` (503), ``timed_out`` (504, nothing created) and
    ``timed_out_created`` (504, though the backup is made) are shares of the POSTs. ``user_id`` and ``password`` of
    ``None`` accept any credentials.
    """

    rate: float | None = None
    burst: int = 10
    retry_after: RetryAfter = RetryAfter.NONE
    latency_s: tuple[float, float] = (0.02, 0.08)
    completes_after_s: float = 2.0
    invalid: float = 0.0
    forbidden: float = 0.0
    not_found: float = 0.0
    unavailable: float = 0.0
    timed_out: float = 0.0
    timed_out_created: float = 0.0
    seed: int = 0
    user_id: str | None = None
    password: str | None = None

    def __post_init__(self) -> None:
        """Refuse shares that add up to more than everything. Raises ``ValueError``."""
        of_installs = self.invalid + self.forbidden + self.not_found
        of_posts = self.unavailable + self.timed_out + self.timed_out_created
        if not (0 <= of_installs <= 1 and 0 <= of_posts <= 1):
            message = "the shares of the installs, and those of the POSTs, must each add up to at most 1"
            raise ValueError(message)

    def fate(self, install_id: str, nth: int) -> Fate:
        """Return how the ``nth`` POST for an install ends: a function of the seed alone, whatever the order."""
        of_install = self._draw(install_id)
        for fate, share in (
            (Fate.INVALID, self.invalid),
            (Fate.FORBIDDEN, self.forbidden),
            (Fate.NOT_FOUND, self.not_found),
        ):
            if of_install < share:
                return fate
            of_install -= share
        of_post = self._draw(f"{install_id} {nth}")
        for fate, share in (
            (Fate.UNAVAILABLE, self.unavailable),
            (Fate.TIMED_OUT, self.timed_out),
            (Fate.TIMED_OUT_CREATED, self.timed_out_created),
        ):
            if of_post < share:
                return fate
            of_post -= share
        return Fate.ACCEPTED

    def _draw(self, what: str) -> float:
        digest = hashlib.sha256(f"{self.seed} {what}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64
