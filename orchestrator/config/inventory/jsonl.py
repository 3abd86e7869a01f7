"""Inventory files of JSON lines: one object on each line.

To find the place of a problem, the line is parsed again as YAML, which includes JSON.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from orchestrator.config.inventory.entries import KEYS
from orchestrator.config.placed_yaml.excerpt import LINE_END
from orchestrator.config.placed_yaml.tree import MOST_EXCERPTS, Tree, compose
from orchestrator.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.redaction import Redactor

LONGEST_SHOWN = 100_000
"""Characters of a line. In a longer line, the columns of wrong values are not looked for."""

_LINE_END = re.compile("\r\n|[\n\r]")


class _TwiceError(ValueError):
    """Say which key an object has twice."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for key in found if keys.count(key) > 1))
    return found


class JsonEntries:
    """The entries of a file of JSON lines. A broken line does not affect the others."""

    is_usable = True

    def __init__(self, text: str, file: str) -> None:
        """Read ``text`` of ``file``, and note each line that is no JSON object."""
        self.file = file
        self.entries: list[Any] = []
        self.wrong: set[int] = set()
        self._numbers: list[int] = []
        self._texts = _LINE_END.split(text)
        self._trees: dict[int, Tree] = {}
        decode = json.JSONDecoder(object_pairs_hook=_object).decode
        for number, line in enumerate(self._texts, 1):
            if line and not line.isspace():
                self._read(number, line, decode)

    def _read(self, number: int, line: str, decode: Any) -> None:  # noqa: ANN401 - a method of the json module
        try:
            entry = decode(line)
        except json.JSONDecodeError as error:
            self._note(number, error.colno, f"not valid JSON: {error.msg}")
        except _TwiceError as error:
            self._tree(number).problem((error.key,), "duplicate key", at_key=True)
        except (ValueError, RecursionError):
            self._note(number, 1, "not valid JSON: nested too deeply, or with a number that is too long")
        else:
            if isinstance(entry, dict):
                self.entries.append(entry)
                self._numbers.append(number)
            else:
                self._note(number, 1, 'must be an object, such as {"id": …} or {"name": …}')

    def line(self, index: int) -> int:
        """Return the line, from 1, of an entry."""
        return self._numbers[index]

    def problem(self, index: int, loc: Sequence[str | int], message: str, *, at_key: bool = False) -> None:
        """Note a problem of the value at ``loc`` of an entry, or of its key."""
        self.wrong.add(index)
        self._tree(self._numbers[index]).problem(loc, message, at_key=at_key)

    def problems(self, redactor: Redactor) -> Sequence[Problem]:
        """Return every problem with its line, without the secrets that ``redactor`` knows."""
        found: list[Problem] = []
        for tree in self._trees.values():
            tree.redactor = redactor
            found += tree.error().problems
        return found

    def _note(self, number: int, column: int, message: str) -> None:
        tree = self._tree(number)
        tree.root = None
        tree.problems.append(Problem(self.file, number, column, "", message))

    def _tree(self, number: int) -> Tree:
        """Return a line as a tree, which gives the places of problems. After ``MOST_EXCERPTS`` trees, it is empty."""
        if number not in self._trees:
            text = self._texts[number - 1]
            is_shown = len(self._trees) < MOST_EXCERPTS and len(text) <= LONGEST_SHOWN and not LINE_END.search(text)
            tree = Tree(self.file, text if is_shown else "", frozenset(KEYS), first_line=number)
            if is_shown:
                compose(tree)
                tree.problems.clear()
            self._trees[number] = tree
        return self._trees[number]
