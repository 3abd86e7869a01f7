"""The YAML's keys as pydantic models. What each key means is said here once, for editors and ``docs/configuration.md``.

Checks across keys are in ``load.py``: an ``after`` validator would not run when some field failed.
"""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from orchestrator.config.values import (
    DEFAULT_BASE_URL,
    UUID_PATTERN,
    BaseUrl,
    Concurrency,
    Count1000,
    Description,
    Duration,
    Email,
    Environment,
    InstallId,
    OnAmbiguous,
    Rate,
    RateOrAuto,
    RetryAborted,
    Scope,
    Text,
    Timezone,
    UserId,
    Version,
)

DEFAULT_ACCOUNT = "default"


class Section(BaseModel):
    """Any mapping of the YAML: its keys are known, and each is described in place."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        arbitrary_types_allowed=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )


class AccountSection(Section):
    """Named credentials; each is one rate budget, unless `throttle.scope` says otherwise."""

    user_id: UserId | None = Field(default=None, repr=False)
    """The API user's id, from the User Portal's page on API access."""
    user_id_file: Text | None = Field(default=None, repr=False)
    """A file that holds it, instead of `user_id`."""
    user_id_command: Text | None = Field(default=None, repr=False)
    """A command that prints it, instead of `user_id`; run without a shell."""
    password: Text | None = Field(default=None, repr=False)
    """The API user's password."""
    password_file: Text | None = Field(default=None, repr=False)
    """A file that holds it, instead of `password`."""
    password_command: Text | None = Field(default=None, repr=False)
    """A command that prints it, instead of `password`; run without a shell, for 60 s at most."""
    base_url: BaseUrl = DEFAULT_BASE_URL
    """Where the API is. `https`, except on a loopback address; no user, query or fragment."""
    ca_file: Text | None = None
    """A certificate authority (PEM) to trust besides the system's own."""
    proxy_from_environment: StrictBool = False
    """Use the proxy that `https_proxy` and `no_proxy` name. Without this they are ignored, and `.netrc` always is."""


class DefaultsSection(Section):
    """What every install has that does not say otherwise."""

    account: Text = DEFAULT_ACCOUNT
    """The account that an install belongs to."""
    description: Description = "Backup {date} {time}"
    """What the backup is called: `{date}`, `{time}`, `{run_id}`, `{name}`, `{id}`, `{environment}`; `{{` is a brace."""
    notification_emails: tuple[Email, ...] | None = None
    """Whom WP Engine mails when the backup has completed, once each. Required; `[]` for nobody."""
    timezone: Timezone = ZoneInfo("UTC")
    """Of `{date}` and `{time}`, which are the run's start."""
    max_age: Duration = 93_600.0
    """How old the newest backup may be. Read and checked; no command of this version looks at it."""


class ThrottleSection(Section):
    """How fast requests may go, per budget."""

    rate: RateOrAuto = None
    """`auto` finds the limit that the API does not publish; a number keeps to that many requests a second."""
    scope: Scope = "account"
    """`account`, or `host`: one budget for all accounts of a base URL, where the limit is one of the address."""
    max_requests_per_second: Rate = 50.0
    """The ceiling, never exceeded."""
    start_requests_per_second: Rate = 5.0
    """What `auto` begins with."""
    concurrency: Concurrency = 64
    """Requests in flight, at most."""
    max_pause: Duration = 600.0
    """A `Retry-After` longer than this ends the account's run."""
    give_up: Duration = 1800.0
    """So does this long without a request that was served."""


class RetrySection(Section):
    """How long one install is tried."""

    max_attempts: Count1000 = 5
    """Tries of one install; a 429 is none."""
    deadline: Duration = 1800.0
    """Of one install, from its first POST, without the budget's holds."""


class TimeoutsSection(Section):
    """How long a connection and an answer may take."""

    connect: Duration = 10.0
    """Until the connection must stand."""
    read: Duration = 35.0
    """Until the answer must come. Longer than the 29 s after which the API's gateway gives up by itself."""


