"""The document that describes a stand-in: its limits, latency, faults, accounts and backups. Pure data.

``examples/scenarios`` has examples. Durations are written as ``250ms``. Shares go from 0 to 1. Moments (``at``,
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
    """The base of every mapping in a scenario. It refuses unknown keys; docstrings are the keys' descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=True)


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


class Window(Part):
    """A maximum number of requests per period.

    `fixed_window` starts a new count with each period. `sliding_window` always counts the requests of the past period.
    """

    kind: Literal["fixed_window", "sliding_window"]
    requests: Whole
    """The most requests in one period."""
    per: Annotated[Seconds, Field(gt=0)]
    """Length of the period. The first fixed period starts with the first request, or when the `schedule` sets the
    limit."""


class InFlight(Part):
    """A maximum number of requests at a time, whatever their rate."""

    kind: Literal["in_flight"]
    requests: Whole
    """The most requests at a time."""


Limit = Annotated[Bucket | Window | InFlight, Field(discriminator="kind")]


class Change(Part):
    """A change of the limits.

    A new bucket starts with the tokens of the old bucket. A new sliding window starts with the requests of the old one.
    A new fixed window starts empty.
    """

    at: Seconds
    """Moment of the change."""
    limits: tuple[Limit, ...]
    """The new limits, which replace all earlier ones. `[]` removes all limits."""


class Operation(StrEnum):
    """The operation of the API that a fault hits.

    - `post`: request a backup
    - `listing`: list the backups of an install
    - `show`: show one backup
    - `installs`, `install`: list the installs, show one install
    - `accounts`: list the accounts
    - `user`: show the API user (the check of the credentials)
    - `status`: show that the API is up
    """

    POST = "post"
    LISTING = "listing"
    SHOW = "show"
    INSTALLS = "installs"
    INSTALL = "install"
    ACCOUNTS = "accounts"
    USER = "user"
    STATUS = "status"


class Kind(StrEnum):
    """What a fault does to a request.

    The answer is an error:

    - `bad_request` (400), `forbidden` (403), `not_found` (404), `server_error` (500), `unavailable` (503),
      `gateway_timeout` (504)
    - `blocked` (403) and `bad_gateway` (502), with an HTML page
    - `quota`: 429 with `Limit Exceeded`
    - `redirect`: 302 to another host

    No answer arrives:

    - `reset`: the connection is reset
    - `hang`: silence until the client gives up
    - `cut_head`: the connection is reset in the middle of the header

    The request is carried out, but the body of the answer is broken:

    - `cut_short`: it ends in the middle
    - `drip`: it arrives at one byte per second
    - `broken_json`: it is not JSON
    - `missing_id`: the `id` or `results` is missing
    - `wrong_type`: it is a list instead of an object
    - `huge_body`: it has 10 MB
    - `gzip_bomb`: it has 100 kB that unpack to 100 MB
    """

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
"""Faults that belong to an install: an affected install gets the same answer each time."""

MADE_ALL_THE_SAME = {
    Kind.CUT_SHORT,
    Kind.DRIP,
    Kind.BROKEN_JSON,
    Kind.MISSING_ID,
    Kind.WRONG_TYPE,
    Kind.HUGE_BODY,
    Kind.GZIP_BOMB,
}
"""Faults in the body of the answer. The request was carried out before."""

OF_THE_CONNECTION = {Kind.RESET, Kind.HANG, Kind.CUT_HEAD, Kind.CUT_SHORT, Kind.DRIP}
"""Faults of the connection: the answer does not arrive, or only in part."""

NEVER_MADE = OF_INSTALLS | {Kind.BLOCKED, Kind.QUOTA, Kind.REDIRECT}

OF_ONE_INSTALL = {Operation.POST, Operation.LISTING, Operation.SHOW, Operation.INSTALL}
"""Operations whose path names an install."""


