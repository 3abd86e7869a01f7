"""Completion waits: poll each accepted backup until it has ended, or until its wait is over.

Polls pass the limiter like every request. ``queues.py`` limits them to a share of the rate, so the more backups are
unfinished, the less often each is polled. A failed poll is repeated. A slow backup is never requested again. An aborted
backup is requested once more, if the wait policy has ``retry_aborted``.
"""

from __future__ import annotations

import asyncio
import heapq
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from orchestrator.engine.pending import TO_REQUEST, CompletionWait
from orchestrator.errors import StorageError
from orchestrator.freshness import ABORTED, FOUND_UNDER_WAY, has_ended, merged
from orchestrator.marker import described_again
from orchestrator.model import ErrorInfo, ErrorKind, Made, OutcomeKind
from orchestrator.outcome import Answer, backoff, error_info, error_kind
from orchestrator.units import age_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.engine.accounts import Accounts
    from orchestrator.engine.context import DispatchContext
    from orchestrator.engine.exchange import Admitted, Exchanged
    from orchestrator.engine.ledger import Ledger
    from orchestrator.engine.pending import PendingBackup
    from orchestrator.engine.queues import AccountQueue, Budget

OF_ANOTHER = "the answer shows another backup"

LAST_POLL_S = 2.0
"""Seconds that a backup's last poll may take after its wait is over, plus the time for polls queued before it."""


@dataclass(frozen=True, slots=True)
class _Timed:
    """A wait with a time limit, and the budget and account that poll for it."""

    pending: PendingBackup
    wait: CompletionWait
    budget: Budget
    account: AccountQueue

    @property
    def is_going_on(self) -> bool:
        """Tell whether this wait still goes on: its backup is neither settled nor requested again."""
        return not self.pending.is_settled and self.pending.state is self.wait


