"""Load a configuration: read the tree, check it against the schema, check across keys, convert to the model."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from orchestrator.config.checked import is_mapping, keys_of, validated
from orchestrator.config.schema import DEFAULT_ACCOUNT, SECTIONS_THAT_MAY_BE_EMPTY, FleetFile, InstallSection
from orchestrator.config.secrets import FORMS, MASK, VARIABLES, Credentials, find_credentials
from orchestrator.config.suggest import did_you_mean
from orchestrator.config.tree import Tree, read_tree
from orchestrator.model import Account, Config, Install, ReconcilePolicy, RetryPolicy, ThrottlePolicy, Timeouts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.redaction import Redactor

_SECRET_KEYS = {secret + form for secret in VARIABLES for form in FORMS}


@dataclass(frozen=True, slots=True)
class Fleet:
    """A YAML that has been checked: its sections, in which each install says everything itself, and the credentials.

    ``redactor`` knows every secret of it.
    """

    source: str
    sections: FleetFile
    credentials: dict[str, Credentials]
    redactor: Redactor

    def shown(self) -> str:
        """Return the YAML as it was understood, with every default written out and every secret masked."""
        data = self.sections.model_dump(mode="json", context=self.redactor)
        data["accounts"] = {
            name: dict.fromkeys(VARIABLES, MASK) | {key: account[key] for key in account if key not in _SECRET_KEYS}
            for name, account in data["accounts"].items()
        }
        dumped: str = yaml.dump(_given(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
        return dumped


_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def _given(value: Any) -> Any:  # noqa: ANN401 - JSON-like data
    """Return ``value`` without the keys that have none."""
    if isinstance(value, dict):
        return {key: _given(each) for key, each in value.items() if each is not None}
    return [_given(each) for each in value] if isinstance(value, list) else value


def load_config(text: bytes, file: str, environment: Mapping[str, str]) -> Config:
    """Return the configuration in ``text``, which came from ``file``.

    ``environment`` holds the variables that ``${VAR}`` names, and credentials that the YAML leaves out.
    Raises ``ConfigError`` with every problem at once.
    """
    return _converted(read_fleet(text, file, environment))


def read_fleet(text: bytes, file: str, environment: Mapping[str, str], *, with_secrets: bool = True) -> Fleet:
    """Return ``text`` of ``file``, checked. Raises ``ConfigError`` with every problem at once.

    Without secrets, credentials that are missing are no problem, no file of theirs is read and no command run.
    """
    tree = read_tree(text, file, environment, keys_of(FleetFile), lambda loc: not with_secrets and _is_credential(loc))
    for variable in VARIABLES.values():
        known = environment.get(variable, "")
        tree.redactor = tree.redactor.knowing(known, known)
    if not is_mapping(tree, FleetFile):
        raise tree.error()
    _leave_out_empty_sections(tree.data)
    _put_default_account(tree.data)
    sections = validated(tree, FleetFile)
    _check_not_empty(tree)
    _check_accounts(tree)
    _check_duplicates(tree)
    _check_emails(tree)
    _check_ca_files(tree)
    credentials = find_credentials(tree, environment, with_secrets=with_secrets)
    if tree.problems or sections is None:
        raise tree.error()
    return Fleet(file, _resolved(sections, file), credentials, tree.redactor)


def _is_credential(loc: Sequence[str | int]) -> bool:
    return loc[:1] == ("accounts",) and loc[-1] in _SECRET_KEYS


def _leave_out_empty_sections(data: dict[str, Any]) -> None:
    """Take a section of which every line is commented out for one that is not there."""
    for section in SECTIONS_THAT_MAY_BE_EMPTY:
        if section in data and data[section] is None:
            del data[section]


def _put_default_account(data: dict[str, Any]) -> None:
    accounts = data.setdefault("accounts", {})
    if isinstance(accounts, dict) and (not accounts or accounts.get(DEFAULT_ACCOUNT, {}) is None):
        accounts[DEFAULT_ACCOUNT] = {}


def _installs(tree: Tree) -> list[tuple[int, dict[str, Any]]]:
    entries = tree.data.get("installs")
    if not isinstance(entries, list):
        return []
    return [(index, entry) for index, entry in enumerate(entries) if isinstance(entry, dict)]


def _check_not_empty(tree: Tree) -> None:
    if tree.data.get("installs") == []:
        tree.problem(("installs",), "must not be empty")


def _check_accounts(tree: Tree) -> None:
    accounts = tree.data["accounts"]
    if not isinstance(accounts, dict):
        return

    def check(name: object, *loc: str | int) -> None:
        if isinstance(name, str) and name not in accounts:
            meant = did_you_mean(name, accounts) or f" among accounts: {', '.join(map(str, accounts))}"
            tree.problem(loc, f"there is no account {name}{meant}")

    defaults = tree.data.get("defaults")
    if any("account" not in entry for _, entry in _installs(tree)):
        given = defaults.get("account", DEFAULT_ACCOUNT) if isinstance(defaults, dict) else DEFAULT_ACCOUNT
        check(given, "defaults", "account")
    for index, entry in _installs(tree):
        check(entry.get("account"), "installs", index, "account")


def _check_duplicates(tree: Tree) -> None:
    seen: dict[str, int] = {}
    for index, entry in _installs(tree):
        install_id = entry.get("id")
        if not isinstance(install_id, str):
            continue
        first = seen.setdefault(install_id.lower(), index)
        if first != index:
            line = tree.line(("installs", first, "id"))
            tree.problem(("installs", index, "id"), f"the same install is already listed on line {line}")


def _check_emails(tree: Tree) -> None:
    defaults = tree.data.get("defaults")
    if isinstance(defaults, dict) and defaults.get("notification_emails") is not None:
        return
    if any(entry.get("notification_emails") is None for _, entry in _installs(tree)):
        message = "is required: the addresses that WP Engine mails when a backup has completed; [] for none"
        tree.problem(("defaults", "notification_emails"), message)


def _check_ca_files(tree: Tree) -> None:
    """Try each certificate authority."""
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


def _beside(file: str, path: str) -> str:
    """Return ``path``, which starts at the YAML's own folder."""
    return str(Path(file).parent / path)


