"""The words of the domain, as values and enumerations; see ``docs/glossary.md``.

Pure data: no clock, no randomness, no I/O. It imports only ``policies``, ``value`` and, for types, ``listings``.
"""

from __future__ import annotations

import math
from dataclasses import field
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import TYPE_CHECKING

from orchestrator.policies import ReconcilePolicy, RetryPolicy, ThrottlePolicy, Timeouts, WaitPolicy
from orchestrator.value import value

if TYPE_CHECKING:
    from orchestrator.listings import Discovery, EmptySource, ListedAccount, ListedInstall, Page


class OutcomeKind(StrEnum):
    """How one planned backup ended, in the words of the report."""

    ACCEPTED = "accepted"
    COMPLETED = "completed"
    SKIPPED = "skipped"
    ABORTED = "aborted"
    INCOMPLETE = "incomplete"
    REJECTED = "rejected"
    EXHAUSTED = "exhausted"
    UNCONFIRMED = "unconfirmed"
    CANCELLED = "cancelled"

    @property
    def is_success(self) -> bool:
        """Tell whether an install with this outcome counts as backed up."""
        return self in {OutcomeKind.ACCEPTED, OutcomeKind.COMPLETED, OutcomeKind.SKIPPED}


class ErrorKind(StrEnum):
    """Why an outcome is not a success: the words of ``error.kind`` in the report."""

    REJECTED = "rejected"
    NOT_FOUND = "not_found"
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"
    NETWORK = "network"
    TIMEOUT = "timeout"
    CREDENTIALS = "credentials"
    PROTOCOL = "protocol"
    INTERRUPTED = "interrupted"
    DEADLINE = "deadline"
    QUOTA = "quota"
    STOPPED = "stopped"


class Fault(StrEnum):
    """What broke below HTTP, or in the body of an answer.

    Only ``UNREADABLE`` comes with a status: the head of the answer arrived, but its body cannot be used.
    """

    UNREACHABLE = "unreachable"
    PROXY = "proxy"
    TLS = "tls"
    CERTIFICATE = "certificate"
    CONNECT_TIMEOUT = "connect_timeout"
    READ_TIMEOUT = "read_timeout"
    DISCONNECTED = "disconnected"
    MALFORMED = "malformed"
    INVALID_URL = "invalid_url"
    INTERRUPTED = "interrupted"
    UNREADABLE = "unreadable"


@value
class Account:
    """Named credentials for one base URL. ``base_url`` has no trailing slash."""

    name: str
    base_url: str
    user_id: str = field(repr=False)
    password: str = field(repr=False)
    ca_file: str | None = None
    proxy_from_environment: bool = False


@value
class Install:
    """One WordPress environment at WP Engine, with its settings in the configuration.

    ``id`` is a UUID in lower case. It is ``None`` if the configuration gives only the name: then the account's listing
    must contain that name. ``description`` is a template with the fields that ``marker.py`` lists. ``max_age_s`` is the
    maximum age of the newest backup in seconds. ``place`` is the place of the install in the configuration, as
    ``file:line``.
    """

    id: str | None
    account: str
    description: str
    notification_emails: tuple[str, ...]
    name: str | None = None
    environment: str | None = None
    tags: tuple[str, ...] = ()
    enabled: bool = True
    max_age_s: float = 93_600.0
    place: str = ""

    @property
    def label(self) -> str:
        """Return what to call this install: its name, else its id."""
        return self.name or self.id or "?"


