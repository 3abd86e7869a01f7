"""Find the credentials of each account: in the YAML, then in the environment, then in ``$CREDENTIALS_DIRECTORY``.

The first source that has a secret counts. A source gives it in one of three forms: the secret itself, ``_file`` or
``_command``. Two forms in one source are an error, since it is unclear which one counts. The environment and the
credentials directory give secrets only to the account ``default``.
"""

from __future__ import annotations

import codecs
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticCustomError

from orchestrator.config.placed_yaml.bounded import FailedError, TooSlowError, command_output, file_content
from orchestrator.config.placed_yaml.tree import path_of, read_tree
from orchestrator.config.schema import DEFAULT_ACCOUNT
from orchestrator.config.values import LONGEST_TEXT, parse_text, parse_user_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from orchestrator.config.placed_yaml.tree import Tree

FORMS = ("", "_file", "_command")
VARIABLES = {"user_id": "WPE_API_USER_ID", "password": "WPE_API_PASSWORD"}
"""The name of each secret's environment variable, and of its file in ``$CREDENTIALS_DIRECTORY``."""

BYTE_ORDER_MARK = "\ufeff"
"""Removed from the start of a secret: ``$(cat FILE)`` copies it from a file that was written on Windows."""

PATIENCE_S = 60.0
"""Seconds that a pipe or a command may take."""

MASK = "********"
"""Replaces a secret where the configuration is shown."""

_PARSERS: dict[str, Callable[[object], str]] = {"user_id": parse_user_id, "password": parse_text}
_LONGEST = 4 * LONGEST_TEXT + 2
"""The maximum bytes of a file or of a command's output: a longer one cannot be a valid secret."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """One account's secrets; ``None`` for one that was not found."""

    user_id: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class _Source:
    """A secret in one ``form``. ``named`` is its name in messages, ``loc`` the place in the YAML for problems.

    A relative path starts at ``folder``.
    """

    form: str
    value: str
    named: str
    loc: tuple[str, ...]
    folder: Path


class _NoSecretError(Exception):
    """Say why a source has no usable secret. The message never repeats the given value, which may be the secret."""


def find_credentials(
    tree: Tree, environment: Mapping[str, str], *, with_secrets: bool, may_run: bool
) -> dict[str, Credentials]:
    """Return the credentials of each account, and note problems with them in ``tree``.

    Commands run only if they ``may_run``, that is, if nothing else is wrong. Each file is read, and each command runs,
    only once. Without ``with_secrets``, no file is read, no command runs and no secret is required.
    """
    finder = _Finder(tree, environment, with_secrets=with_secrets, may_run=may_run)
    return {name: finder.credentials(name, account) for name, account in _accounts(tree)}


def is_given_outside(secret: str, environment: Mapping[str, str]) -> bool:
    """Tell whether the environment or ``$CREDENTIALS_DIRECTORY`` gives ``secret``, in any form."""
    return bool(_variables_of(secret, environment)) or _credentials_folder(secret, environment) is not None


