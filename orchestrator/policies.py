"""The policies of a configuration: how fast, how often and how long, as frozen dataclasses. Pure data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ThrottlePolicy:
    """How fast requests may go, per budget. Rates are requests per second, above 0.

    ``fixed_rate`` is ``None`` if the limiter learns the rate. The rate never exceeds ``ceiling``. ``concurrency`` is
    the most requests in flight. ``per_host`` gives all accounts of a base URL one budget. ``max_pause_s`` is the
    longest ``Retry-After`` that an account obeys. ``give_up_s`` is how long an account goes on without a served POST.
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
    """How long to try one install: at most ``max_attempts`` sends, and ``deadline_s`` seconds from the first."""

    max_attempts: int = 5
    deadline_s: float = 1800.0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The seconds to wait for a connection, and for the next piece of an answer.

    The default of ``read_s`` is longer than the 29 s after which the API's gateway itself answers 504.
    """

    connect_s: float = 10.0
    read_s: float = 35.0


@dataclass(frozen=True, slots=True)
class ReconcilePolicy:
    """What to do about a backup in doubt. ``grace_s`` is how long it may be missing from the listing.

    If ``looks`` is false, there is no lookup: the outcome is unconfirmed immediately.
    """

    looks: bool = True
    grace_s: float = 120.0


@dataclass(frozen=True, slots=True)
class WaitPolicy:
    """How to wait for accepted backups: ``timeout_s`` from each acceptance, ``poll_interval_s`` between two polls.

    With ``retry_aborted``, a backup that WP Engine aborts is requested once more.
    """

    timeout_s: float = 7200.0
    poll_interval_s: float = 15.0
    retry_aborted: bool = False
