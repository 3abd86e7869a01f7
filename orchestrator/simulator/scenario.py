"""What a stand-in does, as one document: its limits, latency, faults, and what it shows. Pure data.

``examples/scenarios`` has telling ones. Durations are written as ``250ms``; shares go from 0 to 1. Moments (``at``,
``from``, ``until``, ``revoked_after``) count from the first request.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from orchestrator.units import DURATION_PATTERN, duration_s, duration_text

if TYPE_CHECKING:
    from collections.abc import Sequence

UUID = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
MOST_INSTALLS = 200_000


def _refuse(message: str) -> NoReturn:
    kind, template = "wrong", "{message}"
    raise PydanticCustomError(kind, template, {"message": message})


def _seconds(value: object) -> float:
    seconds = value if isinstance(value, float) else 0.0 if value == 0 else duration_s(value)
    if seconds is None or not 0 <= seconds <= 1e9:  # noqa: PLR2004 - three decades
        _refuse("must be a duration: a number and ms, s, m, h or d, as 30s")
    return seconds


def _signed_seconds(value: object) -> float:
    if isinstance(value, str) and value.startswith("-"):
        return -_seconds(value[1:])
    return value if isinstance(value, float) else _seconds(value)


def _text(seconds: float) -> object:
    sign = "-" if seconds < 0 else ""
    return sign + duration_text(abs(seconds)) if seconds else 0


def _range(value: object) -> object:
    """Take a single duration for a range of nothing else."""
    return value if isinstance(value, list | tuple) else [value, value]


_DURATION = {"anyOf": [{"type": "string", "pattern": f"^{DURATION_PATTERN}$"}, {"const": 0}]}
_SIGNED = {"anyOf": [{"type": "string", "pattern": f"^-?{DURATION_PATTERN}$"}, {"const": 0}]}

_WRITTEN = PlainSerializer(_text, when_used="json")

Seconds = Annotated[float, BeforeValidator(_seconds), _WRITTEN, WithJsonSchema(_DURATION)]
SignedSeconds = Annotated[float, BeforeValidator(_signed_seconds), _WRITTEN, WithJsonSchema(_SIGNED)]
Range = Annotated[
    tuple[Seconds, Seconds],
    BeforeValidator(_range),
    WithJsonSchema({"anyOf": [_DURATION, {"type": "array", "items": _DURATION, "minItems": 2, "maxItems": 2}]}),
]
Share = Annotated[float, Field(ge=0, le=1)]
Whole = Annotated[int, Field(ge=1)]


class Part(BaseModel):
    """Any mapping of a scenario: its keys are known, and each is described in place."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=True)


class RetryAfter(StrEnum):
    """How a 429 names the moment to come back; the real gateway does not."""

    NONE = "none"
    SECONDS = "seconds"
    DECIMAL = "decimal"
    DATE = "date"
    PAST_DATE = "past_date"
    ZERO = "zero"
    NEGATIVE = "negative"
    WORDS = "words"
    HOUR = "hour"


class Bucket(Part):
    """API Gateway's limiter: tokens flow in at a rate and are saved up to a burst; each request takes one."""

    kind: Literal["bucket"] = "bucket"
    rate: Annotated[float, Field(gt=0, le=1e6)]
    """Requests per second."""
    burst: Whole = 10
    """What is let through at once."""


class Window(Part):
    """So many requests in each period of a clock, or in any period of that length."""

    kind: Literal["fixed_window", "sliding_window"]
    requests: Whole
    """How many."""
    per: Seconds
    """The period."""


class InFlight(Part):
    """So many requests at a time, however fast they are."""

    kind: Literal["in_flight"]
    requests: Whole
    """How many."""


Limit = Annotated[Bucket | Window | InFlight, Field(discriminator="kind")]


class Change(Part):
    """Other limits from some moment on. A bucket that follows a bucket keeps its tokens."""

    at: Seconds
    """When."""
    limits: tuple[Limit, ...]
    """What replaces the limits so far; an empty list lifts them."""


class Route(StrEnum):
    """An operation of the API, as faults name it."""

    POST = "post"
    LISTING = "listing"
    SHOW = "show"
    INSTALLS = "installs"
    INSTALL = "install"
    ACCOUNTS = "accounts"
    USER = "user"
    STATUS = "status"