class WaitSection(Section):
    """How `--wait` will wait for backups to complete. Read and checked; this version cannot wait yet."""

    timeout: Duration = 7200.0
    """Until a backup that is still unfinished is reported as `incomplete`."""
    poll_interval: Duration = 15.0
    """Between two looks at one backup."""
    retry_aborted: RetryAborted = 0
    """`1`: a backup that WP Engine aborts is requested once more."""


class ReconcileSection(Section):
    """How a backup is looked up whose fate an answer left open."""

    grace: Duration = 120.0
    """How long a backup may be missing from the listing, and the API may work on it, before its absence counts."""


class StateSection(Section):
    """What is remembered of runs, in the state directory."""

    keep: Duration = 7_776_000.0
    """A run that ended longer ago than this is removed, once the next run of the same file has ended."""


class InstallSection(Section):
    """One install. A bare id stands for a mapping of only that."""

    id: InstallId
    """The install's id, a UUID."""
    name: Text | None = None
    """What reports and logs call it."""
    account: Text | None = None
    """The account it belongs to, instead of the default one."""
    environment: Environment | None = None
    """`production`, `staging` or `development`."""
    tags: tuple[Text, ...] = ()
    """Words of your own; each report line carries them."""
    description: Description | None = None
    """Instead of the default one."""
    notification_emails: tuple[Email, ...] | None = None
    """Instead of the default ones."""
    enabled: StrictBool = True
    """`false`: kept in the list, not backed up."""
    max_age: Duration | None = None
    """Instead of the default one."""


class FleetFile(Section):
    """The whole YAML."""

    version: Version
    """The version of this format."""
    accounts: dict[Text, AccountSection] = Field(default_factory=dict)
    """Named credentials. Left out: one account, `default`, with credentials from the environment."""
    defaults: DefaultsSection = DefaultsSection()
    """What every install has that does not say otherwise."""
    throttle: ThrottleSection = ThrottleSection()
    """How fast requests may go, per budget."""
    retry: RetrySection = RetrySection()
    """How long one install is tried."""
    timeouts: TimeoutsSection = TimeoutsSection()
    """How long a connection and an answer may take."""
    on_ambiguous: OnAmbiguous = "reconcile"
    """When an answer leaves open whether a backup was made (a 5xx, a timeout): `reconcile` looks it up in the listing,
    `fail` reports `unconfirmed` at once."""
    reconcile: ReconcileSection = ReconcileSection()
    """How it is looked up."""
    wait: WaitSection = WaitSection()
    """How `--wait` will wait."""
    state: StateSection = StateSection()
    """What is remembered of runs."""
    installs: tuple[InstallSection, ...]
    """What to back up: installs, or bare ids."""


SECTIONS_THAT_MAY_BE_EMPTY = tuple(name for name, field in FleetFile.model_fields.items() if not field.is_required())

_WITH_DEFAULTS: tuple[type[Section], ...] = (
    AccountSection,
    DefaultsSection,
    ThrottleSection,
    RetrySection,
    TimeoutsSection,
    ReconcileSection,
    WaitSection,
    StateSection,
)


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of the YAML, for editors: with bare ids, and sections of which every line is a comment."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | FleetFile.model_json_schema()
    schema["title"] = "wpe-backup configuration"
    for section in _WITH_DEFAULTS:
        for name, default in section().model_dump(mode="json").items():
            schema["$defs"][section.__name__]["properties"][name]["default"] = default
    for model in (schema, *schema["$defs"].values()):
        for described in model["properties"].values():
            described.pop("title", None)
    properties = schema["properties"]
    nothing = {"type": "null"}
    properties["accounts"]["additionalProperties"] = {
        "anyOf": [properties["accounts"]["additionalProperties"], nothing]
    }
    bare_id = {"type": "string", "pattern": rf"^{UUID_PATTERN}$|\$\{{"}
    properties["installs"] |= {"items": {"anyOf": [properties["installs"]["items"], bare_id]}, "minItems": 1}
    for name in SECTIONS_THAT_MAY_BE_EMPTY:
        described = properties[name]
        described.pop("default", None)
        described.pop("description", None)
        properties[name] = {
            "description": FleetFile.model_fields[name].description,
            "anyOf": [described, nothing],
        }
    return schema
