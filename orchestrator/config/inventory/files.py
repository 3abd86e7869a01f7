"""Inventory files: find the files that ``inventory`` names, and read each once, by its suffix.

Other teams may own these files. So a file can name an account but not define one, and no variable is replaced in it. A
problem in a file affects neither other files nor the other entries of this file.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.config.inventory.csv_file import CsvEntries
from orchestrator.config.inventory.entries import KEYS, TreeEntries, sections_of
from orchestrator.config.inventory.jsonl import JsonEntries
from orchestrator.config.inventory.patterns import find_matches
from orchestrator.config.placed_yaml.bounded import TooSlowError, file_content
from orchestrator.config.placed_yaml.syntax import place_after
from orchestrator.config.placed_yaml.tree import Tree, read_tree
from orchestrator.errors import ConfigError, Problem
from orchestrator.listings import EmptySource
from orchestrator.model import ErrorInfo, ErrorKind, FailedSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.config.inventory.entries import Entries
    from orchestrator.config.inventory.patterns import Matches
    from orchestrator.config.schema import InstallSection
    from orchestrator.redaction import Redactor

LARGEST_FILE = 64 * 1024 * 1024
"""The maximum bytes of one file."""

PATIENCE_S = 60.0
"""Seconds that a pipe may take."""

_YAML, _CSV, _LINES = (".yaml", ".yml"), (".csv",), (".jsonl", ".ndjson")
_SUFFIXES = (*_YAML, *_CSV, *_LINES)
_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

_Location = tuple[str | int, ...]


class _UnreadError(Exception):
    """Say why a file was not read. ``is_owners``: if the YAML names the file, the YAML must be corrected."""

    def __init__(self, message: str, kind: ErrorKind, *, is_owners: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.is_owners = is_owners


@dataclass(slots=True)
class SourceFile:
    """One file: its entries, ``None`` if it is not text, and the valid ones as sections, by index."""

    path: str
    entries: Entries | None = None
    sections: dict[int, InstallSection] = field(default_factory=dict)
    faults: Sequence[Problem] = ()

    def usable(self) -> list[int]:
        """Return the indexes of the entries without a problem."""
        if self.entries is None or not self.entries.is_usable:
            return []
        return [index for index in self.sections if index not in self.entries.wrong]

    def problems(self, redactor: Redactor) -> Sequence[Problem]:
        """Return every problem of the file, without the secrets that ``redactor`` knows."""
        return self.faults if self.entries is None else self.entries.problems(redactor)

    def failed(self, redactor: Redactor) -> Iterator[FailedSource]:
        """Yield each problem as a failed source; only the first one if nothing in the file can be used."""
        problems = sorted(self.problems(redactor))
        told = problems if self.usable() else problems[:1]
        for each in told:
            message = f"{each.path}: {each.message}" if each.path else each.message
            if len(told) < len(problems):
                message += f"; and {len(problems) - 1} more problem(s): nothing in this file can be used"
            source = f"{each.file}:{each.line}:{each.column}"
            yield FailedSource(source, None, ErrorInfo(ErrorKind.REJECTED, message), self.path)


@dataclass(frozen=True, slots=True)
class _Unread:
    """A file or a directory that was not read, with the place in the YAML that asks for it."""

    loc: _Location
    message: str
    failed: FailedSource


@dataclass(slots=True)
class InventoryFiles:
    """The files that were read, the files and directories that could not be read, and the empty sources."""

    files: list[SourceFile] = field(default_factory=list)
    unread: list[_Unread] = field(default_factory=list)
    empty: list[EmptySource] = field(default_factory=list)

    @property
    def lists(self) -> list[Entries]:
        """Return the entries of every file that is text."""
        return [each.entries for each in self.files if each.entries is not None]

    def problems(self, tree: Tree) -> list[Problem]:
        """Return every problem of the files. Unread files and directories are noted in the YAML's ``tree`` instead."""
        for each in self.unread:
            tree.problem(each.loc, each.message)
        self.unread.clear()
        return [problem for each in self.files for problem in each.problems(tree.redactor)]

    def failed(self, redactor: Redactor) -> list[FailedSource]:
        """Return every part that could not be used as a failed source, without the secrets that ``redactor`` knows."""
        unread = [each.failed for each in self.unread]
        return unread + [failed for each in self.files for failed in each.failed(redactor)]


def read_inventory(tree: Tree) -> InventoryFiles:
    """Read the files that ``inventory`` in ``tree`` names, and note there the patterns that cannot be used."""
    inventory = InventoryFiles()
    seen: set[str] = set()
    for loc, pattern in _patterns(tree.data):
        try:
            matches = find_matches(pattern, Path(tree.file).parent)
        except ValueError as error:
            tree.problem(loc, f"cannot be searched for: {error}")
            continue
        for path in matches.paths if matches.is_named else _matching(inventory, tree, (loc, pattern), matches):
            real = os.path.realpath(path)
            if real not in seen:
                seen.add(real)
                _read_into(inventory, tree, loc, path, is_named=matches.is_named)
    return inventory