class Kind(StrEnum):
    """How a request ends that a fault hits."""

    BAD_REQUEST = "bad_request"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    SERVER_ERROR = "server_error"
    BAD_GATEWAY = "bad_gateway"
    UNAVAILABLE = "unavailable"
    GATEWAY_TIMEOUT = "gateway_timeout"
    QUOTA = "quota"
    REDIRECT = "redirect"
    RESET = "reset"
    HANG = "hang"
    CUT_SHORT = "cut_short"
    BROKEN_JSON = "broken_json"
    MISSING_ID = "missing_id"
    WRONG_TYPE = "wrong_type"


OF_INSTALLS = {Kind.BAD_REQUEST, Kind.FORBIDDEN, Kind.NOT_FOUND}
"""Faults that are an install's own: the same ones get the same answer each time."""

MADE_ALL_THE_SAME = {Kind.CUT_SHORT, Kind.BROKEN_JSON, Kind.MISSING_ID, Kind.WRONG_TYPE}
"""Faults of the answer to a POST that was carried out."""

NEVER_MADE = OF_INSTALLS | {Kind.QUOTA, Kind.REDIRECT}


class Fault(Part):
    """Something that goes wrong with a share of the requests, or of the installs."""

    kind: Kind
    """How it ends: `bad_request` (400), `forbidden` (403), `not_found` (404), `server_error` (500), `bad_gateway` (502,
    HTML), `unavailable` (503), `gateway_timeout` (504), `quota` (429 `Limit Exceeded`), `redirect` (302, elsewhere),
    `reset`, `hang` (no answer, ever), `cut_short`, `broken_json`, `missing_id`, `wrong_type`."""
    operation: Route = Route.POST
    """Which operation: `post`, `listing`, `show` (one backup), `installs`, `install`, `accounts`, `user`, `status`."""
    share: Share = 1.0
    """How much of it. Faults of one operation exclude each other: their shares add up."""
    of: Literal["requests", "installs"] | None = None
    """Share of what: of the `requests`, or of the `installs`, which it then hits each time. 400, 403 and 404 are faults
    of installs unless this says otherwise, the others of requests."""
    created: bool | None = None
    """Of a POST: whether the backup is made all the same. Left out: only where the answer itself is what is broken."""
    installs: tuple[Annotated[str, Field(pattern=UUID)], ...] = ()
    """Only these; left out: any."""
    first_tries: Whole | None = None
    """Only the first so many requests for an install, so that a later one gets through."""
    from_: Annotated[Seconds, Field(alias="from")] = 0.0
    """From this moment on."""
    until: Seconds | None = None
    """To this moment; left out: for ever."""

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.created and (self.kind in NEVER_MADE or self.operation is not Route.POST):
            _refuse("created: a request that ends like this makes no backup")
        if self.created is False and self.kind in MADE_ALL_THE_SAME:
            _refuse("created: what is broken here is the answer, and the backup is made")
        return self

    @property
    def is_of_installs(self) -> bool:
        """Tell whether the share is one of the installs."""
        return self.of == "installs" or (self.of is None and self.kind in OF_INSTALLS)

    @property
    def makes_the_backup(self) -> bool:
        """Tell whether a POST that this hits makes its backup all the same."""
        return self.kind in MADE_ALL_THE_SAME if self.created is None else self.created


class Credentials(Part):
    """Who may ask. Left out: anybody."""

    user_id: str | None = None
    """The only API user id; left out: any."""
    password: str | None = None
    """Its password; left out: any."""
    revoked_after: Seconds | None = None
    """From this moment on they are refused."""
    revoked_after_requests: Whole | None = None
    """So they are after so many requests."""


class SimulatedInstall(Part):
    """One install of an account."""

    name: Annotated[str, Field(pattern="^[a-z][a-z0-9]{2,13}$")]
    """Its name."""
    id: Annotated[str, Field(pattern=UUID)] | None = None
    """Its id; left out: one made from the names."""
    environment: Literal["production", "staging", "development"] | None = "production"
    """What it is for."""
    status: Literal["active", "pending"] = "active"
    """Whether it is ready."""


class SimulatedAccount(Part):
    """One of WP Engine's accounts, with its installs."""

    name: Annotated[str, Field(pattern="^[a-z][a-z0-9]{1,30}$")]
    """Its name."""
    installs: tuple[SimulatedInstall, ...] | Annotated[int, Field(ge=0, le=MOST_INSTALLS)] = ()
    """Its installs, or how many to make up."""
    environments: Annotated[tuple[Literal["production", "staging", "development"], ...], Field(min_length=1)] = (
        "production",
    )
    """What made-up installs are for, in turn."""


