"""Decide which fault of a scenario hits a request. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.simulator.chance import draw
from orchestrator.simulator.fault_keys import Operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.simulator.fault_keys import Fault


@dataclass(frozen=True, slots=True)
class Asked:
    """The properties of a request that decide which fault hits it.

    ``nth`` is the number of this request for its operation and install, from 0. ``at`` is in seconds since the first
    request of the stand-in.
    """

    operation: Operation
    install_id: str
    nth: int
    at: float


def fault_of(faults: Sequence[Fault], seed: int, asked: Asked) -> Fault | None:
    """Return the fault that hits ``asked``, ``None`` if no fault does.

    For the faults of installs, there is one draw per install. For the faults of requests, there is one per request.
    Each fault has its own part of the range [0, 1), so the shares add up.
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
