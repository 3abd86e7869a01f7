"""From the bytes of one page of a listing to an ``AttemptResult``.

The absence of a backup from a listing will be taken for proof, so a page that cannot be read whole is not read at all.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from orchestrator.model import Fault, Page
from orchestrator.wpengine.answers import Received, backup_of, cut, is_success, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator.model import AttemptResult, Backup

LARGEST_PAGE = 100
"""The most that the API gives at once, and what it gives unasked."""


def page_reader(base_url: str, offset: int) -> Callable[[Received], AttemptResult]:
    """Return the reader of the page of backups that begins at ``offset``."""
    return partial(_read, base_url, offset)


def _read(base_url: str, offset: int, received: Received) -> AttemptResult:
    if not is_success(received.base.status):
        return refusal(received, received.document())
    if received.base.status != HTTPStatus.OK:
        return _unusable(received, "is another success than the one that a whole page has")
    document = received.parsed()
    results = document.get("results") if document else None
    if document is None or not isinstance(results, list):
        return _unusable(received, "has no results")
    backups = [_backup(received, entry) for entry in results]
    readable = tuple(backup for backup in backups if backup is not None)
    if len(readable) < len(backups):
        return _unusable(received, f"has an entry that is no backup, number {backups.index(None) + 1}")
    following = document.get("next")
    if isinstance(following, str) and _origin_of(following, base_url) != _origin_of(base_url, base_url):
        return _unusable(received, f"names a next page on another host: {cut(received.clean(following))}")
    seen = offset + len(results)
    total = _total(document, seen)
    has_more = bool(results) and _has_more(document, seen, total)
    return replace(received.base, page=Page(readable, seen if has_more else None, total))


def _backup(received: Received, entry: object) -> Backup | None:
    return backup_of(received.without_secrets(entry), strict=False) if isinstance(entry, dict) else None


def _total(document: Mapping[str, Any], seen: int) -> int | None:
    """Return the ``count``; one below what was ``seen`` is wrong, and says nothing."""
    count = document.get("count")
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= seen else None


def _has_more(document: Mapping[str, Any], seen: int, total: int | None) -> bool:
    """Tell whether there is a next page: no field that says so is required, so believe whichever says yes.

    Where none says anything, only an empty page is the end: nobody knows how long pages are.
    """
    if document.get("next") or (total is not None and total > seen):
        return True
    return "next" not in document and total is None


def _origin_of(link: str, base_url: str) -> tuple[str, str, int | None] | None:
    """Return scheme, host and port that ``link``, standing in an answer from ``base_url``, leads to."""
    try:
        parts = urlsplit(urljoin(base_url, link))
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        return None
    return parts.scheme, (parts.hostname or "").lower(), port


def _unusable(received: Received, why: str) -> AttemptResult:
    message = f"{received.base.status}, and the page {why}"
    return replace(received.base, fault=Fault.UNREADABLE, message=message)
