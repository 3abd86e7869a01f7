"""Which fault of a scenario hits a request. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.simulator.chance import draw
from orchestrator.simulator.scenario import Operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.simulator.scenario import Fault


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as faults see it: the ``nth``, from 0, of its operation for this install, ``at`` seconds on."""

    operation: Operation
    install_id: str
    nth: int
    at: float


def fault_of(faults: Sequence[Fault], seed: int, asked: Asked) -> Fault | None:
    """Return the fault that hits ``asked``, if one does.

    One draw decides for an install, another for each request: the shares of an operation's faults lie side by side.
    """
    name = asked.install_id if asked.operation is Operation.POST else f"{asked.operation} {asked.install_id}"
    for of_installs, drawn_for in ((True, name), (False, f"{name} {asked.nth}")):
        left: float | None = None
        for fault in faults:
            if fault.is_of_installs is of_installs and _concerns(fault, asked):
                left = draw(seed, drawn_for) if left is None else left
                if left < fault.share:
                    return fault
                left -= fault.share
    return None


def _concerns(fault: Fault, asked: Asked) -> bool:
    return (
        fault.operation is asked.operation
        and fault.from_ <= asked.at
        and (fault.until is None or asked.at < fault.until)
        and (fault.first_tries is None or asked.nth < fault.first_tries)
        and (not fault.installs or asked.install_id in map(str.lower, fault.installs))
    )
