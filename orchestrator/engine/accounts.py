"""What concerns a whole account: its queue, what its reads lead to, the check of its credentials, its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from orchestrator.engine.pending import TO_REQUEST, CompletionWait, InDoubt, ReadRequest, RecencyCheck, ToRequest
from orchestrator.engine.queues import AccountState
from orchestrator.model import ErrorKind, OutcomeKind
from orchestrator.outcome import Answer, Step, decide_check, error_info, error_kind
from orchestrator.pacing import Effect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from orchestrator.engine.context import DispatchContext
    from orchestrator.engine.exchange import Admitted, Exchanged, Wire
    from orchestrator.engine.ledger import Ledger
    from orchestrator.engine.pending import CredentialsCheck, PendingBackup
    from orchestrator.engine.queues import AccountQueue
    from orchestrator.model import AttemptResult
    from orchestrator.outcome import Decision


REFUSED_POLL_WAIT_S = 15.0
"""How long a poll waits that is refused though the credentials are good."""


class Accounts:
    """Queue the work of accounts, read for it, check accounts and stop them."""

    def __init__(self, context: DispatchContext, wire: Wire, ledger: Ledger) -> None:
        """Settle what a stopped account leaves in ``ledger``."""
        self._wire = wire
        self._ledger = ledger
        self._limits = context.limits
        self._clock = context.clock
        self._log = context.log

    def queue(self, account: AccountQueue, work: PendingBackup | ReadRequest, after_s: float = 0.0) -> None:
        """Queue ``work`` from ``after_s`` seconds on, unless its account has stopped, or all requests have."""
        why = account.stop
        if why is None and not isinstance(work, ReadRequest) and work.is_to_be_requested:
            why = self._ledger.closed
        if why:
            self._ledger.cancel(work, why)
        else:
            account.queue(work, self._clock.monotonic() + after_s)

    # -- reads --------------------------------------------------------------------------------------------------------

    async def read(
        self,
        admitted: Admitted,
        work: PendingBackup | ReadRequest,
        call: Coroutine[object, object, AttemptResult],
        follow: Callable[[Exchanged], Awaitable[None]],
    ) -> None:
        """Send one read for ``work``, and ``follow`` its answer up; one that was broken off is queued again."""
        may_end_account = isinstance(work, ReadRequest) or not work.is_patient
        exchanged = await self._wire.exchange(admitted, call)
        if exchanged.is_interrupted:
            self.queue(admitted.account, work)
            return
        await follow(exchanged)
        if may_end_account:
            self.stop_if_hopeless(admitted, exchanged)

    def is_given_up(
        self, admitted: Admitted, work: PendingBackup | ReadRequest, exchanged: Exchanged, decision: Decision
    ) -> bool:
        """Do what ``decision`` says of a read that could not be had; tell whether it never will be."""
        if admitted.account.stop:
            self._ledger.cancel(work, admitted.account.stop)
            return False
        match decision.step:
            case Step.AGAIN:
                self.queue(admitted.account, work, decision.after_s)
            case Step.CHECK_CREDENTIALS:
                self.suspect(admitted.account, work, exchanged.result)
            case Step.STOP_ACCOUNT:
                self.stop_over(admitted, work, exchanged)
            case Step.DONE | Step.LOOK_UP:
                return True
            case _:
                assert_never(decision.step)
        return False

    # -- credentials --------------------------------------------------------------------------------------------------

    def suspect(self, account: AccountQueue, work: PendingBackup | ReadRequest, result: AttemptResult) -> None:
        """Keep ``work``, which met a 401, until a check has told whether the credentials are still good."""
        if account.stop:
            self._ledger.cancel(work, account.stop)
            return
        account.suspects.append((work, result))
        if account.state is AccountState.OPEN:
            account.state, account.check_attempts, account.check_due_at = AccountState.TO_CHECK, 0, 0.0
            self._log.warning("account.credentials_doubted", account=account.name)

    async def check(self, admitted: Admitted, check: CredentialsCheck) -> None:
        """Send one ``GET /user``, and do what follows."""
        account = admitted.account
        exchanged = await self._wire.exchange(admitted, account.api.check_credentials())
        if exchanged.is_interrupted:
            account.state = AccountState.TO_CHECK if not check.canary else account.state
            return
        if not check.canary:
            self._follow_check(admitted, exchanged)
        elif exchanged.answer in {Answer.CREDENTIALS, Answer.QUOTA}:
            self.stop(admitted, exchanged)
        self.stop_if_hopeless(admitted, exchanged)

    def _follow_check(self, admitted: Admitted, exchanged: Exchanged) -> None:
        account = admitted.account
        account.check_attempts += exchanged.answer is not Answer.THROTTLED
        decision = decide_check(exchanged.answer, account.check_attempts, self._clock.draw())
        if account.stop:
            return
        match decision.step:
            case Step.DONE:
                if account.unserved_since is not None and account.check_attempts > 1:
                    after_s = round(self._unserved_s(account), 1)
                    self._log.warning("account.reached", account=account.name, after_s=after_s)
                account.state, account.unserved_since = AccountState.OPEN, None
                self._settle_suspects(account)
            case Step.AGAIN:
                account.state = AccountState.TO_CHECK
                account.check_due_at = self._clock.monotonic() + decision.after_s
                self._say_check_again(account, exchanged)
            case Step.STOP_ACCOUNT | Step.CHECK_CREDENTIALS | Step.LOOK_UP:
                self.stop(admitted, exchanged)
            case _:
                assert_never(decision.step)

    def _say_check_again(self, account: AccountQueue, exchanged: Exchanged) -> None:
        """Say that an account is tried again: aloud the first time, since nothing else happens meanwhile."""
        answer, reason = exchanged.answer, exchanged.result.message
        if answer is Answer.THROTTLED or account.check_attempts > 1:
            self._log.debug("account.check_again", account=account.name, answer=answer.value, reason=reason)
        else:
            reach_s = round(min(self._limits.reach_s, self._limits.give_up_s))
            self._log.warning("account.not_reached", account=account.name, reason=reason, tried_for_s=reach_s)

    def _settle_suspects(self, account: AccountQueue) -> None:
        """Let what met a 401 go on, each in its way: the credentials are good, so the 401 was about that one."""
        suspects, account.suspects = account.suspects, []
        for work, result in suspects:
            refused = error_info(ErrorKind.REJECTED, result)
            if isinstance(work, ReadRequest):
                work.end(refused)
                continue
            match work.state:
                case InDoubt() as doubt:
                    self._ledger.leave_open(work, doubt, f"its listing is refused ({result.message})")
                case CompletionWait():
                    self.queue(account, work, REFUSED_POLL_WAIT_S)
                case RecencyCheck():
                    work.state = TO_REQUEST
                    self.queue(account, work)
                case ToRequest():
                    self._ledger.settle(work, OutcomeKind.REJECTED, refused)
                case _:
                    assert_never(work.state)

    # -- the end of an account ----------------------------------------------------------------------------------------

    def stop_if_hopeless(self, admitted: Admitted, exchanged: Exchanged) -> None:
        """Stop the account if the API asks for too long a pause, or has served no POST for too long."""
        if exchanged.effect is Effect.SERVED:
            return
        account, answer = admitted.account, exchanged.answer
        unserved_s = self._unserved_s(account)
        is_out_of_reach = account.state is AccountState.TO_CHECK and answer in {Answer.NOT_SENT, Answer.AMBIGUOUS}
        if answer is Answer.THROTTLED and exchanged.too_long_s is not None:
            why = f"the API asks to pause for {exchanged.too_long_s:.0f} s, longer than throttle.max_pause allows"
        elif unserved_s >= self._limits.give_up_s:
            why = f"no request was accepted for {unserved_s:.0f} s (throttle.give_up)"
        elif is_out_of_reach and unserved_s >= self._limits.reach_s:
            why = f"there was no usable answer for {unserved_s:.0f} s"
        else:
            return
        self.stop(admitted, exchanged, why)

    def _unserved_s(self, account: AccountQueue) -> float:
        """Return the seconds since the first failure after the last success; the first failure begins them."""
        now = self._clock.monotonic()
        account.unserved_since = now if account.unserved_since is None else account.unserved_since
        return now - account.unserved_since

    def stop_over(self, admitted: Admitted, work: PendingBackup | ReadRequest, exchanged: Exchanged) -> None:
        """End the account's run over the answer to ``work``, which is cancelled with the rest."""
        admitted.account.suspects.append((work, exchanged.result))
        self.stop(admitted, exchanged)

    def stop(self, admitted: Admitted, exchanged: Exchanged, why: str | None = None) -> None:
        """End the account's run: what it has not requested yet is cancelled."""
        account, result = admitted.account, exchanged.result
        if account.stop is None:
            kind = error_kind(exchanged.answer, result)
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
        self._ledger.cancel_all(account.clear(), account.stop)
        admitted.budget.look_again()
