"""The YAML's keys as pydantic models. Their descriptions are shown by editors and in ``docs/configuration.md``.

Checks across keys are in ``load.py``: an ``after`` validator does not run if a field has failed.
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
    ConfigName,
    Count1000,
    Description,
    Duration,
    Email,
    Environment,
    Glob,
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
from orchestrator.listings import NAME_PATTERN

DEFAULT_ACCOUNT = "default"


class Section(BaseModel):
    """The base of every mapping in the YAML: unknown keys are refused, and a docstring describes each key."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        arbitrary_types_allowed=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )


class AccountSection(Section):
    """Named credentials. The accounts of one API user share a rate budget. See `throttle.scope`."""

    user_id: UserId | None = Field(default=None, repr=False)
    """The API user's id. The User Portal shows it on the page about API access."""
    user_id_file: Text | None = Field(default=None, repr=False)
    """A file with the user id, instead of `user_id`."""
    user_id_command: Text | None = Field(default=None, repr=False)
    """A command that prints the user id, instead of `user_id`. It runs without a shell, for at most 60 s."""
    password: Text | None = Field(default=None, repr=False)
    """The API user's password."""
    password_file: Text | None = Field(default=None, repr=False)
    """A file with the password, instead of `password`."""
    password_command: Text | None = Field(default=None, repr=False)
    """A command that prints the password, instead of `password`. It runs without a shell, for at most 60 s."""
    base_url: BaseUrl = DEFAULT_BASE_URL
    """The URL of the API: `https`, except on a loopback address, and without a user, query or fragment."""
    ca_file: Text | None = None
    """A file with a certificate authority (PEM) to trust in addition to the system's own. A relative path starts at the
    directory of this YAML."""
    proxy_from_environment: StrictBool = False
    """`true`: use the proxy that the environment variables `https_proxy`, `all_proxy` and `no_proxy` name, in lower or
    upper case. `false`: ignore them. `.netrc` is always ignored."""


class DefaultsSection(Section):
    """Settings of every install that does not set its own."""

    account: Text = DEFAULT_ACCOUNT
    """The account of an install."""
    description: Description = "Backup {date} {time}"
    """The description of a backup. Fields: `{date}`, `{time}`, `{run_id}`, `{name}`, `{id}`, `{environment}`. Write a
    brace as `{{` or `}}`."""
    notification_emails: tuple[Email, ...] | None = None
    """The addresses that WP Engine mails when a backup has completed: one mail for each install and address. Required,
    unless every install sets its own. `[]` means nobody."""
    timezone: Timezone = ZoneInfo("UTC")
    """The time zone of `{date}` and `{time}`. Both show the start of the run."""
    max_age: Duration = 93_600.0
    """The maximum age of an install's newest completed backup. `audit` reports an older one as `stale`."""


class ThrottleSection(Section):
    """Limits on the requests of each budget. Accounts with the same `base_url` and user id share one budget."""

    rate: RateOrAuto = None
    """`auto` finds out how many requests the API serves, since it publishes no limit. A number is a fixed rate in
    requests per second."""
    scope: Scope = "account"
    """`account`: each API user has its own budget. `host`: all accounts with the same `base_url` share one budget.
    Choose `host` if the API limits requests by IP address."""
    max_requests_per_second: Rate = 50.0
    """The ceiling of the rate. It is never exceeded."""
    start_requests_per_second: Rate = 5.0
    """The rate that `auto` starts with, unless an earlier run has learned the limit."""
    concurrency: Concurrency = 64
    """The maximum number of requests in flight."""
    max_pause: Duration = 600.0
    """If a 429 asks for a longer pause (`Retry-After`), the run stops the account."""
    give_up: Duration = 1800.0
    """If the API serves none of an account's requests for this long, the run stops the account."""


class RetrySection(Section):
    """How often, and for how long, the run tries to request the backup of one install."""

    max_attempts: Count1000 = 5
    """The maximum number of tries for one install. A 429 does not count as a try."""
    deadline: Duration = 1800.0
    """The maximum time for one install, from its first POST. Holds of the budget do not count."""


class TimeoutsSection(Section):
    """How long the run waits for a connection and for an answer."""

    connect: Duration = 10.0
    """The maximum time until the connection is established."""
    read: Duration = 35.0
    """The maximum time to wait for an answer. Keep it above 29 s, after which the API's gateway gives up by itself."""


class WaitSection(Section):
    """How `--wait` waits for backups to complete."""

    timeout: Duration = 7200.0
    """The maximum time to wait for one backup, from its acceptance. If it is still unfinished then, its outcome is
    `incomplete`."""
    poll_interval: Duration = 15.0
    """The time between two polls of one backup."""
    retry_aborted: RetryAborted = 0
    """`1`: if WP Engine aborts a backup, request it once more. `0`: report it as `aborted`."""


class ReconcileSection(Section):
    """How the run looks up a backup that may or may not exist."""

    grace: Duration = 120.0
    """How long a backup may be missing from the listing before its absence counts. The API may still be working on it
    during this time."""


class StateSection(Section):
    """What the state directory keeps of runs."""

    keep: Duration = 7_776_000.0
    """How long ended runs are kept. At its end, a run removes older runs of the same configuration."""


class DiscoverSection(Section):
    """Take the installs that an account's listing shows when the plan is made. They get the settings of `defaults`."""

    account: Text | None = None
    """The account whose credentials read the listing, instead of `defaults.account`."""
    wpengine_accounts: tuple[Text, ...] = ()
    """WP Engine's own accounts to take installs from, by name or id. If left out: all that the credentials can see."""
    environments: tuple[Environment, ...] = ()
    """The environments to take: `production`, `staging`, `development`. If left out: all."""
    exclude: tuple[Glob, ...] = ()
    """Skip installs whose name or id matches one of these globs, for example `sandbox*`."""


