"""Everything that affects a whole account: its queue, its reads, the check of its credentials, and its stop."""

from __future__ import annotations

from http import HTTPStatus
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
"""Seconds before the next poll, if a poll got a 401 although the credentials are good."""


class Accounts:
    """Queue the work of accounts, send its reads, check credentials, and stop accounts."""

    def __init__(self, context: DispatchContext, wire: Wire, ledger: Ledger) -> None:
        """Settle the remaining work of stopped accounts in ``ledger``."""
        self._wire = wire
        self._ledger = ledger
        self._limits = context.limits
        self._clock = context.clock
        self._log = context.log

    def queue(self, account: AccountQueue, work: PendingBackup | ReadRequest, after_s: float = 0.0) -> None:
        """Queue ``work``, due in ``after_s`` seconds.

        Cancel it instead if its account has stopped, or if it is to be requested and the run requests nothing more.
        """
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
        """Send one read for ``work`` and pass the answer to ``follow``. Queue ``work`` again after an interruption."""
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
        """Act on the ``decision`` about a failed read; tell whether the read has failed for good."""
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
        """Keep ``work``, which got a 401, until a check shows whether the credentials are still good."""
        if account.stop:
            self._ledger.cancel(work, account.stop)
            return
        account.suspects.append((work, result))
        if account.state is AccountState.OPEN:
            account.state, account.check_attempts, account.check_due_at = AccountState.TO_CHECK, 0, 0.0
            self._log.warning("account.credentials_doubted", account=account.name)

    async def check(self, admitted: Admitted, check: CredentialsCheck) -> None:
        """Send one ``GET /user``, and act on its answer."""
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
        """Log that the check will be repeated: as a warning the first time, since nothing else happens meanwhile."""
        answer, reason = exchanged.answer, exchanged.result.message
        if answer is Answer.THROTTLED or account.check_attempts > 1:
            self._log.debug("account.check_again", account=account.name, answer=answer.value, reason=reason)
        else:
            reach_s = round(min(self._limits.reach_s, self._limits.give_up_s))
            self._log.warning("account.not_reached", account=account.name, reason=reason, tried_for_s=reach_s)

    def _settle_suspects(self, account: AccountQueue) -> None:
        """Settle or continue the work that got a 401: the credentials are good, so only that work was refused."""
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
        """Stop the account if the API asks for too long a pause.

        Stop it also if no request has been accepted, or no check of the credentials answered, for too long.
        """
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
        """Return the seconds since the first failure after the last success. If this is the first, start counting."""
        now = self._clock.monotonic()
        account.unserved_since = now if account.unserved_since is None else account.unserved_since
        return now - account.unserved_since

    def stop_over(self, admitted: Admitted, work: PendingBackup | ReadRequest, exchanged: Exchanged) -> None:
        """Stop the account because of the answer to ``work``, and cancel ``work`` with the rest."""
        admitted.account.suspects.append((work, exchanged.result))
        self.stop(admitted, exchanged)

    def stop(self, admitted: Admitted, exchanged: Exchanged, why: str | None = None) -> None:
        """Stop the account, and cancel its work that is not settled yet."""
        account, result = admitted.account, exchanged.result
        if account.stop is None:
            kind = error_kind(exchanged.answer, result)
            account.state = AccountState.STOPPED
            said = f": {result.message}" if why and result.message else result.message
            account.stop = error_info(
                kind, result, f"account {account.name} stopped: {why or ''}{said}{_remedy(kind, result)}"
            )
            self._log.error(
                "account.stopped",
                account=account.name,
                kind=kind.value,
                status=result.status,
                reason=account.stop.message,
            )
        self._ledger.cancel_all(account.clear(), account.stop)
        admitted.budget.look_again()


def _remedy(kind: ErrorKind, result: AttemptResult) -> str:
    """Return what to do about the answer that stopped an account, empty if its message says enough."""
    if kind is ErrorKind.CREDENTIALS:
        return " (correct the user id and password of this account)"
    if kind is ErrorKind.QUOTA:
        return " (WP Engine's quota is used up: try again later)"
    return " (check base_url)" if result.status == HTTPStatus.NOT_FOUND else ""
