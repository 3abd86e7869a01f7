"""Lookups: read the listing of an install in doubt for the marker, at once and again after the grace.

Each page is one request that passes the limiter. If the listing shows no marker and that proves nothing yet, the lookup
reads the listing of the specimen, the first install whose backup was accepted. The specimen's listing shows whether
markers come back at all. ``reconcile.py`` decides.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from orchestrator.engine.pending import InDoubt, ListingRead
from orchestrator.outcome import Answer, Step, counts_as_failed, decide_absent, error_info, error_kind
from orchestrator.paging import MOST_PAGES, Progress
from orchestrator.reconcile import Fate, Sight, Sought, decide_failed_read, fate_of, seen
from orchestrator.units import seconds_of
from orchestrator.value import replace

if TYPE_CHECKING:
    from orchestrator.engine.accounts import Accounts
    from orchestrator.engine.completion import CompletionWaits
    from orchestrator.engine.context import DispatchContext
    from orchestrator.engine.exchange import Admitted, Exchanged
    from orchestrator.engine.ledger import Ledger
    from orchestrator.engine.pending import PendingBackup
    from orchestrator.engine.queues import AccountQueue
    from orchestrator.listings import Page
    from orchestrator.model import AttemptResult, Backup

SPECIMEN_WAIT_S = 5.0
"""Minimum seconds that other lookups wait before they look again, while one reads the specimen's listing."""


