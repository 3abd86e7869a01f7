"""Inventory files: find what ``inventory`` names, and read each once, by its suffix.

Clients' teams may own these files: they can name an account, but define none, and no variable is replaced in them.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.config.bounded import TooSlowError, file_content
from orchestrator.config.csvfile import CsvEntries
from orchestrator.config.entries import KEYS, TreeEntries, sections_of
from orchestrator.config.jsonl import JsonEntries
from orchestrator.config.tree import Tree, place_after, read_tree
from orchestrator.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.config.entries import Entries
    from orchestrator.config.schema import InstallSection
    from orchestrator.redaction import Redactor

LARGEST_FILE = 64 * 1024 * 1024
"""Bytes of one file."""

PATIENCE_S = 60.0
"""How long a file that is a pipe may take."""

_YAML, _CSV, _LINES = (".yaml", ".yml"), (".csv",), (".jsonl", ".ndjson")
_SUFFIXES = (*_YAML, *_CSV, *_LINES)
_MAGIC = re.compile(r"[*?\[]")
_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class _UnreadError(Exception):
    """Say why a file was not read."""


@dataclass(slots=True)
class Inventory:
    """What the files hold, file by file: their entries, and these as sections, as many unless some are wrong."""

    files: list[Entries] = field(default_factory=list)
    sections: list[list[InstallSection]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unread: list[Problem] = field(default_factory=list)

    def problems(self, redactor: Redactor) -> list[Problem]:
        """Return everything that is wrong with the files, without the secrets that ``redactor`` knows."""
        return [*self.unread, *(problem for each in self.files for problem in each.problems(redactor))]


def read_inventory(tree: Tree) -> Inventory:
    """Read the files that ``inventory`` of the YAML in ``tree`` names; one that cannot be read is noted there."""
    inventory = Inventory()
    seen: set[str] = set()
    for loc, pattern in _patterns(tree.data):
        try:
            paths = _matches(tree, pattern)
        except (ValueError, OSError) as error:
            tree.problem(loc, f"cannot be looked for: {error}")
            continue
        if not paths:
            inventory.warnings.append(f"{tree.file}:{tree.line(loc)}: {pattern} matches no file")
        for path in paths:
            real = os.path.realpath(path)
            if real not in seen:
                seen.add(real)
                _read_into(inventory, tree, loc, path)
    return inventory


def _patterns(data: dict[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    sources = data.get("inventory")
    for index, source in enumerate(sources if isinstance(sources, list) else ()):
        files = source.get("files") if isinstance(source, dict) else None
        for number, pattern in enumerate(files if isinstance(files, list) else ()):
            if isinstance(pattern, str) and pattern.strip() and "\0" not in pattern:
                yield ("inventory", index, "files", number), pattern


def _matches(tree: Tree, pattern: str) -> list[Path]:
    """Return what ``pattern`` matches, sorted. Raises ``ValueError`` for a pattern that cannot be.

    It matches hidden names only if it has one itself, folders only if they are named like files, never the YAML that it
    stands in; ``**`` follows no links.
    """
    parts = Path(os.path.expanduser(pattern)).parts  # noqa: PTH111 - Path's raises where there is no home
    if any("**" in part and part != "**" for part in parts):
        message = "** stands for any folders, as in clients/**/*.csv"
        raise ValueError(message)
    first = next((at for at, part in enumerate(parts) if _MAGIC.search(part)), None)
    folder = Path(tree.file).parent.joinpath(*parts[:first])
    if first is None:
        return [folder]
    wanted = [*parts[first:], "*"] if parts[-1] == "**" else parts[first:]
    found = sorted(set(folder.glob("/".join(wanted))))
    if not any(part.startswith(".") for part in wanted):
        found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    own = os.path.realpath(tree.file)
    return [path for path in found if _may_be_meant(path) and os.path.realpath(path) != own]


def _may_be_meant(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES or not os.path.isdir(path)  # noqa: PTH112 - Path's raises where it may not look


def _read_into(inventory: Inventory, tree: Tree, loc: Sequence[str | int], path: Path) -> None:
    """Read one file; what keeps it from being read at all is a problem of the place that names it."""
    try:
        content = _content(path)
        entries = _entries(content, path)
    except _UnreadError as error:
        tree.problem(loc, f"{path} {error}")
    except ConfigError as error:
        inventory.unread += error.problems
    else:
        inventory.files.append(entries)
        inventory.sections.append(sections_of(entries, may_name_variables=b"${" in content))
        if not entries.entries:
            inventory.warnings.append(f"{path} holds no installs")


def _content(path: Path) -> bytes:
    """Return what a file holds. Raises ``_UnreadError``."""
    if path.suffix.lower() not in _SUFFIXES:
        message = f"has no suffix that is known: {', '.join(_SUFFIXES)}"
        raise _UnreadError(message)
    try:
        content = file_content(path, LARGEST_FILE + 1, PATIENCE_S)
    except TooSlowError:
        message = f"does not end: nothing more came within {PATIENCE_S:g} s"
        raise _UnreadError(message) from None
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise _UnreadError(message) from None
    if len(content) > LARGEST_FILE:
        message = f"is larger than {LARGEST_FILE // 1024 // 1024} MiB"
        raise _UnreadError(message)
    return content


def _entries(content: bytes, path: Path) -> Entries:
    """Return the entries of a file with ``content``. Raises ``ConfigError`` if it is not text, or no list."""
    file, suffix = str(path), path.suffix.lower()
    if suffix in _YAML:
        return _list(read_tree(content, file, None, KEYS))
    text = Tree.decoded(content, file).text
    odd = _NO_TEXT.search(text)
    if odd:
        message = f"the character #x{ord(odd[0]):04x} is not allowed: this is no text"
        raise ConfigError([Problem(file, *place_after(text[: odd.start()]), "", message)])
    return CsvEntries(text, file) if suffix in _CSV else JsonEntries(text, file)


def _list(tree: Tree) -> Entries:
    tree.may_be_list = True
    if isinstance(tree.data, dict) and "accounts" in tree.data:
        message = "an inventory file defines no accounts: it is a list of installs, which may name one"
        tree.problem(("accounts",), message, at_key=True)
    elif not isinstance(tree.data, list | None) and not tree.problems:
        tree.problem((), "must be a list of installs, each with a dash before it")
    return TreeEntries(tree)