class Fault(Part):
    """A failure that hits a share of the requests, or all requests for a share of the installs.

    The shares of one operation's faults must add up to at most 1, separately for faults of requests and for faults of
    installs. A fault of requests hits only requests that no fault of installs hits. If the operation is not about one
    install, all its faults are faults of requests.
    """

    kind: Kind
    """What happens to a request that the fault hits."""
    operation: Operation = Operation.POST
    """The operation that the fault hits."""
    share: Share = 1.0
    """The share of the requests or installs that the fault hits."""
    of: Literal["requests", "installs"] | None = None
    """Whether `share` counts `requests` or `installs`. Default: `installs` for `bad_request`, `forbidden`, `not_found`;
    else `requests`."""
    created: bool | None = None
    """For `post`: whether the backup is made although the request fails. Default: `true` if only the body is broken."""
    installs: tuple[Annotated[str, Field(pattern=UUID)], ...] = ()
    """Hit only the installs with these ids. Default: all installs."""
    after: Seconds = 0.0
    """Delay before the answer or the failure. A backup is made before the delay. The real 504 comes after 29 s."""
    first_tries: Whole | None = None
    """Hit only the first N requests for each install, so that a later one succeeds. Default: all requests."""
    from_: Annotated[Seconds, Field(alias="from")] = 0.0
    """Moment when the fault begins."""
    until: Seconds | None = None
    """Moment when the fault ends. Default: never."""

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.created and (self.kind in NEVER_MADE or self.operation is not Operation.POST):
            refuse("created: must not be true: only a POST makes a backup, and not with this kind of fault")
        if self.created is False and self.kind in MADE_ALL_THE_SAME:
            refuse("created: must not be false: this fault breaks only the body of the answer, and the backup is made")
        if self.installs and self.operation not in OF_ONE_INSTALL:
            refuse("installs: this operation is not about one install")
        if self.until is not None and self.until <= self.from_:
            refuse("until must be later than from")
        return self

    @property
    def is_of_installs(self) -> bool:
        """Tell whether ``share`` is a share of the installs, not of the requests."""
        is_meant = self.of == "installs" or (self.of is None and self.kind in OF_INSTALLS)
        return is_meant and self.operation in OF_ONE_INSTALL

    @property
    def makes_the_backup(self) -> bool:
        """Tell whether a POST that this fault hits still makes its backup."""
        return self.kind in MADE_ALL_THE_SAME if self.created is None else self.created


class Credentials(Part):
    """The credentials that the stand-in accepts, and when they stop working. By default it accepts any."""

    user_id: str | None = None
    """The only API user id that is accepted. Default: any."""
    password: str | None = None
    """The only password that is accepted. Default: any."""
    revoked_after: Seconds | None = None
    """Moment from which all credentials are refused. Default: never."""
    revoked_after_requests: Whole | None = None
    """Number of requests after which all credentials are refused; 429s are not counted. Default: never."""


class SimulatedInstall(Part):
    """One install of an account."""

    name: Annotated[str, Field(pattern="^[a-z][a-z0-9]{2,13}$")]
    """Name of the install."""
    id: Annotated[str, Field(pattern=UUID)] | None = None
    """Id of the install, a UUID. Default: derived from the names of the account and the install."""
    environment: Literal["production", "staging", "development"] | None = "production"
    """Environment of the install. `null`: the API shows none."""
    status: Literal["active", "pending"] = "active"
    """Status of the install. `pending`: it is not ready yet."""
    site: Annotated[str, Field(pattern="^[a-z0-9-]{1,40}$")] | None = None
    """Label of its site. Installs of one account with the same label share a site. Default: a site of its own."""


class SimulatedAccount(Part):
    """An account of WP Engine, with its installs.

    If a scenario has `accounts`, no other accounts and installs exist. With `accounts: []`, the user has no access to
    any account. Without `accounts`, the listings show the account `rehearsal` with the installs `shop01` to `shop24`,
    and backups of any other install id can be requested too.
    """

    name: Annotated[str, Field(pattern="^[a-z][a-z0-9]{1,30}$")]
    """Name of the account."""
    installs: tuple[SimulatedInstall, ...] | Annotated[int, Field(ge=0, le=MOST_INSTALLS)] = ()
    """Its installs, or the number of installs to generate. `[]`: an account without installs."""
    environments: Annotated[tuple[Literal["production", "staging", "development"], ...], Field(min_length=1)] = (
        "production",
    )
    """Environments of the generated installs, in turn."""

    def all_installs(self) -> tuple[SimulatedInstall, ...]:
        """Return the installs. Generated installs are named after the account."""
        if not isinstance(self.installs, int):
            return self.installs
        numbered = zip(range(1, self.installs + 1), cycle(self.environments), strict=False)
        return tuple(
            SimulatedInstall.model_construct(name=f"{self.name[:8]}{number:06}", environment=environment)
            for number, environment in numbered
        )


class Backend(Part):
    """The backend behind the gateway. It has a number of slots; each works on one request at a time."""

    slots: Whole
    """Number of requests that it works on at the same time. The others wait for a free slot."""
    takes: Range
    """How long a request keeps its slot busy: a duration, or a list of the shortest and the longest."""


