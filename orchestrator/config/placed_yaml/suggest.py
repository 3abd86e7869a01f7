"""Suggest the word that a misspelt word stands for."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

LONGEST_WORD = 100
"""Characters of a word that is compared. A longer one would cost time and match nothing."""


MOST_WORDS = 200
"""The maximum number of known words. A search among more words would take too long."""

SHORTEST_BEGINNING = 3
"""Characters of a word that may be the beginning of a known one: ``prod`` for ``production``."""

MEANT = "; did you mean "


def did_you_mean(word: object, known: Collection[str]) -> str:
    """Return ``; did you mean …?`` with the word of ``known`` nearest to ``word``, or an empty text if none is near."""
    near = nearest(word, known)
    return f"{MEANT}{near}?" if near else ""


def nearest(word: object, known: Collection[str]) -> str | None:
    """Return the word of ``known`` that ``word`` most likely stands for, or ``None``."""
    if not isinstance(word, str) or len(word) > LONGEST_WORD or len(known) > MOST_WORDS:
        return None
    plain = _plain(word)
    by_plain = {_plain(each): each for each in known}
    begun = [each for each in by_plain if len(plain) >= SHORTEST_BEGINNING and each.startswith(plain)]
    near = get_close_matches(plain, by_plain, n=1, cutoff=0.75) or begun[:1]
    return by_plain[near[0]] if near else None


def _plain(word: str) -> str:
    return word.strip().lower().replace("-", "_").replace(" ", "_")
