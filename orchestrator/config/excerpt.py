"""The line that a problem is on, with a caret below its column, and with what may be a secret left out.

Left out are: every value of an account but those that are no secret, every value whose key sounds like one, and, in a
document that could not be parsed, every value of a key that is not known, and lines that may belong to an account.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import yaml

from orchestrator.visible import visible

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from orchestrator.errors import Problem

WIDEST = 100
"""Characters of a line that are shown, around its caret."""

HIDDEN = ": ***"

LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""What YAML calls the end of a line: the parser counts lines by it."""
_SECRET = re.compile(r"pass|pwd|secret|token|credential|user_?id|command|^(ping_)?url$", re.IGNORECASE)
_UNPARSED_KEY = re.compile(r"([\w.-]+)[\"']?\s*:(?=\s|$)")
_UNPARSED_URL = re.compile(r"[a-z]+://\S*@.*", re.IGNORECASE)
_OPEN_KEYS = {"base_url", "ca_file", "proxy_from_environment", "user_id_file", "password_file"}
"""Keys of an account whose values are no secrets."""


@dataclass(frozen=True, slots=True)
class _Span:
    """What is hidden of one line: columns from ``begin`` to before ``end``, ``None`` for the rest of the line."""

    begin: int
    end: int | None


def with_excerpts(
    problems: Iterable[Problem], text: str, root: yaml.Node | None, known: Container[str]
) -> list[Problem]:
    """Return ``problems`` of the document ``text``, each with the line that it is on.

    ``root`` is the document's node, ``None`` where it could not be parsed: then only values of keys among ``known``
    that do not sound like secrets are shown.
    """
    lines = LINE_END.split(text)
    if root is not None and not isinstance(root, yaml.MappingNode):
        return list(problems)
    hidden = _hidden_spans(root, lines) if root is not None else None

    def shown(problem: Problem) -> Problem:
        index = min(problem.line, len(lines)) - 1
        column = min(problem.column - 1, len(lines[index]))
        if hidden is None:
            line = "" if _is_of_an_account(lines, index) else _without_values(lines[index], known)
            column = min(column, len(line))
        else:
            line, column = _without(lines[index], column, hidden.get(index, []))
        return replace(problem, excerpt=_excerpt(problem.line, line, column))

    return [shown(problem) for problem in problems]


def _excerpt(number: int, line: str, column: int) -> str:
    if not line.strip():
        return ""
    begin = max(0, min(column - WIDEST // 2, len(line) - WIDEST))
    before, after = line[begin:column], line[column : begin + WIDEST]
    before = ("…" if begin else "") + visible(before.replace("\t", " "))
    after = visible(after.replace("\t", " ")) + ("…" if begin + WIDEST < len(line) else "")
    margin = f"{number:5}"
    return f"{margin} | {before}{after}\n{' ' * len(margin)} | {' ' * _width(before)}^"


def _without_values(line: str, known: Container[str]) -> str:
    """Return a line of a document that could not be parsed, up to the first value that may be a secret."""
    for match in _UNPARSED_KEY.finditer(line):
        if match[1] not in known or _SECRET.search(match[1]):
            return line[: match.end(1)] + HIDDEN
    return _UNPARSED_URL.sub("***", line)


def _width(text: str) -> int:
    """Return the columns of a terminal that ``text`` takes."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


def _is_of_an_account(lines: list[str], index: int) -> bool:
    """Tell whether the line stands below ``accounts`` or another key that may hold secrets."""
    above = (line for line in reversed(lines[: index + 1]) if line[:1].strip(" \t#-}]"))
    top = next(above, "").partition(":")[0].strip("\"'{ ")
    return top == "accounts" or bool(_SECRET.search(top))


def _without(line: str, column: int, spans: list[_Span]) -> tuple[str, int]:
    """Return ``line`` without ``spans``, and where ``column`` is in it now."""
    shown, at, moved = "", 0, column
    for span in sorted(spans, key=lambda each: each.begin):
        end = len(line) if span.end is None else span.end
        if span.begin < at:
            continue
        shown += line[at : span.begin] + HIDDEN
        if column >= end:
            moved += len(HIDDEN) - (end - span.begin)
        elif column > span.begin:
            moved = len(shown) - len(HIDDEN) + 2
        at = end
    return shown + line[at:], min(moved, len(shown + line[at:]))


def _hidden_spans(root: yaml.Node, lines: list[str]) -> dict[int, list[_Span]]:
    spans: dict[int, list[_Span]] = {}
    for key, value, is_flow in _secret_pairs(root):
        is_alias = value.start_mark.index < key.end_mark.index
        began = value.start_mark if is_alias else key.end_mark
        first, last = began.line, value.end_mark.line
        if last > first and not "".join(lines[last : last + 1])[: value.end_mark.column].strip():
            last -= 1  # a block's end mark stands before what follows it
        for line in range(first, last + 1):
            begin = began.column if line == first else 0
            end = value.end_mark.column if line == value.end_mark.line and (is_flow or is_alias) else None
            spans.setdefault(line, []).append(_Span(begin, end))
    return spans


def _secret_pairs(root: yaml.Node) -> Iterator[tuple[yaml.Node, yaml.Node, bool]]:
    """Yield the keys and values that may be secrets, and whether they stand in a flow mapping."""
    seen: set[tuple[int, bool]] = set()
    rest: list[tuple[yaml.Node, bool, int]] = [(root, False, 0)]
    while rest:
        node, in_accounts, depth = rest.pop()
        if (id(node), in_accounts) in seen:
            continue
        seen.add((id(node), in_accounts))
        if isinstance(node, yaml.SequenceNode):
            rest += [(child, in_accounts, depth + 1) for child in node.value]
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = str(key.value)
                if _is_secret(name, value, in_accounts=in_accounts):
                    yield key, value, bool(node.flow_style)
                else:
                    are_accounts = depth == 0 and name == "accounts" and isinstance(value, yaml.MappingNode)
                    rest.append((value, in_accounts or are_accounts, depth + 1))


def _is_secret(name: str, value: yaml.Node, *, in_accounts: bool) -> bool:
    is_leaf = isinstance(value, yaml.ScalarNode | yaml.SequenceNode)
    if in_accounts and is_leaf:
        return name not in _OPEN_KEYS or "@" in str(value.value)
    return bool(_SECRET.search(name)) and name not in _OPEN_KEYS
