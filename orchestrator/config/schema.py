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
    """Use the proxy that `https_proxy`, `all_proxy` and `no_proxy` name, in small letters or capitals. Without this
    they are ignored, and `.netrc` always is."""


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
    """How old the newest backup may be, for `audit`."""


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
    """How `--wait` waits for backups to complete."""

    timeout: Duration = 7200.0
    """From the acceptance of a backup: one that is still unfinished then is reported as `incomplete`."""
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


class DiscoverSection(Section):
    """Installs to be found in the account's listing when the plan is made; each has what `defaults` say."""

    account: Text | None = None
    """Whose credentials ask for the listing, instead of the default one."""
    wpengine_accounts: tuple[Text, ...] = ()
    """WP Engine's own accounts, by name or id. Left out: all that the credentials can see."""
    environments: tuple[Environment, ...] = ()
    """`production`, `staging`, `development`. Left out: all."""
    exclude: tuple[Glob, ...] = ()
    """Globs of names or ids that are not wanted, as `sandbox*`."""


class InventorySection(Section):
    """A source of installs besides `installs`: `files` or `discover`, one of them an entry."""

    files: tuple[Text, ...] | None = Field(default=None, min_length=1)
    """Paths or globs (`**` for any folders below) of files with installs: YAML a list (`.yaml`, `.yml`), CSV with a
    header in capitals or small letters (`.csv`; commas between the columns, `;` between the tags or addresses in a
    cell), JSON an object a line (`.jsonl`, `.ndjson`), all with the keys of `installs`. Relative ones start at this
    file's folder. No variables are replaced in them. What cannot be used of them is left out of a run, which ends with
    exit code 3."""
    discover: DiscoverSection | None = None
    """Ask WP Engine which installs there are; `{}` for all of the default account."""


class InstallSection(Section):
    """One install. A bare id or name stands for a mapping of only that."""

    id: InstallId | None = None
    """The install's id, a UUID. It or `name` is required."""
    name: Text | None = None
    """What reports and logs call it. Without an `id`: its name at WP Engine, looked up when the plan is made."""
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
    name: ConfigName = None
    """What locks and `latest` call this configuration, instead of its path. YAMLs with the same name and state
    directory are one configuration: one run of it at a time."""
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
    """How `--wait` waits."""
    state: StateSection = StateSection()
    """What is remembered of runs."""
    inventory: tuple[InventorySection, ...] = ()
    """Further sources of installs. It or `installs` is required."""
    installs: tuple[InstallSection, ...] = ()
    """What to back up: installs, or bare ids and names."""


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
    """Return the JSON Schema of the YAML, for editors: with bare installs, and sections that are all comments."""
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
    """Say what is required of several keys together."""
    some = {"type": "array", "minItems": 1}
    schema["anyOf"] = [{"required": [key], "properties": {key: some}} for key in ("installs", "inventory")]
    name = {"type": "string", "pattern": rf"^{NAME_PATTERN}$|\$\{{"}
    schema["$defs"]["InstallSection"]["anyOf"] = [
        {"required": ["id"], "properties": {"id": {"type": "string"}}},
        {"required": ["name"], "properties": {"name": name}},
    ]
    schema["$defs"]["InventorySection"] |= {"minProperties": 1, "maxProperties": 1}
