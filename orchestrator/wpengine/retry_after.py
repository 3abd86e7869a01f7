"""Read a ``Retry-After`` header (RFC 9110, section 10.2.3) as the seconds to wait."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

_NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)

LONGEST_S = 1e9
"""A longer wait is as good as never, and would not fit every clock."""


def retry_after_s(value: str | None, date: str | None, now: datetime) -> float | None:
    """Return the seconds until the moment that ``value`` names, at least 0; ``None`` if it names none.

    A number is seconds; a decimal one is accepted. An HTTP-date is judged against ``date``, the same answer's ``Date``,
    so that the server's clock alone counts; ``now`` stands in where there is none. Both are in whole seconds and
    ``date`` is rounded down, so the wait never ends before the named moment. Anything else is ignored.
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
