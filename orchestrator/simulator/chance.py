"""Random numbers that depend only on a seed and a name, so the order of requests does not change them."""

from __future__ import annotations

import hashlib


def draw(seed: int, name: str) -> float:
    """Return the number in [0, 1) that belongs to ``seed`` and ``name``."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def between(least: float, most: float, seed: int, name: str) -> float:
    """Return the number from ``least`` to ``most`` that belongs to ``seed`` and ``name``."""
    return least if least == most else least + (most - least) * draw(seed, name)
