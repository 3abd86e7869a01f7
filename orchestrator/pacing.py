"""The control law of the limiter: how fast requests start, when they pause, how they resume.

Pure: ``next_pace(pace, observation) → pace`` and its companions know no clock and draw nothing; instants (seconds
on any one monotonic clock) and draws are arguments, so the law runs in virtual time. ``throttle/`` applies it.

The rules, in the order in which a run meets them:

- Starts are spaced evenly: ``next_at = max(next_at, now - credit / rate) + 1 / rate`` with a credit of one request,
  so that a late timer costs nothing and an idle time saves up no herd.
- Until the first 429 the rate doubles every half second, as long as it is really used and a request that started
  at this very rate has been served: with slow answers the growth waits for what it did.
- Nothing starts before the latest moment that any ``Retry-After`` named, whenever the 429 that named it comes.
- A 429 holds the whole budget, also for at least ``min(60, max(0.5, 1.5 / rate) · 2^k)`` seconds,
  plus a positive jitter of at most 10% and at most 1 s. ``k`` counts the holds since a POST was last accepted.
- After the hold exactly one request goes out, the canary. Refused: hold again, twice as long. Answered: resume
  below the capacity estimate, with no credit.
- Each request carries the epoch in which it started. A 429 of an earlier epoch cuts nothing: it was on its way
  when the hold began. Its ``Retry-After`` is obeyed all the same.
- Capacity: requests served between two recoveries over the time between them is what the server refilled. Before
  there is such a measurement, a share of the rate at which the 429 came.
- After a recovery the rate grows: in gentle steps up to the last known limit, then in probes that double.
- Ten failures in a row (no answer, or an ambiguous one) hold the budget as well: the API is ill, not busy. The
  canary is then a harmless read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

DOUBLING_INTERVAL_S = 0.5
USED_SHARE = 0.8
"""A rate counts as really used from this share of it on; an unused rate proves nothing and does not grow."""

FIRST_HOLD_S = 0.5
HOLD_INTERVALS = 1.5
LONGEST_HOLD_S = 60.0
JITTER_SHARE = 0.1
LONGEST_JITTER_S = 1.0

UNMEASURED_SHARE = 0.7
"""Of the rate that met the first 429: the last doubling overshot by a factor between 1 and 2, ~√2 on average."""

RESUME_SHARE = 0.95
MEASURABLE = 15
"""Requests served that make a capacity estimate trustworthy: fewer are dominated by the server's burst."""

RECOVERING_STEP, RECOVERING_INTERVAL_S = 1.08, 1.0
FIRST_PROBE, LARGEST_PROBE = 0.02, 0.5
FIRST_PROBE_AFTER_S, NEXT_PROBE_AFTER_S = 8.0, 2.0
"""Near the limit the rate waits, then steps up by 2%, 4%, 8% … as long as nothing is rejected."""

NEAR_LIMIT_SHARE = 0.95
"""Below this share of the last known limit the rate recovers; above it, it probes."""

FAILURES_THAT_HOLD = 10
SLOWEST_RATE = 0.01
"""Requests per second that no estimate falls below, so that a budget never stands still for good."""


class Effect(StrEnum):
    """What an answer says of the server's capacity."""

    SERVED = "served"
    THROTTLED = "throttled"
    FAILED = "failed"


class Phase(StrEnum):
    """Whether requests flow, are held, or a single canary is on its way."""

    OPEN = "open"
    HELD = "held"
    CANARY = "canary"


@dataclass(frozen=True, slots=True)
class Ticket:
    """The permission to send one request: when it started, and in which epoch.

    ``canary`` marks the only request that may go out after a hold; with ``read_only`` it must not be a POST.
    """

    started_at: float
    epoch: int
    canary: bool = False
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Word:
    """What an answer tells the limiter: its effect, whether it accepted a POST, the ``Retry-After`` to obey."""

    effect: Effect
    accepted: bool = False
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """A request's ticket, what its answer said, when that came. ``draw`` is uniform in [0, 1)."""

    ticket: Ticket
    word: Word
    at: float
    draw: float = 0.0


@dataclass(frozen=True, slots=True)
class Pace:
    """The state of one budget's limiter. Rates in requests per second, instants in seconds.

    ``not_before`` is the latest moment that a ``Retry-After`` named. ``limit`` is the last known limit, ``None`` before
    the first 429. ``sent`` counts starts since ``grown_at``, ``served`` the answers of this epoch since ``resumed_at``.
    ``holds`` is the k of the hold's length, ``probes`` the steps above the limit since the last 429.
    ``read_only_canary`` tells that the hold came from failures, so that its canary must not be a POST.
    """

    rate: float
    ceiling: float
    fixed: bool = False
    phase: Phase = Phase.OPEN
    epoch: int = 0
    next_at: float = 0.0
    held_from: float = 0.0
    held_until: float = 0.0
    not_before: float = 0.0
    held_before_s: float = 0.0
    read_only_canary: bool = False
    holds: int = 0
    failures: int = 0
    probes: int = 0
    limit: float | None = None
    grown_at: float | None = None
    sent: int = 0
    served: int = 0
    resumed_at: float | None = None


def ready_at(pace: Pace) -> float | None:
    """Return the instant from which one more request may start, ``None`` if only an answer can tell."""
    if pace.phase is Phase.CANARY:
        return None
    return max(pace.not_before, pace.next_at if pace.phase is Phase.OPEN else pace.held_until)


