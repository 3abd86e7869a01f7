"""Connections to the accounts of a plan: clients, queues, and the budgets that they share, with their limiters.

The limits that an earlier run learned are read before the first request. Those that this run learned are stored after
the last. If they cannot be read or stored, the run logs a warning, and its outcome is the same.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.engine.pending import InDoubt, PendingBackup
from orchestrator.engine.queues import AccountQueue, Budget
from orchestrator.errors import StorageError
from orchestrator.journal.rates import remember, remembered
from orchestrator.pacing import learned
from orchestrator.plan import budget_of
from orchestrator.session.clock import SYSTEM_CLOCK
from orchestrator.session.narration import Neighbours, PaceNarrator
from orchestrator.summary import AccountTotals
from orchestrator.throttle.gate import Gate
from orchestrator.wpengine.client import Client

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from orchestrator.engine.ports import Clock, Log
    from orchestrator.journal.store import Store
    from orchestrator.model import Config, Learned

BudgetKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Limited:
    """A budget with its gate, and its name in the log."""

    name: str
    gate: Gate
    budget: Budget


class Connections:
    """The connected accounts: a client and a queue for each, and the budgets that they share."""

    def __init__(
        self, config: Config, store: Store | None, log: Log, stack: AsyncExitStack, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """Prepare to connect to accounts of ``config``.

        ``store`` has the limits that were learned, if it is given. ``stack`` closes the clients.
        """
        self.config = config
        self.clock = clock
        self.log = log
        self.accounts: dict[str, AccountQueue] = {}
        self._store = store
        self._stack = stack
        self._neighbours = Neighbours(log)
        self._limited: dict[BudgetKey, _Limited] = {}
        self._keys: dict[str, BudgetKey] = {}

    @property
    def budgets(self) -> list[Budget]:
        """Return the budgets, for the dispatcher."""
        return [each.budget for each in self._limited.values()]

    async def reach(self, name: str) -> AccountQueue:
        """Return the queue of the account ``name``. Make it, with its client, if there is none yet."""
        if name not in self.accounts:
            account = self.config.accounts[name]
            key = budget_of(account, per_host=self.config.throttle.per_host)
            if key not in self._limited:
                self._limited[key] = await self._new_budget(name, key)
            client = await self._stack.enter_async_context(Client(account, self.config.timeouts, self.clock.now))
            self.accounts[name], self._keys[name] = AccountQueue(name, client), key
            self._limited[key].budget.accounts.append(self.accounts[name])
        return self.accounts[name]

    async def _new_budget(self, name: str, key: BudgetKey) -> _Limited:
        known = await self._known(key)
        if known:
            self.log.info("throttle.remembered", budget=name, rate=round(known.rate, 2), burst=round(known.burst))
        narrator = PaceNarrator(name, self.log, self._neighbours.of(key[0]))
        gate = Gate(self.config.throttle, self.clock.draw, narrator, known)
        return _Limited(name, gate, Budget(gate, []))

    async def _known(self, key: BudgetKey) -> Learned | None:
        if self.config.throttle.fixed_rate is not None or self._store is None:
            return None
        try:
            return await remembered(self._store, key, self.clock.now())
        except StorageError as error:
            self.log.warning("throttle.not_remembered", reason=str(error))
            return None

    def rate(self) -> float:
        """Return the requests per second of all budgets together."""
        return sum(each.gate.pace.rate for each in self._limited.values())

    def in_doubt(self) -> int:
        """Return how many backups wait for a lookup."""
        return len(self._lookups())

    def watched(self) -> int:
        """Return how many backups are in a completion wait."""
        return sum(account.watched for account in self.accounts.values())

    def next_lookup_s(self) -> float:
        """Return the seconds until the last lookup that is planned so far, 0 if there is none."""
        return max(0.0, max(self._lookups(), default=0.0) - self.clock.monotonic())

    def _lookups(self) -> list[float]:
        """Return the instants of the lookups that are planned so far."""
        entries = (entry for account in self.accounts.values() for entry in account.lookups)
        return [at for at, work in entries if isinstance(work, PendingBackup) and isinstance(work.state, InDoubt)]

    def totals(self) -> dict[str, AccountTotals]:
        """Return the requests of each account, with the rate and the limit that its budget measured."""
        return {name: self._totals(name, account) for name, account in self.accounts.items()}

    def _totals(self, name: str, account: AccountQueue) -> AccountTotals:
        pace = self._limited[self._keys[name]].gate.pace
        lowest, highest = pace.evidence.lowest_refused_rate, pace.evidence.highest_refused_rate
        return AccountTotals(
            requests=account.requests,
            throttled=account.throttled,
            rate=pace.rate,
            limit=learned(pace),
            refused_rates=None if lowest is None or highest is None else (lowest, highest),
            named_moments=pace.evidence.named_moments,
            headers=tuple(sorted(account.rate_headers.items())),
        )

    async def remember(self) -> None:
        """Store the limits that each budget learned, all at once."""
        if self._store is None:
            return
        at = self.clock.now()
        found = {key: learned(limited.gate.pace) for key, limited in self._limited.items()}
        writes = [remember(self._store, key, each, at) for key, each in found.items() if each is not None]
        for result in await asyncio.gather(*writes, return_exceptions=True):
            if isinstance(result, StorageError):
                self.log.warning("throttle.not_remembered", reason=str(result))
            elif isinstance(result, BaseException):
                raise result
