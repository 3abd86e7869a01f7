"""Load a configuration: read the tree, check it against the schema, check across keys, convert to the model."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestrator.config.schema import FleetFile
from orchestrator.config.tree import Tree, read_tree
from orchestrator.errors import ConfigError, Problem
from orchestrator.model import Account, Config, Install, RetryPolicy, ThrottlePolicy, Timeouts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

DEFAULT_ACCOUNT = "default"
CREDENTIALS = {"user_id": "WPE_API_USER_ID", "password": "WPE_API_PASSWORD"}
"""The environment variables that fill what the YAML leaves out of the account ``default``."""

_MESSAGES = {
    "missing": "is required",
    "extra_forbidden": "unknown key",
    "model_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "tuple_type": "must be a list",
    "bool_type": "must be true or false",
}


def load_config(text: bytes, file: str, environment: Mapping[str, str]) -> Config:
    """Return the configuration in ``text``, which came from ``file``.

    ``environment`` holds the variables that ``${VAR}`` names, and credentials that the YAML leaves out.
    Raises ``ConfigError`` with every problem at once.
    """
    tree = read_tree(_decode(text, file), file, environment)
    if not tree.problems and not isinstance(tree.data, dict):
        tree.problem((), "must be a mapping of keys to values: version, accounts, defaults, installs …")
    fleet = None
    if isinstance(tree.data, dict):
        _leave_out_empty_sections(tree.data)
        _fill_credentials(tree.data, environment)
        fleet = _validated(tree)
        _check_not_empty(tree)
        _check_accounts(tree)
        _check_duplicates(tree)
        _check_emails(tree)
        _check_ca_files(tree)
    if tree.problems or fleet is None:
        raise ConfigError(tree.problems)
    return _convert(fleet, file)


def _decode(text: bytes, file: str) -> str:
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = text[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        raise ConfigError([Problem(file, line, column, "", "is not UTF-8 text")]) from None


def _leave_out_empty_sections(data: dict[str, Any]) -> None:
    """Take a section of which every line is commented out for one that is not there."""
    for section in ("accounts", "defaults", "throttle", "retry", "timeouts"):
        if section in data and data[section] is None:
            del data[section]


def _fill_credentials(data: dict[str, Any], environment: Mapping[str, str]) -> None:
    accounts = data.setdefault("accounts", {})
    if not isinstance(accounts, dict):
        return
    if not accounts:
        accounts[DEFAULT_ACCOUNT] = {}
    account = accounts.get(DEFAULT_ACCOUNT)
    if account is None and DEFAULT_ACCOUNT in accounts:
        account = accounts[DEFAULT_ACCOUNT] = {}
    if not isinstance(account, dict):
        return
    for key, variable in CREDENTIALS.items():
        if environment.get(variable):
            account.setdefault(key, environment[variable])


def _validated(tree: Tree) -> FleetFile | None:
    try:
        return FleetFile.model_validate(tree.data)
    except ValidationError as error:
        noted = {(problem.line, problem.column) for problem in tree.problems}
        for detail in error.errors(include_url=False):
            before = len(tree.problems)
            loc = tuple(step for step in detail["loc"] if step != "[key]")
            tree.problem(loc, _message(detail, loc), at_key=detail["type"] == "extra_forbidden")
            mended = tree.problems[before]
            if (mended.line, mended.column) in noted and detail["type"] != "missing":
                tree.problems.pop()
        return None


def _message(detail: ErrorDetails, loc: tuple[str | int, ...]) -> str:
    kind = detail["type"]
    if kind == "missing" and loc[:2] == ("accounts", DEFAULT_ACCOUNT) and loc[-1] in CREDENTIALS:
        return f"is required: give it here, or set {CREDENTIALS[str(loc[-1])]}"
    if kind == "literal_error":
        return f"must be {detail['ctx']['expected']}"
    if kind == "model_type" and loc[:1] == ("installs",):
        return "must be an install's id, or a mapping with an id"
    return _MESSAGES.get(kind, detail["msg"])


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
    known = ", ".join(map(str, accounts))
    defaults = tree.data.get("defaults")
    chosen = defaults.get("account", DEFAULT_ACCOUNT) if isinstance(defaults, dict) else DEFAULT_ACCOUNT
    if isinstance(chosen, str) and chosen not in accounts and any("account" not in each for _, each in _installs(tree)):
        tree.problem(("defaults", "account"), f"there is no account {chosen} among accounts: {known}")
    for index, entry in _installs(tree):
        name = entry.get("account")
        if isinstance(name, str) and name not in accounts:
            tree.problem(("installs", index, "account"), f"there is no account {name} among accounts: {known}")


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
    """Try each certificate authority, and make its path, which starts at the YAML's own folder, absolute."""
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
    return str(Path(file).parent / path)


def _convert(fleet: FleetFile, file: str) -> Config:
    defaults, throttle = fleet.defaults, fleet.throttle
    return Config(
        source=file,
        accounts={
            name: Account(
                name=name,
                base_url=section.base_url,
                user_id=section.user_id,
                password=section.password,
                ca_file=_beside(file, section.ca_file) if section.ca_file else None,
                proxy_from_environment=section.proxy_from_environment,
            )
            for name, section in fleet.accounts.items()
        },
        installs=tuple(
            Install(
                id=section.id,
                name=section.name,
                account=section.account or defaults.account,
                environment=section.environment,
                tags=section.tags,
                description=section.description or defaults.description,
                notification_emails=(
                    section.notification_emails
                    if section.notification_emails is not None
                    else defaults.notification_emails or ()
                ),
                enabled=section.enabled,
            )
            for section in fleet.installs
        ),
        throttle=ThrottlePolicy(
            fixed_rate=throttle.rate,
            start_rate=throttle.start_requests_per_second,
            ceiling=throttle.max_requests_per_second,
            concurrency=throttle.concurrency,
            max_pause_s=throttle.max_pause,
            give_up_s=throttle.give_up,
            per_host=throttle.scope == "host",
        ),
        retry=RetryPolicy(fleet.retry.max_attempts, fleet.retry.deadline),
        timeouts=Timeouts(fleet.timeouts.connect, fleet.timeouts.read),
        timezone=defaults.timezone,
    )