class Lookups:
    """Settle backups in doubt."""

    def __init__(self, context: DispatchContext, accounts: Accounts, ledger: Ledger, waits: CompletionWaits) -> None:
        """Pass the backups that exist to ``waits``."""
        self._context = context
        self._accounts = accounts
        self._ledger = ledger
        self._waits = waits
        self._grace_s = context.limits.reconcile.grace_s

    async def accepted(self, admitted: Admitted, pending: PendingBackup, result: AttemptResult) -> None:
        """Record the backup that ``result`` shows. The account's first such install becomes the specimen."""
        account = admitted.account
        if account.specimen is None:
            account.specimen = (pending.planned.request.install_id, self._now())
        created_at = seconds_of(result.backup.create_time) if result.backup else None
        if created_at is not None and result.server_at is not None:
            account.backend_behind_s = max(account.backend_behind_s, result.server_at - created_at)
        pending.made = replace(pending.made, backup=result.backup)
        await self._waits.accepted(admitted, pending)

    def doubt(self, account: AccountQueue, pending: PendingBackup, exchanged: Exchanged) -> None:
        """Start the lookup for ``pending``: the answer left open whether a backup exists."""
        answer, result, now = exchanged.answer, exchanged.result, self._now()
        error = error_info(error_kind(answer, result), result)
        pending.state = doubt = InDoubt(error, now, answer is not Answer.UNREADABLE, account.server_time(now))
        self._context.journal.note_soon(pending.checkpoint())
        if not self._context.limits.reconcile.looks and not account.stop:
            self._ledger.leave_open(pending, doubt, "not looked up (on_ambiguous: fail)")
            return
        self._log("backup.doubted", pending, status=result.status, reason=result.message)
        self._accounts.queue(account, pending)

    async def look_up(self, admitted: Admitted, pending: PendingBackup, doubt: InDoubt) -> None:
        """Read one page of a listing for ``pending``, and act on it."""
        if doubt.own is None:
            doubt.own = ListingRead(pending.planned.request.install_id, self._now())
        listing = doubt.specimen or doubt.own
        call = admitted.account.api.list_backups(listing.install_id, listing.cursor.offset)
        await self._accounts.read(admitted, pending, call, partial(self._follow, admitted, pending, doubt))

    async def _follow(self, admitted: Admitted, pending: PendingBackup, doubt: InDoubt, exchanged: Exchanged) -> None:
        account, own = admitted.account, doubt.own
        if exchanged.result.page is None or own is None:
            self._failed(admitted, pending, doubt, exchanged)
            return
        doubt.failed = 0
        if not account.fresh:
            account.unserved_since = None
        if doubt.specimen:
            self._specimen_page(admitted, pending, doubt, exchanged.result.page)
        else:
            await self._own_page(admitted, pending, doubt, exchanged.result.page)

    def _seen(self, account: AccountQueue, listing: ListingRead, page: Page[Backup], sought: Sought) -> Progress:
        """Record ``page``, and return the progress of reading ``listing``."""
        progress = listing.cursor.after(page)
        if progress is Progress.CHANGED:
            listing.sight = Sight()
        else:
            listing.sight = seen(listing.sight, page.entries, sought)
        if listing.sight.has_markers:
            account.markers_come_back = True
        return progress

    async def _own_page(self, admitted: Admitted, pending: PendingBackup, doubt: InDoubt, page: Page[Backup]) -> None:
        account, own = admitted.account, doubt.own
        if own is None:
            return
        progress = self._seen(account, own, page, pending.looked_for(account.backend_behind_s))
        if own.sight.found:
            await self._found(admitted, pending, own.sight)
        elif account.stop:
            self._ledger.cancel(pending, account.stop)
        elif progress.is_whole:
            self._conclude(admitted, pending, doubt, own)
        elif progress is Progress.ENDLESS:
            self._ledger.leave_open(pending, doubt, f"its listing does not end within {MOST_PAGES} pages")
        else:
            self._accounts.queue(account, pending)

    def _specimen_page(self, admitted: Admitted, pending: PendingBackup, doubt: InDoubt, page: Page[Backup]) -> None:
        account, own, specimen = admitted.account, doubt.own, doubt.specimen
        if own is None or specimen is None:
            return
        progress = self._seen(account, specimen, page, Sought((self._context.run_id,), None, ""))
        is_enough = progress.is_whole or account.markers_come_back is not None
        if progress is Progress.ENDLESS and not is_enough:
            account.markers_come_back = False
        if account.stop:
            self._ledger.cancel(pending, account.stop)
        elif is_enough or progress is Progress.ENDLESS:
            self._conclude(admitted, pending, doubt, own)
        else:
            self._accounts.queue(account, pending)

    def _conclude(self, admitted: Admitted, pending: PendingBackup, doubt: InDoubt, own: ListingRead) -> None:
        """Decide by the install's own listing, which was read whole, or have the specimen's listing read first."""
        account = admitted.account
        over_at = self._over_at(account, doubt)
        is_over = over_at <= own.began_at
        fate = fate_of(own.sight, markers_come_back=account.markers_come_back is True)
        is_specimen_of_use = fate is Fate.OPEN and not own.sight.has_markers
        if is_specimen_of_use and self._waits_for_specimen(account, pending, doubt, is_over=is_over):
            return
        if not is_over:
            self._look_again(account, pending, doubt, over_at)
        elif fate is Fate.ABSENT and doubt.may_repeat:
            self._absent(admitted, pending, doubt)
        elif fate is Fate.ABSENT:
            self._ledger.leave_open(pending, doubt, "its listing does not show the backup")
        else:
            why = "its listing proves nothing: it shows a backup that has no marker and may come from this run"
            self._ledger.leave_open(pending, doubt, why)

    def _waits_for_specimen(
        self, account: AccountQueue, pending: PendingBackup, doubt: InDoubt, *, is_over: bool
    ) -> bool:
        """Queue ``pending`` if the specimen's listing can still show whether markers come back; tell if it was queued.

        One backup in doubt reads that listing for all, at once and again when the specimen's own grace is over.
        """
        if account.specimen is None or account.markers_come_back is not None:
            return False
        (install_id, accepted_at), now = account.specimen, self._now()
        ripe_at, looked_at = accepted_at + self._grace_s, account.specimen_looked_at
        if doubt.specimen is not None and doubt.specimen.began_at >= ripe_at:
            account.markers_come_back = False
            return False
        if doubt.specimen is None and (looked_at is None or (is_over and looked_at < ripe_at <= now)):
            doubt.specimen, account.specimen_looked_at = ListingRead(install_id, now), now
            self._accounts.queue(account, pending)
            return True
        if is_over:
            self._look_again(account, pending, doubt, max(ripe_at, now + SPECIMEN_WAIT_S))
        return is_over

    async def _found(self, admitted: Admitted, pending: PendingBackup, sight: Sight) -> None:
        found = tuple(sorted(sight.found, key=lambda backup: backup.status == "aborted"))
        self._log("backup.found", pending, backup=found[0].id)
        if len(found) > 1:
            install, ids = pending.planned.install.label, [backup.id for backup in found]
            self._context.log.error("backup.made_twice", install=install, backups=ids)
        made = pending.made
        pending.made = replace(made, backup=found[0], is_reconciled=True, earlier=(*made.earlier, *found[1:]))
        pending.nothing_is_open()
        await self._waits.accepted(admitted, pending)

    def _absent(self, admitted: Admitted, pending: PendingBackup, doubt: InDoubt) -> None:
        self._log("backup.absent", pending)
        pending.nothing_is_open()
        self._context.journal.note_soon(pending.checkpoint())
        spent = pending.expense(self._now(), admitted.budget.throttle.held_s())
        decision = decide_absent(spent, self._context.limits.retry)
        if decision.step is Step.AGAIN:
            self._accounts.queue(admitted.account, pending, decision.after_s)
        else:
            self._ledger.settle(pending, decision.outcome, doubt.error)

    def _failed(self, admitted: Admitted, pending: PendingBackup, doubt: InDoubt, exchanged: Exchanged) -> None:
        account, result, draw = admitted.account, exchanged.result, self._context.clock.draw()
        doubt.failed += counts_as_failed(exchanged.answer, result)
        is_over = self._over_at(account, doubt) <= self._now()
        retry = self._context.limits.retry
        decision = decide_failed_read(exchanged.answer, doubt.failed, retry, draw, is_over=is_over)
        if not self._accounts.is_given_up(admitted, pending, exchanged, decision):
            return
        if doubt.specimen and doubt.own:
            account.markers_come_back = False
            self._conclude(admitted, pending, doubt, doubt.own)
        else:
            self._ledger.leave_open(pending, doubt, f"its listing cannot be read ({result.message})")

    def _look_again(self, account: AccountQueue, pending: PendingBackup, doubt: InDoubt, at: float) -> None:
        again_in_s = max(0.0, at - self._now())
        self._log("backup.not_listed_yet", pending, again_in_s=round(again_in_s, 1))
        doubt.own = doubt.specimen = None
        self._accounts.queue(account, pending, again_in_s)

    def _over_at(self, account: AccountQueue, doubt: InDoubt) -> float:
        """Return the monotonic instant at which the grace is over."""
        over_at = doubt.since + self._grace_s
        if not doubt.is_inherited or doubt.server_since is None or account.server_ahead_s is None:
            return over_at
        return min(over_at, doubt.server_since + self._grace_s - account.server_ahead_s)

    def _now(self) -> float:
        return self._context.clock.monotonic()

    def _log(self, event: str, pending: PendingBackup, **fields: object) -> None:
        self._context.log.info(event, install=pending.planned.install.label, **fields)
