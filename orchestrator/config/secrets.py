"""Where the credentials of each account come from: the YAML, then the environment, then ``$CREDENTIALS_DIRECTORY``.

The first of these that has a secret gives it, in one of three forms: the secret itself, ``_file``, ``_command``. Two
forms in one source are an error, since nobody could say which one counts. The environment and the credentials
directory are asked for the account ``default`` only.
"""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticCustomError

from orchestrator.config.schema import DEFAULT_ACCOUNT
from orchestrator.config.tree import path_of
from orchestrator.config.values import LONGEST_TEXT, parse_text, parse_user_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from orchestrator.config.tree import Tree

FORMS = ("", "_file", "_command")
VARIABLES = {"user_id": "WPE_API_USER_ID", "password": "WPE_API_PASSWORD"}
"""The environment variables, and the files in ``$CREDENTIALS_DIRECTORY``, that fill what the YAML leaves out."""

COMMAND_TIMEOUT_S = 60.0

_PARSERS: dict[str, Callable[[object], str]] = {"user_id": parse_user_id, "password": parse_text}
_LONGEST = 4 * LONGEST_TEXT + 2
"""Bytes of a file or of what a command prints: more cannot be a secret that is short enough."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """One account's secrets; ``None`` for one that was not to be had."""

    user_id: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class _Source:
    """One form in which a secret was given: ``named`` as people know it, at ``loc`` of the YAML."""

    form: str
    value: str
    named: str
    loc: tuple[str, ...]
    folder: Path


class _NoSecretError(Exception):
    """Say why a source has no usable secret."""


def find_credentials(tree: Tree, environment: Mapping[str, str], *, with_secrets: bool) -> dict[str, Credentials]:
    """Return the credentials of each account, and note what is wrong with them in ``tree``.

    Files are read; commands run only if nothing is wrong with the rest of the YAML, each once. Without secrets no file
    is read, no command run and nothing missed.
    """
    finder = _Finder(tree, environment, with_secrets=with_secrets)
    return {name: finder.credentials(name, account) for name, account in _accounts(tree)}


def _accounts(tree: Tree) -> Iterator[tuple[str, dict[str, Any]]]:
    accounts = tree.data["accounts"]
    for name, account in accounts.items() if isinstance(accounts, dict) else ():
        if isinstance(account, dict):
            yield name, account


class _Finder:
    def __init__(self, tree: Tree, environment: Mapping[str, str], *, with_secrets: bool) -> None:
        self._with_secrets = with_secrets
        self._tree = tree
        self._environment = environment
        self._printed: dict[str, str | _NoSecretError] = {}
        self._may_run = not tree.problems

    def credentials(self, name: str, account: dict[str, Any]) -> Credentials:
        return Credentials(*(self._secret(name, account, secret) for secret in VARIABLES))

    def _secret(self, name: str, account: dict[str, Any], secret: str) -> str | None:
        source = self._source(name, account, secret)
        if source is None:
            return None
        try:
            text = self._read(source)
            return None if text is None else _PARSERS[secret](text)
        except _NoSecretError as error:
            self._tree.problem(source.loc, str(error))
        except PydanticCustomError as error:
            # what stands in the YAML itself was checked with everything else
            if source.form or source.named != source.loc[-1]:
                self._tree.problem(source.loc, f"what {source.named} gives {error.message()}")
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
                return None  # noted already, as any value that is not as its key wants it
            return _Source(key.removeprefix(secret), value, key, (*loc[:2], key), Path(self._tree.file).parent)
        if name != DEFAULT_ACCOUNT:
            self._miss(loc, f"{secret}_file or {secret}_command")
            return None
        return self._from_outside(secret, loc)

    def _from_outside(self, secret: str, loc: tuple[str, ...]) -> _Source | None:
        variable = VARIABLES[secret]
        names = {form: variable + form.upper() for form in FORMS if self._environment.get(variable + form.upper())}
        if len(names) > 1:
            self._tree.problem(loc, f"set only one of the environment variables {' and '.join(names.values())}")
            return None
        if names:
            ((form, named),) = names.items()
            return _Source(form, self._environment[named], named, loc, Path())
        folder = self._environment.get("CREDENTIALS_DIRECTORY")
        if folder and (Path(folder) / variable).exists():
            return _Source("_file", variable, f"$CREDENTIALS_DIRECTORY/{variable}", loc, Path(folder))
        self._miss(loc, f"set {variable}, {variable}_FILE or {variable}_COMMAND")
        return None

    def _miss(self, loc: tuple[str, ...], otherwise: str) -> None:
        if self._with_secrets and not any(problem.path == path_of(loc) for problem in self._tree.problems):
            self._tree.problem(loc, f"is required: give it here, or {otherwise}")

    def _read(self, source: _Source) -> str | None:
        match source.form:
            case "_file" | "_command" if not self._with_secrets:
                return None
            case "_file":
                return _content(source.folder / source.value, source.named)
            case "_command":
                return self._output(source)
            case _:
                return source.value

    def _output(self, source: _Source) -> str | None:
        if not self._may_run:
            return None
        if source.value not in self._printed:
            try:
                self._printed[source.value] = _printed_by(source.value, source.named)
            except _NoSecretError as error:
                self._printed[source.value] = error
        printed = self._printed[source.value]
        if isinstance(printed, _NoSecretError):
            raise printed
        return printed


def _content(path: Path, named: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        message = f"{named} cannot be read: {path}: {reason}"
        raise _NoSecretError(message) from None
    return _secret_in(content, f"{named} ({path})")


def _printed_by(command: str, named: str) -> str:
    try:
        arguments = shlex.split(command)
        ended = subprocess.run(  # noqa: S603 - the operator's own command, without a shell
            arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        message = f"{named} did not end within {COMMAND_TIMEOUT_S:g} s"
        raise _NoSecretError(message) from None
    except (OSError, ValueError, IndexError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        message = f"{named} cannot be run: {reason}"
        raise _NoSecretError(message) from None
    if ended.returncode:
        said = ended.stderr[:300].decode("utf-8", "replace").strip().replace("\n", " ")
        message = f"{named} failed with exit code {ended.returncode}" + (f": {said}" if said else "")
        raise _NoSecretError(message)
    return _secret_in(ended.stdout, f"what {named} prints")


def _secret_in(content: bytes, named: str) -> str:
    """Return the text in ``content`` without the one line end that editors and commands put behind it."""
    if len(content) > _LONGEST:
        message = f"{named} is too long for a secret"
        raise _NoSecretError(message)
    try:
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        message = f"{named} is not UTF-8 text"
        raise _NoSecretError(message) from None
