"""What concerns a whole account: its queue, the check of its credentials, the end of its run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.engine.exchange import effect_of
from orchestrator.engine.pending import ReadRequest
from orchestrator.engine.queues import AccountState
from orchestrator.model import ErrorKind, Fault, OutcomeKind
from orchestrator.outcome import Answer, Decision, Step, classify, decide_check, error_info, error_kind
from orchestrator.pacing import Effect

if TYPE_CHECKING:
    from orchestrator.engine.context import RunContext, RunLimits
    from orchestrator.engine.exchange import Admitted, Wire
    from orchestrator.engine.ledger import Ledger
    from orchestrator.engine.pending import CredentialsCheck, PendingBackup
    from orchestrator.engine.queues import AccountQueue
    from orchestrator.model import AttemptResult


REFUSED_POLL_WAIT_S = 15.0
"""How long a poll waits that is refused though the credentials are good."""


class Accounts:
    """Check accounts and stop them."""

    def __init__(self, wire: Wire, ledger: Ledger, limits: RunLimits, context: RunContext) -> None:
        """Settle what a stopped account leaves in ``ledger``."""
        self._wire = wire
        self._ledger = ledger
        self._limits = limits
        self._clock = context.clock
        self._log = context.log

    async def queue(self, account: AccountQueue, work: PendingBackup | ReadRequest, after_s: float = 0.0) -> None:
        """Queue ``work`` from ``after_s`` seconds on, unless its account has stopped, or all requests have."""
        why = account.stop
        if why is None and not isinstance(work, ReadRequest) and work.is_to_be_requested:
            why = self._ledger.closed
        if why:
            await self._ledger.cancel(work, why)
        else:
            account.queue(work, self._clock.monotonic() + after_s)

    async def suspect(self, account: AccountQueue, work: PendingBackup | ReadRequest, result: AttemptResult) -> None:
        """Keep ``work``, which met a 401, until a check has told whether the credentials are still good."""
        if account.stop:
            await self._ledger.cancel(work, account.stop)
            return
        account.suspects.append((work, result))
        if account.state is AccountState.OPEN:
            account.state, account.check_attempts, account.check_due_at = AccountState.TO_CHECK, 0, 0.0
            self._log.warning("account.credentials_doubted", account=account.name)

    async def check(self, admitted: Admitted, check: CredentialsCheck) -> None:
        """Send one ``GET /user``, and do what follows."""
        account = admitted.account
        result = await self._wire.send(admitted, account.api.check_credentials(), is_read=True)
        answer = classify(result)
        effect = effect_of(answer)
        if check.canary and answer in {Answer.PERMANENT, Answer.UNREADABLE}:
            effect = Effect.FAILED
        self._wire.tell(admitted, effect, result)
        if result.fault is Fault.INTERRUPTED:
            account.state = AccountState.TO_CHECK if not check.canary else account.state
            return
        if not check.canary:
            account.check_attempts += answer is not Answer.THROTTLED
            decision = decide_check(answer, account.check_attempts, self._clock.draw())
            await self._follow(admitted, decision, answer, result)
        elif answer in {Answer.CREDENTIALS, Answer.QUOTA}:
            await self.stop(admitted, error_kind(answer, result), result)
        if answer is not Answer.ACCEPTED:
            await self.stop_if_hopeless(admitted, answer, result)

    async def _follow(self, admitted: Admitted, decision: Decision, answer: Answer, result: AttemptResult) -> None:
        account = admitted.account
        if account.stop:
            return
        match decision.step:
            case Step.DONE:
                if account.unserved_since is not None and account.check_attempts > 1:
                    self._log.warning(
                        "account.reached", account=account.name, after_s=round(self._unserved_s(account), 1)
                    )
                account.state, account.unserved_since = AccountState.OPEN, None
                await self._settle_suspects(account)
            case Step.AGAIN:
                account.state = AccountState.TO_CHECK
                account.check_due_at = self._clock.monotonic() + decision.after_s
                self._say_check_again(account, answer, result)
            case _:
                await self.stop(admitted, error_kind(answer, result), result)

    def _say_check_again(self, account: AccountQueue, answer: Answer, result: AttemptResult) -> None:
        """Say that an account is tried again: aloud the first time, since nothing else happens meanwhile."""
        if answer is Answer.THROTTLED or account.check_attempts > 1:
            self._log.debug("account.check_again", account=account.name, answer=answer.value, reason=result.message)
        else:
            reach_s = round(min(self._limits.reach_s, self._limits.give_up_s))
            self._log.warning("account.not_reached", account=account.name, reason=result.message, tried_for_s=reach_s)

    async def _settle_suspects(self, account: AccountQueue) -> None:
        suspects, account.suspects = account.suspects, []
        for work, result in suspects:
            refused = error_info(ErrorKind.REJECTED, result)
            if isinstance(work, ReadRequest):
                work.end(refused)
            elif work.doubt:
                await self._ledger.leave_open(work, f"its listing is refused ({result.message})")
            elif work.watch:
                await self.queue(account, work, REFUSED_POLL_WAIT_S)
            elif work.screen:
                work.screen = None
                await self.queue(account, work)
            else:
                await self._ledger.settle(work, OutcomeKind.REJECTED, refused)

    async def stop_if_hopeless(self, admitted: Admitted, answer: Answer, result: AttemptResult) -> None:
        """Stop the account if the API asks for too long a pause, or has served no POST for too long."""
        account = admitted.account
        unserved_s = self._unserved_s(account)
        is_out_of_reach = account.state is AccountState.TO_CHECK and answer in {Answer.NOT_SENT, Answer.AMBIGUOUS}
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

    def _unserved_s(self, account: AccountQueue) -> float:
        """Return the seconds since the first failure after the last success; the first failure begins them."""
        now = self._clock.monotonic()
        account.unserved_since = now if account.unserved_since is None else account.unserved_since
        return now - account.unserved_since

    async def stop(self, admitted: Admitted, kind: ErrorKind, result: AttemptResult, why: str | None = None) -> None:
        """End the account's run: what it has not requested yet is cancelled."""
        account = admitted.account
        if account.stop is None:
            account.state = AccountState.STOPPED
            said = f": {result.message}" if why and result.message else result.message
            account.stop = error_info(kind, result, f"account {account.name} stopped: {why or ''}{said}")
            self._log.error(
                "account.stopped",
                account=account.name,
                kind=kind.value,
                status=result.status,
                reason=account.stop.message,
            )
        await self._ledger.cancel_all(account.clear(), account.stop)
        admitted.budget.look_again()
