"""Watches: accepted is not completed, so a backup is polled until it has ended or its time is over.

Polls pass the limiter like every request, and ``lanes.py`` lets them take no more than a share of the rate: with many
unfinished backups each is asked the less often. A poll that fails is repeated. A slow backup is never requested again;
an aborted one is once, if that was asked for.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.engine.efforts import Effort, Watch
from orchestrator.engine.lanes import Queue
from orchestrator.engine.wire import effect_of
from orchestrator.errors import WriteError
from orchestrator.freshness import ABORTED, has_ended, merged
from orchestrator.marker import described_again
from orchestrator.model import ErrorInfo, ErrorKind, Fault, Made, OutcomeKind
from orchestrator.outcome import Answer, backoff, classify, error_info, error_kind
from orchestrator.pacing import Effect
from orchestrator.units import age_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.engine.core import Core
    from orchestrator.engine.lanes import Budget, Lane
    from orchestrator.engine.wire import Admitted
    from orchestrator.model import AttemptResult

OF_ANOTHER = "the answer shows another backup"

LAST_POLL_S = 2.0
"""How long after its time a backup's last poll may still be under way, beyond the polls of others that come first."""


class Watches:
    """Wait for backups."""

    def __init__(self, core: Core) -> None:
        """Poll over the wire of ``core``; without ``limits.wait``, only what is to be polled once."""
        self._wire = core.wire
        self._accounts = core.accounts
        self._ledger = core.ledger
        self._limits = core.limits
        self._around = core.around
        self._deadlines = Queue()
        self._changed = asyncio.Event()
        self._expiring: asyncio.Future[list[None]] | None = None

    async def accepted(self, admitted: Admitted, effort: Effort) -> None:
        """Wait for the backup that was made for ``effort``, or settle it as accepted if that is all that is wanted."""
        wait, backup = self._limits.wait, effort.made.backup
        if wait is None or backup is None:
            await self._ledger.settle(effort, OutcomeKind.ACCEPTED)
            return
        may_repeat = wait.retry_aborted and not effort.made.is_second
        effort.watch = Watch(backup, self._now() + wait.timeout_s, may_repeat=may_repeat)
        try:
            await self._around.journal.note(effort.standing())
        except WriteError as error:
            self._ledger.failed(error)
            await self._ledger.settle(effort, OutcomeKind.ACCEPTED)
            return
        await self.begin(admitted, effort)

    async def begin(self, admitted: Admitted, effort: Effort) -> None:
        """Poll for ``effort``, whose watch says what is waited for, from now on."""
        watch = effort.watch
        if watch is None:
            return
        if has_ended(watch.backup):
            await self._ended(admitted, effort, watch)
            return
        self.expires(admitted.budget, admitted.lane, effort, watch)
        await self._accounts.queue(admitted.lane, effort, self._next_s(watch))

    def expires(self, budget: Budget, lane: Lane, effort: Effort, watch: Watch) -> None:
        """See to it that ``effort`` is settled when its time is over, also if the limiter lets no poll through."""
        watch.budget, watch.lane = budget, lane
        self._deadlines.put(effort, watch.until)
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
            self._expiring = asyncio.gather(*(self._expired(effort, watch) for effort, watch in self._overdue()))
            await asyncio.shield(self._expiring)

    async def all_expired(self) -> None:
        """Return when what is being settled since its time is over has been."""
        if self._expiring:
            await asyncio.wait([self._expiring])

    def _overdue(self) -> Iterator[tuple[Effort, Watch]]:
        """Yield those whose time is over, last poll and all; not what is another watch by now."""
        now = self._now()
        while self._deadlines.is_due(now):
            effort = self._deadlines.pop()
            watch = effort.watch if isinstance(effort, Effort) else None
            if watch is None or not isinstance(effort, Effort) or watch.until > now:
                continue
            if watch.is_last:
                yield effort, watch
            else:
                self._poll_for_the_last_time(effort, watch)

    def _poll_for_the_last_time(self, effort: Effort, watch: Watch) -> None:
        """Let the last poll go first: in a large fleet its turn may not have come, though the backup is completed."""
        watch.is_last = True
        over_at = watch.until + LAST_POLL_S
        is_queued = watch.poller is None and not watch.is_polled_once
        if is_queued and watch.lane and watch.lane.stop is None and watch.budget:
            watch.lane.queue_last_poll(effort, self._now())
            watch.budget.changed.set()
            over_at += len(watch.lane.looks) / watch.budget.throttle.rate()
        self._deadlines.put(effort, over_at)

    async def _expired(self, effort: Effort, watch: Watch) -> None:
        if watch.poller:
            watch.poller.cancel()
        await self._give_up(effort, watch)

    async def poll(self, admitted: Admitted, effort: Effort, watch: Watch) -> None:
        """Ask once how the backup of ``effort`` stands, and do what follows."""
        lane = admitted.lane
        watch.poller = asyncio.current_task()
        call = lane.api.show_backup(effort.planned.request.install_id, watch.backup.id)
        result = await self._wire.send(admitted, call, is_read=True)
        watch.poller = None
        self._wire.tell(admitted, effect_of(classify(result)), result)
        if effort.is_settled:
            return
        if result.backup is None or result.backup.id.lower() != watch.backup.id.lower():
            await self._failed(admitted, effort, watch, result)
            return
        if not lane.has_requests:
            lane.unserved_since = None
        watch.backup, watch.failed, watch.error = merged(watch.backup, result.backup), 0, None
        if watch.is_own:
            effort.made = replace(effort.made, backup=watch.backup)
        if has_ended(watch.backup):
            await self._ended(admitted, effort, watch)
        elif watch.is_polled_once or self._now() >= watch.until:
            await self._give_up(effort, watch)
        else:
            await self._accounts.queue(lane, effort, self._next_s(watch))

    async def _ended(self, admitted: Admitted, effort: Effort, watch: Watch) -> None:
        if watch.backup.status != ABORTED:
            await self._completed(effort, watch)
            return
        self._around.log.info("backup.aborted", install=effort.planned.install.label, backup=watch.backup.id)
        if not watch.is_own:
            effort.watch = None
            await self._accounts.queue(admitted.lane, effort)
        elif watch.may_repeat:
            await self._request_again(admitted, effort, watch)
        else:
            effort.made = replace(effort.made, backup=watch.backup)
            await self._ledger.settle(effort, OutcomeKind.ABORTED)

    async def _completed(self, effort: Effort, watch: Watch) -> None:
        effort.made = replace(effort.made, backup=watch.backup)
        if watch.is_own:
            await self._ledger.settle(effort, OutcomeKind.COMPLETED)
        else:
            reason = "a recent backup was under way (--skip-if-recent); it was waited for, and is completed"
            await self._ledger.settle(effort, OutcomeKind.SKIPPED, reason=reason)

    async def _request_again(self, admitted: Admitted, effort: Effort, watch: Watch) -> None:
        request = effort.planned.request
        description = described_again(request.description, self._around.run_id)
        effort.planned = replace(effort.planned, request=replace(request, description=description))
        effort.made = Made(earlier=(*effort.made.earlier, watch.backup), is_second=True)
        effort.watch, effort.tries, effort.began_at = None, 0, None
        self._around.journal.note_soon(effort.standing())
        await self._accounts.queue(admitted.lane, effort)

    async def _failed(self, admitted: Admitted, effort: Effort, watch: Watch, result: AttemptResult) -> None:
        lane, answer = admitted.lane, classify(result)
        if result.fault is Fault.INTERRUPTED or answer is Answer.THROTTLED or result.on_reused:
            await self._accounts.queue(lane, effort)
        elif answer in {Answer.QUOTA, Answer.MISCONFIGURED}:
            lane.suspects.append((effort, result))
            await self._accounts.stop(admitted, error_kind(answer, result), result)
        else:
            await self._poll_again(lane, effort, watch, result)
        if watch.is_polled_once and effect_of(answer) is not Effect.SERVED:
            await self._accounts.stop_if_hopeless(admitted, answer, result)

    async def _poll_again(self, lane: Lane, effort: Effort, watch: Watch, result: AttemptResult) -> None:
        answer = classify(result)
        watch.failed += 1
        watch.error = error_info(error_kind(answer, result), result, OF_ANOTHER if result.backup else None)
        say = self._around.log.info if watch.failed == 1 else self._around.log.debug
        reason = watch.error.message
        say("backup.poll_failed", install=effort.planned.install.label, status=result.status, reason=reason)
        if watch.failed >= self._limits.retry.max_attempts if watch.is_polled_once else self._now() >= watch.until:
            await self._give_up(effort, watch)
        elif answer is Answer.CREDENTIALS:
            await self._accounts.suspect(lane, effort, result)
        else:
            after_s = max(backoff(watch.failed, self._around.clock.draw()), self._next_s(watch))
            await self._accounts.queue(lane, effort, after_s)

    async def _give_up(self, effort: Effort, watch: Watch) -> None:
        wait = self._limits.wait
        how_long = f" when the wait of {age_text(wait.timeout_s)} was over" if wait else ""
        message = f"still {watch.backup.status or 'unfinished'}{how_long}"
        if watch.error:
            message += f"; the last poll failed: {watch.error.message}"
        effort.made = replace(effort.made, backup=watch.backup)
        await self._ledger.settle(effort, OutcomeKind.INCOMPLETE, ErrorInfo(ErrorKind.TIMEOUT, message))
        if watch.budget:
            watch.budget.look_again()

    def _next_s(self, watch: Watch) -> float:
        """Return the seconds until the next poll, at least."""
        if self._limits.wait is None or watch.is_polled_once:
            return 0.0
        return max(0.0, min(self._limits.wait.poll_interval_s, watch.until - self._now()))

    def _now(self) -> float:
        return self._around.clock.monotonic()
