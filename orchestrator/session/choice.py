"""Select installs of an inventory, and decide the outcome of those that cannot be requested."""

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
"""The ``place`` of an install that only a list names. It is not in the configuration, so its name is never looked up.

The journal stores this text: do not change it."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The selected installs. ``lacks`` has the outcomes of those without an id.

    ``unknown`` are the entries of a list that are not in the plan, with the reasons. They are in ``installs``, too.
    ``disabled`` counts the installs that would be selected if they were enabled.
    """

    installs: tuple[Install, ...] = ()
    lacks: dict[Install, Lack] = field(default_factory=dict)
    unknown: tuple[tuple[str, str], ...] = ()
    disabled: int = 0


def chosen_from(inventory: Inventory, config: Config, selection: Selection) -> Chosen:
    """Return the installs of ``inventory`` that ``selection`` means.

    Raises ``UsageError`` if an install named as an argument is not there, or if nothing is selected. But if a source
    failed, it may hold the selected installs: then return none, or only the entries of a list.
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
    """Return the outcome of a list entry that is not in the plan.

    It is cancelled if a source failed, which may hold the install, and rejected otherwise.
    """
    if inventory.failed:
        source = inventory.failed[0]
        message = f"{why}; it may be in a source that could not be read: {source.source}: {source.error.message}"
        return OutcomeKind.CANCELLED, replace(source.error, message=message)
    return OutcomeKind.REJECTED, ErrorInfo(ErrorKind.NOT_FOUND, why)
