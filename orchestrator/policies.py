"""What a configuration says of how fast, how often and how long: the policies, as frozen dataclasses. Pure data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ThrottlePolicy:
    """How fast requests may go, per budget. Rates are requests per second, above 0.

    ``fixed_rate`` is ``None`` for a rate that is learned. ``ceiling`` is never exceeded. ``concurrency`` bounds
    the requests in flight. ``per_host`` makes one budget of all accounts of a base URL.
    """

    fixed_rate: float | None = None
    start_rate: float = 5.0
    ceiling: float = 50.0
    concurrency: int = 64
    max_pause_s: float = 600.0
    give_up_s: float = 1800.0
    per_host: bool = False


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long one install is tried: ``max_attempts`` sends, ``deadline_s`` seconds from the first of them."""

    max_attempts: int = 5
    deadline_s: float = 1800.0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds until a connection must stand, and between two pieces of an answer.

    The default for reading lies above the 29 s after which the API's gateway answers 504 by itself.
    """

    connect_s: float = 10.0
    read_s: float = 35.0


@dataclass(frozen=True, slots=True)
class ReconcilePolicy:
    """What follows when a request's fate is open. ``grace_s`` is how long a backup may be missing from the listing.

    Without ``looks``, nothing is looked up: the outcome is unconfirmed at once.
    """

    looks: bool = True
    grace_s: float = 120.0


@dataclass(frozen=True, slots=True)
class WaitPolicy:
    """How accepted backups are waited for: ``timeout_s`` from each acceptance, ``poll_interval_s`` between two polls.

    With ``retry_aborted`` a backup that WP Engine aborts is requested once more.
    """

    timeout_s: float = 7200.0
    poll_interval_s: float = 15.0
    retry_aborted: bool = False
