"""Turn the bytes of one page of a listing into an ``AttemptResult``.

A missing entry counts as proof, so a page that cannot be read whole is not used at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Generic

from orchestrator.listings import Entry, ListedAccount, ListedInstall, Page
from orchestrator.model import Fault
from orchestrator.value import replace
from orchestrator.wpengine.answers import Received, backup_of, cut, is_success, refusal, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator.model import AttemptResult

LARGEST_PAGE = 100
"""Entries per page: the API's maximum, and its default."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PageKind(Generic[Entry]):
    """One kind of listing: the noun for an entry, how to read an entry, and how to put a page into the result."""

    what: str
    read: Callable[[Mapping[str, Any]], Entry | None]
    put: Callable[[AttemptResult, Page[Entry]], AttemptResult]


def page_reader(listing: PageKind[Entry], offset: int) -> Callable[[Received], AttemptResult]:
    """Return the reader of the page of ``listing`` that starts at ``offset``."""
    return partial(_read, listing, offset)


def _read(listing: PageKind[Entry], offset: int, received: Received) -> AttemptResult:
    if not is_success(received.base.status):
        return refusal(received, received.document())
    if received.base.status != HTTPStatus.OK:
        return _unusable(received, "is not whole: a whole page has status 200")
    document = received.parsed()
    results = document.get("results") if document else None
    if document is None or not isinstance(results, list):
        return _unusable(received, "has no list of results")
    entries = [listing.read(received.without_secrets(each)) if isinstance(each, dict) else None for each in results]
    readable = tuple(entry for entry in entries if entry is not None)
    if len(readable) < len(entries):
        return _unusable(received, f"has an unreadable {listing.what}, number {entries.index(None) + 1}")
    seen = offset + len(results)
    total = _total(document, seen)
    has_more = bool(results) and _has_more(document, seen, total)
    return listing.put(received.base, Page(readable, seen if has_more else None, total))


def _install(entry: Mapping[str, Any]) -> ListedInstall | None:
    found, account = _id_and_name(entry), entry.get("account")
    return found and ListedInstall(
        *found,
        environment=text_of(entry.get("environment")),
        status=text_of(entry.get("status")),
        account_id=_uuid(account.get("id")) if isinstance(account, dict) else None,
        primary_domain=text_of(entry.get("primary_domain")),
    )


def _account(entry: Mapping[str, Any]) -> ListedAccount | None:
    found = _id_and_name(entry)
    return found and ListedAccount(*found, nickname=text_of(entry.get("nickname")))


def _id_and_name(entry: Mapping[str, Any]) -> tuple[str, str] | None:
    entry_id, name = _uuid(entry.get("id")), entry.get("name")
    return (entry_id, cut(name)) if entry_id and isinstance(name, str) and name.strip() else None


def _uuid(value: object) -> str | None:
    return value.lower() if isinstance(value, str) and _UUID.fullmatch(value) else None


BACKUPS = PageKind("backup", partial(backup_of, strict=False), lambda base, page: replace(base, page=page))
INSTALLS = PageKind("install", _install, lambda base, page: replace(base, installs=page))
ACCOUNTS = PageKind("account", _account, lambda base, page: replace(base, accounts=page))


def _total(document: Mapping[str, Any], seen: int) -> int | None:
    """Return the ``count``, ``None`` if there is none or it is wrong: below ``seen``."""
    count = document.get("count")
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= seen else None


def _has_more(document: Mapping[str, Any], seen: int, total: int | None) -> bool:
    """Tell whether there is a next page. No field for that is required, so one field that says yes is enough.

    The address in ``next`` does not matter: the client asks for pages by offset, at the account's own ``base_url``.
    Behind a gateway, ``next`` may name the real host, as in the specification's example.

    If no field says anything, only an empty page is the end: the length of a page is not known.
    """
    if document.get("next") or (total is not None and total > seen):
        return True
    return "next" not in document and total is None


def _unusable(received: Received, why: str) -> AttemptResult:
    message = f"{received.base.status}, but the page {why}"
    return replace(received.base, fault=Fault.UNREADABLE, message=message)
