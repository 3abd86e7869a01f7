"""The keys of a scenario about faults: what a fault does, and which requests or installs it hits."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from orchestrator.simulator.values import UUID, Part, Seconds, Share, Whole, refuse


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
