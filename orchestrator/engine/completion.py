"""Watches: accepted is not completed, so a backup is polled until it has ended or its time is over.

Polls pass the limiter like every request, and ``accounts.py`` lets them take no more than a share of the rate: with many
unfinished backups each is asked the less often. A poll that fails is repeated. A slow backup is never requested again;
an aborted one is once, if that was asked for.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.engine.exchange import effect_of
from orchestrator.engine.pending import CompletionWait, PendingBackup
from orchestrator.engine.queues import Queue
from orchestrator.errors import StorageError
from orchestrator.freshness import ABORTED, has_ended, merged
from orchestrator.marker import described_again
from orchestrator.model import ErrorInfo, ErrorKind, Fault, Made, OutcomeKind
from orchestrator.outcome import Answer, backoff, classify, error_info, error_kind
from orchestrator.pacing import Effect
from orchestrator.units import age_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.engine.core import Core
    from orchestrator.engine.exchange import Admitted
    from orchestrator.engine.queues import AccountQueue, Budget
    from orchestrator.model import AttemptResult

OF_ANOTHER = "the answer shows another backup"

LAST_POLL_S = 2.0
"""How long after its time a backup's last poll may still be under way, beyond the polls of others that come first."""


class CompletionWaits:
    """Wait for backups."""

    def __init__(self, core: Core) -> None:
        """Poll over the wire of ``core``; without ``limits.wait``, only what is to be polled once."""
        self._wire = core.wire
        self._accounts = core.accounts
        self._ledger = core.ledger
        self._limits = core.limits
        self._around = core.context
        self._deadlines = Queue()
        self._changed = asyncio.Event()
        self._expiring: asyncio.Future[list[None]] | None = None

    async def accepted(self, admitted: Admitted, pending: PendingBackup) -> None:
        """Wait for the backup that was made for ``pending``, or settle it as accepted if that is all that is wanted."""
        wait, backup = self._limits.wait, pending.made.backup
        if wait is None or backup is None:
            await self._ledger.settle(pending, OutcomeKind.ACCEPTED)
            return
        may_repeat = wait.retry_aborted and not pending.made.is_second
        pending.watch = CompletionWait(backup, self._now() + wait.timeout_s, may_repeat=may_repeat)
        try:
            await self._around.journal.note(pending.checkpoint())
        except StorageError as error:
            self._ledger.failed(error)
            await self._ledger.settle(pending, OutcomeKind.ACCEPTED)
            return
        await self.begin(admitted, pending)

    async def begin(self, admitted: Admitted, pending: PendingBackup) -> None:
        """Poll for ``pending``, whose watch says what is waited for, from now on."""
        watch = pending.watch
        if watch is None:
            return
        if has_ended(watch.backup):
            await self._ended(admitted, pending, watch)
            return
        self.expires(admitted.budget, admitted.account, pending, watch)
        await self._accounts.queue(admitted.account, pending, self._next_s(watch))

    def expires(self, budget: Budget, account: AccountQueue, pending: PendingBackup, watch: CompletionWait) -> None:
        """See to it that ``pending`` is settled when its time is over, also if the limiter lets no poll through."""
        watch.budget, watch.account = budget, account
        self._deadlines.put(pending, watch.until)
        self._changed.set()

    async def expire(self) -> None:
        """Settle what has not ended in time, for ever."""
        while True:
            at = self._deadlines.due_at()
            wait_s = None if at is None else at - self._now()
            if wait_s is None or wait_s > 0:
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._changed.wait()
                continue
            self._expiring = asyncio.gather(*(self._expired(pending, watch) for pending, watch in self._overdue()))
            await asyncio.shield(self._expiring)

    async def all_expired(self) -> None:
        """Return when what is being settled since its time is over has been."""
        if self._expiring:
            await asyncio.wait([self._expiring])

    def _overdue(self) -> Iterator[tuple[PendingBackup, CompletionWait]]:
        """Yield those whose time is over, last poll and all; not what is another watch by now."""
        now = self._now()
        while self._deadlines.is_due(now):
            pending = self._deadlines.pop()
            watch = pending.watch if isinstance(pending, PendingBackup) else None
            if watch is None or not isinstance(pending, PendingBackup) or watch.until > now:
                continue
            if watch.is_last:
                yield pending, watch
            else:
                self._poll_for_the_last_time(pending, watch)

    def _poll_for_the_last_time(self, pending: PendingBackup, watch: CompletionWait) -> None:
        """Let the last poll go first: in a large fleet its turn may not have come, though the backup is completed."""
        watch.is_last = True
        over_at = watch.until + LAST_POLL_S
        is_queued = watch.poller is None and not watch.is_polled_once
        if is_queued and watch.account and watch.account.stop is None and watch.budget:
            watch.account.queue_last_poll(pending, self._now())
            watch.budget.changed.set()
            over_at += len(watch.account.looks) / watch.budget.throttle.rate()
        self._deadlines.put(pending, over_at)

    async def _expired(self, pending: PendingBackup, watch: CompletionWait) -> None:
        if watch.poller:
            watch.poller.cancel()
        await self._give_up(pending, watch)

    async def poll(self, admitted: Admitted, pending: PendingBackup, watch: CompletionWait) -> None:
        """Ask once how the backup of ``pending`` stands, and do what follows."""
        account = admitted.account
        watch.poller = asyncio.current_task()
        call = account.api.show_backup(pending.planned.request.install_id, watch.backup.id)
        result = await self._wire.send(admitted, call, is_read=True)
        watch.poller = None
        self._wire.tell(admitted, effect_of(classify(result)), result)
        if pending.is_settled:
            return
        if result.backup is None or result.backup.id.lower() != watch.backup.id.lower():
            await self._failed(admitted, pending, watch, result)
            return
        if not account.has_requests:
            account.unserved_since = None
        watch.backup, watch.failed, watch.error = merged(watch.backup, result.backup), 0, None
        if watch.is_own:
            pending.made = replace(pending.made, backup=watch.backup)
        if has_ended(watch.backup):
            await self._ended(admitted, pending, watch)
        elif watch.is_polled_once or self._now() >= watch.until:
            await self._give_up(pending, watch)
        else:
            await self._accounts.queue(account, pending, self._next_s(watch))

    async def _ended(self, admitted: Admitted, pending: PendingBackup, watch: CompletionWait) -> None:
        if watch.backup.status != ABORTED:
            await self._completed(pending, watch)
            return
        self._around.log.info("backup.aborted", install=pending.planned.install.label, backup=watch.backup.id)
        if not watch.is_own:
            pending.watch = None
            await self._accounts.queue(admitted.account, pending)
        elif watch.may_repeat:
            await self._request_again(admitted, pending, watch)
        else:
            pending.made = replace(pending.made, backup=watch.backup)
            await self._ledger.settle(pending, OutcomeKind.ABORTED)

    async def _completed(self, pending: PendingBackup, watch: CompletionWait) -> None:
        pending.made = replace(pending.made, backup=watch.backup)
        if watch.is_own:
            await self._ledger.settle(pending, OutcomeKind.COMPLETED)
        else:
            reason = "a recent backup was under way (--skip-if-recent); it was waited for, and is completed"
            await self._ledger.settle(pending, OutcomeKind.SKIPPED, reason=reason)

    async def _request_again(self, admitted: Admitted, pending: PendingBackup, watch: CompletionWait) -> None:
        request = pending.planned.request
        description = described_again(request.description, self._around.run_id)
        pending.planned = replace(pending.planned, request=replace(request, description=description))
        pending.made = Made(earlier=(*pending.made.earlier, watch.backup), is_second=True)
        pending.watch, pending.tries, pending.began_at = None, 0, None
        self._around.journal.note_soon(pending.checkpoint())
        await self._accounts.queue(admitted.account, pending)

    async def _failed(
        self, admitted: Admitted, pending: PendingBackup, watch: CompletionWait, result: AttemptResult
    ) -> None:
        account, answer = admitted.account, classify(result)
        if result.fault is Fault.INTERRUPTED or answer is Answer.THROTTLED or result.on_reused:
            await self._accounts.queue(account, pending)
        elif answer in {Answer.QUOTA, Answer.MISCONFIGURED}:
            account.suspects.append((pending, result))
            await self._accounts.stop(admitted, error_kind(answer, result), result)
        else:
            await self._poll_again(account, pending, watch, result)
        if watch.is_polled_once and effect_of(answer) is not Effect.SERVED:
            await self._accounts.stop_if_hopeless(admitted, answer, result)

    async def _poll_again(
        self, account: AccountQueue, pending: PendingBackup, watch: CompletionWait, result: AttemptResult
    ) -> None:
        answer = classify(result)
        watch.failed += 1
        watch.error = error_info(error_kind(answer, result), result, OF_ANOTHER if result.backup else None)
        say = self._around.log.info if watch.failed == 1 else self._around.log.debug
        reason = watch.error.message
        say("backup.poll_failed", install=pending.planned.install.label, status=result.status, reason=reason)
        if watch.failed >= self._limits.retry.max_attempts if watch.is_polled_once else self._now() >= watch.until:
            await self._give_up(pending, watch)
        elif answer is Answer.CREDENTIALS:
            await self._accounts.suspect(account, pending, result)
        else:
            after_s = max(backoff(watch.failed, self._around.clock.draw()), self._next_s(watch))
            await self._accounts.queue(account, pending, after_s)

    async def _give_up(self, pending: PendingBackup, watch: CompletionWait) -> None:
        wait = self._limits.wait
        how_long = f" when the wait of {age_text(wait.timeout_s)} was over" if wait else ""
        message = f"still {watch.backup.status or 'unfinished'}{how_long}"
        if watch.error:
            message += f"; the last poll failed: {watch.error.message}"
        pending.made = replace(pending.made, backup=watch.backup)
        await self._ledger.settle(pending, OutcomeKind.INCOMPLETE, ErrorInfo(ErrorKind.TIMEOUT, message))
        if watch.budget:
            watch.budget.look_again()

    def _next_s(self, watch: CompletionWait) -> float:
        """Return the seconds until the next poll, at least."""
        if self._limits.wait is None or watch.is_polled_once:
            return 0.0
        return max(0.0, min(self._limits.wait.poll_interval_s, watch.until - self._now()))

    def _now(self) -> float:
        return self._around.clock.monotonic()