@value
class Config:
    """A checked configuration: every account and install in it can be used as it is.

    ``source`` is the file as the user named it. ``path`` is its absolute path without following links, ``None`` for a
    stream. ``name`` is the YAML's key ``name``. ``discovered`` holds the settings of every install that one of
    ``discoveries`` finds; its account, name, environment and id come from the listing. The state keeps a run for
    ``keep_s`` seconds after its end.
    """

    source: str
    accounts: dict[str, Account]
    installs: tuple[Install, ...]
    throttle: ThrottlePolicy = field(default_factory=ThrottlePolicy)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeouts: Timeouts = field(default_factory=Timeouts)
    reconcile: ReconcilePolicy = field(default_factory=ReconcilePolicy)
    wait: WaitPolicy = field(default_factory=WaitPolicy)
    discoveries: tuple[Discovery, ...] = ()
    discovered: Install = Install(None, "default", "Backup {date} {time}", ())
    keep_s: float = 7_776_000.0
    timezone: tzinfo = UTC
    failed_sources: tuple[FailedSource, ...] = ()
    empty_sources: tuple[EmptySource, ...] = ()
    name: str | None = None
    path: str | None = None


@value
class Run:
    """One execution of a plan. ``id`` is a ULID of 26 characters, so none is the prefix of another."""

    id: str
    started_at: datetime


@value
class BackupRequest:
    """The content of one POST. If the API does not know the install, ``install_id`` is empty and nothing is sent."""

    install_id: str
    description: str
    notification_emails: tuple[str, ...]


@value
class PlannedBackup:
    """One install of the plan, with its request. ``position`` counts from 0 in the plan."""

    position: int
    install: Install
    request: BackupRequest


@value
class Plan:
    """Everything a run will request, in order. ``disabled`` counts the disabled installs."""

    run: Run
    backups: tuple[PlannedBackup, ...]
    disabled: int = 0
    warnings: tuple[str, ...] = ()


@value
class Backup:
    """A backup at WP Engine, as far as the API showed it. ``status`` may be a word that this program does not know."""

    id: str
    status: str | None = None
    description: str | None = None
    create_time: str | None = None
    complete_time: str | None = None
    wordpress_version: str | None = None


@value
class FieldError:
    """One entry of ``errors`` in a 400 answer. Every field is optional."""

    resource: str | None = None
    field: str | None = None
    type: str | None = None
    code: str | None = None
    message: str | None = None


@value
class AttemptResult:
    """The result of one HTTP send, as data: an answer or a fault.

    ``status`` is ``None`` if no head of an answer arrived; then ``fault`` says what broke. ``sent`` tells whether any
    byte of the request may have left. ``message`` comes from the API, or describes the fault. ``retry_after_s`` is the
    number of seconds until the moment that ``Retry-After`` named, at least 0. ``rate_headers`` are the names and values
    of other headers about rates; they are recorded, and change nothing. ``server_at`` is the server's own clock in
    whole seconds since 1970, ``None`` if the answer has no ``Date``. ``on_reused`` tells that the connection had served
    an earlier request and broke without an answer to this one. Such a fault says nothing about the server, and does not
    count as a try.
    """

    status: int | None = None
    fault: Fault | None = None
    sent: bool = True
    backup: Backup | None = None
    page: Page[Backup] | None = None
    installs: Page[ListedInstall] | None = None
    accounts: Page[ListedAccount] | None = None
    message: str = ""
    documentation_url: str | None = None
    errors: tuple[FieldError, ...] = ()
    request_id: str | None = None
    retry_after_s: float | None = None
    rate_headers: tuple[tuple[str, str], ...] = ()
    server_at: float | None = None
    on_reused: bool = False


@value
class ErrorInfo:
    """Why an outcome is not a success, with the API's own fields."""

    kind: ErrorKind
    message: str
    status: int | None = None
    documentation_url: str | None = None
    errors: tuple[FieldError, ...] = ()
    request_id: str | None = None
    retry_after_s: float | None = None


@value
class FailedSource:
    """A part of the inventory that could not be read: nobody knows which installs are missing.

    ``source`` names it for people, with its place. ``account`` is the account whose listing could not be read; it is
    ``None`` for files, because a file may name any account. ``path`` is the file, or the directory of files; empty for
    a listing.
    """

    source: str
    account: str | None
    error: ErrorInfo
    path: str = ""


