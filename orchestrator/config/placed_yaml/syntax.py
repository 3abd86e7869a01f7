"""Parse YAML text into nodes, within limits, and explain why a text cannot be parsed.

Before PyYAML composes anything, this module limits nesting and aliases by the parser's events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from orchestrator.config.placed_yaml.excerpt import LINE_END

DEEPEST_NESTING = 100
LEAST_EXPANSION = 100_000
MOST_EXPANSION = 10
"""Aliases may make a document this many times larger than written. ``LEAST_EXPANSION`` values are always allowed."""

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MEANT = {
    "mapping values are not allowed": "a value that contains a colon and a space must be in quotes",
    "expected ',' or '}'": "the { before this is not closed, or a value in it must be in quotes",
    "expected ',' or ']'": "the [ before this is not closed, or a value in it must be in quotes",
    "expected node content": "the [ or { before this is not closed, or a value in it must be in quotes",
    "expected the node content": "the [ or { before this is not closed, or a value in it must be in quotes",
    "expected key": "this line does not fit the indentation above it",
    "expected <block end>": "this line does not fit the indentation above it",
}
"""The likely mistake behind a message of the parser, by a part of that message. libyaml and PyYAML differ in theirs."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a text has no nodes, and the place, from 1."""

    line: int
    column: int
    message: str


def composed(text: str, loader: Any = LOADER) -> yaml.Node | Fault | None:  # noqa: ANN401 - either of PyYAML's loaders
    """Return the root node of ``text``, ``None`` if the text is empty, or the fault that makes it unusable."""
    try:
        return _beyond_bounds(loader(text)) or loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        return _fault_of(error, text)
    except yaml.reader.ReaderError as error:
        message = f"the character #x{error.character:04x} is not allowed in YAML"
        return Fault(*place_after(text[: error.position]), message)


def place_after(before: str) -> tuple[int, int]:
    """Return the line and column, from 1, of the first character after ``before``."""
    lines = LINE_END.split(before)
    return len(lines), len(lines[-1]) + 1


def _fault_of(error: yaml.MarkedYAMLError, text: str) -> Fault:
    is_unclosed = error.problem == "found unexpected end of stream"
    marks = error.problem_mark, error.context_mark
    mark = next((each for each in (marks[::-1] if is_unclosed else marks) if each), None)
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    lines = LINE_END.split(text)
    if line > len(lines):
        line, column = len(lines), len(lines[-1]) + 1
    if error.problem == "but found another document":
        return Fault(line, column, "holds more than one document: keep only one")
    problem = error.problem or error.context or ""
    if is_unclosed:
        problem = "the quote that opens here is never closed"
    elif lines[line - 1][column - 1 : column] == "\t":
        problem = "there is a tab here; indent with spaces"
    meant = next((words for part, words in MEANT.items() if part in problem), problem)
    return Fault(line, column, f"not valid YAML: {meant}")


def _beyond_bounds(events: Any) -> Fault | None:  # noqa: ANN401 - either of PyYAML's loaders
    """Return the first limit that the document breaks, ``None`` if it breaks none.

    The parser's events need no recursion and no copies, whatever the document contains.
    """
    bounds = _Bounds()
    while events.check_event():
        event = events.get_event()
        fault = bounds.fault_at(event)
        if fault:
            return Fault(event.start_mark.line + 1, event.start_mark.column + 1, fault)
    return None


class _Bounds:
    """Follow the events of a document, and count how large aliases would make it.

    ``_sizes`` is the number of values below each anchor, ``None`` while the anchor is still open.
    """

    def __init__(self) -> None:
        self._sizes: dict[str, int | None] = {}
        self._open: list[tuple[str | None, int]] = []
        self._written = self._expanded = 0

    def fault_at(self, event: yaml.Event) -> str | None:
        """Return which limit the document breaks at ``event``, or ``None``."""
        if isinstance(event, yaml.AliasEvent):
            size = self._sizes.get(str(event.anchor), 1)
            if size is None:
                return f"the alias *{event.anchor} stands inside the value that it refers to"
            self._expanded += size
        elif isinstance(event, yaml.NodeEvent):
            self._enter(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = self._open.pop()
            if anchor:
                self._sizes[anchor] = self._expanded - before + 1
        if len(self._open) > DEEPEST_NESTING:
            return f"nested deeper than {DEEPEST_NESTING} levels"
        if self._expanded > max(LEAST_EXPANSION, MOST_EXPANSION * self._written):
            return f"aliases make more than {self._expanded - 1} values from {self._written}: use fewer aliases"
        return None

    def _enter(self, event: yaml.NodeEvent) -> None:
        self._written += 1
        self._expanded += 1
        is_collection = isinstance(event, yaml.CollectionStartEvent)
        if is_collection:
            self._open.append((event.anchor, self._expanded))
        if event.anchor:
            self._sizes[event.anchor] = None if is_collection else 1
