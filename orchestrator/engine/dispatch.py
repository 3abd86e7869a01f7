"""The dispatcher: one loop a budget admits requests in order; a worker carries each to its answer and what follows.

Nothing but that loop waits on a limiter, so thousands of queued installs cost nothing. Every planned backup gets
exactly one outcome, whatever happens: answered, account stopped, drained, aborted, or a bug.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.engine.accounts import Accounts
from orchestrator.engine.lanes import Budget, CredentialsCheck, Effort
from orchestrator.engine.ledger import Ledger
from orchestrator.engine.looks import Looks
from orchestrator.engine.posts import Posts
from orchestrator.engine.wire import Admitted, Wire
from orchestrator.model import ErrorInfo, ErrorKind, Outcome, OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.engine.lanes import Work
    from orchestrator.engine.surroundings import Limits, Surroundings
    from orchestrator.errors import WriteError
    from orchestrator.pacing import Ticket


@dataclass(slots=True)
class DispatchEnd:
    """How the dispatch ended, beyond the outcomes themselves.

    ``stops`` says why accounts stopped. ``unwritten`` are outcomes that the sink did not take, after ``write_error``.
    ``crash`` is a bug's exception. ``interrupted`` tells that a signal came before the end.
    """

    stops: dict[str, ErrorInfo] = field(default_factory=dict)
    unwritten: list[Outcome] = field(default_factory=list)
    write_error: WriteError | None = None
    crash: Exception | None = None
    interrupted: bool = False


class Dispatcher:
    """Request every planned backup of the lanes given, once, and record every outcome."""

    def __init__(self, budgets: list[Budget], limits: Limits, around: Surroundings) -> None:
        """Take over ``budgets``; ``run`` may be called once."""
        self.budgets = budgets
        self._limits = limits
        self._around = around
        self._end = DispatchEnd()
        self._halted = asyncio.Event()
        self._ledger = Ledger(around.sink, around.clock, self._halted)
        self._wire = Wire(around.clock, around.log, limits.max_pause_s)
        self._accounts = Accounts(self._wire, self._ledger, limits, around)
        self._looks = Looks(self._wire, self._accounts, self._ledger, limits, around)
        self._posts = Posts(self._wire, self._accounts, self._looks, self._ledger)
        self._workers: set[asyncio.Task[None]] = set()

    async def give_up(self, efforts: Iterable[Effort], why: ErrorInfo) -> None:
        """Cancel what will not be requested at all."""
        await self._ledger.cancel_all(efforts, why)

    async def run(self) -> DispatchEnd:
        """Return when every planned backup has its outcome."""
        loops = [asyncio.create_task(self._admit(budget)) for budget in self.budgets]
        watches = [asyncio.create_task(watch) for watch in (self._drain_when_told(loops), self._abort_when_told())]
        results = await asyncio.gather(*loops, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                self._crashed(result)
        while self._workers:
            await asyncio.wait(self._workers)
        self._end.interrupted = self._around.stop.draining.is_set()
        await self._cancel_what_is_left()
        self._end.stops = self._accounts.stops
        self._end.write_error, self._end.unwritten = self._ledger.write_error, self._ledger.unwritten
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        return self._end

    # -- admitting --------------------------------------------------------------------------------------------------

    async def _admit(self, budget: Budget) -> None:
        while not (budget.is_finished or self._is_stopping):
            budget.changed.clear()
            ready_at = budget.ready_at()
            wait_s = None if ready_at is None else ready_at - self._around.clock.monotonic()
            if wait_s is None or wait_s > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await budget.changed.wait()
                continue
            ticket = await self._next_ticket(budget)
            if ticket is None:
                continue
            taken = None
            if not self._is_stopping:
                taken = budget.take(self._around.clock.monotonic(), read_only=ticket.read_only)
            if taken is None:
                budget.throttle.release(ticket)
                continue
            lane, work = taken
            self._start(Admitted(budget, lane, ticket), work)

    async def _next_ticket(self, budget: Budget) -> Ticket | None:
        """Wait for a ticket; ``None`` if an account stopped and nothing is left to send one for."""
        ticket = budget.throttle.admit_at_once()
        if ticket is not None:
            return ticket
        budget.admission = asyncio.create_task(budget.throttle.admit())
        try:
            return await budget.admission
        except asyncio.CancelledError:
            if budget.admission.cancelled() and not self._is_stopping:
                return None
            if budget.admission.done() and not budget.admission.cancelled():
                budget.throttle.release(budget.admission.result())
            raise
        finally:
            budget.admission = None

    @property
    def _is_stopping(self) -> bool:
        return self._around.stop.draining.is_set() or self._halted.is_set()

    def _start(self, admitted: Admitted, work: Work) -> None:
        admitted.budget.in_flight += 1
        worker = asyncio.create_task(self._work(admitted, work))
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)

    async def _work(self, admitted: Admitted, work: Work) -> None:
        try:
            if isinstance(work, CredentialsCheck):
                await self._accounts.check(admitted, work)
            elif work.doubt:
                await self._looks.look(admitted, work, work.doubt)
            else:
                await self._posts.post(admitted, work, self._limits, self._around)
        except Exception as error:  # noqa: BLE001 - a bug must cost neither the other installs nor this one's line
            await self._give_account_of_a_bug(error, work)
        finally:
            admitted.budget.in_flight -= 1
            admitted.budget.changed.set()

    # -- stopping ---------------------------------------------------------------------------------------------------

    async def _drain_when_told(self, loops: list[asyncio.Task[None]]) -> None:
        stop = self._around.stop.draining
        waits = [asyncio.create_task(event.wait()) for event in (stop, self._halted)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        for loop in loops:
            loop.cancel()
        self._wire.break_off(reads_only=True)
        if self._ledger.write_error:
            self._around.log.error("report.failed", reason=str(self._ledger.write_error))
        self._around.log.warning("run.draining", in_flight=sum(budget.in_flight for budget in self.budgets))

    async def _abort_when_told(self) -> None:
        await self._around.stop.aborting.wait()
        self._around.log.warning("run.aborting", in_flight=self._wire.in_flight)
        self._wire.break_off(reads_only=False)

    async def _cancel_what_is_left(self) -> None:
        signum = self._around.stop.signum
        if self._end.crash:
            why = ErrorInfo(ErrorKind.STOPPED, "the run stopped on an internal error")
        elif self._ledger.write_error:
            why = ErrorInfo(ErrorKind.STOPPED, "the run stopped: its report or its state could not be written")
        else:
            name = signal.Signals(signum).name if signum else "nobody"
            why = ErrorInfo(ErrorKind.INTERRUPTED, f"the run was stopped by {name} first")
        for budget in self.budgets:
            for lane in budget.lanes:
                await self._ledger.cancel_all(lane.clear(), lane.stop or why)

    def _crashed(self, error: Exception) -> None:
        self._end.crash = self._end.crash or error
        self._halted.set()

    async def _give_account_of_a_bug(self, error: Exception, work: Work) -> None:
        self._crashed(error)
        if isinstance(work, Effort):
            info = ErrorInfo(ErrorKind.PROTOCOL, f"internal error: {type(error).__name__}")
            await self._ledger.settle(work, OutcomeKind.UNCONFIRMED, info)
