"""How far a configuration is from what WP Engine's listings show. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from orchestrator.listings import ListedInstall
    from orchestrator.model import Install


class DriftKind(StrEnum):
    """What kind of a difference it is, what costs most first.

    ``UNKNOWN`` is a listing, or a part of the inventory, that could not be had: nobody knows what it would show.
    ``UNPROTECTED`` is listed by WP Engine and not in the configuration, ``PENDING`` is one of these that is not active
    yet. ``GONE`` is in the configuration and not listed. ``RENAMED`` has another name there than here.
    """

    UNKNOWN = "unknown"
    UNPROTECTED = "unprotected"
    GONE = "gone"
    RENAMED = "renamed"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference, as ``account`` sees it: what is ``listed`` by WP Engine, what is ``configured``, and a note.

    Of files, ``account`` is ``None``.
    """

    kind: DriftKind
    account: str | None
    listed: ListedInstall | None = None
    configured: Install | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """Return what people call the install: what it is called at WP Engine, where that is known."""
        if self.listed:
            return self.listed.name
        return self.configured.label if self.configured else ""


@dataclass(frozen=True, slots=True)
class View:
    """Everything that the credentials of ``account`` can see.

    ``discovered`` are the ids that a discovery looks at: it finds them, or leaves them out on purpose. ``None`` where
    one could not look, so that nobody knows what else it would have found.
    """

    account: str
    installs: tuple[ListedInstall, ...]
    discovered: Collection[str] | None = field(default_factory=frozenset)


def differences(configured: Sequence[Install], views: Sequence[View]) -> list[Difference]:
    """Return how the installs that are ``configured`` differ from what ``views`` show, by kind and name.

    An install is judged by the view of its own account, and not at all without one. What any account backs up, or any
    discovery looks at, is unprotected in no view; what several views show is told once.
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
    """Return what is in ``view`` by id, and by name: as ``_word`` asks for it."""
    by_name: dict[tuple[str | None, str | None], ListedInstall] = {(None, each.name): each for each in view.installs}
    return by_name | {(each.id, None): each for each in view.installs}


def _word(install: Install) -> tuple[str | None, str | None]:
    """Return what ``install`` is known by: its id, else its name."""
    return (install.id, None) if install.id else (None, install.name)
