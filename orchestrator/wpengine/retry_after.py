"""Read a ``Retry-After`` header (RFC 9110, section 10.2.3) as the seconds to wait."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

_NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)

LONGEST_S = 1e9
"""The longest wait in seconds: a longer wait is as good as never, and some clocks cannot hold it."""


def retry_after_s(value: str | None, date: str | None, now: datetime) -> float | None:
    """Return the seconds until the moment that ``value`` names, at least 0; ``None`` if it names none.

    A number means seconds and may have decimals. An HTTP-date is compared with ``date``, the ``Date`` of the same
    answer, so that only the server's clock counts; without ``date``, it is compared with ``now``. Both are in whole
    seconds and ``date`` is rounded down, so the wait never ends before the named moment. Any other value is ignored.
    """
    if value is None:
        return None
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return min(LONGEST_S, float(text))
    named = _http_date(text)
    if named is None:
        return None
    seconds = (named - (_http_date(date or "") or now)).total_seconds()
    return min(LONGEST_S, max(0.0, seconds))


@lru_cache(64)
def server_time_s(date: str | None) -> float | None:
    """Return the moment of a ``Date`` header in seconds since 1970, ``None`` if it names none."""
    moment = _http_date(date or "")
    return None if moment is None else moment.timestamp()


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