class Backend(Part):
    """What is behind the gateway: so many slots, each busy with one request at a time."""

    slots: Whole
    """How many requests it works on at once; the others wait."""
    takes: Range
    """How long one takes; a duration, or the least and the most."""


class Listing(Part):
    """How the listing of an install's backups behaves."""

    available: bool = True
    """`false`: 404, as a gateway that does not know the operation yet."""
    lag: Seconds = 0.0
    """How long a new backup is missing from it."""
    page_size: Annotated[int, Field(ge=1, le=100)] = 100
    """The most on one page, whatever was asked for."""
    order: Literal["oldest", "newest", "random"] = "newest"
    """How it is sorted."""
    descriptions: Literal["whole", "cut", "escaped", "missing"] = "whole"
    """How they come back: `cut` to 20 characters, `escaped` for HTML, or `missing`."""
    nightly: Annotated[int, Field(ge=0, le=60)] = 0
    """How many checkpoints that WP Engine made by itself, one a night, it shows."""
    next: Literal["path", "url", "elsewhere"] = "path"
    """How a page names the next one: as a path, a URL, or a URL of another host."""


class Backups(Part):
    """What becomes of the backups that are made."""

    completes_after: Range = (2.0, 2.0)
    """When one is completed; a duration, or the least and the most."""
    aborts: Share = 0.0
    """The share that is aborted then."""
    fields: Literal["all", "minimal"] = "all"
    """`minimal`: only `{id, status}`, as in the specification of early 2026."""


class Scenario(Part):
    """The behaviour of one stand-in."""

    seed: int = 0
    """Whom the shares hit: the same seed hits the same ones, in whatever order they come."""
    latency: Range = (0.02, 0.08)
    """How long an answer is under way; a duration, or the least and the most."""
    limits: tuple[Limit, ...] = ()
    """The limits, all at once; `kind` is `bucket`, `fixed_window`, `sliding_window` or `in_flight`."""
    schedule: tuple[Change, ...] = ()
    """How they change."""
    retry_after: RetryAfter = RetryAfter.NONE
    """How a 429 names the moment to come back: `none` (as the real gateway), `seconds`, `decimal`, `date`, and what no
    client should obey blindly: `past_date`, `zero`, `negative`, `words`, `hour`."""
    clock_skew: SignedSeconds = 0.0
    """How far the server's clock is ahead; `-1h` is behind."""
    backend: Backend | None = None
    """Left out: it never makes anybody wait."""
    gateway_timeout: Seconds = 29.0
    """When the gateway answers 504, while the backend goes on and makes the backup."""
    credentials: Credentials = Credentials()
    """Who may ask."""
    accounts: tuple[SimulatedAccount, ...] = ()
    """WP Engine's accounts. Left out: every install exists, and none is listed."""
    faults: tuple[Fault, ...] = ()
    """What goes wrong."""
    listing: Listing = Listing()
    """How the listing of backups behaves."""
    backups: Backups = Backups()
    """What becomes of backups."""

    @model_validator(mode="after")
    def _shares_add_up(self) -> Self:
        totals: dict[tuple[Route, bool], float] = {}
        for fault in self.faults:
            if not (fault.installs or fault.first_tries or fault.from_ or fault.until):
                key = (fault.operation, fault.is_of_installs)
                totals[key] = totals.get(key, 0.0) + fault.share
        if any(total > 1 + 1e-9 for total in totals.values()):
            _refuse("the shares of one operation's faults must add up to at most 1")
        return self

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of a scenario, for editors, with each default as a scenario would write it."""
        schema = cls.model_json_schema()
        for part in (cls(), Listing(), Backups(), Fault(kind=Kind.HANG)):
            properties = schema["$defs"].get(type(part).__name__, schema)["properties"]
            for key, default in part.model_dump(mode="json", by_alias=True, exclude={"kind"}).items():
                properties[key]["default"] = default
        return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema

    def with_more(self, limits: Sequence[Bucket], faults: Sequence[Fault], **other: object) -> Scenario:
        """Return this scenario with ``limits`` and ``faults`` besides its own, and ``other`` keys replaced."""
        data = {"limits": (*self.limits, *limits), "faults": (*self.faults, *faults)} | other
        return Scenario.model_validate(dict(self) | data)