class InventorySection(Section):
    """A source of installs in addition to `installs`. Each entry has either `files` or `discover`."""

    files: tuple[Text, ...] | None = Field(default=None, min_length=1)
    """Paths or globs of files with installs; `**` matches any directories below. Relative paths start at the directory
    of this YAML. All formats use the keys of `installs`. YAML (`.yaml`, `.yml`) is a list. CSV (`.csv`) has a header in
    lower or upper case, commas between the columns, and `;` between the tags or addresses in a cell. JSON lines
    (`.jsonl`, `.ndjson`) have one object on each line. Variables are not replaced in these files. If a run cannot use a
    part of these files, it leaves that part out and ends with exit code 3."""
    discover: DiscoverSection | None = None
    """Ask WP Engine which installs exist. `{}` means all installs that the default account can see."""


class InstallSection(Section):
    """One install. A bare id or name is short for a mapping with only that key."""

    id: InstallId | None = None
    """The install's id, a UUID. At least one of `id` and `name` is required."""
    name: Text | None = None
    """The name of the install in reports and logs. Without an `id`, it must be the name at WP Engine: a run looks it up
    when it makes its plan."""
    account: Text | None = None
    """The account of this install, instead of `defaults.account`."""
    environment: Environment | None = None
    """What the install is for: `production`, `staging` or `development`."""
    tags: tuple[Text, ...] = ()
    """Your own words for the install. Each of its report lines contains them."""
    description: Description | None = None
    """The description of its backup, instead of `defaults.description`."""
    notification_emails: tuple[Email, ...] | None = None
    """The addresses that WP Engine mails, instead of `defaults.notification_emails`."""
    enabled: StrictBool = True
    """`false`: keep the install in the list, but do not back it up."""
    max_age: Duration | None = None
    """The maximum age of its newest completed backup, instead of `defaults.max_age`."""


class FleetFile(Section):
    """The whole YAML."""

    version: Version
    """The version of this format: `1`."""
    name: ConfigName = None
    """The name of this configuration. Locks and `latest` use it instead of the path of the YAML. YAMLs with the same
    name and state directory are one configuration: only one of them runs at a time."""
    accounts: dict[Text, AccountSection] = Field(default_factory=dict)
    """Named credentials. If left out: one account, `default`, with credentials from the environment."""
    defaults: DefaultsSection = DefaultsSection()
    """Settings of every install that does not set its own."""
    throttle: ThrottleSection = ThrottleSection()
    """Limits on the requests of each budget."""
    retry: RetrySection = RetrySection()
    """How often, and for how long, the run tries to request the backup of one install."""
    timeouts: TimeoutsSection = TimeoutsSection()
    """How long the run waits for a connection and for an answer."""
    on_ambiguous: OnAmbiguous = "reconcile"
    """What the run does if it cannot know whether a backup was made (after a 5xx or a timeout). `reconcile`: look the
    backup up in the listing. `fail`: report it as `unconfirmed` immediately."""
    reconcile: ReconcileSection = ReconcileSection()
    """How the run looks up a backup that may or may not exist."""
    wait: WaitSection = WaitSection()
    """How `--wait` waits for backups to complete."""
    state: StateSection = StateSection()
    """What the state directory keeps of runs."""
    inventory: tuple[InventorySection, ...] = ()
    """Further sources of installs. At least one of `inventory` and `installs` is required."""
    installs: tuple[InstallSection, ...] = ()
    """The installs to back up: mappings, or bare ids and names."""


SECTIONS_THAT_MAY_BE_EMPTY = tuple(
    name for name, field in FleetFile.model_fields.items() if not field.is_required() and name != "name"
)

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
    """Return the JSON Schema of the YAML, for editors. It allows bare installs, and sections with only comments."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | FleetFile.model_json_schema()
    schema["title"] = "wpe-backup configuration"
    for section in _WITH_DEFAULTS:
        for name, default in section().model_dump(mode="json").items():
            schema["$defs"][section.__name__]["properties"][name]["default"] = default
    for model in (schema, *schema["$defs"].values()):
        for described in model["properties"].values():
            described.pop("title", None)
    properties = schema["properties"]
    properties["name"].pop("default")
    nothing = {"type": "null"}
    properties["accounts"]["additionalProperties"] = {
        "anyOf": [properties["accounts"]["additionalProperties"], nothing]
    }
    bare = {"type": "string", "pattern": rf"^{UUID_PATTERN}$|^{NAME_PATTERN}$|\$\{{"}
    properties["installs"] |= {"items": {"anyOf": [properties["installs"]["items"], bare]}}
    _require_one(schema)
    for name in SECTIONS_THAT_MAY_BE_EMPTY:
        described = properties[name]
        described.pop("default", None)
        described.pop("description", None)
        properties[name] = {
            "description": FleetFile.model_fields[name].description,
            "anyOf": [described, nothing],
        }
    return schema


def _require_one(schema: dict[str, Any]) -> None:
    """Require ``installs`` or ``inventory``, ``id`` or ``name``, and either ``files`` or ``discover``."""
    some = {"type": "array", "minItems": 1}
    schema["anyOf"] = [{"required": [key], "properties": {key: some}} for key in ("installs", "inventory")]
    name = {"type": "string", "pattern": rf"^{NAME_PATTERN}$|\$\{{"}
    schema["$defs"]["InstallSection"]["anyOf"] = [
        {"required": ["id"], "properties": {"id": {"type": "string"}}},
        {"required": ["name"], "properties": {"name": name}},
    ]
    schema["$defs"]["InventorySection"] |= {"minProperties": 1, "maxProperties": 1}
