"""What the parts of the core share: the wire, the accounts, the ledger, the limits, what is around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.engine.accounts import Accounts
    from orchestrator.engine.context import RunContext, RunLimits
    from orchestrator.engine.exchange import Wire
    from orchestrator.engine.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Core:
    """Everything that a part needs to send a request and to follow it up."""

    wire: Wire
    accounts: Accounts
    ledger: Ledger
    limits: RunLimits
    context: RunContext
