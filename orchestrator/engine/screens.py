"""Screens: an install's listing is read before anything is requested, for a backup that is recent enough.

Where it cannot be had, a backup is requested: one too many is better than none. How old a backup is, the server's clock
alone decides: what this machine remembers would be recent for ever after its clock was set back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.engine.efforts import Effort, Watch
from orchestrator.engine.lanes import Lane, LaneState
from orchestrator.engine.wire import effect_of
from orchestrator.freshness import NO_CLOCK, recent
from orchestrator.model import Fault, OutcomeKind
from orchestrator.outcome import Step, classify, counts_as_failed, error_kind
from orchestrator.pacing import Effect
from orchestrator.reconcile import MOST_PAGES, decide_failed_read

if TYPE_CHECKING:
    from orchestrator.engine.core import Core
    from orchestrator.engine.efforts import Screen
    from orchestrator.engine.watches import Watches
    from orchestrator.engine.wire import Admitted
    from orchestrator.inventory import Page
    from orchestrator.model import AttemptResult, Backup, ErrorInfo


class Screens:
    """Find out which installs need no request."""

    def __init__(self, core: Core, watches: Watches) -> None:
        """Leave a backup that is to be waited for to ``watches``."""
        self._wire = core.wire
        self._accounts = core.accounts
        self._ledger = core.ledger
        self._limits = core.limits
        self._around = core.around
        self._watches = watches

    async def skip_known(self, lane: Lane) -> None:
        """Skip each install of ``lane`` whose known backup is recent by the server's clock; no request is needed."""
        now_s, within_s = lane.server_time(self._around.clock.monotonic()), self._limits.recent_s
        if lane.state is not LaneState.OPEN or now_s is None or within_s is None:
            return
        outcomes: list[tuple[Effort, OutcomeKind, ErrorInfo | None, str | None]] = []
        for _, work in lane.reads:
            if isinstance(work, Effort) and work.screen and work.screen.known:
                found = recent((work.screen.known,), now_s, within_s)
                work.screen.known = None
                if found:
                    work.made = replace(work.made, backup=found.backup)
                    outcomes.append((work, OutcomeKind.SKIPPED, None, found.said(within_s)))
        await self._ledger.settle_all(outcomes)

    async def screen(self, admitted: Admitted, effort: Effort, screen: Screen) -> None:
        """Read one page of the listing of ``effort``, and do what follows."""
        lane, install_id = admitted.lane, effort.planned.request.install_id
        result = await self._wire.send(admitted, lane.api.list_backups(install_id, screen.offset), is_read=True)
        answer = classify(result)
        self._wire.tell(admitted, effect_of(answer), result)
        if result.fault is Fault.INTERRUPTED:
            await self._accounts.queue(lane, effort)
        elif result.page is not None:
            screen.failed = 0
            if not lane.has_requests:
                lane.unserved_since = None
            await self._page(lane, effort, screen, result.page)
            if effort.watch:
                await self._watches.begin(admitted, effort)
        else:
            await self._failed(admitted, effort, screen, result)
        if effect_of(answer) is not Effect.SERVED:
            await self._accounts.stop_if_hopeless(admitted, answer, result)

    async def _page(self, lane: Lane, effort: Effort, screen: Screen, page: Page[Backup]) -> None:
        screen.pages += 1
        has_news = bool(page.entries) and page.entries[-1:] != tuple(screen.backups[-1:])
        screen.backups += page.entries
        if page.next_offset is not None and has_news and screen.pages < MOST_PAGES:
            screen.offset = page.next_offset
            await self._accounts.queue(lane, effort)
            return
        effort.screen = None
        within_s = self._limits.recent_s or 0.0
        now = self._around.clock.monotonic()
        now_s = lane.server_time(now)
        if now_s is None:
            self._say_unscreened(effort, NO_CLOCK.message)
        found = recent(screen.backups, now_s, within_s)
        if found is None:
            await self._request(lane, effort)
        elif found.is_completed or self._limits.wait is None:
            effort.made = replace(effort.made, backup=found.backup)
            await self._ledger.settle(effort, OutcomeKind.SKIPPED, reason=found.said(within_s))
        else:
            effort.watch = Watch(found.backup, now + self._limits.wait.timeout_s, is_own=False)

    async def _request(self, lane: Lane, effort: Effort) -> None:
        why = lane.stop or self._ledger.closed
        if why:
            await self._ledger.cancel(effort, why)
        else:
            lane.fresh.append(effort)

    def _say_unscreened(self, effort: Effort, reason: str) -> None:
        self._around.log.warning("backup.not_screened", install=effort.planned.install.label, reason=reason)

    async def _failed(self, admitted: Admitted, effort: Effort, screen: Screen, result: AttemptResult) -> None:
        lane, answer = admitted.lane, classify(result)
        screen.failed += counts_as_failed(answer, result)
        verdict = decide_failed_read(answer, screen.failed, self._limits.retry, self._around.clock.draw())
        match verdict.step:
            case Step.AGAIN:
                await self._accounts.queue(lane, effort, verdict.after_s)
            case Step.CHECK_CREDENTIALS:
                await self._accounts.suspect(lane, effort, result)
            case Step.STOP_ACCOUNT:
                lane.suspects.append((effort, result))
                await self._accounts.stop(admitted, error_kind(answer, result), result)
            case _:
                effort.screen = None
                self._say_unscreened(effort, result.message)
                await self._request(lane, effort)
