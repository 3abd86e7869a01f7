"""Rows of any values in aligned columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from orchestrator.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

WIDEST = 40
"""The widest column, in characters. A longer cell shifts only its own row."""


def columns(names: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[Text]:
    """Yield a row of ``names``, then ``rows``. Each cell is safe to show, and an empty one is ``-``."""
    cells = [tuple(map(_shown, row)) for row in rows]
    widths = [min(WIDEST, max(map(len, column))) for column in zip(names, *cells, strict=True)]
    yield Text(_aligned(names, widths), "bold")
    for row in cells:
        yield Text(_aligned(row, widths))


def _shown(value: object) -> str:
    plain = value if isinstance(value, str | int | float | None) else repr(value)
    return "-" if plain in {None, ""} else visible(str(plain))


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    *padded, last = (f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
    return "  ".join([*padded, last.rstrip()])
