"""The words of the control law: what an answer tells the limiter, and all that the limiter knows of one budget.

Rates are requests per second, instants seconds on any one monotonic clock, bursts and bounds requests.
"""

from __future__ import annotations

from enum import StrEnum

from orchestrator.pacing.capacity import CoursePoint, Estimate, Meter
from orchestrator.pacing.flight import Flight
from orchestrator.value import value

NO_METER, NO_FLIGHT = Meter(), Flight()


class Effect(StrEnum):
    """What an answer says of the server's capacity."""

    SERVED = "served"
    THROTTLED = "throttled"
    FAILED = "failed"


class Phase(StrEnum):
    """Whether requests flow, are held, or a single canary is on its way."""

    FLOWING = "flowing"
    HELD = "held"
    CANARY = "canary"


class Stage(StrEnum):
    """What is known of the limit: nothing yet, bounds that are far apart, or a figure."""

    SEEKING = "seeking"
    MEASURING = "measuring"
    SETTLED = "settled"


class Binding(StrEnum):
    """What keeps the next request back while none is held."""

    RATE = "rate"
    REFUSED_IN_FLIGHT = "the requests in flight that the server bears"
    SLOW_ANSWERS = "the requests in flight that the server answers without delay"
    CONCURRENCY = "concurrency"


class Cause(StrEnum):
    """Why a rate is what it is, as the log says it."""

    START = "start"
    REMEMBERED = "remembered"
    NOT_REFUSED = "not refused so far"
    FIRST_REFUSAL = "first 429"
    MEASURED = "measured between two 429s"
    NARROWING = "below the upper bound"
    PROBE = "probe for a higher limit"
    SPENT = "saved-up requests are spent"
    SLOWING = "answers slow down"


@value
class Ticket:
    """The permission to send one request, and how things stood when it started.

    ``rate`` is the rate then, ``in_flight`` the requests under way with this one, ``ordinal`` the requests that
    started before it and were not refused, ``cohort`` that of its latency. ``canary`` marks the only request that may
    go out after a hold; with ``read_only`` it must not be a POST.
    """

    started_at: float
    epoch: int
    canary: bool = False
    read_only: bool = False
    rate: float = 0.0
    in_flight: int = 1
    ordinal: int = 0
    cohort: int = 0


@value
class Feedback:
    """What an answer tells the limiter: its effect, whether it accepted a POST, the ``Retry-After`` to obey.

    ``sent`` tells whether the request may have reached the server, which counts it then, whatever it answered.
    """

    effect: Effect
    accepted: bool = False
    retry_after_s: float | None = None
    sent: bool = True


@value
class Observation:
    """A request's ticket, what its answer said, when that came. ``draw`` is uniform in [0, 1)."""

    ticket: Ticket
    feedback: Feedback
    at: float
    draw: float = 0.0


@value
class Hold:
    """The pause of a budget, present or past.

    ``not_before`` is the latest moment that a ``Retry-After`` named. ``before_s`` adds up earlier holds. ``row`` is the
    k of the hold's length, the holds since a POST was last accepted; ``failures`` the failed requests in a row.
    ``read_only`` tells that it came from failures, so that its canary must not be a POST.
    """

    since: float = 0.0
    until: float = 0.0
    not_before: float = 0.0
    before_s: float = 0.0
    row: int = 0
    failures: int = 0
    read_only: bool = False


@value
class Growth:
    """How far the present rate has been tried.

    The rate last changed at ``rose_at``. Since ``since`` so many requests ``started`` and were ``served`` in time,
    and so many ``answers`` came; ``answer_rate`` is the answers per second then or before, whichever are more.
    ``probes`` counts the steps above the limit since the last hold; the first comes ``quiet_s`` after it, if there is
    ``credit`` for the 429 that it may cost. ``peak`` is the highest limit that was measured,
    ``proven`` the highest rate since then that was borne beyond limit and burst.
    ``spend_until`` ends a time above the limit that spends what was saved up.
    """

    since: float | None = None
    rose_at: float = 0.0
    answer_rate: float = 0.0
    started: int = 0
    served: int = 0
    answers: int = 0
    probes: int = 0
    quiet_s: float = 0.0
    peak: float = 0.0
    proven: float = 0.0
    credit: float = 1.0
    spend_until: float | None = None


@value
class Evidence:
    """What was seen of the limits, for people: 429s, the rates at which holds began, whether a moment was named."""

    refused: int = 0
    last_refused_rate: float = 0.0
    lowest_refused_rate: float | None = None
    highest_refused_rate: float | None = None
    named_moments: int = 0


@value
class Pace:
    """The state of one budget's limiter.

    ``concurrency`` bounds the requests in flight whatever else does. ``next_at`` is when the next may start; ``spare``
    of them may start at once. ``served`` counts answers, ``passed`` also the requests that failed and may have counted
    at the server. ``estimate`` is ``None`` before a limit was met. ``steps`` is the course of admissions since the last
    hold.
    """

    rate: float
    ceiling: float
    concurrency: int = 64
    fixed: bool = False
    cause: Cause = Cause.START
    binding: Binding = Binding.RATE
    phase: Phase = Phase.FLOWING
    epoch: int = 0
    next_at: float = 0.0
    spare: int = 0
    in_flight: int = 0
    served: int = 0
    passed: int = 0
    stage: Stage = Stage.SEEKING
    estimate: Estimate | None = None
    hold: Hold = Hold()
    growth: Growth = Growth()
    meter: Meter = NO_METER
    flight: Flight = NO_FLIGHT
    steps: tuple[CoursePoint, ...] = ()
    evidence: Evidence = Evidence()

    @property
    def limit(self) -> float | None:
        """Return the rate that the server is believed to bear, ``None`` before a limit was met."""
        return self.estimate.rate if self.estimate else None
