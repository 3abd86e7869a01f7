"""Recency checks: before a request, read the install's listing for a backup that is recent enough.

If the listing cannot be read, a backup is requested: one too many is better than none. Only the server's clock decides
how old a backup is. By this machine's clock, a remembered backup would stay recent if the clock was set back.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.engine.pending import TO_REQUEST, CompletionWait, PendingBackup, RecencyCheck
from orchestrator.engine.queues import AccountState
from orchestrator.freshness import NO_CLOCK, recent
from orchestrator.model import OutcomeKind
from orchestrator.outcome import counts_as_failed
from orchestrator.paging import Progress
from orchestrator.reconcile import decide_failed_read

if TYPE_CHECKING:
    from orchestrator.engine.accounts import Accounts
    from orchestrator.engine.completion import CompletionWaits
    from orchestrator.engine.context import DispatchContext
    from orchestrator.engine.exchange import Admitted, Exchanged
    from orchestrator.engine.ledger import Ledger, Settlement
    from orchestrator.engine.queues import AccountQueue
    from orchestrator.listings import Page
    from orchestrator.model import Backup


class RecencyChecks:
    """Find out which installs need no request."""

    def __init__(self, context: DispatchContext, accounts: Accounts, ledger: Ledger, waits: CompletionWaits) -> None:
        """Pass a recent backup that is under way to ``waits``."""
        self._context = context
        self._limits = context.limits
        self._accounts = accounts
        self._ledger = ledger
        self._waits = waits

    def skip_known(self, account: AccountQueue) -> None:
        """Skip each install of ``account`` whose known backup is recent by the server's clock; send nothing."""
        now_s, within_s = account.server_time(self._context.clock.monotonic()), self._limits.recent_s
        if account.state is not AccountState.OPEN or now_s is None or within_s is None:
            return
        settlements: list[Settlement] = []
        for _, work in account.reads:
            if isinstance(work, PendingBackup) and isinstance(work.state, RecencyCheck) and work.state.known:
                found = recent((work.state.known,), now_s, within_s)
                work.state.known = None
                if found:
                    work.made = replace(work.made, backup=found.backup)
                    settlements.append((work, OutcomeKind.SKIPPED, None, found.reason(within_s)))
        self._ledger.settle_all(settlements)

    async def check(self, admitted: Admitted, pending: PendingBackup, state: RecencyCheck) -> None:
        """Read one page of the listing of ``pending``, and act on it."""
        call = admitted.account.api.list_backups(pending.planned.request.install_id, state.cursor.offset)
        await self._accounts.read(admitted, pending, call, partial(self._follow, admitted, pending, state))

    async def _follow(
        self, admitted: Admitted, pending: PendingBackup, state: RecencyCheck, exchanged: Exchanged
    ) -> None:
        account, page = admitted.account, exchanged.result.page
        if page is None:
            self._failed(admitted, pending, state, exchanged)
            return
        state.failed = 0
        if not account.has_requests:
            account.unserved_since = None
        if self._is_read(state, page):
            self._conclude(admitted, pending, state)
        else:
            self._accounts.queue(account, pending)

    @staticmethod
    def _is_read(state: RecencyCheck, page: Page[Backup]) -> bool:
        """Record ``page``; tell whether it is the last one to read. An endless listing ends here."""
        progress = state.cursor.after(page)
        if progress is Progress.CHANGED:
            state.backups.clear()
            return False
        state.backups += page.entries
        return progress is not Progress.MORE

    def _conclude(self, admitted: Admitted, pending: PendingBackup, state: RecencyCheck) -> None:
        """Skip ``pending``, wait for a recent backup that is under way, or request a new one."""
        within_s, policy = self._limits.recent_s or 0.0, self._limits.wait
        now = self._context.clock.monotonic()
        now_s = admitted.account.server_time(now)
        if now_s is None:
            self._say_unchecked(pending, NO_CLOCK.message)
        found = recent(state.backups, now_s, within_s)
        if found is None:
            self._request(admitted.account, pending)
        elif found.is_completed or policy is None:
            pending.made = replace(pending.made, backup=found.backup)
            self._ledger.settle(pending, OutcomeKind.SKIPPED, reason=found.reason(within_s))
        else:
            pending.state = wait = CompletionWait(found.backup, now + policy.timeout_s, is_own=False)
            self._waits.begin(admitted, pending, wait)

    def _request(self, account: AccountQueue, pending: PendingBackup) -> None:
        pending.state = TO_REQUEST
        why = account.stop or self._ledger.closed
        if why:
            self._ledger.cancel(pending, why)
        else:
            account.fresh.append(pending)

    def _say_unchecked(self, pending: PendingBackup, reason: str) -> None:
        self._context.log.warning("backup.not_screened", install=pending.planned.install.label, reason=reason)

    def _failed(self, admitted: Admitted, pending: PendingBackup, state: RecencyCheck, exchanged: Exchanged) -> None:
        state.failed += counts_as_failed(exchanged.answer, exchanged.result)
        draw = self._context.clock.draw()
        decision = decide_failed_read(exchanged.answer, state.failed, self._limits.retry, draw)
        if self._accounts.is_given_up(admitted, pending, exchanged, decision):
            self._say_unchecked(pending, exchanged.result.message)
            self._request(admitted.account, pending)
