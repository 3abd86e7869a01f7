"""The keys of a scenario about limits: their kinds, their changes, and the header that tells when to come back."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from orchestrator.simulator.values import Part, Range, Seconds, Whole, refuse


class RetryAfter(StrEnum):
    """The form of the `Retry-After` header of a 429.

    - `none`: no header, like the real gateway
    - `seconds`, `decimal`: the seconds to wait, as a whole or a decimal number
    - `date`, `rfc850`, `asctime`: the moment to come back; the last two are older forms of a date
    - `past_date`, `zero`, `negative`, `words`, `odd` (`1.5x`), `empty`, `huge`, `hour`: values that no client should
      obey blindly
    """

    NONE = "none"
    SECONDS = "seconds"
    DECIMAL = "decimal"
    DATE = "date"
    RFC850 = "rfc850"
    ASCTIME = "asctime"
    PAST_DATE = "past_date"
    ZERO = "zero"
    NEGATIVE = "negative"
    WORDS = "words"
    ODD = "odd"
    EMPTY = "empty"
    HUGE = "huge"
    HOUR = "hour"


AppliesTo = Annotated[
    Literal["all", "posts", "gets"],
    Field(description="Requests that the limit counts and may refuse: `all`, only `posts`, or only `gets`."),
]


class Bucket(Part):
    """The limiter of API Gateway: a token bucket.

    It gains `rate` tokens per second and holds at most `burst`. Each request takes one token. An empty bucket refuses
    requests.
    """

    kind: Literal["bucket"] = "bucket"
    rate: Annotated[float, Field(gt=0, le=1e6)]
    """Tokens gained per second: the requests per second that it sustains."""
    burst: Whole = 10
    """The maximum number of saved tokens. A full bucket lets in this many requests at once."""
    applies_to: AppliesTo = "all"


class Window(Part):
    """A maximum number of requests per period.

    `fixed_window` starts a new count with each period. `sliding_window` always counts the requests of the past period.
    """

    kind: Literal["fixed_window", "sliding_window"]
    requests: Whole
    """The most requests in one period."""
    per: Annotated[Seconds, Field(gt=0)]
    """Length of the period."""
    phase: Seconds = 0.0
    """`fixed_window`: the part of the first period that is over when the limit starts, with the first request or by the
    `schedule`. Less than `per`."""
    applies_to: AppliesTo = "all"

    @model_validator(mode="after")
    def _phase_is_within_the_period(self) -> Self:
        if self.phase and (self.kind != "fixed_window" or self.phase >= self.per):
            refuse("phase is for fixed_window, and must be less than per")
        return self


class InFlight(Part):
    """A maximum number of requests at a time, whatever their rate."""

    kind: Literal["in_flight"]
    requests: Whole
    """The most requests at a time."""
    applies_to: AppliesTo = "all"


Limit = Annotated[Bucket | Window | InFlight, Field(discriminator="kind")]


class Change(Part):
    """A change of the limits, of the latency, or of both.

    A new bucket starts with the tokens of the old bucket. A new sliding window starts with the requests of the old one.
    The old limit is the first one of the same kind with the same `applies_to`. If there is none, a bucket starts full,
    and a window starts empty. A new fixed window always starts empty. A change of the latency alone leaves all limits
    as they are.
    """

    at: Seconds
    """Moment of the change."""
    limits: tuple[Limit, ...] | None = None
    """The new limits, which replace all earlier ones. `[]` removes all limits. Default: the limits stay."""
    latency: Range | None = None
    """The new latency of requests that arrive from then on: a duration, or a list of the shortest and the longest.
    Default: the latency stays."""

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.limits is None and self.latency is None:
            refuse("a change must have limits, latency, or both")
        return self
