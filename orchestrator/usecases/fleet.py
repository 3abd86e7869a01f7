"""The accounts of a plan made ready to be asked: clients, lanes, the budgets they share, the limiters of these.

What an earlier run learned of a budget's limits is read before the first request, and what this one learned is kept
after the last. That is a help and no promise: where it cannot be kept, the run says so and ends as it would have.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from orchestrator.engine.lanes import Budget, Lane
from orchestrator.errors import WriteError
from orchestrator.journal.rates import remember, remembered
from orchestrator.pacing import learned
from orchestrator.plan import budget_of
from orchestrator.summary import AccountTotals
from orchestrator.throttle.gate import Gate
from orchestrator.usecases.narration import Neighbours, PaceNarrator
from orchestrator.wpengine.client import Client

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from orchestrator.engine.ports import Log
    from orchestrator.journal.store import Store
    from orchestrator.model import Account, Config, Learned
    from orchestrator.usecases.jobs import Job

BudgetKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Limited:
    """One budget with the gate behind it, and the name by which the log speaks of it."""

    name: str
    gate: Gate
    budget: Budget


@dataclass(slots=True)
class Fleet:
    """The lanes of a run by account, and its budgets by key."""

    lanes: dict[str, Lane] = field(default_factory=dict)
    _limited: dict[BudgetKey, _Limited] = field(default_factory=dict)
    _keys: dict[str, BudgetKey] = field(default_factory=dict)

    @property
    def budgets(self) -> list[Budget]:
        """Return the budgets, for the dispatcher."""
        return [each.budget for each in self._limited.values()]

    def add(self, account: Account, key: BudgetKey, limited: _Limited, client: Client) -> None:
        """Add the lane of ``account``, whose budget is ``limited``."""
        lane = Lane(account.name, client)
        self.lanes[account.name] = lane
        self._keys[account.name] = key
        self._limited[key] = limited
        limited.budget.lanes.append(lane)

    def limited(self, key: BudgetKey) -> _Limited | None:
        """Return the budget of ``key``, if there is one already."""
        return self._limited.get(key)

    def rate(self) -> float:
        """Return the requests per second of all budgets together."""
        return sum(each.gate.pace.rate for each in self._limited.values())

    def in_doubt(self) -> int:
        """Return how many backups wait for a look at the listing."""
        return sum(effort.doubt is not None for lane in self.lanes.values() for _, _, effort in lane.retries)

    def next_look_s(self) -> float:
        """Return the seconds until the last of the looks that are planned so far."""
        due = [at for lane in self.lanes.values() for at, _, effort in lane.retries if effort.doubt]
        return max(0.0, max(due, default=0.0) - asyncio.get_running_loop().time())

    def totals(self) -> dict[str, AccountTotals]:
        """Return what each account asked, and what its budget found out."""
        return {name: self._totals(name, lane) for name, lane in self.lanes.items()}

    def _totals(self, name: str, lane: Lane) -> AccountTotals:
        pace = self._limited[self._keys[name]].gate.pace
        lowest, highest = pace.evidence.lowest_refused_rate, pace.evidence.highest_refused_rate
        return AccountTotals(
            requests=lane.requests,
            throttled=lane.throttled,
            rate=pace.rate,
            limit=learned(pace),
            refused_rates=None if lowest is None or highest is None else (lowest, highest),
            named_moments=pace.evidence.named_moments,
            headers=tuple(sorted(lane.rate_headers.items())),
        )

    async def remember(self, store: Store, at: datetime, log: Log) -> None:
        """Keep what each budget learned, all at once."""
        found = {key: learned(limited.gate.pace) for key, limited in self._limited.items()}
        writes = [remember(store, key, each, at) for key, each in found.items() if each is not None]
        for result in await asyncio.gather(*writes, return_exceptions=True):
            if isinstance(result, WriteError):
                log.warning("throttle.not_remembered", reason=str(result))
            elif isinstance(result, BaseException):
                raise result


async def assembled(config: Config, job: Job, store: Store, log: Log, stack: AsyncExitStack) -> Fleet:
    """Return the fleet of ``job`` with all its efforts queued; ``stack`` closes it."""
    fleet, neighbours, now = Fleet(), Neighbours(log), datetime.now(UTC)
    began_at = asyncio.get_running_loop().time()
    for effort in job.efforts:
        name = effort.planned.install.account
        if name not in fleet.lanes:
            account = config.accounts[name]
            key = budget_of(account, per_host=config.throttle.per_host)
            limited = fleet.limited(key)
            if limited is None:
                known = await _known(config, key, store, now, log)
                if known:
                    log.info("throttle.remembered", budget=name, rate=round(known.rate, 2), burst=round(known.burst))
                narrator = PaceNarrator(name, log, neighbours.of(key[0]))
                gate = Gate(config.throttle, random.random, narrator, known)
                limited = _Limited(name, gate, Budget(gate, []))
            client = await stack.enter_async_context(Client(account, config.timeouts))
            fleet.add(account, key, limited, client)
            if name in job.specimens:
                fleet.lanes[name].specimen = (job.specimens[name], began_at)
        if effort.doubt:
            fleet.lanes[name].retry(effort, began_at)
        else:
            fleet.lanes[name].fresh.append(effort)
    return fleet


async def _known(config: Config, key: BudgetKey, store: Store, now: datetime, log: Log) -> Learned | None:
    if config.throttle.fixed_rate is not None:
        return None
    try:
        return await remembered(store, key, now)
    except WriteError as error:
        log.warning("throttle.not_remembered", reason=str(error))
        return None
