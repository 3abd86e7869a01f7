"""The dispatcher: one loop a budget admits requests in order; a worker carries each to its answer and what follows.

Nothing but that loop waits on a limiter, so thousands of queued installs cost nothing. Every planned backup gets
exactly one outcome, whatever happens: answered, account stopped, drained, aborted, or a bug.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from orchestrator.engine.accounts import Accounts
from orchestrator.engine.completion import CompletionWaits
from orchestrator.engine.core import Core
from orchestrator.engine.exchange import Admitted, Wire
from orchestrator.engine.ledger import Ledger
from orchestrator.engine.lookups import Lookups
from orchestrator.engine.pending import CredentialsCheck, PendingBackup, ReadRequest
from orchestrator.engine.reads import BUG, Reads
from orchestrator.engine.recency import RecencyChecks
from orchestrator.engine.requests import Requests
from orchestrator.model import ErrorInfo, ErrorKind, Outcome, OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from orchestrator.engine.context import RunContext, RunLimits
    from orchestrator.engine.pending import Work
    from orchestrator.engine.ports import Api
    from orchestrator.engine.queues import Budget
    from orchestrator.errors import StorageError
    from orchestrator.model import AttemptResult
    from orchestrator.pacing import Ticket

T = TypeVar("T")

LATE = ErrorInfo(ErrorKind.DEADLINE, "the run's deadline had passed (--deadline)")


@dataclass(slots=True)
class DispatchEnd:
    """How the dispatch ended, beyond the outcomes themselves.

    ``stops`` says why accounts stopped. ``unwritten`` are outcomes that the sink did not take, after ``write_error``.
    ``crash`` is a bug's exception. ``interrupted`` tells that a signal came before the end.
    """

    stops: dict[str, ErrorInfo] = field(default_factory=dict)
    unwritten: list[Outcome] = field(default_factory=list)
    write_error: StorageError | None = None
    crash: Exception | None = None
    interrupted: bool = False
    deadline_passed: bool = False


class Dispatcher:
    """Request every planned backup of the lanes given, once, and record every outcome."""

    def __init__(self, budgets: list[Budget], limits: RunLimits, context: RunContext) -> None:
        """Take over ``budgets``; ``run`` may be called once."""
        self.budgets = budgets
        self._limits = limits
        self._around = context
        self._end = DispatchEnd()
        self._halted = asyncio.Event()
        self._ledger = Ledger(context.sink, context.clock, self._halted, limits.failure_limit)
        self._wire = Wire(context.clock, context.log, limits.max_pause_s)
        self._accounts = Accounts(self._wire, self._ledger, limits, context)
        core = Core(self._wire, self._accounts, self._ledger, limits, context)
        self._errands = Reads(core)
        self._watches = CompletionWaits(core)
        self._looks = Lookups(core, self._watches)
        self._screens = RecencyChecks(core, self._watches)
        self._posts = Requests(core, self._looks, self._watches)
        self._workers: set[asyncio.Task[None]] = set()

    async def presettle(
        self, outcomes: Iterable[tuple[PendingBackup, OutcomeKind, ErrorInfo | None, str | None]]
    ) -> None:
        """Record the outcomes of efforts for which nothing is asked, many at a time: how, which error, what reason."""
        await self._ledger.settle_all(outcomes)

    async def ask(
        self, account: str, call: Callable[[Api], Coroutine[object, object, AttemptResult]]
    ) -> AttemptResult | ErrorInfo:
        """Return the answer to ``call`` by ``account``, or why there is none. Only within what is attended."""
        places = ((budget, each) for budget in self.budgets for each in budget.accounts if each.name == account)
        return await self._errands.ask(*next(places), call)

    async def attend(self, work: Coroutine[object, object, T]) -> T:
        """Return what ``work`` returns, and let what it asks meanwhile through the limiters."""
        self._set_attended(is_attended=True)
        loops = [asyncio.create_task(self._admit(budget)) for budget in self.budgets]
        working, closing = asyncio.ensure_future(work), asyncio.create_task(self._close_errands_in_time())
        try:
            await asyncio.wait((working, *loops), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._set_attended(is_attended=False)
            is_done = working.done()
            for task in (working, closing, *loops):
                task.cancel()
            self._wire.break_off(reads_only=True)
            _, *results = await asyncio.gather(working, closing, *loops, *self._workers, return_exceptions=True)
        self._note_crashes(results)
        if self._end.crash or not is_done:
            raise self._end.crash or RuntimeError("the dispatcher ended before its work")
        return working.result()

    def _set_attended(self, *, is_attended: bool) -> None:
        for budget in self.budgets:
            budget.is_attended = is_attended

    async def run(self) -> DispatchEnd:
        """Return when every planned backup has its outcome."""
        self._watch_for_what_is_left()
        for budget in self.budgets:
            for account in budget.accounts:
                await self._screens.skip_known(account)
        loops = [asyncio.create_task(self._admit(budget)) for budget in self.budgets]
        closing = asyncio.create_task(self._close_when_told())
        waits = (
            self._drain_when_told(loops),
            self._abort_when_told(),
            self._close_in_time(),
            self._watches.expire(),
        )
        watches = [closing, *map(asyncio.create_task, waits)]
        self._note_crashes(await asyncio.gather(*loops, return_exceptions=True))
        while self._workers:
            await asyncio.wait(self._workers)
        self._end.interrupted = self._around.stop.draining.is_set()
        await self._until_closed(closing)
        await self._cancel_what_is_left()
        await self._until_closed(closing)
        await self._watches.all_expired()
        for watch in watches:
            watch.cancel()
        self._note_crashes(await asyncio.gather(*watches, return_exceptions=True))
        return self._ended()

    async def _until_closed(self, closing: asyncio.Task[None]) -> None:
        """Return when what the closing has taken out of the lanes has its outcome; cancelling trips the brake, too."""
        if self._ledger.closing.is_set():
            await asyncio.wait([closing])

    def _watch_for_what_is_left(self) -> None:
        """Bound the time of backups whose watch began in an earlier process."""
        for budget in self.budgets:
            for account in budget.accounts:
                for _, work in account.polls:
                    if isinstance(work, PendingBackup) and work.watch:
                        self._watches.expires(budget, account, work, work.watch)

    def _note_crashes(self, results: Iterable[object]) -> None:
        for result in results:
            if isinstance(result, Exception):
                self._crashed(result)

    def _ended(self) -> DispatchEnd:
        end, ledger = self._end, self._ledger
        end.stops = {
            account.name: account.stop for budget in self.budgets for account in budget.accounts if account.stop
        }
        end.write_error, end.unwritten = ledger.write_error, ledger.unwritten
        end.deadline_passed = ledger.cancelled_by_deadline > 0
        return end

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
            account, work = taken
            self._start(Admitted(budget, account, ticket), work)

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
                if not work.canary:
                    await self._screens.skip_known(admitted.account)
            elif isinstance(work, ReadRequest):
                await self._errands.run(admitted, work)
            elif work.watch:
                await self._watches.poll(admitted, work, work.watch)
            elif work.doubt:
                await self._looks.look(admitted, work, work.doubt)
            elif work.screen:
                await self._screens.screen(admitted, work, work.screen)
            else:
                await self._posts.post(admitted, work)
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

    async def _close_when_told(self) -> None:
        await self._ledger.closing.wait()
        why = self._ledger.closed
        if why is None:
            return
        self._around.log.warning("run.closed", kind=why.kind.value, reason=why.message)
        for budget in self.budgets:
            for account in budget.accounts:
                await self._ledger.cancel_all(account.take_requests(), why)
            budget.look_again()

    async def _close_in_time(self) -> None:
        if self._limits.deadline_s is not None:
            await asyncio.sleep(self._limits.deadline_s)
            self._ledger.close(LATE)

    async def _close_errands_in_time(self) -> None:
        if self._limits.deadline_s is not None:
            await asyncio.sleep(self._limits.deadline_s)
            self._errands.close((account for budget in self.budgets for account in budget.accounts), LATE)
            self._wire.break_off(reads_only=True)

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
            for account in budget.accounts:
                await self._ledger.cancel_all(account.clear(), account.stop or why)

    def _crashed(self, error: Exception) -> None:
        self._end.crash = self._end.crash or error
        self._halted.set()

    async def _give_account_of_a_bug(self, error: Exception, work: Work) -> None:
        self._crashed(error)
        if isinstance(work, ReadRequest):
            work.end(BUG)
        if isinstance(work, PendingBackup):
            info = ErrorInfo(ErrorKind.PROTOCOL, f"internal error: {type(error).__name__}")
            await self._ledger.settle(work, OutcomeKind.UNCONFIRMED, info)
