"""Compare a configuration with WP Engine's listings. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from orchestrator.listings import ListedInstall
    from orchestrator.model import Install


class DriftKind(StrEnum):
    """The kinds of difference, the most costly first.

    - ``UNKNOWN``: a listing or a part of the inventory could not be read, so nobody knows what it would show.
    - ``UNPROTECTED``: WP Engine lists the install, and the configuration lacks it.
    - ``GONE``: the configuration has the install, and WP Engine does not list it.
    - ``RENAMED``: WP Engine lists the install under another name.
    - ``PENDING``: as ``UNPROTECTED``, but the install is not active yet.
    """

    UNKNOWN = "unknown"
    UNPROTECTED = "unprotected"
    GONE = "gone"
    RENAMED = "renamed"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference, seen with the credentials of ``account``.

    ``listed`` is the install as WP Engine lists it, ``configured`` the one of the configuration. ``account`` is
    ``None`` for inventory files that could not be read.
    """

    kind: DriftKind
    account: str | None
    listed: ListedInstall | None = None
    configured: Install | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """Return the install's name at WP Engine, else its label in the configuration, else an empty text."""
        if self.listed:
            return self.listed.name
        return self.configured.label if self.configured else ""


@dataclass(frozen=True, slots=True)
class View:
    """Every install that the credentials of ``account`` can see.

    ``discovered`` holds the ids of the installs that the account's discoveries find or exclude on purpose. It is
    ``None`` if a discovery could not read its listing: then nobody knows which installs that discovery would have
    found.
    """

    account: str
    installs: tuple[ListedInstall, ...]
    discovered: Collection[str] | None = field(default_factory=frozenset)


def differences(configured: Sequence[Install], views: Sequence[View]) -> list[Difference]:
    """Return how the ``configured`` installs differ from ``views``, sorted by kind and name.

    An install is compared with the view of its own account only. If that account has no view, the install is left out.
    An install that any account backs up, or that any discovery looks at, is never unprotected. An unprotected install
    that several views show is returned once.
    """
    found = [*_of_configured(configured, views), *_of_listed(configured, views)]
    ranks = list(DriftKind)
    return sorted(found, key=lambda each: (ranks.index(each.kind), each.name))


def _of_configured(configured: Iterable[Install], views: Sequence[View]) -> Iterator[Difference]:
    by_account = {view.account: _by_words(view) for view in views}
    for install in configured:
        known = by_account.get(install.account)
        if known is None:
            continue
        listed = known.get(_word(install))
        if listed is None:
            others = [account for account, words in by_account.items() if _word(install) in words]
            note = f"account {others[0]} shows it" if others else ""
            yield Difference(DriftKind.GONE, install.account, None, install, note)
        elif install.name not in {None, listed.name}:
            yield Difference(DriftKind.RENAMED, install.account, listed, install, f"was {install.name}")


def _of_listed(configured: Iterable[Install], views: Sequence[View]) -> Iterator[Difference]:
    by_account = {view.account: _by_words(view) for view in views}
    accounted_for = {install.id for install in configured}
    for install in configured:
        listed = by_account.get(install.account, {}).get(_word(install))
        if listed:
            accounted_for.add(listed.id)
    for view in views:
        accounted_for.update(view.discovered or ())
    for view in views:
        for each in view.installs if view.discovered is not None else ():
            if each.id not in accounted_for:
                accounted_for.add(each.id)
                kind = DriftKind.PENDING if each.is_pending else DriftKind.UNPROTECTED
                yield Difference(kind, view.account, each)


def _by_words(view: View) -> dict[tuple[str | None, str | None], ListedInstall]:
    """Return the installs of ``view`` by id and by name; the keys are those of ``_word``."""
    by_name: dict[tuple[str | None, str | None], ListedInstall] = {(None, each.name): each for each in view.installs}
    return by_name | {(each.id, None): each for each in view.installs}


def _word(install: Install) -> tuple[str | None, str | None]:
    """Return the key of ``install``: its id, else its name."""
    return (install.id, None) if install.id else (None, install.name)
