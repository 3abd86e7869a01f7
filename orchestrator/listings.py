"""The data of WP Engine's listings: discoveries, and the installs, accounts and pages that the listings show.

Pure data, below the model.
"""

from __future__ import annotations

import re
from typing import Generic, TypeVar

from orchestrator.value import value

Entry = TypeVar("Entry")

NAME_PATTERN = "[a-z][a-z0-9]{2,13}"
"""WP Engine's rule for the name of an install."""

ENVIRONMENTS = ("production", "staging", "development")
"""The environments that an install may have."""

LONGEST_BACKUP_ID = 200
"""The most characters of a backup's id that this program accepts; WP Engine's ids are UUIDs."""

_NAME = re.compile(NAME_PATTERN, re.ASCII)
_DOMAIN = re.compile(
    rf"(https?://)?(?P<name>{NAME_PATTERN})(\.[a-z]+)*\.wpengine[a-z]*\.[a-z]{{2,10}}(:\d+)?([/?#].*)?", re.ASCII
)
_IN_PORTAL = re.compile(rf"(https?://)?my\.wpengine\.com/installs/(?P<name>{NAME_PATTERN})([/?#].*)?", re.ASCII)


def install_name_in(text: str) -> str | None:
    """Return the name of the install that ``text`` means, or ``None``.

    ``text`` may be the name in any case, the install's domain or URL, or the URL of its page in the User Portal.
    """
    plain = text.strip().lower()
    match = _IN_PORTAL.fullmatch(plain) or _DOMAIN.fullmatch(plain)
    if match:
        return match["name"]
    return plain if _NAME.fullmatch(plain) else None


@value
class Discovery:
    """Installs to find in the listing of ``account`` when the plan is made.

    ``wpengine_accounts`` are WP Engine's own accounts, by name or id; empty means all that the credentials can see.
    ``environments`` are the wanted environments; empty means any. ``exclude`` are globs of names or ids to leave out.
    ``place`` is the discovery's place in the configuration, as ``file:line``.
    """

    account: str
    wpengine_accounts: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    place: str = ""


@value
class EmptySource:
    """A part of the inventory that could be read and holds no install. ``source`` names it for people."""

    source: str
    reason: str


@value
class ListedInstall:
    """One install as WP Engine's listing shows it. ``id`` is a UUID in lower case.

    ``account_id`` is the id of the WP Engine account to which the install belongs, ``None`` if the listing does not
    say. ``status`` is ``active``, ``pending`` or a word that this program does not know.
    """

    id: str
    name: str
    environment: str | None = None
    status: str | None = None
    account_id: str | None = None
    primary_domain: str | None = None

    @property
    def is_pending(self) -> bool:
        """Tell whether WP Engine is still creating the install. No backup of it can be requested until it is active."""
        return self.status == "pending"


@value
class ListedAccount:
    """One of WP Engine's accounts, as the listing of accounts shows it."""

    id: str
    name: str
    nickname: str | None = None


@value
class Page(Generic[Entry]):
    """One page of a listing.

    ``next_offset`` is where the next page begins, ``None`` on the last page. ``total`` is the number of entries in the
    whole listing, ``None`` if the API does not say.
    """

    entries: tuple[Entry, ...]
    next_offset: int | None = None
    total: int | None = None
