"""Read YAML text into plain data without surprises, and keep the place of every value.

``syntax.py`` parses the text. This module refuses what PyYAML would accept silently: duplicate keys, tags, and scalars
that do not look like their value. ``no``, ``012`` and ``1:30`` are errors, not false, 10 and 90. It replaces ``${VAR}``
inside strings.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import yaml

from orchestrator.config.placed_yaml.excerpt import Page, is_open_key, with_excerpts
from orchestrator.config.placed_yaml.syntax import Fault, composed, place_after
from orchestrator.errors import ConfigError, Problem
from orchestrator.redaction import Redactor
from orchestrator.visible import is_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MOST_EXCERPTS = 100
"""Problems that are shown with their line. Further ones have only a place and a message."""

LONGEST_REPLACEMENTS = 64 * 1024 * 1024
"""Characters that variables may add to a document."""

LONGEST_QUOTE = 40

Noted = frozenset[tuple[int, int]]
MayLack = Callable[[Sequence[str | int]], bool]

_TAG = "tag:yaml.org,2002:"
_KNOWN_TAG = re.compile(r"(binary|set|omap|pairs|map|seq|str|int|float|bool|null|timestamp|value|yaml)$|python/")
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)", re.ASCII)
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|nan)", re.ASCII | re.IGNORECASE)
_VARIABLE = re.compile(
    r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>(?:[^}$]|\$(?!\{))*))?\}|(?P<open>\{))"
)


@dataclass(slots=True)
class Tree:
    """A document as plain ``data``, with its YAML nodes, which give the places.

    ``known`` are the keys whose values may be shown, unless they hold secrets; ``redactor`` removes known secrets from
    every message. ``first_line`` is the number of its first line if it is a part of a file. A list is shown only if
    ``may_be_list``.
    """

    file: str
    text: str = field(default="", repr=False)
    known: frozenset[str] = field(default=frozenset(), repr=False)
    data: Any = field(default=None, repr=False)
    root: yaml.Node | None = field(default=None, repr=False)
    problems: list[Problem] = field(default_factory=list)
    redactor: Redactor = field(default_factory=Redactor)
    first_line: int = 1
    may_be_list: bool = False
    _children: dict[int, dict[str | int, tuple[yaml.Node, yaml.Node]]] = field(default_factory=dict, repr=False)

    @classmethod
    def decoded(cls, text: bytes, file: str) -> Tree:
        """Return a tree with the decoded ``text`` and no data yet. Raises ``ConfigError`` if it is not UTF-8."""
        if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise ConfigError([Problem(file, 1, 1, "", "is UTF-16 text: save it as UTF-8")])
        try:
            return cls(file, text.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            before = text[: error.start].decode("utf-8-sig")
            raise ConfigError(
                [Problem(file, *place_after(before), "", "is not UTF-8 text: save it as UTF-8")]
            ) from None

    def error(self) -> ConfigError:
        """Return an error with every problem and its line, without secrets."""
        cleaned = [replace(each, message=self.redactor.clean(each.message)) for each in sorted(self.problems)]
        page = Page(self.text, self.root, self.known, self.first_line, self.may_be_list)
        shown = with_excerpts(cleaned[:MOST_EXCERPTS], page)
        shown = [replace(each, excerpt=self.redactor.clean(each.excerpt)) for each in shown]
        return ConfigError([*shown, *cleaned[MOST_EXCERPTS:]])

    def problem(
        self, loc: Sequence[str | int], message: str, *, at_key: bool = False, noted: Noted = frozenset()
    ) -> None:
        """Note a problem of the value at ``loc``, or of its key. Do nothing if its line and column are in ``noted``."""
        node = self._node(loc, at_key=at_key)
        if self._place(node) not in noted:
            self.note(node, path_of(loc), message)

    def noted(self) -> Noted:
        """Return the lines and columns of all problems so far."""
        return frozenset((problem.line, problem.column) for problem in self.problems)

    def line(self, loc: Sequence[str | int]) -> int:
        """Return the line, from 1, of the value at ``loc``, or of the nearest existing value around it."""
        return self._place(self._node(loc))[0]

    def note(self, node: yaml.Node, path: str, message: str) -> None:
        """Note a problem of ``node``, whose path is ``path``."""
        self.problems.append(Problem(self.file, *self._place(node), path, message))

    def _place(self, node: yaml.Node) -> tuple[int, int]:
        return int(node.start_mark.line) + self.first_line, int(node.start_mark.column) + 1

    def _node(self, loc: Sequence[str | int], *, at_key: bool = False) -> yaml.Node:
        node: yaml.Node = self.root or yaml.ScalarNode("", "", yaml.Mark("", 0, 0, 0, None, 0))
        for index, step in enumerate(loc):
            pair = self._children_of(node).get(step)
            if pair is None:
                break
            node = pair[0] if at_key and index == len(loc) - 1 else pair[1]
        return node

    def _children_of(self, node: yaml.Node) -> dict[str | int, tuple[yaml.Node, yaml.Node]]:
        """Return the keys and values below ``node``. Build them once, since a file may have as many faults as keys."""
        if id(node) not in self._children:
            if isinstance(node, yaml.SequenceNode):
                self._children[id(node)] = {index: (each, each) for index, each in enumerate(node.value)}
            else:
                pairs = node.value if isinstance(node, yaml.MappingNode) else []
                self._children[id(node)] = {key.value: (key, value) for key, value in pairs if _is_plain(key)}
        return self._children[id(node)]


def _is_plain(key: yaml.Node) -> bool:
    return isinstance(key, yaml.ScalarNode)


def path_of(loc: Sequence[str | int]) -> str:
    """Format a location as a path: ``installs[3].id``."""
    text = ""
    for step in loc:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def read_tree(
    text: bytes,
    file: str,
    variables: Mapping[str, str] | None,
    known: Iterable[str] = (),
    may_lack: MayLack = lambda _loc: False,
) -> Tree:
    """Parse ``text`` of ``file`` into a tree. Its ``problems`` are the faults of the YAML.

    ``variables`` are the values of ``${VAR}``; with ``None``, each ``${VAR}`` stays in the text. A value with an unset
    variable is a problem, unless ``may_lack`` is true for its location: then the value becomes ``None``. Raises
    ``ConfigError`` if ``text`` is not UTF-8.
    """
    tree = Tree.decoded(text, file)
    tree.known = frozenset(known)
    compose(tree)
    if tree.root is not None:
        tree.data = _Reader(tree, variables, may_lack).read(tree.root, ())
    return tree


def compose(tree: Tree) -> None:
    """Set the root of ``tree``, or note why its text has none."""
    found = composed(tree.text)
    if isinstance(found, Fault):
        tree.problems.append(Problem(tree.file, found.line, found.column, "", found.message))
    else:
        tree.root = found


class _Reader:
    """Read nodes into plain data, and note every problem."""

    def __init__(self, tree: Tree, variables: Mapping[str, str] | None, may_lack: MayLack) -> None:
        self._tree = tree
        self._variables = variables or {}
        self._replaces = variables is not None
        self._may_lack = may_lack
        self._replaced: dict[int, str | None] = {}
        self._size = 0

    def read(self, node: yaml.Node, loc: tuple[str | int, ...]) -> Any:  # noqa: ANN401 - YAML may hold anything
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._mapping(node, loc)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.read(child, (*loc, index)) for index, child in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, kind, loc)
        self._tree.note(node, path_of(loc), _tag_fault(node.tag))
        return None

    def _mapping(self, node: yaml.MappingNode, loc: tuple[str | int, ...]) -> dict[str, Any]:
        data: dict[str, Any] = {}
        lines: dict[str, int] = {}
        inherited: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag == f"{_TAG}merge":
                if "<<" in lines:
                    self._tree.note(key, path_of(loc), "<< stands here twice; write it once, with a list of mappings")
                lines.setdefault("<<", key.start_mark.line + 1)
                inherited |= self._merged(value, loc)
                continue
            if not isinstance(key, yaml.ScalarNode):
                self._tree.note(key, path_of(loc), "a key must be plain text")
                continue
            name = str(key.value)
            if name in lines:
                self._tree.note(key, path_of((*loc, name)), f"duplicate key, first given on line {lines[name]}")
            lines.setdefault(name, key.start_mark.line + 1)
            data[name] = self.read(value, (*loc, name))
        return inherited | data

    def _merged(self, node: yaml.Node, loc: tuple[str | int, ...]) -> dict[str, Any]:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for part in reversed(parts):
            if isinstance(part, yaml.MappingNode):
                merged |= self._mapping(part, loc)
            else:
                self._tree.note(part, path_of(loc), "<< takes a mapping or a list of mappings")
        return merged

    def _scalar(self, node: yaml.ScalarNode, kind: str, loc: tuple[str | int, ...]) -> Any:  # noqa: ANN401 - as read()
        text = str(node.value)
        match kind:
            case "str" | "timestamp":
                return self._interpolated(node, text, loc)
            case "null":
                return None
            case "bool" if text.lower() in {"true", "false"}:
                return text.lower() == "true"
            case "int" if _INT.fullmatch(text) and len(text) <= 18:  # noqa: PLR2004 - digits that fit 64 bits
                return int(text)
            case "float" if _FLOAT.fullmatch(text):
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
            case "bool":
                message = (
                    f"YAML would read {self._shown(text, loc)} as true or false: write true or false, "
                    "or put it in quotes"
                )
            case "int" | "float":
                message = (
                    f"YAML would read {self._shown(text, loc)} as a number in a special notation: put it in quotes"
                )
            case _:
                message = _tag_fault(node.tag)
        self._tree.note(node, path_of(loc), message)
        return None

    def _shown(self, text: str, loc: Sequence[str | int]) -> str:
        """Return ``text`` for a message, or ``this`` if it may be a secret."""
        is_open = all(isinstance(step, int) or is_open_key(step, self._tree.known) for step in loc)
        return "this" if loc[:1] == ("accounts",) or not is_open else text[:LONGEST_QUOTE]

    def _interpolated(self, node: yaml.ScalarNode, text: str, loc: tuple[str | int, ...]) -> str | None:
        """Replace the variables in ``text``. A node with aliases is replaced only once."""
        if "$" not in text or not self._replaces:
            return text
        if id(node) not in self._replaced:
            self._replaced[id(node)] = self._replace(node, text, loc)
        return self._replaced[id(node)]

    def _replace(self, node: yaml.ScalarNode, text: str, loc: tuple[str | int, ...]) -> str | None:
        faults: list[str] = []
        lacks = False

        def value_of(match: re.Match[str]) -> str:
            nonlocal lacks
            if match["dollar"]:
                return "$"
            name, default = match["name"], match["default"]
            if name is None:
                faults.append("only ${NAME} and ${NAME:-a default} are known (write a dollar as $$)")
                return ""
            value = self._variables.get(name)
            if default is not None:
                value = value or default
            if value is None and self._may_lack(loc):
                lacks = True
            elif value is None:
                faults.append(f"the environment variable {name} is not set; {_remedy(name, loc)}")
            elif not is_text(value):
                faults.append(f"the environment variable {name} is not UTF-8 text")
            self._size += len(value or "")
            return value or "" if self._size <= LONGEST_REPLACEMENTS else ""

        replaced = _VARIABLE.sub(value_of, text)
        if self._size > LONGEST_REPLACEMENTS:
            faults.append("variables make the document too large")
        if faults:
            self._tree.note(node, path_of(loc), faults[0])
        return None if lacks else replaced


def _remedy(name: str, loc: Sequence[str | int]) -> str:
    if loc[:2] == ("accounts", "default") and loc[-1] in {"user_id", "password"}:
        return f"set it, or leave {loc[-1]} out if a _FILE, a _COMMAND or $CREDENTIALS_DIRECTORY gives this secret"
    return f"set it, or write ${{{name}:-a default}}"


def _tag_fault(tag: str) -> str:
    """Say that a tag is not allowed. Name only a known one: an unknown tag may be a value that begins with ``!``."""
    name = tag.removeprefix(_TAG)
    shown = f"the tag {name}" if _KNOWN_TAG.match(name) else "a tag"
    return f"{shown} is not allowed; put a value that begins with ! in quotes"
