"""The words of the domain, as frozen dataclasses and enumerations; see ``docs/glossary.md``.

Pure data: no clock, no randomness, no I/O. Everything above imports it; it imports ``inventory.py``.
"""

from __future__ import annotations

from dataclasses import field
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import TYPE_CHECKING

from orchestrator.policies import ReconcilePolicy, RetryPolicy, ThrottlePolicy, Timeouts, WaitPolicy
from orchestrator.value import value

if TYPE_CHECKING:
    from orchestrator.listings import Discovery, EmptySource, ListedAccount, ListedInstall, Page


class OutcomeKind(StrEnum):
    """How one planned backup ended, as the report names it."""

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
    """Why an outcome is not a success, as ``error.kind`` of the report names it."""

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

    ``UNREADABLE`` alone comes with a status: the head of the answer arrived, its body cannot be used.
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
    """Named credentials for one base URL. ``base_url`` carries no trailing slash."""

    name: str
    base_url: str
    user_id: str = field(repr=False)
    password: str = field(repr=False)
    ca_file: str | None = None
    proxy_from_environment: bool = False


@value
class Install:
    """One WordPress environment at WP Engine, with what the configuration says of it.

    ``id`` is a UUID in lower case, ``None`` where only the name is given, which the account's listing has to hold.
    ``description`` is a template of the fields that ``marker.py`` lists. ``max_age_s`` is how old the newest backup may
    be. ``place`` is where the configuration names it, as ``file:line``.
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
        """Return what people call this install: its name, else its id."""
        return self.name or self.id or "?"


@value
class Config:
    """A configuration that has been checked: every account and install in it can be used as it stands.

    ``source`` is the file as it was named; ``path`` its absolute path, with no link followed, ``None`` for a stream.
    ``name`` is what the configuration calls itself. ``discovered`` is what every install has that is found by one of
    ``discoveries``: its account, name, environment and id are the found one's. ``keep_s`` is for how many seconds a run
    that has ended is remembered. ``warnings`` are what the reading of it had to say.
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
    """What one POST asks for. ``install_id`` is empty where the API does not know the install, and nothing is sent."""

    install_id: str
    description: str
    notification_emails: tuple[str, ...]


@value
class PlannedBackup:
    """One install whose backup this run will request, and the request. ``position`` counts from 0 in the plan."""

    position: int
    install: Install
    request: BackupRequest


@value
class Plan:
    """Everything a run will request, in order, and what the plan has to say about it."""

    run: Run
    backups: tuple[PlannedBackup, ...]
    disabled: int = 0
    warnings: tuple[str, ...] = ()


@value
class Backup:
    """The remote object, as far as the API showed it. ``status`` may be one this program does not know."""

    id: str
    status: str | None = None
    description: str | None = None
    create_time: str | None = None
    complete_time: str | None = None
    wordpress_version: str | None = None


@value
class FieldError:
    """One entry of the ``errors`` of a 400 answer; every field is optional there."""

    resource: str | None = None
    field: str | None = None
    type: str | None = None
    code: str | None = None
    message: str | None = None


@value
class AttemptResult:
    """What one HTTP send led to, as data: an answer, or what broke.

    ``status`` is ``None`` where no head of an answer arrived, and ``fault`` says what broke then. ``sent`` tells
    whether any byte of the request may have left. ``message`` is the API's own word or that of the fault.
    ``retry_after_s`` is the seconds until the moment that a ``Retry-After`` named, at least 0. ``rate_headers`` are
    the names and values of others about rates: evidence, on which nobody acts. ``server_at`` is the whole seconds since
    1970 by the server's own clock, ``None`` where the answer has no ``Date``. ``on_reused`` tells that a connection
    which had served before broke without a word: that says nothing of the server, and counts for nothing.
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
    """Why an outcome is no success, with the API's own fields."""

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

    ``source`` is what people call it, with its place. ``account`` is whose listing it is, ``None`` for files: these may
    name any. ``path`` is the file, or the folder of files; empty for a listing.
    """

    source: str
    account: str | None
    error: ErrorInfo
    path: str = ""


@value
class Spent:
    """What one planned backup has cost so far.

    ``attempts`` counts POSTs that were sent and not throttled, ``tries`` also those that never left, ``throttled`` the
    429s. ``started_at`` is the start of the first POST, ``None`` if there was none.
    """

    tries: int = 0
    attempts: int = 0
    throttled: int = 0
    started_at: datetime | None = None


@value
class Made:
    """What is known to exist of one planned backup before it has its outcome.

    ``backup`` was accepted and is waited for; ``is_reconciled`` tells that it was found in the listing. ``earlier`` are
    others that were made for it and do not count. ``is_second`` tells that the request in hand follows one whose backup
    WP Engine aborted.
    """

    backup: Backup | None = None
    is_reconciled: bool = False
    earlier: tuple[Backup, ...] = ()
    is_second: bool = False


@value
class Checkpoint:
    """How one planned backup stands before it has its outcome: what the journal remembers of it.

    ``sought`` are the runs whose requests may have made it: while there are any, nothing is requested. ``sent_at`` is
    when the first of these was sent, in seconds since 1970 by the server's clock, ``None`` where that is not known.
    ``described`` is what that one was to be called, ``None`` if as planned. ``open_since`` is when its fate became
    unknown, by that clock, ``None`` if there was no answer or the clock is not known. ``may_repeat`` tells whether it
    may be requested again once it is known not to exist. ``error`` is the answer that left it open, ``None`` if there
    was none yet.
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
    """How one planned backup ended: exactly one exists for each when the run is over.

    ``duration_s`` counts from the first POST. ``reconciled`` tells that the backup was found in the listing;
    ``earlier`` are others that were made and do not count. ``sought`` are the runs whose requests may have made one.
    ``reason`` says why nothing was requested, where that was not needed.
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
        """Return the install's id, ``None`` where only its name is known."""
        return self.planned.install.id

    @property
    def name(self) -> str | None:
        """Return the install's name, ``None`` where only its id is known."""
        return self.planned.install.name

    @property
    def account(self) -> str:
        """Return the name of the account whose credentials were used."""
        return self.planned.install.account


@value
class Learned:
    """What a budget's limiter has found out about the server's limits, worth remembering for the next run.

    ``rate`` is the requests per second that the server refills, above 0. ``burst`` is the requests that it lets
    through at once beyond that, at least 0. ``in_flight`` is the requests at a time that it bears, at least 1, ``None``
    where that is not what limits. ``latency_s`` is the seconds that an answer takes while nothing queues, ``None``
    where it was not seen.
    """

    rate: float
    burst: float
    in_flight: int | None = None
    latency_s: float | None = None