def _patterns(data: dict[str, Any]) -> Iterator[tuple[_Location, str]]:
    sources = data.get("inventory")
    for index, source in enumerate(sources if isinstance(sources, list) else ()):
        files = source.get("files") if isinstance(source, dict) else None
        for number, pattern in enumerate(files if isinstance(files, list) else ()):
            if isinstance(pattern, str) and pattern.strip() and "\0" not in pattern:
                yield ("inventory", index, "files", number), pattern


def _matching(inventory: InventoryFiles, tree: Tree, asked: tuple[_Location, str], matches: Matches) -> list[Path]:
    """Return the files that a pattern matches, and note directories that could not be read.

    ``asked`` is the place of the pattern and the pattern. The YAML itself is left out, and also each directory whose
    name lacks the suffix of an inventory file.
    """
    loc, pattern = asked
    source = f"{tree.file}:{tree.line(loc)}: files {pattern}"
    for folder, error in matches.unread.items():
        message = f"the directory {folder} cannot be read: {error.strerror}{_remedy(error)}"
        failed = FailedSource(source, None, ErrorInfo(_kind_of(error), message), str(folder))
        inventory.unread.append(_Unread(loc, message, failed))
    own = os.path.realpath(tree.file)
    paths = [path for path in matches.paths if _may_be_meant(path) and os.path.realpath(path) != own]
    if not paths and not matches.unread:
        inventory.empty.append(EmptySource(source, "matches no file"))
    return paths


def _remedy(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "; allow the user who runs wpe-backup to read it"
    return "; mount it, or correct the path" if _kind_of(error) is ErrorKind.NOT_FOUND else ""


def _kind_of(error: OSError) -> ErrorKind:
    return ErrorKind.NOT_FOUND if isinstance(error, FileNotFoundError | NotADirectoryError) else ErrorKind.UNAVAILABLE


def _may_be_meant(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES or not os.path.isdir(path)  # noqa: PTH112 - Path's raises without permission


def _read_into(inventory: InventoryFiles, tree: Tree, loc: _Location, path: Path, *, is_named: bool) -> None:
    """Read one file. If the YAML names it and it is missing or has a wrong suffix, the problem belongs to the YAML."""
    try:
        content = _content(path)
        entries = _entries(content, path)
    except _UnreadError as error:
        message = f"{path} {error}"
        if error.is_owners and is_named:
            tree.problem(loc, message)
            return
        inventory.unread.append(
            _Unread(loc, message, FailedSource(str(path), None, ErrorInfo(error.kind, str(error)), str(path)))
        )
    except ConfigError as error:
        inventory.files.append(SourceFile(str(path), faults=error.problems))
    else:
        sections = sections_of(entries, may_name_variables=b"${" in content)
        inventory.files.append(SourceFile(str(path), entries, sections))
        if not entries.entries and not entries.problems(tree.redactor):
            inventory.empty.append(EmptySource(str(path), "holds no installs"))


def _content(path: Path) -> bytes:
    """Return the content of a file. Raises ``_UnreadError``."""
    if path.suffix.lower() not in _SUFFIXES:
        message = f"has no known suffix: {', '.join(_SUFFIXES)}"
        raise _UnreadError(message, ErrorKind.REJECTED, is_owners=True)
    try:
        content = file_content(path, LARGEST_FILE + 1, PATIENCE_S)
    except TooSlowError:
        message = f"did not end within {PATIENCE_S:g} s"
        raise _UnreadError(message, ErrorKind.TIMEOUT) from None
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        is_missing = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
        raise _UnreadError(message, _kind_of(error), is_owners=is_missing) from None
    if len(content) > LARGEST_FILE:
        message = f"is larger than {LARGEST_FILE // 1024 // 1024} MiB"
        raise _UnreadError(message, ErrorKind.REJECTED)
    return content


def _entries(content: bytes, path: Path) -> Entries:
    """Return the entries of a file with ``content``. Raises ``ConfigError`` if it is not text."""
    file, suffix = str(path), path.suffix.lower()
    if suffix in _YAML:
        return _list(read_tree(content, file, None, KEYS))
    text = Tree.decoded(content, file).text
    odd = _NO_TEXT.search(text)
    if odd:
        message = f"the character #x{ord(odd[0]):04x} is not allowed: this file is not text"
        raise ConfigError([Problem(file, *place_after(text[: odd.start()]), "", message)])
    return CsvEntries(text, file) if suffix in _CSV else JsonEntries(text, file)


def _list(tree: Tree) -> Entries:
    tree.may_be_list = True
    if isinstance(tree.data, dict) and "accounts" in tree.data:
        message = "an inventory file defines no accounts: write a list of installs, which may name accounts of the YAML"
        tree.problem(("accounts",), message, at_key=True)
    elif not isinstance(tree.data, list | None) and not tree.problems:
        tree.problem((), "must be a list of installs: write a dash before each install")
    return TreeEntries(tree)
