"""The data of the control law: what an answer tells the limiter, and what the limiter knows about one budget.

Rates are in requests per second, instants in seconds of any one monotonic clock, bursts and bounds in requests.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from orchestrator.pacing.capacity import Estimate, Meter
from orchestrator.pacing.flight import Flight
from orchestrator.pacing.history import History
from orchestrator.value import value

if TYPE_CHECKING:
    from orchestrator.pacing.window import Window

NO_METER, NO_FLIGHT, NO_HISTORY = Meter(), Flight(), History()


class Effect(StrEnum):
    """What an answer says about the server's capacity."""

    SERVED = "served"
    THROTTLED = "throttled"
    FAILED = "failed"


class Phase(StrEnum):
    """Whether requests flow, are held, or wait for the answer to a canary."""

    FLOWING = "flowing"
    HELD = "held"
    CANARY = "canary"


class Stage(StrEnum):
    """What is known about the limit: nothing yet, bounds that are far apart, or a figure."""

    SEEKING = "seeking"
    MEASURING = "measuring"
    SETTLED = "settled"


class Binding(StrEnum):
    """What keeps the next request back while the budget is not held, in the words of the log."""

    RATE = "rate"
    REFUSED_IN_FLIGHT = "the number in flight that the server accepts"
    SLOW_ANSWERS = "the number in flight that the server answers without delay"
    CONCURRENCY = "concurrency"


class Cause(StrEnum):
    """The reason for the present rate, in the words of the log."""

    START = "start"
    REMEMBERED = "remembered"
    NOT_REFUSED = "not refused so far"
    FIRST_REFUSAL = "first 429"
    MEASURED = "measured between two 429s"
    NARROWING = "closer to the upper bound"
    PROBE = "probe for a higher limit"
    SLOWING = "answers slow down"
    SHARED = "other clients use the limit, too"


@value
class Ticket:
    """The permission to send one request, and the state of the pace when it started.

    ``rate`` is the rate then. ``in_flight`` counts the requests under way, this one included. ``cohort`` is the number
    of its cohort, 0 for none. ``canary`` marks the only request that may go out after a hold. With ``read_only``, it
    must not be a POST.
    """

    started_at: float
    epoch: int
    canary: bool = False
    read_only: bool = False
    rate: float = 0.0
    in_flight: int = 1
    cohort: int = 0


@value
class Feedback:
    """What an answer tells the limiter: its effect, whether it accepted a POST, and the ``Retry-After`` to obey.

    ``sent`` tells whether the request may have reached the server. Then the server may have counted it, whatever the
    answer was.
    """

    effect: Effect
    accepted: bool = False
    retry_after_s: float | None = None
    sent: bool = True


@value
class Observation:
    """A request's ticket, the feedback of its answer, and the instant of the answer. ``draw`` is uniform in [0, 1)."""

    ticket: Ticket
    feedback: Feedback
    at: float
    draw: float = 0.0


@value
class Hold:
    """The present hold of a budget, or its last one.

    ``not_before`` is the latest moment that a ``Retry-After`` named. While requests flow, a wait for it counts as held
    from ``since`` on. ``before_s`` is the length of all earlier holds. ``row`` counts the holds in a row: each makes
    the next one longer. ``failed_row`` counts those of them that failures caused. A served request ends the row apart
    from these, an accepted POST all of it. ``failures`` counts the failed requests in a row. ``read_only`` tells that
    failures caused the hold, so its canary must not be a POST.
    """

    since: float = 0.0
    until: float = 0.0
    not_before: float = 0.0
    before_s: float = 0.0
    row: int = 0
    failed_row: int = 0
    failures: int = 0
    read_only: bool = False


@value
class Growth:
    """How far the present rate has been tried.

    The rate last changed at ``rose_at``. Since ``since``, ``started`` requests have started, ``served`` were served in
    time, and ``answers`` answers have come. ``answer_rate`` is the highest number of answers per second, at this rate
    or the last one. ``probes`` counts the steps above the limit since the last hold. The first one comes ``quiet_s``
    seconds after the hold, if there is ``credit`` for the 429 that it may cost. ``peak`` is the highest measured limit.
    ``proven`` is the highest rate since the last measurement that the server sustained beyond limit and burst.
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


@value
class Evidence:
    """What was observed of the limits, for people: 429s, the rates at which holds began, usable ``Retry-After``s."""

    refused: int = 0
    last_refused_rate: float = 0.0
    lowest_refused_rate: float | None = None
    highest_refused_rate: float | None = None
    named_moments: int = 0


@value
class Pace:
    """The state of one budget's limiter.

    ``concurrency`` bounds the requests in flight in any case. The next request may start at ``next_at``; before that,
    ``spare`` requests may start at once. ``served`` counts the served requests. ``estimate`` is ``None`` before a limit
    was met. ``window`` is ``None`` unless the limit is believed to count in windows. ``shared`` tells that
    other clients seem to use the limit, too. ``surprises`` counts the meetings that the belief did not expect, minus
    the others.
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
    stage: Stage = Stage.SEEKING
    estimate: Estimate | None = None
    hold: Hold = Hold()
    growth: Growth = Growth()
    meter: Meter = NO_METER
    flight: Flight = NO_FLIGHT
    evidence: Evidence = Evidence()
    history: History = NO_HISTORY
    window: Window | None = None
    shared: bool = False
    surprises: int = 0

    @property
    def limit(self) -> float | None:
        """Return the estimated limit of the server in requests per second, ``None`` before a limit was met."""
        return self.estimate.rate if self.estimate else None
