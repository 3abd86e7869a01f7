"""The document that describes a stand-in: its limits, latency, faults, accounts and backups. Pure data.

``examples/scenarios`` has examples. Durations are written as ``250ms``. Shares go from 0 to 1. Moments (``at``,
``from``, ``until``, ``revoked_after``) count from the first request.
"""

from __future__ import annotations

from collections import Counter
from itertools import cycle
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from orchestrator.simulator.fault_keys import Fault, Kind
from orchestrator.simulator.limit_keys import Bucket, Change, Limit, RetryAfter, Window
from orchestrator.simulator.values import UUID, Part, Range, Seconds, Share, SignedSeconds, Whole, refuse

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_INSTALLS = 200_000


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
    """Changes of the limits and of the latency while the stand-in runs."""
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

    def latency_at(self, at: float) -> tuple[float, float]:
        """Return the latency of a request that arrives at the moment ``at``, as the shortest and the longest."""
        latency = self.latency
        for change in sorted(self.schedule, key=lambda change: change.at):
            if change.latency is not None and change.at <= at:
                latency = change.latency
        return latency

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of a scenario, for editors. Defaults have the form that a scenario file uses."""
        schema = cls.model_json_schema()
        window = Window(kind="fixed_window", requests=1, per=1.0)
        for part in (cls(), Pages(), Listing(), Backups(), Fault(kind=Kind.HANG), window):
            described = schema["$defs"].get(type(part).__name__, schema)
            for key, default in part.model_dump(mode="json", by_alias=True).items():
                if key not in described.get("required", ()):
                    described["properties"][key]["default"] = default
        return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema

    def with_more(self, limits: Sequence[Bucket], faults: Sequence[Fault], **other: object) -> Scenario:
        """Return this scenario with ``limits`` and ``faults`` added to its own, and ``other`` keys replaced."""
        data = {"limits": (*self.limits, *limits), "faults": (*self.faults, *faults)} | other
        return Scenario.model_validate(dict(self) | data)
