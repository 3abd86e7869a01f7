"""Screens: an install's listing is read before anything is requested, for a backup that is recent enough.

Where it cannot be had, a backup is requested: one too many is better than none. How old a backup is, the server's clock
alone decides: what this machine remembers would be recent for ever after its clock was set back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.engine.exchange import effect_of
from orchestrator.engine.pending import CompletionWait, PendingBackup
from orchestrator.engine.queues import AccountQueue, AccountState
from orchestrator.freshness import NO_CLOCK, recent
from orchestrator.model import Fault, OutcomeKind
from orchestrator.outcome import Step, classify, counts_as_failed, error_kind
from orchestrator.pacing import Effect
from orchestrator.reconcile import MOST_PAGES, decide_failed_read

if TYPE_CHECKING:
    from orchestrator.engine.completion import CompletionWaits
    from orchestrator.engine.core import Core
    from orchestrator.engine.exchange import Admitted
    from orchestrator.engine.pending import RecencyCheck
    from orchestrator.listings import Page
    from orchestrator.model import AttemptResult, Backup, ErrorInfo


class RecencyChecks:
    """Find out which installs need no request."""

    def __init__(self, core: Core, watches: CompletionWaits) -> None:
        """Leave a backup that is to be waited for to ``watches``."""
        self._wire = core.wire
        self._accounts = core.accounts
        self._ledger = core.ledger
        self._limits = core.limits
        self._around = core.context
        self._watches = watches

    async def skip_known(self, account: AccountQueue) -> None:
        """Skip each install of ``account`` whose known backup is recent by the server's clock; no request is needed."""
        now_s, within_s = account.server_time(self._around.clock.monotonic()), self._limits.recent_s
        if account.state is not AccountState.OPEN or now_s is None or within_s is None:
            return
        outcomes: list[tuple[PendingBackup, OutcomeKind, ErrorInfo | None, str | None]] = []
        for _, work in account.reads:
            if isinstance(work, PendingBackup) and work.screen and work.screen.known:
                found = recent((work.screen.known,), now_s, within_s)
                work.screen.known = None
                if found:
                    work.made = replace(work.made, backup=found.backup)
                    outcomes.append((work, OutcomeKind.SKIPPED, None, found.said(within_s)))
        await self._ledger.settle_all(outcomes)

    async def screen(self, admitted: Admitted, pending: PendingBackup, screen: RecencyCheck) -> None:
        """Read one page of the listing of ``pending``, and do what follows."""
        account, install_id = admitted.account, pending.planned.request.install_id
        result = await self._wire.send(admitted, account.api.list_backups(install_id, screen.offset), is_read=True)
        answer = classify(result)
        self._wire.tell(admitted, effect_of(answer), result)
        if result.fault is Fault.INTERRUPTED:
            await self._accounts.queue(account, pending)
        elif result.page is not None:
            screen.failed = 0
            if not account.has_requests:
                account.unserved_since = None
            await self._page(account, pending, screen, result.page)
            if pending.watch:
                await self._watches.begin(admitted, pending)
        else:
            await self._failed(admitted, pending, screen, result)
        if effect_of(answer) is not Effect.SERVED:
            await self._accounts.stop_if_hopeless(admitted, answer, result)

    async def _page(
        self, account: AccountQueue, pending: PendingBackup, screen: RecencyCheck, page: Page[Backup]
    ) -> None:
        screen.pages += 1
        has_news = bool(page.entries) and page.entries[-1:] != tuple(screen.backups[-1:])
        screen.backups += page.entries
        if page.next_offset is not None and has_news and screen.pages < MOST_PAGES:
            screen.offset = page.next_offset
            await self._accounts.queue(account, pending)
            return
        pending.screen = None
        within_s = self._limits.recent_s or 0.0
        now = self._around.clock.monotonic()
        now_s = account.server_time(now)
        if now_s is None:
            self._say_unscreened(pending, NO_CLOCK.message)
        found = recent(screen.backups, now_s, within_s)
        if found is None:
            await self._request(account, pending)
        elif found.is_completed or self._limits.wait is None:
            pending.made = replace(pending.made, backup=found.backup)
            await self._ledger.settle(pending, OutcomeKind.SKIPPED, reason=found.said(within_s))
        else:
            pending.watch = CompletionWait(found.backup, now + self._limits.wait.timeout_s, is_own=False)

    async def _request(self, account: AccountQueue, pending: PendingBackup) -> None:
        why = account.stop or self._ledger.closed
        if why:
            await self._ledger.cancel(pending, why)
        else:
            account.fresh.append(pending)

    def _say_unscreened(self, pending: PendingBackup, reason: str) -> None:
        self._around.log.warning("backup.not_screened", install=pending.planned.install.label, reason=reason)

    async def _failed(
        self, admitted: Admitted, pending: PendingBackup, screen: RecencyCheck, result: AttemptResult
    ) -> None:
        account, answer = admitted.account, classify(result)
        screen.failed += counts_as_failed(answer, result)
        decision = decide_failed_read(answer, screen.failed, self._limits.retry, self._around.clock.draw())
        match decision.step:
            case Step.AGAIN:
                await self._accounts.queue(account, pending, decision.after_s)
            case Step.CHECK_CREDENTIALS:
                await self._accounts.suspect(account, pending, result)
            case Step.STOP_ACCOUNT:
                account.suspects.append((pending, result))
                await self._accounts.stop(admitted, error_kind(answer, result), result)
            case _:
                pending.screen = None
                self._say_unscreened(pending, result.message)
                await self._request(account, pending)