class CompletionWaits:
    """Wait for backups to be completed or aborted."""

    def __init__(self, context: DispatchContext, accounts: Accounts, ledger: Ledger) -> None:
        """Poll through ``accounts``. Without ``limits.wait``, poll only the backups that get a single poll."""
        self._context = context
        self._limits = context.limits
        self._accounts = accounts
        self._ledger = ledger
        self._deadlines: list[tuple[float, int, _Timed]] = []
        self._order = count()
        self._changed = asyncio.Event()

    async def accepted(self, admitted: Admitted, pending: PendingBackup) -> None:
        """Wait for the backup that was made for ``pending``, or settle it as accepted if the run does not wait."""
        policy, backup = self._limits.wait, pending.made.backup
        if policy is None or backup is None:
            self._ledger.settle(pending, OutcomeKind.ACCEPTED)
            return
        may_repeat = policy.retry_aborted and not pending.made.is_second
        pending.state = wait = CompletionWait(backup, self._now() + policy.timeout_s, may_repeat=may_repeat)
        try:
            await self._context.journal.note(pending.checkpoint())
        except StorageError as error:
            self._ledger.failed(error)
            self._ledger.settle(pending, OutcomeKind.ACCEPTED)
            return
        self.begin(admitted, pending, wait)

    def begin(self, admitted: Admitted, pending: PendingBackup, wait: CompletionWait) -> None:
        """Start to poll the backup of ``pending``, unless it has already ended."""
        if has_ended(wait.backup):
            self._ended(admitted, pending, wait)
            return
        self.bound(admitted.budget, admitted.account, pending, wait)
        self._accounts.queue(admitted.account, pending, self._next_s(wait))

    # -- time ---------------------------------------------------------------------------------------------------------

    def bound(self, budget: Budget, account: AccountQueue, pending: PendingBackup, wait: CompletionWait) -> None:
        """Make sure that ``pending`` is settled when its wait is over, even if the limiter lets no poll through."""
        self._put(wait.until, _Timed(pending, wait, budget, account))
        self._changed.set()

    def _put(self, at: float, timed: _Timed) -> None:
        heapq.heappush(self._deadlines, (at, next(self._order), timed))

    async def expire(self) -> None:
        """Settle each backup that has not ended when its wait is over. Run until cancelled."""
        while True:
            self._drop_what_is_over()
            wait_s = self._deadlines[0][0] - self._now() if self._deadlines else None
            if wait_s is None or wait_s > 0:
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._changed.wait()
                continue
            for timed in self._overdue():
                self._expired(timed)

    def _drop_what_is_over(self) -> None:
        while self._deadlines and not self._deadlines[0][2].is_going_on:
            heapq.heappop(self._deadlines)

    def _overdue(self) -> Iterator[_Timed]:
        """Yield the overdue waits whose last poll is over too; let the others poll one last time."""
        now = self._now()
        while self._deadlines and self._deadlines[0][0] <= now:
            *_, timed = heapq.heappop(self._deadlines)
            if timed.is_going_on and timed.wait.is_last:
                yield timed
            elif timed.is_going_on:
                self._poll_for_the_last_time(timed)

    def _poll_for_the_last_time(self, timed: _Timed) -> None:
        """Queue the last poll before other work: in a large fleet, a completed backup may not have been polled yet."""
        wait, account = timed.wait, timed.account
        wait.is_last = True
        over_at = wait.until + LAST_POLL_S
        is_queued = wait.poller is None and not wait.is_polled_once
        if is_queued and account.stop is None:
            account.queue_last_poll(timed.pending, self._now())
            timed.budget.changed.set()
            over_at += len(account.lookups) / timed.budget.throttle.rate()
        self._put(over_at, timed)

    def _expired(self, timed: _Timed) -> None:
        if timed.wait.poller:
            timed.wait.poller.cancel()
        self._give_up(timed.budget, timed.pending, timed.wait)

    # -- polls --------------------------------------------------------------------------------------------------------

    async def poll(self, admitted: Admitted, pending: PendingBackup, wait: CompletionWait) -> None:
        """Poll the backup of ``pending`` once, and act on the answer."""
        wait.poller = asyncio.current_task()
        call = admitted.account.api.show_backup(pending.planned.request.install_id, wait.backup.id)
        try:
            await self._accounts.read(admitted, pending, call, partial(self._follow, admitted, pending, wait))
        finally:
            wait.poller = None

    async def _follow(
        self, admitted: Admitted, pending: PendingBackup, wait: CompletionWait, exchanged: Exchanged
    ) -> None:
        wait.poller = None
        if pending.is_settled:
            return
        shown = exchanged.result.backup
        if shown is None or shown.id.lower() != wait.backup.id.lower():
            self._failed(admitted, pending, wait, exchanged)
            return
        account = admitted.account
        if not account.has_requests:
            account.unserved_since = None
        wait.backup, wait.failed, wait.error = merged(wait.backup, shown), 0, None
        if wait.is_own:
            pending.made = replace(pending.made, backup=wait.backup)
        if has_ended(wait.backup):
            self._ended(admitted, pending, wait)
        elif wait.is_polled_once or self._now() >= wait.until:
            self._give_up(admitted.budget, pending, wait)
        else:
            self._accounts.queue(account, pending, self._next_s(wait))

    def _ended(self, admitted: Admitted, pending: PendingBackup, wait: CompletionWait) -> None:
        if wait.backup.status != ABORTED:
            self._completed(pending, wait)
            return
        self._context.log.info("backup.aborted", install=pending.planned.install.label, backup=wait.backup.id)
        if not wait.is_own:
            pending.state = TO_REQUEST
            self._accounts.queue(admitted.account, pending)
        elif wait.may_repeat:
            self._request_again(admitted, pending, wait)
        else:
            pending.made = replace(pending.made, backup=wait.backup)
            self._ledger.settle(pending, OutcomeKind.ABORTED)

    def _completed(self, pending: PendingBackup, wait: CompletionWait) -> None:
        pending.made = replace(pending.made, backup=wait.backup)
        if wait.is_own:
            self._ledger.settle(pending, OutcomeKind.COMPLETED)
        else:
            self._ledger.settle(pending, OutcomeKind.SKIPPED, reason=FOUND_UNDER_WAY)

    def _request_again(self, admitted: Admitted, pending: PendingBackup, wait: CompletionWait) -> None:
        request = pending.planned.request
        description = described_again(request.description, self._context.run_id)
        pending.planned = replace(pending.planned, request=replace(request, description=description))
        pending.made = Made(earlier=(*pending.made.earlier, wait.backup), is_second=True)
        pending.state, pending.tries, pending.began_at = TO_REQUEST, 0, None
        self._context.journal.note_soon(pending.checkpoint())
        self._accounts.queue(admitted.account, pending)

    def _failed(self, admitted: Admitted, pending: PendingBackup, wait: CompletionWait, exchanged: Exchanged) -> None:
        answer = exchanged.answer
        if answer is Answer.THROTTLED or exchanged.result.on_reused:
            self._accounts.queue(admitted.account, pending)
        elif answer in {Answer.QUOTA, Answer.MISCONFIGURED}:
            self._accounts.stop_over(admitted, pending, exchanged)
        else:
            self._poll_again(admitted, pending, wait, exchanged)

    def _poll_again(
        self, admitted: Admitted, pending: PendingBackup, wait: CompletionWait, exchanged: Exchanged
    ) -> None:
        result, answer = exchanged.result, exchanged.answer
        wait.failed += 1
        wait.error = error_info(error_kind(answer, result), result, OF_ANOTHER if result.backup else None)
        say = self._context.log.info if wait.failed == 1 else self._context.log.debug
        reason = wait.error.message
        say("backup.poll_failed", install=pending.planned.install.label, status=result.status, reason=reason)
        is_over = self._now() >= wait.until
        if wait.failed >= self._limits.retry.max_attempts if wait.is_polled_once else is_over:
            self._give_up(admitted.budget, pending, wait)
        elif answer is Answer.CREDENTIALS:
            self._accounts.suspect(admitted.account, pending, result)
        else:
            after_s = max(backoff(wait.failed, self._context.clock.draw()), self._next_s(wait))
            self._accounts.queue(admitted.account, pending, after_s)

    def _give_up(self, budget: Budget, pending: PendingBackup, wait: CompletionWait) -> None:
        policy = self._limits.wait
        how_long = f" after the wait of {age_text(policy.timeout_s)}" if policy else ""
        message = f"still {wait.backup.status or 'unfinished'}{how_long}"
        if wait.error:
            message += f"; the last poll failed: {wait.error.message}"
        pending.made = replace(pending.made, backup=wait.backup)
        self._ledger.settle(pending, OutcomeKind.INCOMPLETE, ErrorInfo(ErrorKind.TIMEOUT, message))
        budget.look_again()

    def _next_s(self, wait: CompletionWait) -> float:
        """Return the minimum seconds until the next poll."""
        if self._limits.wait is None or wait.is_polled_once:
            return 0.0
        return max(0.0, min(self._limits.wait.poll_interval_s, wait.until - self._now()))

    def _now(self) -> float:
        return self._context.clock.monotonic()
