"""Chance that is a function of a seed and a name: the same whatever the order in which requests come."""

from __future__ import annotations

import hashlib


def draw(seed: int, name: str) -> float:
    """Return a number in [0, 1)."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def between(least: float, most: float, seed: int, name: str) -> float:
    """Return a number from ``least`` to ``most``."""
    return least if least == most else least + (most - least) * draw(seed, name)
