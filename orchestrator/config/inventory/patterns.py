"""Find the files that a pattern of ``inventory`` matches, and the directories on its way that could not be read.

``Path.glob`` silently skips a directory that it may not read. This module reports it.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MAGIC = re.compile(r"[*?\[]")

_ANY_FOLDERS = "**"
_IS_NOT_THERE = {errno.ENOENT, errno.ENOTDIR}
_OF_THE_DISK = "lost+found"
"""The directory of the file system check at the root of a disk. Only root may read it, and no pattern means it."""


@dataclass(slots=True)
class Matches:
    """The paths that match, and the directories that could not be read, each with its error.

    ``is_named`` means that the pattern has no wildcard: its one path is returned even if it does not exist.
    """

    paths: list[Path]
    unread: dict[Path, OSError] = field(default_factory=dict)
    is_named: bool = False


def find_matches(pattern: str, beside: Path) -> Matches:
    """Return the paths that ``pattern`` matches, sorted. A relative pattern starts at the directory ``beside``.

    Wildcards match hidden names only if the pattern itself has a hidden part. ``**`` follows no links. Raises
    ``ValueError`` for an impossible pattern.
    """
    parts = Path(os.path.expanduser(pattern)).parts  # noqa: PTH111 - Path's raises if there is no home
    if any(_ANY_FOLDERS in part and part != _ANY_FOLDERS for part in parts):
        message = "** stands for any directories and must be a part of its own, as in clients/**/*.csv"
        raise ValueError(message)
    first = next((at for at, part in enumerate(parts) if _MAGIC.search(part)), None)
    folder = beside.joinpath(*parts[:first])
    if first is None:
        return Matches([folder], is_named=True)
    search = _Search(folder, is_hidden_meant=any(part.startswith(".") for part in parts[first:]))
    search.look((folder, parts[first:] if parts[-1] != _ANY_FOLDERS else (*parts[first:], "*")))
    return Matches(sorted(search.paths), search.unread)


class _Search:
    """One search for a pattern. It looks for each rest of the pattern once in each folder."""

    def __init__(self, begin: Path, *, is_hidden_meant: bool) -> None:
        self.paths: set[Path] = set()
        self.unread: dict[Path, OSError] = {}
        self._begin = begin
        self._is_hidden_meant = is_hidden_meant
        self._listed: dict[Path, list[os.DirEntry[str]]] = {}

    def look(self, begin: tuple[Path, Sequence[str]]) -> None:
        """Search from ``begin``: a directory, and the parts of the pattern to look for below it."""
        left, seen = [begin], set()
        while left:
            folder, parts = left.pop()
            step = (folder, len(parts))
            if step not in seen:
                seen.add(step)
                left += self._steps(folder, parts)

    def _steps(self, folder: Path, parts: Sequence[str]) -> Iterator[tuple[Path, Sequence[str]]]:
        """Keep the paths that match the last part; for earlier parts, yield the next directories to search."""
        part, rest = parts[0], parts[1:]
        if part == _ANY_FOLDERS:
            yield folder, rest
            yield from ((folder / each.name, parts) for each in self._entries(folder) if _is_own_folder(each))
        elif rest:
            yield from ((path, rest) for path in self._matching(folder, part))
        else:
            self.paths.update(path for path in self._matching(folder, part) if self._is_there(path, part))

    def _matching(self, folder: Path, part: str) -> Iterator[Path]:
        if not _MAGIC.search(part):
            yield folder / part
            return
        is_meant = re.compile(fnmatch.translate(part)).match
        yield from (folder / each.name for each in self._entries(folder) if is_meant(each.name))

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """Return the entries of ``folder``, hidden ones only if the pattern means them. Note an unreadable folder."""
        if folder not in self._listed:
            self._listed[folder] = []
            try:
                with os.scandir(folder) as entries:
                    found = [each for each in entries if self._is_hidden_meant or not each.name.startswith(".")]
            except OSError as error:
                # only the first directory is named by the pattern; the others need not exist, as in */nightly.csv
                if folder == self._begin or error.errno not in _IS_NOT_THERE:
                    self.unread[folder] = error
            else:
                self._listed[folder] = [each for each in found if each.name != _OF_THE_DISK]
        return self._listed[folder]

    def _is_there(self, path: Path, part: str) -> bool:
        """Tell whether ``path`` exists. A dangling link counts, since it was meant to be read."""
        if _MAGIC.search(part):
            return True
        try:
            path.lstat()
        except OSError as error:
            if error.errno not in _IS_NOT_THERE:
                self.unread[path.parent] = error
            return False
        return True


def _is_own_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return True  # reading it will give the error
