"""Inventory files of comma-separated values: a header with the keys, then one install in each row."""

from __future__ import annotations

import csv
import io
import re
from bisect import bisect_right
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.config.inventory.entries import KEYS
from orchestrator.config.placed_yaml.excerpt import excerpt
from orchestrator.config.placed_yaml.suggest import did_you_mean
from orchestrator.config.placed_yaml.tree import MOST_EXCERPTS, path_of
from orchestrator.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.redaction import Redactor

_LISTS = {"tags": "tags", "notification_emails": "addresses"}
"""Columns whose cells hold several values, and the word for these values in messages."""

_SEPARATORS = {";": "a semicolon", "\t": "a tab", "|": "a bar"}
_BETWEEN = ";"
_OF_EXCEL = re.compile(r"sep=.?", re.IGNORECASE)
"""A line that tells Excel which separator a file uses. Only Excel reads it."""

_WORDS = {"true": True, "false": False}
_LINE_END = re.compile("\r\n|[\n\r]")
_CELL = re.compile(r' *(?P<cell>"[^"]*+(?:""[^"]*+)*+"|[^,\r\n]*)')
_FAULTS = {"unexpected end of data": "the quote that opens in this row is never closed"}


class CsvEntries:
    """The entries of a CSV file."""

    def __init__(self, text: str, file: str) -> None:
        """Read ``text`` of ``file``, and note problems of the header and of the form of a row."""
        self.file = file
        self.entries: list[Any] = []
        self.wrong: set[int] = set()
        self._text = text
        self._numbers: list[int] = []
        self._columns: list[str] = []
        self._problems: list[Problem] = []
        self._begins: list[int] = []
        self._is_shown = True
        self._read()

    def _read(self) -> None:
        rows = csv.reader(io.StringIO(self._text, newline=""), strict=True, skipinitialspace=True)
        number = 1
        try:
            for cells in rows:
                stripped = _without_empty_end([cell.strip() for cell in cells])
                if not stripped:
                    pass
                elif not self._columns:
                    self._read_header(number, stripped)
                    if not any(self._columns):
                        return
                else:
                    self._read_row(number, stripped)
                number = rows.line_num + 1
        except csv.Error as error:
            other = None if self._columns else _separator_of(self._line(number))
            message = f"not valid CSV: {_FAULTS.get(str(error), error)}"
            self._note(number, 0, "", message if other is None else _no_columns(other))

    def _read_header(self, number: int, written: list[str]) -> None:
        names = [name.lower() for name in written]  # spreadsheets like capitals, and no two keys differ only in case
        self._columns = [name if name in KEYS and name not in names[:at] else "" for at, name in enumerate(names)]
        if not any(self._columns):
            self._is_shown = False
            is_of_excel = _OF_EXCEL.fullmatch(written[0])
            message = "remove this line, which only Excel reads: the first line must name the columns"
            self._note(number, 0, "", message if is_of_excel else _no_columns(_separator_of(self._line(number))))
            return
        for at, name in enumerate(names):
            if not name:
                self._note(number, at, "", "this column has no name: name it, or remove it")
            elif name not in KEYS:
                self._note(number, at, written[at], f"unknown column{did_you_mean(name, KEYS)}")
            elif name in names[:at]:
                self._note(number, at, written[at], "duplicate column")
        self._is_shown = all(self._columns)  # an unknown column may hold a secret

    def _read_row(self, number: int, cells: list[str]) -> None:
        if len(cells) > len(self._columns):
            message = (
                f"this row has {len(cells)} cells, the header {len(self._columns)}: quote a cell with a comma in it, "
                f"put {_BETWEEN} between tags or addresses, or add a column to the header"
            )
            self._note(number, len(self._columns), "", message)
            return
        given = {key: cell for key, cell in zip(self._columns, cells, strict=False) if key and cell}
        if not given:
            return
        self.entries.append({key: _value(key, cell) for key, cell in given.items()})
        self._numbers.append(number)
        for key, what in _LISTS.items():
            if "," in given.get(key, ""):
                self.entries[-1][key] = []
                message = f"separate the {what} in a cell with {_BETWEEN}, not with commas"
                self.problem(len(self.entries) - 1, (key,), message)

    @property
    def is_usable(self) -> bool:
        """Tell whether every column is known. A misspelt column may have contained ``enabled: false``."""
        return self._is_shown

    def line(self, index: int) -> int:
        """Return the line, from 1, on which a row begins."""
        return self._numbers[index]

    def problem(self, index: int, loc: Sequence[str | int], message: str, *, at_key: bool = False) -> None:  # noqa: ARG002 - the names of columns are checked before
        """Note a problem of the cell at ``loc`` of a row."""
        self.wrong.add(index)
        at = self._columns.index(str(loc[0])) if loc else 0
        self._note(self._numbers[index], at, path_of(loc), message)

    def problems(self, redactor: Redactor) -> Sequence[Problem]:
        """Return every problem with its line, without the secrets that ``redactor`` knows."""
        return [
            replace(each, message=redactor.clean(each.message), excerpt=redactor.clean(each.excerpt))
            for each in self._problems
        ]

    def _note(self, number: int, at: int, path: str, message: str) -> None:
        """Note a problem of the cell ``at``, from 0, in the row that begins on line ``number``."""
        begin = self._cell(number, at)
        line = bisect_right(self._begins, begin)
        column = begin - self._begins[line - 1]
        shown = ""
        if self._is_shown and len(self._problems) < MOST_EXCERPTS:
            end = self._begins[line] if line < len(self._begins) else len(self._text)
            shown = excerpt(line, self._text[self._begins[line - 1] : end].rstrip("\r\n"), column)
        self._problems.append(Problem(self.file, line, column + 1, path, message, shown))

    def _line(self, number: int) -> str:
        """Return the line ``number``, from 1, of the text."""
        return _LINE_END.split(self._text)[number - 1]

    def _cell(self, number: int, at: int) -> int:
        """Return the offset in the text at which a cell begins."""
        self._begins = self._begins or [0, *(each.end() for each in _LINE_END.finditer(self._text))]
        found = _CELL.match(self._text, self._begins[number - 1])
        for _ in range(at):
            if found is None or self._text[found.end() : found.end() + 1] != ",":
                break
            found = _CELL.match(self._text, found.end() + 1)
        return found.start("cell") if found else self._begins[number - 1]


def _without_empty_end(cells: list[str]) -> list[str]:
    """Return ``cells`` without the empty ones at the end that spreadsheets write."""
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _value(key: str, cell: str) -> object:
    """Return the value of ``cell`` in the column ``key``."""
    if key in _LISTS:
        return [text for each in cell.split(_BETWEEN) if (text := each.strip())]
    return _WORDS.get(cell.lower(), cell) if key == "enabled" else cell


def _no_columns(other: str | None) -> str:
    """Say that a header names no column. ``other`` is the separator that it has instead of commas, if known."""
    wrong = f"; this file has {other} between them: save it as CSV with commas" if other else ""
    return f"must begin with the names of columns, separated by commas: {', '.join(KEYS)}{wrong}"


def _separator_of(header: str) -> str | None:
    """Return the separator that a header has instead of commas, in words, or ``None``."""
    for separator, words in _SEPARATORS.items():
        names = {name.strip(' "').lower() for name in header.split(separator)}
        if len(names) > 1 and names & set(KEYS):
            return words
    return None
