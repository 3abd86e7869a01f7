"""Load a configuration: read the tree, check it against the schema, check across keys, convert it to the model."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from orchestrator.config.inventory.entries import TreeEntries, check_entries, check_given, check_once, no_account, place
from orchestrator.config.inventory.files import read_inventory
from orchestrator.config.location import location
from orchestrator.config.placed_yaml.checked import is_mapping, keys_of, validated
from orchestrator.config.placed_yaml.suggest import nearest
from orchestrator.config.placed_yaml.tree import Tree, read_tree
from orchestrator.config.schema import (
    DEFAULT_ACCOUNT,
    SECTIONS_THAT_MAY_BE_EMPTY,
    DefaultsSection,
    DiscoverSection,
    FleetFile,
    InstallSection,
)
from orchestrator.config.secrets import FORMS, MASK, VARIABLES, Credentials, find_credentials
from orchestrator.config.values import DEFAULT_BASE_URL
from orchestrator.errors import ConfigError
from orchestrator.listings import Discovery, EmptySource
from orchestrator.model import Account, Config, FailedSource, Install
from orchestrator.policies import ReconcilePolicy, RetryPolicy, ThrottlePolicy, Timeouts, WaitPolicy
from orchestrator.proxy import proxy_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.config.inventory.entries import Entries
    from orchestrator.config.inventory.files import InventoryFiles
    from orchestrator.redaction import Redactor

_SECRET_KEYS = {secret + form for secret in VARIABLES for form in FORMS}


@dataclass(frozen=True, slots=True)
class CheckedYaml:
    """The sections and credentials of a checked YAML and its inventory files.

    The installs of ``sections`` include those of the files. ``places`` are the places of the installs, ``sources`` the
    places of the entries of ``inventory``. ``redactor`` knows every secret. ``failed`` are the files, and parts of
    files, that could not be used. ``empty`` are the sources without an install.
    """

    source: str
    sections: FleetFile
    credentials: dict[str, Credentials]
    redactor: Redactor
    places: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    failed: tuple[FailedSource, ...] = ()
    empty: tuple[EmptySource, ...] = ()

    def shown(self) -> str:
        """Return the YAML with every install and default written out and every secret masked."""
        data = _written_out(self.sections).model_dump(mode="json", context=self.redactor)
        data["accounts"] = {
            name: dict.fromkeys(VARIABLES, MASK) | {key: account[key] for key in account if key not in _SECRET_KEYS}
            for name, account in data["accounts"].items()
        }
        dumped: str = yaml.dump(_given(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
        return dumped


def _written_out(fleet: FleetFile) -> FleetFile:
    """Return ``fleet`` with the defaults copied into each install, and without the inventory files."""
    inherited = {
        key: getattr(fleet.defaults, key) for key in ("account", "description", "notification_emails", "max_age")
    }

    def complete(install: InstallSection) -> InstallSection:
        lacking = {key: value for key, value in inherited.items() if getattr(install, key) is None}
        return install.model_copy(update=lacking)

    sources = (
        tuple(source for source in fleet.inventory if source.discover is not None)
        if fleet.installs
        else fleet.inventory
    )
    return fleet.model_copy(update={"installs": tuple(map(complete, fleet.installs)), "inventory": sources})


_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def _given(value: Any) -> Any:  # noqa: ANN401 - JSON-like data
    """Return ``value`` without the keys whose value is ``None``."""
    if isinstance(value, dict):
        return {key: _given(each) for key, each in value.items() if each is not None}
    return [_given(each) for each in value] if isinstance(value, list) else value


def load_config(text: bytes, file: str, environment: Mapping[str, str], *, is_strict: bool = False) -> Config:
    """Return the configuration in ``text``, which came from ``file``.

    ``environment`` holds the variables that ``${VAR}`` names, and credentials that the YAML leaves out. Parts of
    inventory files that cannot be used become ``failed_sources``; with ``is_strict`` they are problems. Raises
    ``ConfigError`` with every problem at once.
    """
    fleet = read_yaml(text, file, environment, is_strict=is_strict)
    return replace(_converted(fleet), path=location(file, environment))


def read_yaml(
    text: bytes, file: str, environment: Mapping[str, str], *, with_secrets: bool = True, is_strict: bool = False
) -> CheckedYaml:
    """Return ``text`` of ``file``, checked. Raises ``ConfigError`` with every problem at once.

    Inventory files may belong to other people, so their problems go to ``failed`` of the result. They are raised only
    together with problems of the YAML itself, or if ``is_strict``. Without ``with_secrets``, credentials may be
    missing, none is read from a file and no command runs.
    """
    tree = read_tree(text, file, environment, keys_of(FleetFile), lambda loc: not with_secrets and _is_credential(loc))
    for variable in VARIABLES.values():
        known = environment.get(variable, "")
        tree.redactor = tree.redactor.knowing(known, known)
    if not is_mapping(tree, FleetFile):
        raise tree.error()
    _leave_out_empty_sections(tree.data)
    _put_default_account(tree.data)
    _put_whole_discoveries(tree.data)
    own = TreeEntries(tree, "installs")
    sections = validated(tree, FleetFile)
    inventory = read_inventory(tree)
    _check_sources(tree)
    _check_entries(tree, own, inventory.lists)
    _check_ca_files(tree)
    _check_proxies(tree, environment)
    faults = inventory.problems(tree) if is_strict or tree.problems else []
    may_run = not tree.problems and not faults
    credentials = find_credentials(tree, environment, with_secrets=with_secrets, may_run=may_run)
    if tree.problems or faults or sections is None:
        faults = inventory.problems(tree)
        raise ConfigError([*tree.error().problems, *faults])
    return _fleet(tree, sections, inventory, credentials)


def _fleet(
    tree: Tree, sections: FleetFile, inventory: InventoryFiles, credentials: dict[str, Credentials]
) -> CheckedYaml:
    own = len(sections.installs)
    usable = [(each, index) for each in inventory.files for index in each.usable()]
    accounts = {
        name: account.model_copy(update={"ca_file": account.ca_file and _beside(tree.file, account.ca_file)})
        for name, account in sections.accounts.items()
    }
    installs = (*sections.installs, *(each.sections[index] for each, index in usable))
    return CheckedYaml(
        source=tree.file,
        sections=sections.model_copy(update={"accounts": accounts, "installs": installs}),
        credentials=credentials,
        redactor=tree.redactor,
        places=(
            *(f"{tree.file}:{tree.line(('installs', index))}" for index in range(own)),
            *(place(each.entries, index) for each, index in usable if each.entries is not None),
        ),
        sources=tuple(f"{tree.file}:{tree.line(('inventory', index))}" for index in range(len(sections.inventory))),
        failed=tuple(inventory.failed(tree.redactor)),
        empty=tuple(inventory.empty),
    )


def _is_credential(loc: Sequence[str | int]) -> bool:
    return loc[:1] == ("accounts",) and loc[-1] in _SECRET_KEYS


def _leave_out_empty_sections(data: dict[str, Any]) -> None:
    """Remove each section without a value: all its lines are commented out."""
    for section in SECTIONS_THAT_MAY_BE_EMPTY:
        if section in data and data[section] is None:
            del data[section]


def _put_default_account(data: dict[str, Any]) -> None:
    accounts = data.setdefault("accounts", {})
    if isinstance(accounts, dict) and (not accounts or accounts.get(DEFAULT_ACCOUNT, {}) is None):
        accounts[DEFAULT_ACCOUNT] = {}


def _put_whole_discoveries(data: dict[str, Any]) -> None:
    """Replace ``discover:`` without a value by ``discover: {}``, which takes every install."""
    for _, source in _sources(data):
        if "discover" in source and source["discover"] is None:
            source["discover"] = {}


def _sources(data: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    sources = data.get("inventory")
    found = enumerate(sources if isinstance(sources, list) else ())
    return [(index, source) for index, source in found if isinstance(source, dict)]


def _check_sources(tree: Tree) -> None:
    """Check that there is a source of installs, and that each entry of ``inventory`` is one."""
    if not tree.data.get("inventory") and not tree.data.get("installs"):
        written = [key for key in ("installs", "inventory") if key in tree.data][:1]
        unknown = [key for key in tree.data if key not in FleetFile.model_fields]
        if not any(nearest(key, ("installs", "inventory")) for key in unknown):
            tree.problem(written, "no installs and no inventory: there is nothing to back up; add one of them")
    for index, source in _sources(tree.data):
        given = [key for key in ("files", "discover") if source.get(key) is not None]
        if len(given) != 1 and not (set(source) - {"files", "discover"}):
            tree.problem(("inventory", index), "must have either files or discover; write each as a separate entry")


def _check_entries(tree: Tree, own: Entries, files: Sequence[Entries]) -> None:
    """Check that entries are unique, that their accounts exist, and that the defaults have what entries leave out."""
    accounts, defaults = tree.data["accounts"], tree.data.get("defaults")
    known = accounts if isinstance(accounts, dict) else None
    given = defaults if isinstance(defaults, dict) else {}
    account = given.get("account", DEFAULT_ACCOUNT)
    check_entries([own, *files], known)
    if known is not None:
        _check_discoveries(tree, known)
        if isinstance(account, str) and account not in known:
            _check_default(tree, own, files, ("account", no_account(account, known)))
    if given.get("notification_emails") is None:
        message = "is required: list the addresses that WP Engine mails when a backup has completed, or [] for none"
        _check_default(tree, own, files, ("notification_emails", message))
    check_once([own, *files], account)


def _check_discoveries(tree: Tree, accounts: dict[str, Any]) -> None:
    for index, source in _sources(tree.data):
        discovery = source.get("discover")
        account = discovery.get("account") if isinstance(discovery, dict) else None
        if isinstance(account, str) and account not in accounts:
            tree.problem(("inventory", index, "discover", "account"), no_account(account, accounts))


def _check_default(tree: Tree, own: Entries, files: Sequence[Entries], lack: tuple[str, str]) -> None:
    """Note the problem of a default that cannot be used. ``lack`` is its key and the message.

    The problem belongs to the YAML if ``defaults`` has the key, if an own install or a discovery needs the default, or
    if no entry at all has its own value. Otherwise it belongs to each entry of a file that needs the default.
    """
    key, message = lack
    defaults = tree.data.get("defaults")
    is_said = isinstance(defaults, dict) and key in defaults
    discoveries = [source["discover"] for _, source in _sources(tree.data) if isinstance(source.get("discover"), dict)]
    ours = [*discoveries, *(entry for entry in own.entries if isinstance(entry, dict))]
    theirs = [entry for each in files for entry in each.entries if isinstance(entry, dict)]
    some_do = bool(ours) or any(entry.get(key) is not None for entry in theirs)
    is_ours = any(entry.get(key) is None for entry in (ours if some_do and not is_said else [*ours, *theirs]))
    if is_ours:
        tree.problem(("defaults", key), message)
    else:
        check_given(files, key, f"has no {key}, and defaults has none either; add it here or in defaults")


def _check_ca_files(tree: Tree) -> None:
    """Check that each ``ca_file`` can be loaded."""
    accounts = tree.data["accounts"]
    for name, account in accounts.items() if isinstance(accounts, dict) else ():
        ca_file = account.get("ca_file") if isinstance(account, dict) else None
        if not isinstance(ca_file, str):
            continue
        try:
            ssl.create_default_context(cafile=_beside(tree.file, ca_file))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            tree.problem(("accounts", name, "ca_file"), f"cannot be used: {reason}")


def _check_proxies(tree: Tree, environment: Mapping[str, str]) -> None:
    """Check that the environment names a usable proxy for each account with ``proxy_from_environment``."""
    accounts = tree.data["accounts"]
    for name, account in accounts.items() if isinstance(accounts, dict) else ():
        if not isinstance(account, dict) or account.get("proxy_from_environment") is not True:
            continue
        try:
            proxy_for(str(account.get("base_url", DEFAULT_BASE_URL)), environment)
        except ValueError as error:
            tree.problem(("accounts", name, "proxy_from_environment"), str(error))


def _beside(file: str, path: str) -> str:
    """Return ``path``; a relative one starts at the directory of the YAML ``file``."""
    return str(Path(file).parent / path)


def _converted(fleet: CheckedYaml) -> Config:
    sections = fleet.sections
    throttle = sections.throttle
    return Config(
        source=fleet.source,
        accounts={name: _account(fleet, name) for name in sections.accounts},
        installs=tuple(map(_install, sections.installs, repeat(sections.defaults), fleet.places)),
        throttle=ThrottlePolicy(
            fixed_rate=throttle.rate,
            start_rate=throttle.start_requests_per_second,
            ceiling=throttle.max_requests_per_second,
            concurrency=throttle.concurrency,
            max_pause_s=throttle.max_pause,
            give_up_s=throttle.give_up,
            per_host=throttle.scope == "host",
        ),
        retry=RetryPolicy(sections.retry.max_attempts, sections.retry.deadline),
        timeouts=Timeouts(sections.timeouts.connect, sections.timeouts.read),
        reconcile=ReconcilePolicy(sections.on_ambiguous == "reconcile", sections.reconcile.grace),
        wait=WaitPolicy(sections.wait.timeout, sections.wait.poll_interval, bool(sections.wait.retry_aborted)),
        discoveries=tuple(
            _discovery(source.discover, sections.defaults, place)
            for source, place in zip(sections.inventory, fleet.sources, strict=True)
            if source.discover is not None
        ),
        discovered=_install(InstallSection(), sections.defaults),
        keep_s=sections.state.keep,
        timezone=sections.defaults.timezone,
        failed_sources=fleet.failed,
        empty_sources=fleet.empty,
        name=sections.name,
    )


def _account(fleet: CheckedYaml, name: str) -> Account:
    section, credentials = fleet.sections.accounts[name], fleet.credentials[name]
    return Account(
        name=name,
        base_url=section.base_url,
        user_id=credentials.user_id or "",
        password=credentials.password or "",
        ca_file=section.ca_file,
        proxy_from_environment=section.proxy_from_environment,
    )


def _install(section: InstallSection, defaults: DefaultsSection, place: str = "") -> Install:
    """Return the install of ``section``, with values from ``defaults`` for the keys that it leaves out."""
    emails = defaults.notification_emails if section.notification_emails is None else section.notification_emails
    return Install(
        id=section.id,
        name=section.name,
        account=section.account or defaults.account,
        environment=section.environment,
        tags=section.tags,
        description=section.description or defaults.description,
        notification_emails=emails or (),
        enabled=section.enabled,
        max_age_s=section.max_age or defaults.max_age,
        place=place,
    )


def _discovery(section: DiscoverSection, defaults: DefaultsSection, place: str) -> Discovery:
    return Discovery(
        account=section.account or defaults.account,
        wpengine_accounts=section.wpengine_accounts,
        environments=section.environments,
        exclude=section.exclude,
        place=place,
    )