def _resolved(fleet: FleetFile, file: str) -> FleetFile:
    """Return ``fleet`` with what each install takes from the defaults, and with absolute paths of the authorities."""
    defaults = fleet.defaults
    inherited = {key: getattr(defaults, key) for key in ("account", "description", "notification_emails", "max_age")}

    def complete(install: InstallSection) -> InstallSection:
        lacking = {key: value for key, value in inherited.items() if getattr(install, key) is None}
        return install.model_copy(update=lacking)

    accounts = {
        name: account.model_copy(update={"ca_file": account.ca_file and _beside(file, account.ca_file)})
        for name, account in fleet.accounts.items()
    }
    return fleet.model_copy(
        update={"accounts": accounts, "installs": tuple(complete(install) for install in fleet.installs)}
    )


def _converted(fleet: Fleet) -> Config:
    sections = fleet.sections
    throttle = sections.throttle
    return Config(
        source=fleet.source,
        accounts={name: _account(fleet, name) for name in sections.accounts},
        installs=tuple(_install(section) for section in sections.installs),
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
        keep_s=sections.state.keep,
        timezone=sections.defaults.timezone,
    )


def _account(fleet: Fleet, name: str) -> Account:
    section, credentials = fleet.sections.accounts[name], fleet.credentials[name]
    return Account(
        name=name,
        base_url=section.base_url,
        user_id=credentials.user_id or "",
        password=credentials.password or "",
        ca_file=section.ca_file,
        proxy_from_environment=section.proxy_from_environment,
    )


def _install(section: InstallSection) -> Install:
    return Install(
        id=section.id,
        name=section.name,
        account=section.account or DEFAULT_ACCOUNT,
        environment=section.environment,
        tags=section.tags,
        description=section.description or "",
        notification_emails=section.notification_emails or (),
        enabled=section.enabled,
    )
