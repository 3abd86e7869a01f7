"""What concerns a whole account: its queue, the check of its credentials, the end of its run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.engine.efforts import Errand
from orchestrator.engine.lanes import LaneState
from orchestrator.engine.wire import effect_of
from orchestrator.model import ErrorKind, Fault, OutcomeKind
from orchestrator.outcome import Answer, Step, Verdict, classify, decide_check, error_info, error_kind
from orchestrator.pacing import Effect

if TYPE_CHECKING:
    from orchestrator.engine.efforts import CredentialsCheck, Effort
    from orchestrator.engine.lanes import Lane
    from orchestrator.engine.ledger import Ledger
    from orchestrator.engine.surroundings import Limits, Surroundings
    from orchestrator.engine.wire import Admitted, Wire
    from orchestrator.model import AttemptResult


REFUSED_POLL_WAIT_S = 15.0
"""How long a poll waits that is refused though the credentials are good."""


class Accounts:
    """Check accounts and stop them."""

    def __init__(self, wire: Wire, ledger: Ledger, limits: Limits, around: Surroundings) -> None:
        """Settle what a stopped account leaves in ``ledger``."""
        self._wire = wire
        self._ledger = ledger
        self._limits = limits
        self._clock = around.clock
        self._log = around.log

    async def queue(self, lane: Lane, work: Effort | Errand, after_s: float = 0.0) -> None:
        """Queue ``work`` from ``after_s`` seconds on, unless its account has stopped, or all requests have."""
        why = lane.stop
        if why is None and not isinstance(work, Errand) and work.is_to_be_requested:
            why = self._ledger.closed
        if why:
            await self._ledger.cancel(work, why)
        else:
            lane.queue(work, self._clock.monotonic() + after_s)

    async def suspect(self, lane: Lane, work: Effort | Errand, result: AttemptResult) -> None:
        """Keep ``work``, which met a 401, until a check has told whether the credentials are still good."""
        if lane.stop:
            await self._ledger.cancel(work, lane.stop)
            return
        lane.suspects.append((work, result))
        if lane.state is LaneState.OPEN:
            lane.state, lane.check_attempts, lane.check_due_at = LaneState.TO_CHECK, 0, 0.0
            self._log.warning("account.credentials_doubted", account=lane.name)

    async def check(self, admitted: Admitted, check: CredentialsCheck) -> None:
        """Send one ``GET /user``, and do what follows."""
        lane = admitted.lane
        result = await self._wire.send(admitted, lane.api.check_credentials(), is_read=True)
        answer = classify(result)
        effect = effect_of(answer)
        if check.canary and answer in {Answer.PERMANENT, Answer.UNREADABLE}:
            effect = Effect.FAILED
        self._wire.tell(admitted, effect, result)
        if result.fault is Fault.INTERRUPTED:
            lane.state = LaneState.TO_CHECK if not check.canary else lane.state
            return
        if not check.canary:
            lane.check_attempts += answer is not Answer.THROTTLED
            verdict = decide_check(answer, lane.check_attempts, self._clock.draw())
            await self._follow(admitted, verdict, answer, result)
        elif answer in {Answer.CREDENTIALS, Answer.QUOTA}:
            await self.stop(admitted, error_kind(answer, result), result)
        if answer is not Answer.ACCEPTED:
            await self.stop_if_hopeless(admitted, answer, result)

    async def _follow(self, admitted: Admitted, verdict: Verdict, answer: Answer, result: AttemptResult) -> None:
        lane = admitted.lane
        if lane.stop:
            return
        match verdict.step:
            case Step.DONE:
                if lane.unserved_since is not None and lane.check_attempts > 1:
                    self._log.warning("account.reached", account=lane.name, after_s=round(self._unserved_s(lane), 1))
                lane.state, lane.unserved_since = LaneState.OPEN, None
                await self._settle_suspects(lane)
            case Step.AGAIN:
                lane.state = LaneState.TO_CHECK
                lane.check_due_at = self._clock.monotonic() + verdict.after_s
                self._say_check_again(lane, answer, result)
            case _:
                await self.stop(admitted, error_kind(answer, result), result)

    def _say_check_again(self, lane: Lane, answer: Answer, result: AttemptResult) -> None:
        """Say that an account is tried again: aloud the first time, since nothing else happens meanwhile."""
        if answer is Answer.THROTTLED or lane.check_attempts > 1:
            self._log.debug("account.check_again", account=lane.name, answer=answer.value, reason=result.message)
        else:
            reach_s = round(min(self._limits.reach_s, self._limits.give_up_s))
            self._log.warning("account.not_reached", account=lane.name, reason=result.message, tried_for_s=reach_s)

    async def _settle_suspects(self, lane: Lane) -> None:
        suspects, lane.suspects = lane.suspects, []
        for work, result in suspects:
            refused = error_info(ErrorKind.REJECTED, result)
            if isinstance(work, Errand):
                work.end(refused)
            elif work.doubt:
                await self._ledger.leave_open(work, f"its listing is refused ({result.message})")
            elif work.watch:
                await self.queue(lane, work, REFUSED_POLL_WAIT_S)
            elif work.screen:
                work.screen = None
                await self.queue(lane, work)
            else:
                await self._ledger.settle(work, OutcomeKind.REJECTED, refused)

    async def stop_if_hopeless(self, admitted: Admitted, answer: Answer, result: AttemptResult) -> None:
        """Stop the account if the API asks for too long a pause, or has served no POST for too long."""
        lane = admitted.lane
        unserved_s = self._unserved_s(lane)
        is_out_of_reach = lane.state is LaneState.TO_CHECK and answer in {Answer.NOT_SENT, Answer.AMBIGUOUS}
        pause_s = result.retry_after_s or 0.0
        if answer is Answer.THROTTLED and pause_s > self._limits.max_pause_s:
            why = f"the API asks to pause for {pause_s:.0f} s, longer than throttle.max_pause allows"
        elif unserved_s >= self._limits.give_up_s:
            why = f"no request was accepted for {unserved_s:.0f} s (throttle.give_up)"
        elif is_out_of_reach and unserved_s >= self._limits.reach_s:
            why = f"there was no usable answer for {unserved_s:.0f} s"
        else:
            return
        await self.stop(admitted, error_kind(answer, result), result, why)

    def _unserved_s(self, lane: Lane) -> float:
        """Return the seconds since the first failure after the last success; the first failure begins them."""
        now = self._clock.monotonic()
        lane.unserved_since = now if lane.unserved_since is None else lane.unserved_since
        return now - lane.unserved_since

    async def stop(self, admitted: Admitted, kind: ErrorKind, result: AttemptResult, why: str | None = None) -> None:
        """End the account's run: what it has not requested yet is cancelled."""
        lane = admitted.lane
        if lane.stop is None:
            lane.state = LaneState.STOPPED
            said = f": {result.message}" if why and result.message else result.message
            lane.stop = error_info(kind, result, f"account {lane.name} stopped: {why or ''}{said}")
            self._log.error(
                "account.stopped", account=lane.name, kind=kind.value, status=result.status, reason=lane.stop.message
            )
        await self._ledger.cancel_all(lane.clear(), lane.stop)
        admitted.budget.look_again()
