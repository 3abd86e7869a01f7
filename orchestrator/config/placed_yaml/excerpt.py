"""Show the line of a problem, with a caret below the column, and hide every value that may be a secret.

A value is shown only if its key is a known key (or a misspelling of one) and holds no secret. In an account, only a few
values are shown. If a document could not be parsed, two kinds of lines are not shown at all: lines without such a key,
and lines that may belong to an account.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import yaml

from orchestrator.config.placed_yaml.suggest import nearest
from orchestrator.visible import visible

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from orchestrator.errors import Problem

WIDEST = 100
"""Characters of a line that are shown around the caret."""

HIDDEN = ": ***"

LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""The ends of lines by which the YAML parser counts."""

ACCOUNTS = "accounts"
MERGE = "<<"

_SECRET = re.compile(r"pass|secret|token|credential|user_id|command|url$", re.IGNORECASE)
_OPEN_OF_ACCOUNTS = {"base_url", "ca_file", "proxy_from_environment"}
_UNPARSED_KEY = re.compile(r"(?<![\w.-])([\w.-]++)(?:[\"']\s*:|\s*:(?=\s|$))")


@dataclass(frozen=True, slots=True)
class _Span:
    """A hidden part of one line: the columns from ``begin`` up to ``end``, which is not included.

    ``end`` is ``None`` for the rest of the line. ``shown`` replaces the part.
    """

    begin: int
    end: int | None
    shown: str = HIDDEN


@dataclass(frozen=True, slots=True)
class Page:
    """A document, or a part of one, whose lines are shown with problems.

    ``root`` is its node, or ``None`` if it could not be parsed. ``known`` are the keys that it may have. ``first_line``
    is the number of its first line. A document that is not a mapping is not shown, except a list if ``may_be_list``.
    """

    text: str
    root: yaml.Node | None
    known: Collection[str]
    first_line: int = 1
    may_be_list: bool = False

    @property
    def is_shown(self) -> bool:
        """Tell whether any line of the document may be shown."""
        may_be = (yaml.MappingNode, yaml.SequenceNode) if self.may_be_list else (yaml.MappingNode,)
        return self.root is None or isinstance(self.root, may_be)


def with_excerpts(problems: list[Problem], page: Page) -> list[Problem]:
    """Return ``problems`` of ``page``, each with its line as the excerpt."""
    if not page.is_shown:
        return problems
    lines, root, known = LINE_END.split(page.text), page.root, page.known
    wanted = {problem.line - page.first_line for problem in problems}
    hidden = _hidden_spans(root, lines, _Eye(frozenset(known), wanted)) if root is not None else None

    def shown(problem: Problem) -> Problem:
        index = min(problem.line - page.first_line, len(lines) - 1)
        column = min(problem.column - 1, len(lines[index]))
        if hidden is None:
            line = "" if _is_of_an_account(lines, index) else _without_values(lines[index], known)
            column = min(column, len(line))
        else:
            line, column = _without(lines[index], column, hidden.get(index, []))
        return replace(problem, excerpt=excerpt(problem.line, line, column))

    return [shown(problem) for problem in problems]