def _variables_of(secret: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the names of the environment variables that give ``secret``, by form."""
    names = {form: VARIABLES[secret] + form.upper() for form in FORMS}
    return {form: name for form, name in names.items() if environment.get(name)}


def _credentials_folder(secret: str, environment: Mapping[str, str]) -> Path | None:
    """Return ``$CREDENTIALS_DIRECTORY`` if it contains a file for ``secret``."""
    folder = environment.get("CREDENTIALS_DIRECTORY")
    is_there = folder and os.path.exists(os.path.join(folder, VARIABLES[secret]))  # noqa: PTH110, PTH118 - Path's raises for odd paths
    return Path(folder) if folder and is_there else None


def holds_password(text: bytes, file: str) -> bool:
    """Tell whether the YAML ``text`` contains a password itself, and not only the name of a variable."""
    accounts = _accounts(read_tree(text, file, None))
    given = (account.get("password") for _, account in accounts)
    return any(isinstance(each, str) and "${" not in each.replace("$$", "") for each in given)


def _accounts(tree: Tree) -> Iterator[tuple[str, dict[str, Any]]]:
    accounts = tree.data.get("accounts")
    for name, account in accounts.items() if isinstance(accounts, dict) else ():
        if isinstance(account, dict):
            yield name, account


class _Finder:
    def __init__(self, tree: Tree, environment: Mapping[str, str], *, with_secrets: bool, may_run: bool) -> None:
        self._with_secrets = with_secrets
        self._tree = tree
        self._environment = environment
        self._read_before: dict[tuple[str, str, str], str | _NoSecretError] = {}
        self._noted = {problem.path for problem in tree.problems}
        self._may_run = may_run

    def credentials(self, name: str, account: dict[str, Any]) -> Credentials:
        return Credentials(*(self._secret(name, account, secret) for secret in VARIABLES))

    def _secret(self, name: str, account: dict[str, Any], secret: str) -> str | None:
        source = self._source(name, account, secret)
        if source is None:
            return None
        try:
            text = self._read(source)
            if text is None:
                return None
            self._tree.redactor = self._tree.redactor.knowing(text, text)
            if text == MASK:
                self._tree.problem(source.loc, "is the mask that config show prints: give the secret itself")
            return _PARSERS[secret](text)
        except _NoSecretError as error:
            self._tree.problem(source.loc, str(error))
        except PydanticCustomError as error:
            # a secret in the YAML itself was checked together with the other values
            if source.form or source.named != source.loc[-1]:
                self._tree.problem(source.loc, f"the secret from {source.named} {error.message()}")
        return None

    def _source(self, name: str, account: dict[str, Any], secret: str) -> _Source | None:
        loc = ("accounts", name, secret)
        in_yaml = {secret + form: account[secret + form] for form in FORMS if account.get(secret + form) is not None}
        if len(in_yaml) > 1:
            self._tree.problem(("accounts", name, list(in_yaml)[1]), f"give only one of {' and '.join(in_yaml)}")
            return None
        if in_yaml:
            ((key, value),) = in_yaml.items()
            if not isinstance(value, str) or not value.strip():
                return None  # the check against the schema has noted it
            return _Source(key.removeprefix(secret), value, key, (*loc[:2], key), Path(self._tree.file).parent)
        if not self._with_secrets:
            return None
        if name != DEFAULT_ACCOUNT:
            self._miss(loc, f"{secret}_file or {secret}_command")
            return None
        return self._from_outside(secret, loc)

    def _from_outside(self, secret: str, loc: tuple[str, ...]) -> _Source | None:
        variable = VARIABLES[secret]
        names = _variables_of(secret, self._environment)
        if len(names) > 1:
            self._tree.problem(loc, f"set only one of the environment variables {' and '.join(names.values())}")
            return None
        if names:
            ((form, named),) = names.items()
            return _Source(form, self._environment[named], named, loc, Path())
        folder = _credentials_folder(secret, self._environment)
        if folder is not None:
            return _Source("_file", variable, f"$CREDENTIALS_DIRECTORY/{variable}", loc, folder)
        self._miss(loc, f"set {variable}, {variable}_FILE or {variable}_COMMAND")
        return None

    def _miss(self, loc: tuple[str, ...], otherwise: str) -> None:
        if path_of(loc) not in self._noted:
            self._tree.problem(loc, f"is required: give it here, or {otherwise}")

    def _read(self, source: _Source) -> str | None:
        if not source.form:
            return source.value.removeprefix(BYTE_ORDER_MARK)
        if not self._with_secrets or (source.form == "_command" and not self._may_run):
            return None
        key = (source.form, str(source.folder) if source.form == "_file" else "", source.value)
        if key not in self._read_before:
            try:
                self._read_before[key] = _content(source) if source.form == "_file" else _printed(source)
            except _NoSecretError as error:
                self._read_before[key] = error
        found = self._read_before[key]
        if isinstance(found, _NoSecretError):
            raise found
        return found


def _content(source: _Source) -> str:
    try:
        content = file_content(source.folder / Path(source.value).expanduser(), _LONGEST + 1, PATIENCE_S)
    except TooSlowError:
        message = f"{source.named} did not end within {PATIENCE_S:g} s"
        raise _NoSecretError(message) from None
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "there is no such path"
        message = f"{source.named} cannot be read: {reason}; it must be the path of a file that holds the secret"
        raise _NoSecretError(message) from None
    return _secret_in(content, source.named)


def _printed(source: _Source) -> str:
    try:
        output = command_output(source.value, _LONGEST + 1, PATIENCE_S)
    except TooSlowError:
        message = f"{source.named} did not end within {PATIENCE_S:g} s"
        raise _NoSecretError(message) from None
    except FailedError as error:
        message = f"{source.named} failed with {error}; run the command by hand to see why"
        raise _NoSecretError(message) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        message = f"{source.named} cannot be run: {reason}"
        raise _NoSecretError(message) from None
    return _secret_in(output, source.named)


def _secret_in(content: bytes, named: str) -> str:
    """Return the text in ``content`` without one line end after it.

    A byte order mark before it is removed too: editors on Windows, and PowerShell, write one. Raises
    ``_NoSecretError``.
    """
    if len(content) > _LONGEST:
        message = f"the text from {named} is too long for a secret"
        raise _NoSecretError(message)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        message = f"the secret from {named} is UTF-16 text, which PowerShell writes: save it as UTF-8"
        raise _NoSecretError(message)
    try:
        return content.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        message = f"the secret from {named} is not UTF-8 text"
        raise _NoSecretError(message) from None
