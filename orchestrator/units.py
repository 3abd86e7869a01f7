"""Read and write durations and instants as people and the API write them. Pure."""

from __future__ import annotations

import re
from datetime import datetime

DURATION_PATTERN = r"[0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h|d)"

MOST_COUNTED = 10**9
"""The limit of a count of units in text: a count has at most nine digits before its point."""

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration_s(text: object) -> float | None:
    """Return the seconds of a duration such as ``30s`` or ``1.5h``; ``None`` if ``text`` is not one."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    return float(match[1]) * _SECONDS[match[2]] if match else None


def duration_text(seconds: float) -> str:
    """Write ``seconds`` in the largest unit that gives a whole number, such as ``10m``, else with decimals."""
    for unit, length in reversed(_SECONDS.items()):
        whole = round(seconds / length)
        if 1 <= whole < MOST_COUNTED and abs(seconds / length - whole) < 1e-9:  # noqa: PLR2004 - the rounding error of floats
            return f"{whole}{unit}"
    unit, count = ("s", seconds) if seconds >= 1 else ("ms", seconds * 1000)
    return f"{max(count, 1e-9):.9f}".rstrip("0").rstrip(".") + unit


def age_text(seconds: float) -> str:
    """Write an age in at most two units: ``2d 4h``, ``3h 5m``, ``12m``, ``40s``."""
    left = round(abs(seconds))
    sign = "-" if seconds < 0 and left else ""
    parts = []
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, round(_SECONDS[unit]))
        parts.append((count, unit))
    first = next((index for index, (count, _) in enumerate(parts) if count), len(parts) - 1)
    shown = [f"{count}{unit}" for count, unit in parts[first : first + 2] if count] or ["0s"]
    return sign + " ".join(shown)


def seconds_of(time: str | None) -> float | None:
    """Return the seconds since 1970 of an ISO 8601 ``time`` with a zone; ``None`` if it is not one."""
    try:
        at = datetime.fromisoformat(time or "")
    except ValueError:
        return None
    return at.timestamp() if at.tzinfo else None
