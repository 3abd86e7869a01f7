"""What is open is looked up: the install's listing is read for the marker, at once and again after the grace.

Each page is one request that passes the limiter. Where the listing shows nothing and that proves nothing yet, the
listing of the first install whose backup was accepted tells whether markers come back at all. ``reconcile.py`` decides.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.engine.exchange import effect_of
from orchestrator.engine.pending import InDoubt, Reading
from orchestrator.model import Fault
from orchestrator.outcome import Answer, Step, classify, counts_as_failed, decide_absent, error_info, error_kind
from orchestrator.pacing import Effect
from orchestrator.reconcile import MOST_PAGES, Fate, Sought, decide_failed_read, fate_of, seen
from orchestrator.units import seconds_of

if TYPE_CHECKING:
    from orchestrator.engine.completion import CompletionWaits
    from orchestrator.engine.core import Core
    from orchestrator.engine.exchange import Admitted
    from orchestrator.engine.pending import PendingBackup
    from orchestrator.engine.queues import AccountQueue
    from orchestrator.listings import Page
    from orchestrator.model import AttemptResult, Backup

SPECIMEN_WAIT_S = 5.0
"""How long the others wait for the one that reads the specimen's listing, before they look again."""


class Lookups:
    """Settle what is open."""

    def __init__(self, core: Core, watches: CompletionWaits) -> None:
        """Leave what is found to ``watches``."""
        self._wire = core.wire
        self._accounts = core.accounts
        self._ledger = core.ledger
        self._limits = core.limits
        self._around = core.context
        self._watches = watches
        self._grace_s = core.limits.reconcile.grace_s

    def has_specimen(self, account: AccountQueue, pending: PendingBackup, result: AttemptResult) -> None:
        """Remember the account's first accepted backup, and how far ``create_time`` is behind the answers' clock."""
        if account.specimen is None:
            account.specimen = (pending.planned.request.install_id, self._now())
        created_at = seconds_of(result.backup.create_time) if result.backup else None
        if created_at is not None and result.server_at is not None:
            account.backend_behind_s = max(account.backend_behind_s, result.server_at - created_at)

    async def doubt(self, account: AccountQueue, pending: PendingBackup, result: AttemptResult) -> None:
        """Begin to look for the backup of ``pending``, whose fate ``result`` left open."""
        answer = classify(result)
        error = error_info(error_kind(answer, result), result)
        now = self._now()
        pending.doubt = InDoubt(error, now, answer is not Answer.UNREADABLE, account.server_time(now))
        self._around.journal.note_soon(pending.checkpoint())
        if not self._limits.reconcile.looks and not account.stop:
            await self._ledger.leave_open(pending, "not looked up (on_ambiguous: fail)")
            return
        self._log("backup.doubted", pending, status=result.status, reason=result.message)
        await self._accounts.queue(account, pending)

    async def look(self, admitted: Admitted, pending: PendingBackup, doubt: InDoubt) -> None:
        """Read one page for ``pending``, and do what follows."""
        account, now = admitted.account, self._now()
        if doubt.own is None:
            doubt.own = Reading(pending.planned.request.install_id, now)
        reading = doubt.specimen or doubt.own
        result = await self._wire.send(
            admitted, account.api.list_backups(reading.install_id, reading.offset), is_read=True
        )
        answer = classify(result)
        self._wire.tell(admitted, effect_of(answer), result)
        if result.fault is Fault.INTERRUPTED:
            account.queue(pending, now)
        elif result.page is not None:
            doubt.failed = 0
            if not account.fresh:
                account.unserved_since = None
            await self._page(admitted, pending, doubt, result.page)
        elif account.stop:
            await self._ledger.cancel(pending, account.stop)
        else:
            await self._failed(admitted, pending, doubt, result)
        if effect_of(answer) is not Effect.SERVED:
            await self._accounts.stop_if_hopeless(admitted, answer, result)

    async def _page(self, admitted: Admitted, pending: PendingBackup, doubt: InDoubt, page: Page[Backup]) -> None:
        account = admitted.account
        reading = doubt.specimen or doubt.own
        if reading is None:
            return
        is_own = reading is doubt.own
        if self._has_shifted(reading, page):
            await self._accounts.queue(account, pending)
            return
        sought = pending.looked_for(account.backend_behind_s) if is_own else Sought((self._around.run_id,), None, "")
        reading.sight = seen(reading.sight, page.entries, sought)
        ids = tuple(backup.id for backup in page.entries)
        is_repeated, reading.last, reading.total = bool(ids) and ids == reading.last, ids, page.total
        if reading.sight.has_markers:
            account.markers_come_back = True
        is_enough = bool(reading.sight.found) or not (is_own or account.markers_come_back is None)
        if account.stop and not (is_own and reading.sight.found):
            await self._ledger.cancel(pending, account.stop)
        elif page.next_offset is None or is_enough or is_repeated:
            await self._conclude(admitted, pending, doubt)
        elif reading.pages < MOST_PAGES:
            reading.offset = page.next_offset
            account.queue(pending, self._now())
        elif is_own:
            await self._ledger.leave_open(pending, f"its listing has no end ({MOST_PAGES} pages)")
        else:
            account.markers_come_back = False
            await self._conclude(admitted, pending, doubt)

    def _has_shifted(self, reading: Reading, page: Page[Backup]) -> bool:
        """Tell whether entries came or went since the last page, so that one may have been missed, and begin anew."""
        reading.pages += 1
        if page.total is None or reading.total is None or page.total == reading.total or reading.pages >= MOST_PAGES:
            return False
        reading.begin_anew()
        return True

    async def _conclude(self, admitted: Admitted, pending: PendingBackup, doubt: InDoubt) -> None:
        """Decide by the install's own listing, which was read whole, or send for the specimen's first."""
        account = admitted.account
        own = doubt.own
        if own is None:
            return
        if own.sight.found:
            await self._found(admitted, pending, own)
            return
        is_over = self._over_at(account, doubt) <= own.began_at
        fate = fate_of(own.sight, markers_come_back=account.markers_come_back is True)
        if (
            fate is Fate.OPEN
            and not own.sight.has_markers
            and self._waits_for_specimen(account, pending, doubt, is_over)
        ):
            return
        if not is_over:
            self._look_again(account, pending, doubt, self._over_at(account, doubt))
        elif fate is Fate.ABSENT and doubt.may_repeat:
            await self._absent(admitted, pending, doubt)
        elif fate is Fate.ABSENT:
            await self._ledger.leave_open(pending, "its listing does not show the backup")
        else:
            await self._ledger.leave_open(pending, "its listing proves nothing: it does not show our markers")

    def _waits_for_specimen(self, account: AccountQueue, pending: PendingBackup, doubt: InDoubt, is_over: bool) -> bool:  # noqa: FBT001 - a fact
        """Queue ``pending`` if the specimen's listing could still tell whether markers come back; tell whether it was.

        One effort reads it for all, at once and again when the specimen's own grace is over.
        """
        if account.specimen is None or account.markers_come_back is not None:
            return False
        (install_id, accepted_at), now = account.specimen, self._now()
        ripe_at, looked_at = accepted_at + self._grace_s, account.specimen_looked_at
        if doubt.specimen is not None and doubt.specimen.began_at >= ripe_at:
            account.markers_come_back = False
            return False
        if doubt.specimen is None and (looked_at is None or (is_over and looked_at < ripe_at <= now)):
            doubt.specimen, account.specimen_looked_at = Reading(install_id, now), now
            account.queue(pending, now)
            return True
        if is_over:
            self._look_again(account, pending, doubt, max(ripe_at, now + SPECIMEN_WAIT_S))
        return is_over

    async def _found(self, admitted: Admitted, pending: PendingBackup, own: Reading) -> None:
        found = tuple(sorted(own.sight.found, key=lambda backup: backup.status == "aborted"))
        self._log("backup.found", pending, backup=found[0].id)
        if len(found) > 1:
            self._around.log.error(
                "backup.made_twice", install=pending.planned.install.label, backups=[backup.id for backup in found]
            )
        made = pending.made
        pending.made = replace(made, backup=found[0], is_reconciled=True, earlier=(*made.earlier, *found[1:]))
        pending.end_doubt()
        await self._watches.accepted(admitted, pending)

    async def _absent(self, admitted: Admitted, pending: PendingBackup, doubt: InDoubt) -> None:
        self._log("backup.absent", pending)
        pending.end_doubt()
        self._around.journal.note_soon(pending.checkpoint())
        spent = pending.expense(self._now(), admitted.budget.throttle.held_s())
        decision = decide_absent(spent, self._limits.retry)
        if decision.step is Step.AGAIN:
            await self._accounts.queue(admitted.account, pending, decision.after_s)
        else:
            await self._ledger.settle(pending, decision.outcome, doubt.error)

    async def _failed(self, admitted: Admitted, pending: PendingBackup, doubt: InDoubt, result: AttemptResult) -> None:
        account, answer = admitted.account, classify(result)
        doubt.failed += counts_as_failed(answer, result)
        is_over = self._over_at(account, doubt) <= self._now()
        decision = decide_failed_read(
            answer, doubt.failed, self._limits.retry, self._around.clock.draw(), is_over=is_over
        )
        match decision.step:
            case Step.AGAIN:
                account.queue(pending, self._now() + decision.after_s)
            case Step.CHECK_CREDENTIALS:
                await self._accounts.suspect(account, pending, result)
            case Step.STOP_ACCOUNT:
                account.suspects.append((pending, result))
                await self._accounts.stop(admitted, error_kind(answer, result), result)
            case _ if doubt.specimen:
                account.markers_come_back = False
                await self._conclude(admitted, pending, doubt)
            case _:
                await self._ledger.leave_open(pending, f"its listing cannot be had ({result.message})")

    def _look_again(self, account: AccountQueue, pending: PendingBackup, doubt: InDoubt, at: float) -> None:
        self._log("backup.not_listed_yet", pending, again_in_s=round(max(0.0, at - self._now()), 1))
        doubt.own = doubt.specimen = None
        account.queue(pending, at)

    def _over_at(self, account: AccountQueue, doubt: InDoubt) -> float:
        """Return the monotonic instant at which the grace is over."""
        over_at = doubt.since + self._grace_s
        if not doubt.is_inherited or doubt.server_since is None or account.server_ahead_s is None:
            return over_at
        return min(over_at, doubt.server_since + self._grace_s - account.server_ahead_s)

    def _now(self) -> float:
        return self._around.clock.monotonic()

    def _log(self, event: str, pending: PendingBackup, **fields: object) -> None:
        self._around.log.info(event, install=pending.planned.install.label, **fields)
