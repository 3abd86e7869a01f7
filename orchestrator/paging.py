"""Where a listing that is read page by page stands. Pure; the one place that decides whether a listing was read whole.

The absence of an entry is taken for proof, so a listing that changes between two pages is read from its beginning
again: an entry may have moved to a page that was read before.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from orchestrator.listings import Page

MOST_PAGES = 100
"""Pages of one install's backups: ten thousand of them. A listing that goes on has no end."""


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


Entry = TypeVar("Entry", bound=_HasId)


class Progress(Enum):
    """What one more page means: read the next one, or why there is none to be read."""

    MORE = auto()
    WHOLE = auto()
    REPEATED = auto()
    CHANGED = auto()
    ENDLESS = auto()

    @property
    def is_whole(self) -> bool:
        """Tell whether the whole listing has been read. A server that repeats its last page has no further one."""
        return self in {Progress.WHOLE, Progress.REPEATED}


@dataclass(slots=True)
class PageCursor:
    """The next page begins at ``offset``, after ``pages`` in all. ``last`` are the ids of the last one.

    ``total`` is how many entries there are in all, as that page said, ``None`` where it did not.
    """

    offset: int = 0
    pages: int = 0
    last: tuple[str, ...] = ()
    total: int | None = None

    def after(self, page: Page[Entry], most_pages: int = MOST_PAGES) -> Progress:
        """Go on behind ``page``, or to the beginning where the listing has ``CHANGED``: forget its entries then.

        ``REPEATED`` entries are known already. After ``most_pages``, those before a change included, a listing is
        ``ENDLESS``.
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
