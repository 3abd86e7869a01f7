"""What a stand-in does, as one document: its limits, latency, faults, and what it shows. Pure data.

``examples/scenarios`` has telling ones. Durations are written as ``250ms``; shares go from 0 to 1. Moments (``at``,
``from``, ``until``, ``revoked_after``) count from the first request.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from itertools import cycle
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator.simulator.values import UUID, Range, Seconds, Share, SignedSeconds, Whole, refuse

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_INSTALLS = 200_000


class Part(BaseModel):
    """Any mapping of a scenario: its keys are known, and each is described in place."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=True)


class RetryAfter(StrEnum):
    """How a 429 names the moment to come back; the real gateway does not."""

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
    per: Annotated[Seconds, Field(gt=0)]
    """The period. A fixed one begins with the first request, or with the change that brings it."""


class InFlight(Part):
    """So many requests at a time, however fast they are."""

    kind: Literal["in_flight"]
    requests: Whole
    """How many."""


Limit = Annotated[Bucket | Window | InFlight, Field(discriminator="kind")]


class Change(Part):
    """Other limits from some moment on. A bucket keeps the tokens of the one before, a sliding window its memory."""

    at: Seconds
    """When."""
    limits: tuple[Limit, ...]
    """What replaces the limits so far; an empty list lifts them."""


class Operation(StrEnum):
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
    BLOCKED = "blocked"
    NOT_FOUND = "not_found"
    SERVER_ERROR = "server_error"
    BAD_GATEWAY = "bad_gateway"
    UNAVAILABLE = "unavailable"
    GATEWAY_TIMEOUT = "gateway_timeout"
    QUOTA = "quota"
    REDIRECT = "redirect"
    RESET = "reset"
    HANG = "hang"
    CUT_HEAD = "cut_head"
    CUT_SHORT = "cut_short"
    DRIP = "drip"
    BROKEN_JSON = "broken_json"
    MISSING_ID = "missing_id"
    WRONG_TYPE = "wrong_type"
    HUGE_BODY = "huge_body"
    GZIP_BOMB = "gzip_bomb"


OF_INSTALLS = {Kind.BAD_REQUEST, Kind.FORBIDDEN, Kind.NOT_FOUND}
"""Faults that are an install's own: the same ones get the same answer each time."""

MADE_ALL_THE_SAME = {
    Kind.CUT_SHORT,
    Kind.DRIP,
    Kind.BROKEN_JSON,
    Kind.MISSING_ID,
    Kind.WRONG_TYPE,
    Kind.HUGE_BODY,
    Kind.GZIP_BOMB,
}
"""Faults of the body that answers a request which was carried out."""

OF_THE_CONNECTION = {Kind.RESET, Kind.HANG, Kind.CUT_HEAD, Kind.CUT_SHORT, Kind.DRIP}
"""Faults that leave a request without a whole answer."""

NEVER_MADE = OF_INSTALLS | {Kind.BLOCKED, Kind.QUOTA, Kind.REDIRECT}

OF_ONE_INSTALL = {Operation.POST, Operation.LISTING, Operation.SHOW, Operation.INSTALL}
"""Operations that have an install in their path."""


