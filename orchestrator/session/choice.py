"""Which installs of an inventory are meant, and how those end that cannot be asked about."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from orchestrator.errors import UsageError
from orchestrator.model import ErrorInfo, ErrorKind, OutcomeKind
from orchestrator.selection import Selected, check_values, selected

if TYPE_CHECKING:
    from orchestrator.model import Config, Install
    from orchestrator.selection import Selection
    from orchestrator.session.inventory import Inventory, Lack

NOT_IN_THE_PLAN = "--installs-from"
"""The place of what only a list names, as the journal has it: nothing in the configuration does, so it is never looked
up."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The installs that are meant. ``lacks`` says of those without an id how they end.

    ``unknown`` are the entries of a list that are not in the plan, each with why; they are among ``installs``, too.
    """

    installs: tuple[Install, ...] = ()
    lacks: dict[Install, Lack] = field(default_factory=dict)
    unknown: tuple[tuple[str, str], ...] = ()
    disabled: int = 0


def chosen_from(inventory: Inventory, config: Config, selection: Selection) -> Chosen:
    """Return the installs of ``inventory`` that ``selection`` means; none where they may be in a source that failed.

    Raises ``UsageError`` if nothing is meant, or an install that was named is not there.
    """
    if not inventory.failed:
        check_values(inventory.installs, selection)
    try:
        chosen = selected(inventory.installs, selection)
    except UsageError as error:
        if not inventory.failed:
            raise
        if selection.is_named:
            unread = "\n".join(["", *inventory.unresolved({})])
            message = f"{error}{unread}"
            raise UsageError(message) from None
        words = dict(selection.listed or ())
        chosen = Selected((), tuple((word, f"is not in the plan ({place})") for word, place in words.items()))
    strangers = {
        replace(config.discovered, name=word, place=NOT_IN_THE_PLAN): end_of_stranger(why, inventory)
        for word, why in chosen.unknown
    }
    return Chosen((*chosen.installs, *strangers), inventory.lacks | strangers, chosen.unknown, chosen.disabled)


def end_of_stranger(why: str, inventory: Inventory) -> Lack:
    """Return how an entry of a list ends that is not in the plan: it may be in a source that could not be read."""
    if inventory.failed:
        source = inventory.failed[0]
        message = f"{why}; it may be in what could not be read: {source.source}: {source.error.message}"
        return OutcomeKind.CANCELLED, replace(source.error, message=message)
    return OutcomeKind.REJECTED, ErrorInfo(ErrorKind.NOT_FOUND, why)
