"""Durations as people write them. Pure."""

from __future__ import annotations

import re

DURATION_PATTERN = r"[0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h|d)"

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration_s(text: object) -> float | None:
    """Return the seconds that ``text``, as ``30s`` or ``1.5h``, stands for; ``None`` if it is no duration."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    return float(match[1]) * _SECONDS[match[2]] if match else None


def duration_text(seconds: float) -> str:
    """Write ``seconds`` in the largest unit that leaves it whole, as ``10m``, else with decimals."""
    for unit, length in reversed(_SECONDS.items()):
        whole = round(seconds / length)
        if whole >= 1 and abs(seconds / length - whole) < 1e-9:  # noqa: PLR2004 - what floats leave of a whole number
            return f"{whole}{unit}"
    unit, count = ("s", seconds) if seconds >= 1 else ("ms", seconds * 1000)
    return f"{max(count, 1e-9):.9f}".rstrip("0").rstrip(".") + unit
