"""Follow a listing page by page, and decide whether it was read whole. Pure.

A missing entry counts as proof of absence. So a listing that changes between two pages is read again from the start,
because an entry may have moved to a page that was already read.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from orchestrator.listings import Page

MOST_PAGES = 100
"""The most pages of one install's backups, ten thousand backups. A longer listing is taken for endless."""


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


Entry = TypeVar("Entry", bound=_HasId)


class Progress(Enum):
    """What follows from one more page: read on, start again, or stop."""

    MORE = auto()
    WHOLE = auto()
    REPEATED = auto()
    CHANGED = auto()
    ENDLESS = auto()

    @property
    def is_whole(self) -> bool:
        """Tell whether the whole listing was read. A server that repeats its last page has no more pages."""
        return self in {Progress.WHOLE, Progress.REPEATED}


@dataclass(slots=True)
class PageCursor:
    """The place in a listing: the next page begins at ``offset``. ``pages`` counts the pages that were read.

    ``last`` are the ids of the last page. ``total`` is the number of entries in the listing according to that page,
    ``None`` if it did not say.
    """

    offset: int = 0
    pages: int = 0
    last: tuple[str, ...] = ()
    total: int | None = None

    def after(self, page: Page[Entry], most_pages: int = MOST_PAGES) -> Progress:
        """Move behind ``page``, or back to the beginning if the listing has ``CHANGED``.

        After ``CHANGED``, the entries read so far do not count. The entries of a ``REPEATED`` page are already known.
        After ``most_pages``, including those before a change, a listing is ``ENDLESS``.
        """
        self.pages += 1
        is_last_chance = self.pages >= most_pages
        if not is_last_chance and None not in (page.total, self.total) and page.total != self.total:
            self.offset, self.last, self.total = 0, (), None
            return Progress.CHANGED
        ids = tuple(entry.id for entry in page.entries)
        is_repeated, self.last, self.total = bool(ids) and ids == self.last, ids, page.total
        if is_repeated:
            return Progress.REPEATED
        if page.next_offset is None:
            return Progress.WHOLE
        if is_last_chance:
            return Progress.ENDLESS
        self.offset = page.next_offset
        return Progress.MORE
