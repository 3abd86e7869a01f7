"""Check the entries of a list of installs, in the YAML or in an inventory file.

The schema of the YAML checks its own list. This module adds the checks that concern several keys or several entries.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ValidationError

from orchestrator.config.placed_yaml.checked import NO_INSTALL, faults
from orchestrator.config.placed_yaml.suggest import did_you_mean, nearest
from orchestrator.config.schema import InstallSection
from orchestrator.config.values import install_name_hint, is_install_id
from orchestrator.listings import NAME_PATTERN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from orchestrator.config.placed_yaml.checked import Location
    from orchestrator.config.placed_yaml.tree import Tree
    from orchestrator.errors import Problem
    from orchestrator.redaction import Redactor

KEYS = tuple(InstallSection.model_fields)
"""The keys that an entry may have."""

_NAME = re.compile(NAME_PATTERN, re.ASCII)
_ENTRY = re.compile(r"\[(?P<index>[0-9]+)\]")
"""The start of the path of a problem that concerns one entry, if the document itself is the list."""
_MOST_NAMED = 10


class Entries(Protocol):
    """A list of installs as plain data. Each entry has a place in ``file``.

    An entry is a mapping of keys to values, unless it is malformed. ``wrong`` are the indexes of entries with problems.
    """

    file: str
    entries: list[Any]
    wrong: set[int]

    @property
    def is_usable(self) -> bool:
        """Tell whether every problem concerns a single entry, and none concerns the whole list."""

    def line(self, index: int) -> int:
        """Return the line, from 1, on which an entry begins."""

    def problem(self, index: int, loc: Sequence[str | int], message: str, *, at_key: bool = False) -> None:
        """Note a problem of the value at ``loc`` of an entry, or of its key, unless reading noted one there."""

    def problems(self, redactor: Redactor) -> Sequence[Problem]:
        """Return every problem with its line, without the secrets that ``redactor`` knows."""


class TreeEntries:
    """The entries of the list at ``loc`` of a YAML document."""

    def __init__(self, tree: Tree, *loc: str) -> None:
        """Take the list from ``tree``, and turn each bare id or name in it into a mapping."""
        self.file = tree.file
        self._tree = tree
        self._loc = loc
        self._noted = tree.noted()
        among = [_ENTRY.match(each.path) for each in tree.problems]
        self.is_usable = bool(loc) or all(among)
        self.wrong = {int(each["index"]) for each in among if each}
        found = tree.data
        for step in loc:
            found = found.get(step) if isinstance(found, dict) else None
        self.entries: list[Any] = found if isinstance(found, list) else []
        for index, entry in enumerate(self.entries):
            if entry is not None and not isinstance(entry, dict | list):
                is_name = isinstance(entry, str) and _NAME.fullmatch(entry)
                self.entries[index] = {"name" if is_name else "id": entry}

    def line(self, index: int) -> int:
        """Return the line, from 1, on which an entry begins."""
        return self._tree.line((*self._loc, index))

    def problem(self, index: int, loc: Sequence[str | int], message: str, *, at_key: bool = False) -> None:
        """Note a problem of the value at ``loc`` of an entry, or of its key, unless reading noted one there."""
        self.wrong.add(index)
        self._tree.problem((*self._loc, index, *loc), message, at_key=at_key, noted=self._noted)

    def problems(self, redactor: Redactor) -> Sequence[Problem]:
        """Return every problem with its line, without the secrets that ``redactor`` knows."""
        self._tree.redactor = redactor
        return self._tree.error().problems


def place(entries: Entries, index: int) -> str:
    """Return the place of an entry, as ``file:line``."""
    return f"{entries.file}:{entries.line(index)}"


def sections_of(entries: Entries, *, may_name_variables: bool) -> dict[int, InstallSection]:
    """Return the valid entries of an inventory file as sections, by index, and note the faults of the others."""
    refused = _refuse_variables(entries) if may_name_variables else set()
    sections = {}
    for index, entry in enumerate(entries.entries):
        if not isinstance(entry, dict):
            entries.problem(index, (), NO_INSTALL)
            continue
        try:
            sections[index] = InstallSection.model_validate(entry)
            continue
        except ValidationError as error:
            details = error.errors(include_url=False)
        for fault in faults(details, entry, InstallSection):
            if (index, fault.loc) not in refused:
                entries.problem(index, fault.loc, fault.message, at_key=fault.is_of_key)
    return sections


def _refuse_variables(entries: Entries) -> set[tuple[int, Location]]:
    """Note each value that names a variable: an author of an inventory file must not read the environment."""
    refused = set()
    for index, loc, text in _texts(entries):
        if "${" in text:
            refused.add((index, loc))
            entries.problem(index, loc, "variables are not replaced in inventory files: write the value itself")
    return refused


def _texts(entries: Entries) -> Iterator[tuple[int, Location, str]]:
    for index, entry in enumerate(entries.entries):
        for key, value in entry.items() if isinstance(entry, dict) else ():
            if isinstance(value, str):
                yield index, (key,), value
            for number, each in enumerate(value) if isinstance(value, list) else ():
                if isinstance(each, str):
                    yield index, (key, number), each


def check_entries(lists: Iterable[Entries], accounts: Mapping[str, Any] | None) -> None:
    """Note entries without a usable id or name, and entries whose account is not among ``accounts``."""
    lacking: dict[str, str] = {}
    for each, index, entry in _mappings(lists):
        if entry.get("id") is None:
            _check_name(each, index, entry)
        account = entry.get("account")
        if accounts is not None and isinstance(account, str) and account not in accounts:
            message = lacking.get(account) or lacking.setdefault(account, no_account(account, accounts))
            each.problem(index, ("account",), message)


def check_given(lists: Iterable[Entries], key: str, message: str) -> None:
    """Note ``message`` for each entry without ``key``."""
    for each, index, entry in _mappings(lists):
        if entry.get(key) is None:
            each.problem(index, (), message)


def check_once(lists: Iterable[Entries], default_account: object) -> None:
    """Note entries whose install another entry has too. The first entry without another problem counts."""
    claims = [
        (each, index, *claim) for each, index, entry in _mappings(lists) if (claim := _claim(entry, default_account))
    ]
    first: dict[object, int] = {}
    for at, (each, index, _, known_by) in enumerate(claims):
        if each.is_usable and index not in each.wrong:
            first.setdefault(known_by, at)
    for at, (each, index, key, known_by) in enumerate(claims):
        counts = first.setdefault(known_by, at)
        if counts != at:
            other, number = claims[counts][:2]
            where = f"on line {other.line(number)}" if other is each else f"at {place(other, number)}"
            said = f"already listed {where}" if counts < at else f"also listed {where}"
            off = ", and disabled there" if other.entries[number].get("enabled") is False else ""
            each.problem(index, (key,), f"the same install is {said}{off}")


def _mappings(lists: Iterable[Entries]) -> Iterator[tuple[Entries, int, dict[str, Any]]]:
    for each in lists:
        yield from ((each, index, entry) for index, entry in enumerate(each.entries) if isinstance(entry, dict))


def no_account(name: str, accounts: Mapping[str, Any]) -> str:
    """Say that there is no account ``name``, and suggest the nearest account, or list all."""
    listed = [str(each) for each in accounts][: _MOST_NAMED + 1]
    among = ", ".join(listed[:_MOST_NAMED]) + (", …" if len(listed) > _MOST_NAMED else "")
    return f"there is no account {name}{did_you_mean(name, accounts) or f' among accounts: {among}'}"


def _check_name(entries: Entries, index: int, entry: dict[str, Any]) -> None:
    """Check the name of an entry without an id."""
    name = entry.get("name")
    if name is None:
        if not any(nearest(key, ("id", "name")) for key in entry if key not in KEYS):
            given = [key for key in ("id", "name") if key in entry][:1]
            entries.problem(index, given, "must have an id or a name")
    elif isinstance(name, str) and name.strip() and not _NAME.fullmatch(name):
        message = "cannot be an install's name: a name has 3 to 14 small letters and digits, a letter first;"
        message += f" correct it or add the id{install_name_hint(name)}"
        if is_install_id(name):
            message = "is an id, not a name: write id instead of name"
        entries.problem(index, ("name",), message)


def _claim(entry: dict[str, Any], default_account: object) -> tuple[str, object] | None:
    """Return the key by which an entry names its install, and the install's identity; ``None`` if it names none."""
    install_id, name = entry.get("id"), entry.get("name")
    if isinstance(install_id, str) and is_install_id(install_id):
        return "id", install_id.lower()
    if install_id is None and isinstance(name, str):
        account = entry.get("account") or default_account
        return "name", (name, account if isinstance(account, str) else None)
    return None
