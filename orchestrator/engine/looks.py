"""What is open is looked up: the install's listing is read for the marker, at once and again after the grace.

Each page is one request that passes the limiter. Where the listing shows nothing and that proves nothing yet, the
listing of the first install whose backup was accepted tells whether markers come back at all. ``reconcile.py`` decides.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.engine.efforts import Doubt, Reading
from orchestrator.engine.wire import effect_of
from orchestrator.model import Fault
from orchestrator.outcome import Answer, Step, classify, counts_as_failed, decide_absent, error_info, error_kind
from orchestrator.pacing import Effect
from orchestrator.reconcile import MOST_PAGES, Fate, Sought, decide_failed_read, fate_of, seen
from orchestrator.units import seconds_of

if TYPE_CHECKING:
    from orchestrator.engine.core import Core
    from orchestrator.engine.efforts import Effort
    from orchestrator.engine.lanes import Lane
    from orchestrator.engine.watches import Watches
    from orchestrator.engine.wire import Admitted
    from orchestrator.inventory import Page
    from orchestrator.model import AttemptResult, Backup

SPECIMEN_WAIT_S = 5.0
"""How long the others wait for the one that reads the specimen's listing, before they look again."""


class Looks:
    """Settle what is open."""

    def __init__(self, core: Core, watches: Watches) -> None:
        """Leave what is found to ``watches``."""
        self._wire = core.wire
        self._accounts = core.accounts
        self._ledger = core.ledger
        self._limits = core.limits
        self._around = core.around
        self._watches = watches
        self._grace_s = core.limits.reconcile.grace_s

    def has_specimen(self, lane: Lane, effort: Effort, result: AttemptResult) -> None:
        """Remember the account's first accepted backup, and how far ``create_time`` is behind the answers' clock."""
        if lane.specimen is None:
            lane.specimen = (effort.planned.request.install_id, self._now())
        created_at = seconds_of(result.backup.create_time) if result.backup else None
        if created_at is not None and result.server_at is not None:
            lane.backend_behind_s = max(lane.backend_behind_s, result.server_at - created_at)

    async def doubt(self, lane: Lane, effort: Effort, result: AttemptResult) -> None:
        """Begin to look for the backup of ``effort``, whose fate ``result`` left open."""
        answer = classify(result)
        error = error_info(error_kind(answer, result), result)
        now = self._now()
        effort.doubt = Doubt(error, now, answer is not Answer.UNREADABLE, lane.server_time(now))
        self._around.journal.note_soon(effort.standing())
        if not self._limits.reconcile.looks and not lane.stop:
            await self._ledger.leave_open(effort, "not looked up (on_ambiguous: fail)")
            return
        self._log("backup.doubted", effort, status=result.status, reason=result.message)
        await self._accounts.queue(lane, effort)

    async def look(self, admitted: Admitted, effort: Effort, doubt: Doubt) -> None:
        """Read one page for ``effort``, and do what follows."""
        lane, now = admitted.lane, self._now()
        if doubt.own is None:
            doubt.own = Reading(effort.planned.request.install_id, now)
        reading = doubt.specimen or doubt.own
        result = await self._wire.send(
            admitted, lane.api.list_backups(reading.install_id, reading.offset), is_read=True
        )
        answer = classify(result)
        self._wire.tell(admitted, effect_of(answer), result)
        if result.fault is Fault.INTERRUPTED:
            lane.queue(effort, now)
        elif result.page is not None:
            doubt.failed = 0
            if not lane.fresh:
                lane.unserved_since = None
            await self._page(admitted, effort, doubt, result.page)
        elif lane.stop:
            await self._ledger.cancel(effort, lane.stop)
        else:
            await self._failed(admitted, effort, doubt, result)
        if effect_of(answer) is not Effect.SERVED:
            await self._accounts.stop_if_hopeless(admitted, answer, result)

    async def _page(self, admitted: Admitted, effort: Effort, doubt: Doubt, page: Page[Backup]) -> None:
        lane = admitted.lane
        reading = doubt.specimen or doubt.own
        if reading is None:
            return
        is_own = reading is doubt.own
        if self._has_shifted(reading, page):
            await self._accounts.queue(lane, effort)
            return
        sought = effort.looked_for(lane.backend_behind_s) if is_own else Sought((self._around.run_id,), None, "")
        reading.sight = seen(reading.sight, page.entries, sought)
        ids = tuple(backup.id for backup in page.entries)
        is_repeated, reading.last, reading.total = bool(ids) and ids == reading.last, ids, page.total
        if reading.sight.has_markers:
            lane.markers_come_back = True
        is_enough = bool(reading.sight.found) or not (is_own or lane.markers_come_back is None)
        if lane.stop and not (is_own and reading.sight.found):
            await self._ledger.cancel(effort, lane.stop)
        elif page.next_offset is None or is_enough or is_repeated:
            await self._conclude(admitted, effort, doubt)
        elif reading.pages < MOST_PAGES:
            reading.offset = page.next_offset
            lane.queue(effort, self._now())
        elif is_own:
            await self._ledger.leave_open(effort, f"its listing has no end ({MOST_PAGES} pages)")
        else:
            lane.markers_come_back = False
            await self._conclude(admitted, effort, doubt)

    def _has_shifted(self, reading: Reading, page: Page[Backup]) -> bool:
        """Tell whether entries came or went since the last page, so that one may have been missed, and begin anew."""
        reading.pages += 1
        if page.total is None or reading.total is None or page.total == reading.total or reading.pages >= MOST_PAGES:
            return False
        reading.begin_anew()
        return True

    async def _conclude(self, admitted: Admitted, effort: Effort, doubt: Doubt) -> None:
        """Decide by the install's own listing, which was read whole, or send for the specimen's first."""
        lane = admitted.lane
        own = doubt.own
        if own is None:
            return
        if own.sight.found:
            await self._found(admitted, effort, own)
            return
        is_over = self._over_at(lane, doubt) <= own.began_at
        fate = fate_of(own.sight, markers_come_back=lane.markers_come_back is True)
        if fate is Fate.OPEN and not own.sight.has_markers and self._waits_for_specimen(lane, effort, doubt, is_over):
            return
        if not is_over:
            self._look_again(lane, effort, doubt, self._over_at(lane, doubt))
        elif fate is Fate.ABSENT and doubt.may_repeat:
            await self._absent(admitted, effort, doubt)
        elif fate is Fate.ABSENT:
            await self._ledger.leave_open(effort, "its listing does not show the backup")
        else:
            await self._ledger.leave_open(effort, "its listing proves nothing: it does not show our markers")

    def _waits_for_specimen(self, lane: Lane, effort: Effort, doubt: Doubt, is_over: bool) -> bool:  # noqa: FBT001 - a fact
        """Queue ``effort`` if the specimen's listing could still tell whether markers come back; tell whether it was.

        One effort reads it for all, at once and again when the specimen's own grace is over.
        """
        if lane.specimen is None or lane.markers_come_back is not None:
            return False
        (install_id, accepted_at), now = lane.specimen, self._now()
        ripe_at, looked_at = accepted_at + self._grace_s, lane.specimen_looked_at
        if doubt.specimen is not None and doubt.specimen.began_at >= ripe_at:
            lane.markers_come_back = False
            return False
        if doubt.specimen is None and (looked_at is None or (is_over and looked_at < ripe_at <= now)):
            doubt.specimen, lane.specimen_looked_at = Reading(install_id, now), now
            lane.queue(effort, now)
            return True
        if is_over:
            self._look_again(lane, effort, doubt, max(ripe_at, now + SPECIMEN_WAIT_S))
        return is_over

    async def _found(self, admitted: Admitted, effort: Effort, own: Reading) -> None:
        found = tuple(sorted(own.sight.found, key=lambda backup: backup.status == "aborted"))
        self._log("backup.found", effort, backup=found[0].id)
        if len(found) > 1:
            self._around.log.error(
                "backup.made_twice", install=effort.planned.install.label, backups=[backup.id for backup in found]
            )
        made = effort.made
        effort.made = replace(made, backup=found[0], is_reconciled=True, earlier=(*made.earlier, *found[1:]))
        effort.end_doubt()
        await self._watches.accepted(admitted, effort)

    async def _absent(self, admitted: Admitted, effort: Effort, doubt: Doubt) -> None:
        self._log("backup.absent", effort)
        effort.end_doubt()
        self._around.journal.note_soon(effort.standing())
        spent = effort.expense(self._now(), admitted.budget.throttle.held_s())
        verdict = decide_absent(spent, self._limits.retry)
        if verdict.step is Step.AGAIN:
            await self._accounts.queue(admitted.lane, effort, verdict.after_s)
        else:
            await self._ledger.settle(effort, verdict.outcome, doubt.error)

    async def _failed(self, admitted: Admitted, effort: Effort, doubt: Doubt, result: AttemptResult) -> None:
        lane, answer = admitted.lane, classify(result)
        doubt.failed += counts_as_failed(answer, result)
        is_over = self._over_at(lane, doubt) <= self._now()
        verdict = decide_failed_read(
            answer, doubt.failed, self._limits.retry, self._around.clock.draw(), is_over=is_over
        )
        match verdict.step:
            case Step.AGAIN:
                lane.queue(effort, self._now() + verdict.after_s)
            case Step.CHECK_CREDENTIALS:
                await self._accounts.suspect(lane, effort, result)
            case Step.STOP_ACCOUNT:
                lane.suspects.append((effort, result))
                await self._accounts.stop(admitted, error_kind(answer, result), result)
            case _ if doubt.specimen:
                lane.markers_come_back = False
                await self._conclude(admitted, effort, doubt)
            case _:
                await self._ledger.leave_open(effort, f"its listing cannot be had ({result.message})")

    def _look_again(self, lane: Lane, effort: Effort, doubt: Doubt, at: float) -> None:
        self._log("backup.not_listed_yet", effort, again_in_s=round(max(0.0, at - self._now()), 1))
        doubt.own = doubt.specimen = None
        lane.queue(effort, at)

    def _over_at(self, lane: Lane, doubt: Doubt) -> float:
        """Return the monotonic instant at which the grace is over."""
        over_at = doubt.since + self._grace_s
        if not doubt.is_inherited or doubt.server_since is None or lane.server_ahead_s is None:
            return over_at
        return min(over_at, doubt.server_since + self._grace_s - lane.server_ahead_s)

    def _now(self) -> float:
        return self._around.clock.monotonic()

    def _log(self, event: str, effort: Effort, **fields: object) -> None:
        self._around.log.info(event, install=effort.planned.install.label, **fields)