@value
class Spent:
    """What one planned backup has cost so far.

    ``attempts`` counts the POSTs that were sent and not throttled. ``tries`` also counts the POSTs that never left.
    ``throttled`` counts the 429s. ``started_at`` is the start of the first POST, ``None`` if there was none.
    """

    tries: int = 0
    attempts: int = 0
    throttled: int = 0
    started_at: datetime | None = None


@value
class Made:
    """The backups that are known to exist for one planned backup before it has its outcome.

    ``backup`` was accepted, and the run waits for it. ``is_reconciled`` tells that this backup was found in the
    listing. ``earlier`` are other backups that were made for the install and do not count. ``is_second`` tells that
    this is the second request: WP Engine aborted the backup of the first.
    """

    backup: Backup | None = None
    is_reconciled: bool = False
    earlier: tuple[Backup, ...] = ()
    is_second: bool = False


@value
class Checkpoint:
    """What the journal remembers of one planned backup before it has its outcome.

    ``sought`` are the runs whose requests may have made the backup. While ``sought`` is not empty, nothing is
    requested. ``sent_at`` is when the first of these requests was sent, in seconds since 1970 by the server's clock,
    ``None`` if unknown. ``described`` is the description of that request, ``None`` if it is the planned one.
    ``open_since`` is when the doubt began, by the same clock, ``None`` if there was no answer or the clock is unknown.
    ``may_repeat`` tells whether the backup may be requested again once it is known not to exist. ``error`` describes
    the answer that caused the doubt, ``None`` if there was no answer yet.
    """

    planned: PlannedBackup
    spent: Spent = Spent()
    sought: tuple[str, ...] = ()
    sent_at: float | None = None
    described: str | None = None
    open_since: float | None = None
    may_repeat: bool = True
    error: ErrorInfo | None = None
    made: Made = Made()


@value
class Outcome:
    """How one planned backup ended. When the run is over, each planned backup has exactly one outcome.

    ``duration_s`` counts from the first POST. ``reconciled`` tells that the backup was found in the listing.
    ``earlier`` are other backups that were made and do not count. ``sought`` are the runs whose requests may have made
    a backup. ``reason`` says why a request was not necessary.
    """

    planned: PlannedBackup
    kind: OutcomeKind
    finished_at: datetime
    duration_s: float = 0.0
    backup: Backup | None = None
    error: ErrorInfo | None = None
    spent: Spent = Spent()
    request_id: str | None = None
    reconciled: bool = False
    earlier: tuple[Backup, ...] = ()
    sought: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def install_id(self) -> str | None:
        """Return the install's id, ``None`` if only its name is known."""
        return self.planned.install.id

    @property
    def name(self) -> str | None:
        """Return the install's name, ``None`` if only its id is known."""
        return self.planned.install.name

    @property
    def account(self) -> str:
        """Return the name of the account whose credentials were used."""
        return self.planned.install.account


@value
class LearnedWindow:
    """A limit of ``requests`` in a period between ``low_s`` and ``high_s`` seconds.

    ``fixed`` tells whether periods follow each other (``True``) or the window slides; ``None`` if this is not known.
    """

    requests: int
    low_s: float
    high_s: float
    fixed: bool | None = None


@value
class Learned:
    """The server's limits as a budget's limiter learned them, to be remembered for the next run.

    ``rate`` is the number of requests per second that the server allows, above 0, surely between ``low`` and ``high``
    (``None`` for unknown). ``burst`` is how many more it allows at once, at least 0. ``in_flight`` is how many requests
    at a time it allows, at least 1, ``None`` if it does not limit these. ``latency_s`` is the seconds that an answer
    takes while no request queues at the server, ``None`` if this was never measured. ``window`` is set if the limit
    counts in windows. ``age_s`` is how many seconds ago the limit was learned.
    """

    rate: float
    burst: float
    in_flight: int | None = None
    latency_s: float | None = None
    low: float | None = None
    high: float | None = None
    window: LearnedWindow | None = None
    age_s: float = field(default=math.inf, compare=False)
