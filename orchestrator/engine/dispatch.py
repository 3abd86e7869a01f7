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

from orchestrator.engine.lanes import Budget, CredentialsCheck, Effort, Lane, LaneState
from orchestrator.engine.ledger import Ledger
from orchestrator.model import AttemptResult, ErrorInfo, ErrorKind, Fault, Outcome, OutcomeKind
from orchestrator.outcome import Answer, Spent, Step, Verdict, classify, decide, decide_check, error_info, error_kind
from orchestrator.pacing import Effect, Word

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from orchestrator.engine.lanes import Work
    from orchestrator.engine.ports import Clock, Log, OutcomeSink
    from orchestrator.engine.stop import StopSwitch
    from orchestrator.errors import WriteError
    from orchestrator.model import RetryPolicy
    from orchestrator.pacing import Ticket

_THROTTLINGS = {Answer.THROTTLED, Answer.QUOTA}

_EFFECTS = {
    Answer.THROTTLED: Effect.THROTTLED,
    Answer.QUOTA: Effect.THROTTLED,
    Answer.NOT_SENT: Effect.FAILED,
    Answer.AMBIGUOUS: Effect.FAILED,
}
"""What an answer says of the server's capacity; any other says that the request was served."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What ends an install, and what ends an account: a longer ``Retry-After``, a longer time without a served POST."""

    retry: RetryPolicy
    max_pause_s: float
    give_up_s: float


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the dispatcher works with."""

    sink: OutcomeSink
    clock: Clock
    log: Log
    stop: StopSwitch


@dataclass(frozen=True, slots=True)
class Admitted:
    """One request that the limiter let through: for which account, out of which budget, with which ticket."""

    budget: Budget
    lane: Lane
    ticket: Ticket


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
        self._workers: set[asyncio.Task[None]] = set()
        self._sends: dict[asyncio.Future[AttemptResult], bool] = {}

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
        """Wait for a ticket; ``None`` if ``_stop_account`` found that nothing is left to send one for."""
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
                await self._check(admitted, work)
            else:
                await self._post(admitted, work)
        except Exception as error:  # noqa: BLE001 - a bug must cost neither the other installs nor this one's line
            await self._give_account_of_a_bug(error, work)
        finally:
            admitted.budget.in_flight -= 1
            admitted.budget.changed.set()

    # -- one POST ---------------------------------------------------------------------------------------------------

    async def _post(self, admitted: Admitted, effort: Effort) -> None:
        clock, lane, throttle = self._around.clock, admitted.lane, admitted.budget.throttle
        if effort.started_at is None:
            effort.started_at, effort.first_sent_at = clock.now(), clock.monotonic()
            effort.held_before_s = throttle.held_s()
        result = await self._send(admitted, lane.api.create_backup(effort.planned.request))
        effort.request_id = result.request_id or effort.request_id
        if result.fault is Fault.INTERRUPTED and not result.sent:
            throttle.release(admitted.ticket)
            lane.retry(effort, clock.monotonic())
            return
        answer = classify(result)
        is_throttled = answer in _THROTTLINGS
        effort.throttled += is_throttled
        effort.tries += not is_throttled
        effort.attempts += result.sent and not is_throttled
        self._tell_throttle(admitted, _EFFECTS.get(answer, Effect.SERVED), result)
        self._around.log.debug(
            "attempt.answered", install=effort.planned.install.label, answer=answer.value, status=result.status
        )
        held_s = throttle.held_s() - effort.held_before_s
        spent = Spent(effort.tries, clock.monotonic() - effort.first_sent_at - held_s)
        verdict = decide(answer, spent, self._limits.retry, clock.draw())
        await self._follow(admitted, effort, verdict, result)
        if _EFFECTS.get(answer) is None:
            lane.unserved_since = None
        else:
            await self._stop_if_hopeless(admitted, answer, result)

    async def _follow(self, admitted: Admitted, effort: Effort, verdict: Verdict, result: AttemptResult) -> None:
        lane = admitted.lane
        match verdict.step:
            case Step.DONE:
                is_success = verdict.outcome.is_success
                error = None if is_success else error_info(error_kind(classify(result), result), result)
                await self._ledger.settle(effort, verdict.outcome, error, result)
            case Step.AGAIN:
                if lane.stop:
                    await self._ledger.cancel(effort, lane.stop)
                else:
                    lane.retry(effort, self._around.clock.monotonic() + verdict.after_s)
            case Step.CHECK_CREDENTIALS:
                await self._suspect(lane, effort, result)
            case Step.STOP_ACCOUNT:
                lane.suspects.append((effort, result))
                await self._stop_account(admitted, error_kind(classify(result), result), result)

    async def _suspect(self, lane: Lane, effort: Effort, result: AttemptResult) -> None:
        if lane.stop:
            await self._ledger.cancel(effort, lane.stop)
            return
        lane.suspects.append((effort, result))
        if lane.state is LaneState.OPEN:
            lane.state, lane.check_attempts, lane.check_due_at = LaneState.TO_CHECK, 0, 0.0
            self._around.log.warning("account.credentials_doubted", account=lane.name)

    # -- one GET /user ----------------------------------------------------------------------------------------------

    async def _check(self, admitted: Admitted, check: CredentialsCheck) -> None:
        lane = admitted.lane
        result = await self._send(admitted, lane.api.check_credentials(), is_read=True)
        answer = classify(result)
        effect = _EFFECTS.get(answer, Effect.SERVED)
        if check.canary and answer in {Answer.PERMANENT, Answer.UNREADABLE}:
            effect = Effect.FAILED
        self._tell_throttle(admitted, effect, result)
        if result.fault is Fault.INTERRUPTED:
            lane.state = LaneState.TO_CHECK if not check.canary else lane.state
            return
        if not check.canary:
            lane.check_attempts += answer is not Answer.THROTTLED
            verdict = decide_check(answer, lane.check_attempts, self._limits.retry, self._around.clock.draw())
            await self._follow_check(admitted, verdict, answer, result)
        elif answer in {Answer.CREDENTIALS, Answer.QUOTA}:
            await self._stop_account(admitted, error_kind(answer, result), result)
        if answer is not Answer.ACCEPTED:
            await self._stop_if_hopeless(admitted, answer, result)

    async def _follow_check(self, admitted: Admitted, verdict: Verdict, answer: Answer, result: AttemptResult) -> None:
        lane = admitted.lane
        if lane.stop:
            return
        match verdict.step:
            case Step.DONE:
                lane.state = LaneState.OPEN
                await self._reject_suspects(lane)
            case Step.AGAIN:
                lane.state = LaneState.TO_CHECK
                lane.check_due_at = self._around.clock.monotonic() + verdict.after_s
                self._around.log.debug("account.check_again", account=lane.name, answer=answer.value)
            case _:
                await self._stop_account(admitted, error_kind(answer, result), result)

    async def _reject_suspects(self, lane: Lane) -> None:
        suspects, lane.suspects = lane.suspects, []
        for effort, result in suspects:
            await self._ledger.settle(effort, OutcomeKind.REJECTED, error_info(ErrorKind.REJECTED, result))

    # -- what every answer does -------------------------------------------------------------------------------------

    async def _send(
        self, admitted: Admitted, call: Coroutine[object, object, AttemptResult], *, is_read: bool = False
    ) -> AttemptResult:
        """Send one request so that it can be broken off and its fate is still known."""
        send = asyncio.ensure_future(call)
        self._sends[send] = is_read
        try:
            result = await send
        except asyncio.CancelledError:
            if not send.cancelled():
                raise
            return AttemptResult(fault=Fault.INTERRUPTED, sent=False, message="broken off before it was sent")
        except Exception:
            admitted.budget.throttle.release(admitted.ticket)
            raise
        finally:
            del self._sends[send]
        admitted.lane.requests += result.sent
        if admitted.lane.notes_headers(result):
            self._around.log.info("throttle.headers", account=admitted.lane.name, headers=dict(result.rate_headers))
        return result

    def _break_off(self, *, reads_only: bool) -> None:
        for send, is_read in self._sends.items():
            if is_read or not reads_only:
                send.cancel()

    def _tell_throttle(self, admitted: Admitted, effect: Effect, result: AttemptResult) -> None:
        throttle, ticket = admitted.budget.throttle, admitted.ticket
        admitted.lane.throttled += effect is Effect.THROTTLED
        if result.fault is Fault.INTERRUPTED:
            throttle.release(ticket)
            return
        retry_after_s = result.retry_after_s
        if retry_after_s is not None and retry_after_s > self._limits.max_pause_s:
            retry_after_s = None
        throttle.observe(ticket, Word(effect, result.backup is not None, retry_after_s))

    async def _stop_if_hopeless(self, admitted: Admitted, answer: Answer, result: AttemptResult) -> None:
        lane = admitted.lane
        now = self._around.clock.monotonic()
        lane.unserved_since = now if lane.unserved_since is None else lane.unserved_since
        unserved_s = now - lane.unserved_since
        pause_s = result.retry_after_s or 0.0
        if answer is Answer.THROTTLED and pause_s > self._limits.max_pause_s:
            why = f"the API asks to pause for {pause_s:.0f} s, longer than throttle.max_pause allows"
        elif unserved_s >= self._limits.give_up_s:
            why = f"no request was accepted for {unserved_s:.0f} s (throttle.give_up)"
        else:
            return
        await self._stop_account(admitted, error_kind(answer, result), result, why)

    async def _stop_account(
        self, admitted: Admitted, kind: ErrorKind, result: AttemptResult, why: str | None = None
    ) -> None:
        lane = admitted.lane
        if lane.stop is None:
            lane.state = LaneState.STOPPED
            said = f": {result.message}" if why and result.message else result.message
            lane.stop = error_info(kind, result, f"account {lane.name} stopped: {why or ''}{said}")
            self._end.stops[lane.name] = lane.stop
            self._around.log.error(
                "account.stopped", account=lane.name, kind=kind.value, status=result.status, reason=lane.stop.message
            )
        for effort in lane.clear():
            await self._ledger.cancel(effort, lane.stop)
        budget = admitted.budget
        if budget.admission and budget.ready_at() is None:
            budget.admission.cancel()

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
        self._break_off(reads_only=True)
        if self._ledger.write_error:
            self._around.log.error("report.failed", reason=str(self._ledger.write_error))
        self._around.log.warning("run.draining", in_flight=sum(budget.in_flight for budget in self.budgets))

    async def _abort_when_told(self) -> None:
        await self._around.stop.aborting.wait()
        self._around.log.warning("run.aborting", in_flight=len(self._sends))
        self._break_off(reads_only=False)

    async def _cancel_what_is_left(self) -> None:
        signum = self._around.stop.signum
        if self._end.crash:
            why = ErrorInfo(ErrorKind.STOPPED, "the run stopped on an internal error")
        elif self._ledger.write_error:
            why = ErrorInfo(ErrorKind.STOPPED, "the run stopped: its report could not be written")
        else:
            name = signal.Signals(signum).name if signum else "nobody"
            why = ErrorInfo(ErrorKind.INTERRUPTED, f"the run was stopped by {name} first")
        for budget in self.budgets:
            for lane in budget.lanes:
                for effort in lane.clear():
                    await self._ledger.cancel(effort, lane.stop or why)

    def _crashed(self, error: Exception) -> None:
        self._end.crash = self._end.crash or error
        self._halted.set()

    async def _give_account_of_a_bug(self, error: Exception, work: Work) -> None:
        self._crashed(error)
        if isinstance(work, Effort):
            info = ErrorInfo(ErrorKind.PROTOCOL, f"internal error: {type(error).__name__}")
            await self._ledger.settle(work, OutcomeKind.UNCONFIRMED, info)
