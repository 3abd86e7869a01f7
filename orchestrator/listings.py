"""Where installs come from besides the list of the YAML: what is asked of WP Engine's own listing, and what it shows.

Pure data, below the model.
"""

from __future__ import annotations

import re
from typing import Generic, TypeVar

from orchestrator.value import value

Entry = TypeVar("Entry")

NAME_PATTERN = "[a-z][a-z0-9]{2,13}"
"""What WP Engine lets people call an install."""

ENVIRONMENTS = ("production", "staging", "development")
"""What an install may be for."""

LONGEST_BACKUP_ID = 200
"""Characters of a backup's id that are believed; WP Engine's are UUIDs."""

_NAME = re.compile(NAME_PATTERN, re.ASCII)
_DOMAIN = re.compile(
    rf"(https?://)?(?P<name>{NAME_PATTERN})(\.[a-z]+)*\.wpengine[a-z]*\.[a-z]{{2,10}}(:\d+)?([/?#].*)?", re.ASCII
)
_IN_PORTAL = re.compile(rf"(https?://)?my\.wpengine\.com/installs/(?P<name>{NAME_PATTERN})([/?#].*)?", re.ASCII)


def install_name_in(text: str) -> str | None:
    """Return the name of the install that ``text`` stands for.

    That is one in capitals, its domain, the URL of that, or the URL of its page in the User Portal.
    """
    plain = text.strip().lower()
    match = _IN_PORTAL.fullmatch(plain) or _DOMAIN.fullmatch(plain)
    if match:
        return match["name"]
    return plain if _NAME.fullmatch(plain) else None


@value
class Discovery:
    """Installs to be found in the listing of ``account`` when the plan is made.

    ``wpengine_accounts`` are WP Engine's own accounts, by name or id; empty for all that the credentials can see.
    ``environments`` are the ones that are wanted; empty for any. ``exclude`` are globs of names or ids that are left
    out. ``place`` is where the configuration says so, as ``file:line``.
    """

    account: str
    wpengine_accounts: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    place: str = ""


@value
class EmptySource:
    """A part of the inventory that could be read and holds no install. ``source`` is what people call it."""

    source: str
    reason: str


@value
class ListedInstall:
    """One install as WP Engine's listing shows it. ``id`` is a UUID in lower case.

    ``account_id`` is of WP Engine's account that it belongs to, which the listing need not say. ``status`` is
    ``active`` or ``pending``, or a word that this program does not know.
    """

    id: str
    name: str
    environment: str | None = None
    status: str | None = None
    account_id: str | None = None
    primary_domain: str | None = None

    @property
    def is_pending(self) -> bool:
        """Tell whether WP Engine is still making it: nothing can be requested of it until it is active."""
        return self.status == "pending"


@value
class ListedAccount:
    """One of WP Engine's accounts as their listing shows it."""

    id: str
    name: str
    nickname: str | None = None


@value
class Page(Generic[Entry]):
    """One page of a listing.

    ``next_offset`` is where the next one begins, ``None`` if this was the last. ``total`` is how many entries the
    listing has in all, where it says so.
    """

    entries: tuple[Entry, ...]
    next_offset: int | None = None
    total: int | None = None