class Fault(Part):
    """Something that goes wrong with a share of the requests, or of the installs."""

    kind: Kind
    """How it ends: `bad_request` (400), `forbidden` (403), `blocked` (403, HTML), `not_found` (404), `server_error`
    (500), `bad_gateway` (502, HTML), `unavailable` (503), `gateway_timeout` (504), `quota` (429 `Limit Exceeded`),
    `redirect` (302, elsewhere), `reset`, `hang` (no answer, ever), `cut_head` (a reset in the middle of the answer's
    head), `cut_short` (the end in the middle of its body), `drip` (its body comes a byte a second), `broken_json`,
    `missing_id`, `wrong_type`, `huge_body` (10 MB), `gzip_bomb` (100 MB of which 100 kB are sent)."""
    operation: Operation = Operation.POST
    """Which operation: `post`, `listing`, `show` (one backup), `installs`, `install`, `accounts`, `user`, `status`."""
    share: Share = 1.0
    """How much of it. The shares of one operation's faults of installs add up, and so do those of its faults of
    requests, which hit what the former leave."""
    of: Literal["requests", "installs"] | None = None
    """Share of what: of the `requests`, or of the `installs`, which it then hits each time. 400, 403 and 404 are faults
    of installs unless this says otherwise, the others of requests; so are all of an operation without an install."""
    created: bool | None = None
    """Of a POST: whether the backup is made all the same. Left out: only where the body of the answer is what is
    broken."""
    installs: tuple[Annotated[str, Field(pattern=UUID)], ...] = ()
    """Only these; left out: any."""
    after: Seconds = 0.0
    """How long the answer takes, or the end without one, once the backup is made or not; the real 504 comes after 29
    s."""
    first_tries: Whole | None = None
    """Only the first so many requests for an install, so that a later one gets through."""
    from_: Annotated[Seconds, Field(alias="from")] = 0.0
    """From this moment on."""
    until: Seconds | None = None
    """To this moment; left out: for ever."""

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.created and (self.kind in NEVER_MADE or self.operation is not Operation.POST):
            refuse("created: a request that ends like this makes no backup")
        if self.created is False and self.kind in MADE_ALL_THE_SAME:
            refuse("created: what is broken here is the body of the answer, and the backup is made")
        if self.installs and self.operation not in OF_ONE_INSTALL:
            refuse("installs: this operation has none")
        if self.until is not None and self.until <= self.from_:
            refuse("until must be later than from")
        return self

    @property
    def is_of_installs(self) -> bool:
        """Tell whether the share is one of the installs."""
        is_meant = self.of == "installs" or (self.of is None and self.kind in OF_INSTALLS)
        return is_meant and self.operation in OF_ONE_INSTALL

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
    site: Annotated[str, Field(pattern="^[a-z0-9-]{1,40}$")] | None = None
    """A word for the site that it belongs to, together with others of its account; left out: a site of its own."""


class SimulatedAccount(Part):
    """One of WP Engine's accounts, with its installs."""

    name: Annotated[str, Field(pattern="^[a-z][a-z0-9]{1,30}$")]
    """Its name."""
    installs: tuple[SimulatedInstall, ...] | Annotated[int, Field(ge=0, le=MOST_INSTALLS)] = ()
    """Its installs, or how many to make up; `[]` is an account without any."""
    environments: Annotated[tuple[Literal["production", "staging", "development"], ...], Field(min_length=1)] = (
        "production",
    )
    """What made-up installs are for, in turn."""

    def all_installs(self) -> tuple[SimulatedInstall, ...]:
        """Return the installs; those that are made up are named after the account."""
        if not isinstance(self.installs, int):
            return self.installs
        numbered = zip(range(1, self.installs + 1), cycle(self.environments), strict=False)
        return tuple(
            SimulatedInstall.model_construct(name=f"{self.name[:8]}{number:06}", environment=environment)
            for number, environment in numbered
        )


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
    order: Literal["oldest", "newest", "random"] = "newest"
    """How it is sorted."""
    descriptions: Literal["whole", "cut", "escaped", "missing"] = "whole"
    """How they come back: `cut` to 20 characters, `escaped` for HTML, or `missing`."""
    nightly: Annotated[int, Field(ge=0, le=60)] = 0
    """How many nightly checkpoints of WP Engine it shows. All are completed; when the stand-in starts, the newest
    is about half a day old, whatever the hour."""


class Pages(Part):
    """How listings are cut into pages, of backups as of installs and accounts."""

    size: Annotated[int, Field(ge=1, le=100)] = 100
    """The most on one page, whatever was asked for."""
    next: Literal["path", "url", "elsewhere"] = "path"
    """How a page names the next one: as a path, a URL, or a URL of another host."""


class Backups(Part):
    """What becomes of the backups that are made."""

    completes_after: Range = (2.0, 2.0)
    """When one is completed; a duration, or the least and the most."""
    aborts: Share = 0.0
    """The share that is aborted then."""
    first_status: Literal["requested", "in_progress", "initiated", "completed", "queued"] = "requested"
    """The status that one begins with. `initiated` is the deprecated word for `in_progress`, and stays; a `completed`
    one is so in the answer to the POST; `queued` is a word that the specification does not know."""
    fields: Literal["all", "minimal"] = "all"
    """`minimal`: only `{id, status}`, as in the specification of early 2026."""