class Listing(Part):
    """The listing of an install's backups."""

    available: bool = True
    """`false`: answer 404, like a gateway that does not know the operation yet."""
    lag: Seconds = 0.0
    """How long a new backup is missing from the listing."""
    order: Literal["oldest", "newest", "random"] = "newest"
    """Order of the backups: `newest` first, `oldest` first, or `random`."""
    descriptions: Literal["whole", "cut", "escaped", "missing"] = "whole"
    """How the API returns descriptions: `whole`, `cut` to 20 characters, `escaped` for HTML, or `missing`."""
    nightly: Annotated[int, Field(ge=0, le=60)] = 0
    """Number of WP Engine's own nightly backups, all completed. When the stand-in starts, the newest is about half a
    day old."""


class Pages(Part):
    """The pages of all listings: backups, installs and accounts."""

    size: Annotated[int, Field(ge=1, le=100)] = 100
    """The most entries on one page, even if the client asks for more."""
    next: Literal["path", "url", "elsewhere"] = "path"
    """Form of the link to the next page: a `path`, a `url`, or `elsewhere` (the URL of another host)."""


class Backups(Part):
    """The backups that are made, and how they end.

    Halfway to the end, the first status changes to `in_progress`. There are two exceptions: `initiated`, the deprecated
    word for `in_progress`, stays until the end. With `completed`, a backup ends immediately. `queued` is a word that
    the specification does not know.
    """

    completes_after: Range = (2.0, 2.0)
    """How long a backup takes until it has ended: a duration, or a list of the shortest and the longest."""
    aborts: Share = 0.0
    """The share of backups that end as `aborted` instead of `completed`."""
    first_status: Literal["requested", "in_progress", "initiated", "completed", "queued"] = "requested"
    """Status in the answer to the POST: `requested`, `in_progress`, `initiated`, `completed` or `queued`."""
    fields: Literal["all", "minimal"] = "all"
    """Fields of a backup in answers. `minimal`: only `{id, status}`, as in the specification of early 2026."""


class Scenario(Part):
    """The behaviour of one stand-in."""

    seed: int = 0
    """Seed of the random choices. With the same seed, faults hit the same requests and installs, in whatever order
    requests come."""
    latency: Range = (0.02, 0.08)
    """Latency of answers: a duration, or a list of the shortest and the longest. A 429 of a limit comes immediately."""
    limits: tuple[Limit, ...] = ()
    """Limits that apply together. If one of them refuses a request, the answer is a 429, and no limit counts that
    request."""
    limits_per: Literal["address", "credentials"] = "address"
    """`address`: all clients share the limits. `credentials`: the limits apply to each API user separately."""
    schedule: tuple[Change, ...] = ()
    """Changes of the limits while the stand-in runs."""
    retry_after: RetryAfter = RetryAfter.NONE
    """Form of the `Retry-After` header of a 429."""
    clock_skew: SignedSeconds = 0.0
    """How far the server's clock is ahead of this machine's. `-1h`: an hour behind."""
    backend: Backend | None = None
    """The backend behind the gateway. Default: one that answers without delay."""
    gateway_timeout: Seconds = 29.0
    """How long the gateway waits for the backend and for a fault's `after`. Then it answers 504; the request is still
    carried out."""
    credentials: Credentials = Credentials()
    """The credentials that are accepted."""
    accounts: tuple[SimulatedAccount, ...] | None = None
    """WP Engine's accounts with their installs. Default: the account `rehearsal`. Backups of any other install
    id can be requested too."""
    faults: tuple[Fault, ...] = ()
    """Failures that hit requests or installs."""
    pages: Pages = Pages()
    """The pages of listings."""
    listing: Listing = Listing()
    """How the listing of an install's backups behaves."""
    backups: Backups = Backups()
    """How backups begin and end."""

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
                refuse(f"accounts: the {what} {twice} is listed twice")
        return self

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of a scenario, for editors. Defaults have the form that a scenario file uses."""
        schema = cls.model_json_schema()
        for part in (cls(), Pages(), Listing(), Backups(), Fault(kind=Kind.HANG)):
            properties = schema["$defs"].get(type(part).__name__, schema)["properties"]
            for key, default in part.model_dump(mode="json", by_alias=True, exclude={"kind"}).items():
                properties[key]["default"] = default
        return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema

    def with_more(self, limits: Sequence[Bucket], faults: Sequence[Fault], **other: object) -> Scenario:
        """Return this scenario with ``limits`` and ``faults`` added to its own, and ``other`` keys replaced."""
        data = {"limits": (*self.limits, *limits), "faults": (*self.faults, *faults)} | other
        return Scenario.model_validate(dict(self) | data)
