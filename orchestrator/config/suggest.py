"""What someone meant who misspelt a word."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST_WORD = 100
"""Characters; comparing a longer one costs time and finds nothing."""


MEANT = "; did you mean "


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return ``; did you mean …?`` with the word of ``known`` nearest to ``word``, or nothing if none is near."""
    if not isinstance(word, str) or len(word) > LONGEST_WORD:
        return ""
    by_plain = {_plain(each): each for each in known}
    near = get_close_matches(_plain(word), by_plain, n=1, cutoff=0.75)
    return f"{MEANT}{by_plain[near[0]]}?" if near else ""


def _plain(word: str) -> str:
    return word.strip().lower().replace("-", "_").replace(" ", "_")