def excerpt(number: int, line: str, column: int) -> str:
    """Return ``line`` with its ``number`` and with a caret below ``column``, which counts from 0."""
    if not line.strip():
        return ""
    begin = max(0, min(column - WIDEST // 2, len(line) - WIDEST))
    before, after = line[begin:column], line[column : begin + WIDEST]
    before = ("…" if begin else "") + visible(before.replace("\t", " "))
    after = visible(after.replace("\t", " ")) + ("…" if begin + WIDEST < len(line) else "")
    margin = f"{number:5}"
    return f"{margin} | {before}{after}\n{' ' * len(margin)} | {' ' * _width(before)}^"


def _without_values(line: str, known: Collection[str]) -> str:
    """Return a line of an unparsed document up to the first value that may be a secret."""
    for match in _UNPARSED_KEY.finditer(line):
        if not is_open_key(match[1], known):
            return line[: match.end(1)] + HIDDEN
    return line if _UNPARSED_KEY.search(line) or not line.strip("\t []{},") else ""


def _width(text: str) -> int:
    """Return the width of ``text`` on a terminal, in columns."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


def _is_of_an_account(lines: list[str], index: int) -> bool:
    """Tell whether a line is below ``accounts`` or another top-level key that may hold secrets."""
    above = (line for line in reversed(lines[: index + 1]) if line[:1].strip(" \t#-}]"))
    top = next(above, "").partition(":")[0].strip("\"'{ ")
    return top == "accounts" or bool(_SECRET.search(top))


def _without(line: str, column: int, spans: list[_Span]) -> tuple[str, int]:
    """Return ``line`` without ``spans``, and the new position of ``column``."""
    shown, at, moved = "", 0, column
    for span in sorted(spans, key=lambda each: (each.begin, -(each.end or len(line)))):
        end = len(line) if span.end is None else span.end
        if span.begin < at:
            continue
        shown += line[at : span.begin]
        if column >= end:
            moved += len(span.shown) - (end - span.begin)
        elif column > span.begin:
            moved = len(shown) + min(2, len(span.shown))
        shown += span.shown
        at = end
    return shown + line[at:], min(moved, len(shown + line[at:]))


def is_open_key(name: str, known: Collection[str]) -> bool:
    """Tell whether the value of a key may be shown: the key is known, or a misspelling, and holds no secret."""
    meant = name if name in known or name == MERGE else nearest(name, known)
    return meant is not None and not (_SECRET.search(meant) and meant != "base_url")


@dataclass(frozen=True, slots=True)
class _Eye:
    """The rules for hiding: the keys that a document may have, and the lines that will be shown."""

    known: frozenset[str]
    lines: set[int]

    def sees(self, first: int, last: int) -> bool:
        """Tell whether any of the lines from ``first`` to ``last`` will be shown."""
        return last - first > len(self.lines) or any(line in self.lines for line in range(first, last + 1))

    def is_hidden(self, name: str, value: yaml.Node, depth: int, *, in_accounts: bool) -> bool:
        """Tell whether the value of the key ``name`` is hidden."""
        if in_accounts and depth == 1:
            return not isinstance(value, yaml.MappingNode)
        if in_accounts:
            meant = name if name in self.known or name == MERGE else nearest(name, self.known)
            is_open = meant in _OPEN_OF_ACCOUNTS and isinstance(value, yaml.ScalarNode)
            return name != MERGE and (not is_open or any(sign in str(value.value) for sign in "@?#"))
        if depth == 0 and self.means_accounts(name):
            return isinstance(value, yaml.ScalarNode)
        return not is_open_key(name, self.known)

    def means_accounts(self, name: str) -> bool:
        """Tell whether a top-level key means ``accounts``."""
        return ACCOUNTS in self.known and ACCOUNTS in {name, nearest(name, self.known)}


def _hidden_spans(root: yaml.Node, lines: list[str], eye: _Eye) -> dict[int, list[_Span]]:
    spans: dict[int, list[_Span]] = {}
    for began, value, is_flow, shown in _hidden_parts(root, eye):
        first, last = began.line, value.end_mark.line
        if last > first and not "".join(lines[last : last + 1])[: value.end_mark.column].strip():
            last -= 1  # the end mark of a block is at the start of the next node
        for line in range(first, last + 1):
            begin = began.column if line == first else 0
            end = value.end_mark.column if line == value.end_mark.line and is_flow else None
            if line in eye.lines:
                spans.setdefault(line, []).append(_Span(begin, end, shown))
    return spans


def _hidden_parts(root: yaml.Node, eye: _Eye) -> Iterator[tuple[yaml.Mark, yaml.Node, bool, str]]:
    """Yield each hidden part: its start, its last node, whether it ends with that node, and its replacement."""
    seen: set[tuple[int, bool]] = set()
    rest: list[tuple[yaml.Node, bool, int]] = [(root, False, 0)]
    while rest:
        node, in_accounts, depth = rest.pop()
        if (id(node), in_accounts) in seen or not eye.sees(node.start_mark.line, node.end_mark.line):
            continue
        seen.add((id(node), in_accounts))
        if isinstance(node, yaml.SequenceNode):
            rest += [(child, in_accounts, depth + 1) for child in node.value]
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                is_alias = value.start_mark.index < key.end_mark.index
                if not is_alias and not eye.sees(key.start_mark.line, value.end_mark.line):
                    continue
                if not isinstance(key, yaml.ScalarNode):
                    yield key.start_mark, value, bool(node.flow_style), "***"
                elif eye.is_hidden(str(key.value), value, depth, in_accounts=in_accounts):
                    began = value.start_mark if is_alias else key.end_mark
                    yield began, value, bool(node.flow_style) or is_alias, HIDDEN
                else:
                    inside = in_accounts or (depth == 0 and eye.means_accounts(str(key.value)))
                    if inside and not is_alias and not node.flow_style and _is_on_one_line(value):
                        yield value.end_mark, value, False, ""  # hide a comment after the value
                    rest.append((value, inside, depth + 1))


def _is_on_one_line(node: yaml.Node) -> bool:
    return not isinstance(node, yaml.CollectionNode) or bool(node.flow_style)