def started(pace: Pace, now: float) -> tuple[Pace, Ticket]:
    """Return the pace after one request started at ``now``, which ``ready_at`` allowed, and its ticket."""
    interval = 1.0 / pace.rate
    earned_from = now if pace.grown_at is None else now - interval
    next_at = max(pace.next_at, earned_from) + interval
    if pace.phase is Phase.HELD:
        ticket = Ticket(now, pace.epoch, canary=True, read_only=pace.read_only_canary)
        return replace(pace, phase=Phase.CANARY, next_at=next_at), ticket
    grown_at = now if pace.grown_at is None else pace.grown_at
    return replace(pace, next_at=next_at, sent=pace.sent + 1, grown_at=grown_at), Ticket(now, pace.epoch)


def canary_lost(pace: Pace, now: float) -> Pace:
    """Return the pace after a canary ended without an answer that says anything: another one may go."""
    return replace(pace, phase=Phase.HELD, held_until=now) if pace.phase is Phase.CANARY else pace


def held_s(pace: Pace, now: float) -> float:
    """Return the seconds up to ``now`` for which the budget has been held, canaries included."""
    running = 0.0 if pace.phase is Phase.OPEN else now - pace.held_from
    return pace.held_before_s + running


def next_pace(pace: Pace, observation: Observation) -> Pace:
    """Return the pace after ``observation``: the whole control law."""
    ticket, word = observation.ticket, observation.word
    if word.effect is Effect.THROTTLED and word.retry_after_s is not None:
        named_at = observation.at + word.retry_after_s + _jitter(word.retry_after_s, observation.draw)
        pace = replace(pace, not_before=max(pace.not_before, named_at), next_at=max(pace.next_at, named_at))
    if word.accepted:
        pace = replace(pace, holds=0)
    if ticket.canary:
        if word.effect is Effect.SERVED:
            return _resumed(pace, observation.at)
        return _held(pace, observation)
    if ticket.epoch != pace.epoch:
        return pace
    match word.effect:
        case Effect.SERVED:
            return _grown(replace(pace, failures=0, served=pace.served + 1), observation)
        case Effect.THROTTLED:
            return _held(_learned(pace, observation.at), observation)
        case Effect.FAILED:
            failures = pace.failures + 1
            return _held(pace, observation) if failures >= FAILURES_THAT_HOLD else replace(pace, failures=failures)


def _learned(pace: Pace, now: float) -> Pace:
    """Take the 429 as a measurement of the limit.

    The server refilled ``served`` requests since the last recovery, when it had nothing saved up. The rate at which
    the 429 came bounds that from above.
    """
    if pace.fixed:
        return pace
    if pace.resumed_at is not None and pace.served >= MEASURABLE:
        limit = min(pace.rate, pace.served / (now - pace.resumed_at))
    else:
        limit = UNMEASURED_SHARE * min(pace.rate, pace.limit or pace.rate)
    return replace(pace, limit=max(SLOWEST_RATE, limit))


def _held(pace: Pace, observation: Observation) -> Pace:
    own_s = min(LONGEST_HOLD_S, max(FIRST_HOLD_S, HOLD_INTERVALS / pace.rate) * 2.0 ** min(pace.holds, 16))
    return replace(
        pace,
        phase=Phase.HELD,
        epoch=pace.epoch + 1,
        held_from=observation.at if pace.phase is Phase.OPEN else pace.held_from,
        held_until=observation.at + own_s + _jitter(own_s, observation.draw),
        read_only_canary=observation.word.effect is Effect.FAILED,
        holds=pace.holds + 1,
        failures=0,
        probes=0,
    )


def _jitter(seconds: float, draw: float) -> float:
    return draw * min(LONGEST_JITTER_S, JITTER_SHARE * seconds)


def _resumed(pace: Pace, now: float) -> Pace:
    rate = pace.rate
    if pace.limit is not None and not pace.fixed and not pace.read_only_canary:
        rate = min(pace.ceiling, RESUME_SHARE * pace.limit)
    return replace(
        pace,
        phase=Phase.OPEN,
        rate=rate,
        next_at=max(pace.not_before, now + 1.0 / rate),
        held_before_s=held_s(pace, now),
        failures=0,
        served=0,
        resumed_at=now,
        sent=0,
        grown_at=now,
    )


def _grown(pace: Pace, observation: Observation) -> Pace:
    if pace.fixed or pace.phase is not Phase.OPEN or pace.grown_at is None:
        return pace
    if observation.ticket.started_at < pace.grown_at:
        return pace
    now = observation.at
    elapsed = now - pace.grown_at
    step, interval_s = _growth(pace)
    if elapsed < interval_s:
        return pace
    is_used = pace.sent >= USED_SHARE * pace.rate * elapsed
    if not is_used:
        return replace(pace, grown_at=now, sent=0)
    is_probe = pace.limit is not None and pace.rate >= NEAR_LIMIT_SHARE * pace.limit
    probes = pace.probes + is_probe
    return replace(pace, rate=min(pace.ceiling, pace.rate * step), grown_at=now, sent=0, probes=probes)


def _growth(pace: Pace) -> tuple[float, float]:
    if pace.limit is None:
        return 2.0, DOUBLING_INTERVAL_S
    if pace.rate < NEAR_LIMIT_SHARE * pace.limit:
        return RECOVERING_STEP, RECOVERING_INTERVAL_S
    step = 1.0 + min(LARGEST_PROBE, FIRST_PROBE * 2.0 ** min(pace.probes, 16))
    return step, NEXT_PROBE_AFTER_S if pace.probes else FIRST_PROBE_AFTER_S
