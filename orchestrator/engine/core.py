"""What the parts of the core share: the wire, the accounts, the ledger, the limits, what is around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.engine.accounts import Accounts
    from orchestrator.engine.ledger import Ledger
    from orchestrator.engine.surroundings import Limits, Surroundings
    from orchestrator.engine.wire import Wire


@dataclass(frozen=True, slots=True)
class Core:
    """Everything that a part needs to send a request and to follow it up."""

    wire: Wire
    accounts: Accounts
    ledger: Ledger
    limits: Limits
    around: Surroundings
