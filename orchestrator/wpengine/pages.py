"""From the bytes of one page of a listing to an ``AttemptResult``.

The absence of an entry from a listing will be taken for proof, so a page that cannot be read whole is not read at all.
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
"""The most that the API gives at once, and what it gives unasked."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PageKind(Generic[Entry]):
    """What one kind of listing holds: how an entry is called and read, and where its page stands in the result."""

    what: str
    read: Callable[[Mapping[str, Any]], Entry | None]
    put: Callable[[AttemptResult, Page[Entry]], AttemptResult]


def page_reader(listing: PageKind[Entry], offset: int) -> Callable[[Received], AttemptResult]:
    """Return the reader of the page of ``listing`` that begins at ``offset``."""
    return partial(_read, listing, offset)


def _read(listing: PageKind[Entry], offset: int, received: Received) -> AttemptResult:
    if not is_success(received.base.status):
        return refusal(received, received.document())
    if received.base.status != HTTPStatus.OK:
        return _unusable(received, "is another success than the one that a whole page has")
    document = received.parsed()
    results = document.get("results") if document else None
    if document is None or not isinstance(results, list):
        return _unusable(received, "has no results")
    entries = [listing.read(received.without_secrets(each)) if isinstance(each, dict) else None for each in results]
    readable = tuple(entry for entry in entries if entry is not None)
    if len(readable) < len(entries):
        return _unusable(received, f"has an entry that is no {listing.what}, number {entries.index(None) + 1}")
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
    """Return the ``count``; one below what was ``seen`` is wrong, and says nothing."""
    count = document.get("count")
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= seen else None


def _has_more(document: Mapping[str, Any], seen: int, total: int | None) -> bool:
    """Tell whether there is a next page: no field that says so is required, so believe whichever says yes.

    Where ``next`` leads does not matter: pages are asked for by their offset, of the account's own ``base_url``. Behind
    a gateway it may well name the real host, as the specification's example does.

    Where none says anything, only an empty page is the end: nobody knows how long pages are.
    """
    if document.get("next") or (total is not None and total > seen):
        return True
    return "next" not in document and total is None


def _unusable(received: Received, why: str) -> AttemptResult:
    message = f"{received.base.status}, and the page {why}"
    return replace(received.base, fault=Fault.UNREADABLE, message=message)