class Scenario(Part):
    """The behaviour of one stand-in."""

    seed: int = 0
    """Whom the shares hit: the same seed hits the same ones, in whatever order they come."""
    latency: Range = (0.02, 0.08)
    """How long an answer is under way; a duration, or the least and the most."""
    limits: tuple[Limit, ...] = ()
    """The limits, all at once: `kind` is `bucket`, `fixed_window`, `sliding_window` or `in_flight`. A request that
    one refuses is counted by none."""
    limits_per: Literal["address", "credentials"] = "address"
    """Whom they count: everybody together, or each API user by itself."""
    schedule: tuple[Change, ...] = ()
    """How they change."""
    retry_after: RetryAfter = RetryAfter.NONE
    """How a 429 names the moment to come back: `none` (as the real gateway), `seconds`, `decimal`, `date`, in the
    older forms `rfc850` and `asctime`, and what no client should obey blindly: `past_date`, `zero`, `negative`,
    `words`, `odd` (`1.5x`), `empty`, `huge`, `hour`."""
    clock_skew: SignedSeconds = 0.0
    """How far the server's clock is ahead; `-1h` is behind."""
    backend: Backend | None = None
    """Left out: it never makes anybody wait."""
    gateway_timeout: Seconds = 29.0
    """When the gateway answers 504 in place of a backend, or a fault, that is slower; what was to be done is done."""
    credentials: Credentials = Credentials()
    """Who may ask."""
    accounts: tuple[SimulatedAccount, ...] | None = None
    """WP Engine's accounts; nothing exists but them and their installs, so `[]` is a user without access to any
    account. Left out: the account `rehearsal` with the installs `shop01` to `shop24` is listed, and a backup of any
    other install id can be requested as well."""
    faults: tuple[Fault, ...] = ()
    """What goes wrong."""
    pages: Pages = Pages()
    """How listings are cut into pages."""
    listing: Listing = Listing()
    """How the listing of backups behaves."""
    backups: Backups = Backups()
    """What becomes of backups."""

    @model_validator(mode="after")
    def _shares_add_up(self) -> Self:
        totals: Counter[tuple[object, ...]] = Counter()
        for fault in self.faults:
            where = (fault.operation, fault.is_of_installs, fault.installs, fault.first_tries, fault.from_, fault.until)
            totals[where] += fault.share  # type: ignore[assignment]  # a Counter adds up floats as well
        if any(total > 1 + 1e-9 for total in totals.values()):
            refuse("the shares of one operation's faults must add up to at most 1")
        return self

    @model_validator(mode="after")
    def _nothing_is_there_twice(self) -> Self:
        accounts = self.accounts or ()
        named = [install for each in accounts for install in each.all_installs()]
        for what, names in (
            ("account", [account.name for account in accounts]),
            ("install", [install.name for install in named]),
            ("install id", [install.id.lower() for install in named if install.id]),
        ):
            if len(set(names)) < len(names):
                twice = next(name for name, count in Counter(names).items() if count > 1)
                refuse(f"accounts: the {what} {twice} is there twice")
        return self

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of a scenario, for editors, with each default as a scenario would write it."""
        schema = cls.model_json_schema()
        for part in (cls(), Pages(), Listing(), Backups(), Fault(kind=Kind.HANG)):
            properties = schema["$defs"].get(type(part).__name__, schema)["properties"]
            for key, default in part.model_dump(mode="json", by_alias=True, exclude={"kind"}).items():
                properties[key]["default"] = default
        return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema

    def with_more(self, limits: Sequence[Bucket], faults: Sequence[Fault], **other: object) -> Scenario:
        """Return this scenario with ``limits`` and ``faults`` besides its own, and ``other`` keys replaced."""
        data = {"limits": (*self.limits, *limits), "faults": (*self.faults, *faults)} | other
        return Scenario.model_validate(dict(self) | data)
