"""The dispatcher: one loop per budget admits requests in order; workers send them and act on the answers.

Only that loop waits for the limiter, so thousands of queued installs cost nothing. After an answer, a worker takes the
next request itself if the limiter lets it through at once. Every planned backup gets exactly one outcome: after an
answer, a stopped account, the first or second signal, or a bug.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, assert_never

from orchestrator.engine.accounts import Accounts
from orchestrator.engine.completion import CompletionWaits
from orchestrator.engine.exchange import Admitted, Wire
from orchestrator.engine.ledger import Ledger
from orchestrator.engine.lookups import Lookups
from orchestrator.engine.pending import (
    CompletionWait,
    CredentialsCheck,
    InDoubt,
    PendingBackup,
    ReadRequest,
    RecencyCheck,
    ToRequest,
)
from orchestrator.engine.reads import BUG, Reads
from orchestrator.engine.recency import RecencyChecks
from orchestrator.engine.requests import Requests
from orchestrator.model import ErrorInfo, ErrorKind, Outcome, OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator

    from orchestrator.engine.context import DispatchContext
    from orchestrator.engine.ledger import Settlement
    from orchestrator.engine.pending import Work
    from orchestrator.engine.ports import Api
    from orchestrator.engine.queues import AccountQueue, Budget
    from orchestrator.errors import StorageError
    from orchestrator.model import AttemptResult
    from orchestrator.pacing import Ticket

T = TypeVar("T")

LATE = ErrorInfo(ErrorKind.DEADLINE, "the run's deadline has passed")


@dataclass(slots=True)
class DispatchEnd:
    """How the dispatch ended, apart from the outcomes.

    ``stops`` holds the reason for each account that stopped, by name. ``unwritten`` are the outcomes that the sink did
    not keep. ``write_error`` is the first error of the sink or the journal. ``crash`` is the exception of a bug.
    ``interrupted`` means that a signal came before the end. ``deadline_passed`` means that the deadline cancelled at
    least one backup.
    """

    stops: dict[str, ErrorInfo] = field(default_factory=dict)
    unwritten: list[Outcome] = field(default_factory=list)
    write_error: StorageError | None = None
    crash: Exception | None = None
    interrupted: bool = False
    deadline_passed: bool = False


class Dispatcher:
    """Request the planned backups of the given accounts, and record one outcome for each."""

    def __init__(self, budgets: list[Budget], context: DispatchContext) -> None:
        """Take over ``budgets``; ``run`` may be called once."""
        self.budgets = budgets
        self._context = context
        self._end = DispatchEnd()
        self._halted = asyncio.Event()
        self._workers: set[asyncio.Task[None]] = set()
        self._ledger = Ledger(context, self._halted, self._close, self._crashed)
        self._wire = Wire(context)
        self._accounts = Accounts(context, self._wire, self._ledger)
        self._reads = Reads(context, self._accounts)
        self._waits = CompletionWaits(context, self._accounts, self._ledger)
        self._lookups = Lookups(context, self._accounts, self._ledger, self._waits)
        self._recency = RecencyChecks(context, self._accounts, self._ledger, self._waits)
        self._requests = Requests(context, self._wire, self._ledger, self._accounts, self._lookups)

    def presettle(self, settlements: Iterable[Settlement]) -> None:
        """Record the outcomes of backups for which nothing is sent."""
        self._ledger.settle_all(settlements)

    async def ask(
        self, account: str, call: Callable[[Api], Coroutine[object, object, AttemptResult]]
    ) -> AttemptResult | ErrorInfo:
        """Send ``call`` for ``account``; return the answer, or the reason why there is none.

        Call this only within work that ``attend`` runs.
        """
        places = ((budget, each) for budget, each in self._accounts_by_budget() if each.name == account)
        return await self._reads.ask(*next(places), call)

    def _accounts_by_budget(self) -> Iterator[tuple[Budget, AccountQueue]]:
        return ((budget, account) for budget in self.budgets for account in list(budget.accounts))

    async def attend(self, work: Coroutine[object, object, T]) -> T:
        """Run ``work`` and return its result. Meanwhile, send its reads through the limiters."""
        self._set_attended(is_attended=True)
        loops = [asyncio.create_task(self._admit(budget)) for budget in self.budgets]
        working, closing = asyncio.ensure_future(work), asyncio.create_task(self._close_reads_in_time())
        try:
            await asyncio.wait((working, *loops), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._set_attended(is_attended=False)
            self._halted.set()  # no worker starts another read
            is_done = working.done()
            for task in (working, closing, *loops):
                task.cancel()
            self._wire.break_off(reads_only=True)
            _, *results = await asyncio.gather(working, closing, *loops, *self._workers, return_exceptions=True)
        self._note_crashes(results)
        if self._end.crash or not is_done:
            raise self._end.crash or RuntimeError("the dispatcher ended before the attended work")
        return working.result()

    def _set_attended(self, *, is_attended: bool) -> None:
        for budget in self.budgets:
            budget.is_attended = is_attended

    async def run(self) -> DispatchEnd:
        """Return when every planned backup has its outcome, and each outcome is either kept or listed as unwritten."""
        self._bound_inherited_waits()
        for _, account in self._accounts_by_budget():
            self._recency.skip_known(account)
        loops = [asyncio.create_task(self._admit(budget)) for budget in self.budgets]
        waits = (self._drain_when_told(loops), self._abort_when_told(), self._close_in_time(), self._waits.expire())
        watches = [*map(asyncio.create_task, waits)]
        self._note_crashes(await asyncio.gather(*loops, return_exceptions=True))
        while self._workers:
            await asyncio.wait(self._workers)
        self._end.interrupted = self._context.stop.draining.is_set()
        self._cancel_what_is_left()
        await self._drained()
        for watch in watches:
            watch.cancel()
        self._note_crashes(await asyncio.gather(*watches, return_exceptions=True))
        return self._ended()

    async def _drained(self) -> None:
        try:
            await self._context.sink.drain()
        except Exception as error:  # noqa: BLE001 - whatever a bug raised
            self._crashed(error)

    def _bound_inherited_waits(self) -> None:
        """Set the time limit of each completion wait that an earlier process began."""
        for budget, account in self._accounts_by_budget():
            for _, work in account.polls:
                if isinstance(work, PendingBackup) and isinstance(work.state, CompletionWait):
                    self._waits.bound(budget, account, work, work.state)

    def _note_crashes(self, results: Iterable[object]) -> None:
        for result in results:
            if isinstance(result, Exception):
                self._crashed(result)

    def _ended(self) -> DispatchEnd:
        end, ledger = self._end, self._ledger
        end.stops = {account.name: account.stop for _, account in self._accounts_by_budget() if account.stop}
        end.write_error, end.unwritten = ledger.write_error, ledger.unwritten
        end.deadline_passed = ledger.cancelled_by_deadline > 0
        return end

    # -- admitting --------------------------------------------------------------------------------------------------

    async def _admit(self, budget: Budget) -> None:
        while not (budget.is_finished or self._is_stopping):
            budget.changed.clear()
            ready_at = budget.ready_at()
            wait_s = None if ready_at is None else ready_at - self._context.clock.monotonic()
            if wait_s is None or wait_s > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await budget.changed.wait()
                continue
            ticket = budget.throttle.admit_at_once() or await self._next_ticket(budget)
            admitted = None if ticket is None else self._taken(budget, ticket)
            if admitted:
                self._start(*admitted)

    async def _next_ticket(self, budget: Budget) -> Ticket | None:
        """Wait for a ticket; return ``None`` if meanwhile nothing is left to send."""
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

    def _taken(self, budget: Budget, ticket: Ticket) -> tuple[Admitted, Work] | None:
        """Return the work for ``ticket``. If there is none, give the ticket back and return ``None``."""
        taken = None
        if not self._is_stopping:
            taken = budget.take(self._context.clock.monotonic(), read_only=ticket.read_only)
        if taken is None:
            budget.throttle.release(ticket)
            return None
        account, work = taken
        return Admitted(budget, account, ticket), work

    def _next_at_once(self, budget: Budget) -> tuple[Admitted, Work] | None:
        """Return the next work of a worker, ``None`` if the limiter lets nothing through at once."""
        ready_at = budget.ready_at()
        if self._is_stopping or ready_at is None or ready_at > self._context.clock.monotonic():
            return None
        ticket = budget.throttle.admit_at_once()
        return None if ticket is None else self._taken(budget, ticket)

    @property
    def _is_stopping(self) -> bool:
        return self._context.stop.draining.is_set() or self._halted.is_set()

    def _start(self, admitted: Admitted, work: Work) -> None:
        admitted.budget.in_flight += 1
        worker = asyncio.create_task(self._work(admitted, work))
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)

    async def _work(self, admitted: Admitted, work: Work) -> None:
        """Carry out ``work``, then any further work that the limiter lets through at once."""
        budget = admitted.budget
        try:
            following: tuple[Admitted, Work] | None = (admitted, work)
            while following:
                await self._carried(*following)
                budget.changed.set()
                following = self._next_at_once(budget)
        except Exception as error:  # noqa: BLE001 - a bug in the limiter ends the run once its other requests have ended
            self._crashed(error)
        finally:
            budget.in_flight -= 1
            budget.changed.set()

    async def _carried(self, admitted: Admitted, work: Work) -> None:
        """Send one request, and act on its answer. After a bug, this work and all other work still get outcomes."""
        try:
            if isinstance(work, CredentialsCheck):
                await self._accounts.check(admitted, work)
                if not work.canary:
                    self._recency.skip_known(admitted.account)
            elif isinstance(work, ReadRequest):
                await self._reads.send(admitted, work)
            else:
                await self._carry(admitted, work)
        except Exception as error:  # noqa: BLE001 - whatever a bug raises
            self._settle_after_a_bug(error, work)

    async def _carry(self, admitted: Admitted, pending: PendingBackup) -> None:
        match pending.state:
            case ToRequest():
                await self._requests.post(admitted, pending)
            case InDoubt() as doubt:
                await self._lookups.look_up(admitted, pending, doubt)
            case RecencyCheck() as check:
                await self._recency.check(admitted, pending, check)
            case CompletionWait() as wait:
                await self._waits.poll(admitted, pending, wait)
            case _:
                assert_never(pending.state)

    # -- stopping ---------------------------------------------------------------------------------------------------

    async def _drain_when_told(self, loops: list[asyncio.Task[None]]) -> None:
        stop = self._context.stop.draining
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
            self._context.log.error("report.failed", reason=str(self._ledger.write_error))
        hint = "a second signal interrupts these requests, and their installs become unconfirmed"
        in_flight = sum(budget.in_flight for budget in self.budgets)
        self._context.log.warning("run.draining", in_flight=in_flight, hint=hint)

    async def _abort_when_told(self) -> None:
        await self._context.stop.aborting.wait()
        self._context.log.warning("run.aborting", in_flight=self._wire.in_flight)
        self._wire.break_off(reads_only=False)

    def _close(self, why: ErrorInfo) -> None:
        self._context.log.warning("run.closed", kind=why.kind.value, reason=why.message)
        for budget, account in self._accounts_by_budget():
            self._ledger.cancel_all(account.take_requests(), why)
            budget.look_again()

    async def _close_in_time(self) -> None:
        if self._context.limits.deadline_s is not None:
            await asyncio.sleep(self._context.limits.deadline_s)
            self._ledger.close(LATE)

    async def _close_reads_in_time(self) -> None:
        if self._context.limits.deadline_s is not None:
            await asyncio.sleep(self._context.limits.deadline_s)
            self._reads.close(LATE)
            self._wire.break_off(reads_only=True)

    def _cancel_what_is_left(self) -> None:
        signum = self._context.stop.signum
        if self._end.crash:
            why = ErrorInfo(ErrorKind.STOPPED, "the run stopped on an internal error")
        elif self._ledger.write_error:
            why = ErrorInfo(ErrorKind.STOPPED, "the run stopped: the report or the state could not be written")
        else:
            name = signal.Signals(signum).name if signum else "a signal"
            why = ErrorInfo(ErrorKind.INTERRUPTED, f"the run was stopped by {name}")
        for _, account in self._accounts_by_budget():
            self._ledger.cancel_all(account.clear(), account.stop or why)

    def _crashed(self, error: Exception) -> None:
        self._end.crash = self._end.crash or error
        self._halted.set()

    def _settle_after_a_bug(self, error: Exception, work: Work) -> None:
        self._crashed(error)
        if isinstance(work, ReadRequest):
            work.end(BUG)
        if isinstance(work, PendingBackup):
            info = ErrorInfo(ErrorKind.PROTOCOL, f"internal error: {type(error).__name__}")
            self._ledger.settle(work, OutcomeKind.UNCONFIRMED, info)
