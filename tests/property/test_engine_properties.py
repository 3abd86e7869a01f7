"""For any answers of the server and any stop: one outcome per install, and no backup made twice, lost or invented."""

from __future__ import annotations

import asyncio
import signal
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import Random
from typing import Any

from engine_bench import ABORT, BEGAN_S, COMPLETE, HOUR_S, INCOMPLETE, REPEAT, SECOND, SKIP, TIMEOUT_S, WAIT, Bench
from fakes import (
    BROKEN_OFF,
    DISCONNECTED,
    EPOCH,
    GARBAGE,
    GATEWAY_TIMEOUT,
    NOT_FOUND,
    OK,
    QUOTA,
    REFUSED,
    THROTTLED,
    UNAUTHORIZED,
    UNREADABLE,
    FakeApi,
    FakeJournal,
    FakeThrottle,
    ListSink,
    backup_of,
    error_of,
    listing,
    planned,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.engine.pending import PendingBackup
from orchestrator.model import AttemptResult, Backup, BackupRequest, ErrorKind, Outcome
from orchestrator.policies import ReconcilePolicy
from orchestrator.summary import FailureLimit

STARTED_S = EPOCH.timestamp()
FAILURES = [
    GATEWAY_TIMEOUT,
    replace(GATEWAY_TIMEOUT, status=500),
    DISCONNECTED,
    REFUSED,
    NOT_FOUND,
    THROTTLED,
    replace(THROTTLED, retry_after_s=7.0),
    GARBAGE,
]
LOST = [GATEWAY_TIMEOUT, DISCONNECTED, UNREADABLE, replace(GATEWAY_TIMEOUT, status=503)]
GRACE_S = 20.0
LONGEST_LAG_S = 12.0
"""With the time of a POST, this is still below the grace."""


@dataclass(frozen=True)
class Nature:
    """How a server behaves: shares of answers that fail, are lost, are refused or stop the account; how backups end.

    ``recent`` is the share of installs that have a backup by somebody else, completed or under way.
    """

    failing: float
    lost: float
    refused: float
    stopping: float
    aborting: float
    never: float
    recent: float
    seed: int


class World(FakeApi):
    """A server with a ``Nature``, and its backups. ``ends`` has the instant and the status of each backup's end."""

    def __init__(self, nature: Nature) -> None:
        super().__init__(takes_s=0.1)
        self.nature, self.chance = nature, Random(nature.seed)
        self.ends: dict[str, tuple[float, str]] = {}
        self.visible_at: dict[str, float] = {}
        self.others: dict[str, list[Backup]] = defaultdict(list)
        self.faults: list[str] = []
        self.posted_at: list[float] = []
        self.checks = [OK]

    def backups(self, install: str) -> list[Backup]:
        return [each for _, each in self._made[install]] + self.others[install]

    def status_of(self, backup: Backup, now: float) -> str:
        at, name = self.ends[backup.id]
        return name if now >= at else "in_progress"

    def exists(self, install: str, age_s: float, now: float) -> None:
        """Add a backup of ``install`` that somebody else began ``age_s`` before ``now``."""
        at = datetime.fromtimestamp(STARTED_S + now - age_s, UTC).isoformat()
        self.others[install].append(self._begun(Backup(f"other-{install}", "requested", "Nightly", at), now - age_s))

    def _begun(self, backup: Backup, now: float) -> Backup:
        draw = self.chance.random()
        ends_after_s = 1e9 if draw < self.nature.never else self.chance.choice([0.0, 5.0, 40.0, 200.0])
        name = "aborted" if self.chance.random() < self.nature.aborting else "completed"
        self.ends[backup.id] = (now + ends_after_s, name)
        return backup

    async def create_backup(self, request: BackupRequest) -> AttemptResult:
        now, nature = asyncio.get_running_loop().time(), self.nature
        self.posted_at.append(now)
        self.on_request(request)
        draw = self.chance.random()
        if draw < nature.stopping:
            return await self._answered(self.chance.choice([QUOTA, UNAUTHORIZED]))
        if draw < nature.stopping + nature.refused:
            return await self._answered(self.chance.choice([THROTTLED, REFUSED, NOT_FOUND]))
        is_lost = draw < nature.stopping + nature.refused + nature.lost
        if is_lost and self.chance.random() < 0.5:
            return await self._answered(self.chance.choice(LOST))
        backup = self._make(request, now)
        self.visible_at[backup.id] = now + (self.chance.random() * LONGEST_LAG_S if is_lost else 0.0)
        shown = replace(backup, status=self.status_of(backup, now))
        result = self.chance.choice(LOST) if is_lost else AttemptResult(status=202, backup=shown)
        return await self._answered(result)

    def _make(self, request: BackupRequest, now: float) -> Backup:
        install, made = request.install_id, self._made[request.install_id]
        if SECOND in request.description:
            if not made or self.status_of(made[0][1], now) != "aborted":
                self.faults.append(f"{install} was requested once more, though its backup was not aborted")
        elif made:
            self.faults.append(f"{install} was backed up twice")
        at = datetime.fromtimestamp(STARTED_S + now, UTC).isoformat()
        backup = self._begun(Backup(f"{install}/{len(made)}", "requested", request.description, at), now)
        made.append((now, backup))
        return backup

    async def list_backups(self, install_id: str, offset: int) -> AttemptResult:  # noqa: ARG002 - the Protocol's
        now = asyncio.get_running_loop().time()
        if self.chance.random() < self.nature.failing:
            return await self._answered(self.chance.choice(FAILURES))
        seen = [each for each in self.backups(install_id) if self.visible_at.get(each.id, 0.0) <= now]
        return await self._answered(listing(*(replace(each, status=self.status_of(each, now)) for each in seen)))

    async def show_backup(self, install_id: str, backup_id: str) -> AttemptResult:
        now = asyncio.get_running_loop().time()
        if self.chance.random() < self.nature.stopping / 4:
            return await self._answered(self.chance.choice([QUOTA, UNAUTHORIZED]))
        if self.chance.random() < self.nature.failing:
            return await self._answered(self.chance.choice([*FAILURES, AttemptResult(status=200, backup=Backup("x"))]))
        (backup,) = (each for each in self.backups(install_id) if each.id == backup_id)
        return await self._answered(AttemptResult(200, backup=replace(backup, status=self.status_of(backup, now))))

    async def check_credentials(self) -> AttemptResult:
        is_bad = self.checked and self.chance.random() < self.nature.stopping
        self.checked += 1
        return await self._answered(UNAUTHORIZED if is_bad else OK)

    async def _answered(self, result: AttemptResult) -> AttemptResult:
        try:
            await asyncio.sleep(self.chance.choice([0.05, 0.3, 3.0]))
        except asyncio.CancelledError:
            return BROKEN_OFF
        return result


SHARES = st.sampled_from([0.0, 0.0, 0.1, 0.4])
NATURES = st.builds(
    Nature,
    failing=st.sampled_from([0.0, 0.2, 0.7]),
    lost=SHARES,
    refused=SHARES,
    stopping=st.sampled_from([0.0, 0.0, 0.0, 0.05]),
    aborting=st.sampled_from([0.0, 0.3, 1.0]),
    never=st.sampled_from([0.0, 0.0, 0.2]),
    recent=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 2**32),
)
INSTANTS = st.sampled_from([0.0, 0.2, 1.0, 5.0, 21.0, 30.0, 61.0, 100.0, 300.0, TIMEOUT_S + 1])
RULES = st.fixed_dictionaries(
    {
        "wait": st.sampled_from([None, WAIT, REPEAT, REPEAT]),
        "recent_s": st.sampled_from([None, None, HOUR_S]),
        "deadline_s": st.none() | INSTANTS,
        "failure_limit": st.sampled_from([None, None, FailureLimit(1), FailureLimit(4), FailureLimit(None, 30.0)]),
        "signals": st.sampled_from([(), (), (0.0,), (0.0, 0.3), (0.0, 0.0)]),
        "first_signal_s": INSTANTS,
        "held_after_s": st.none() | INSTANTS,
        "full_after": st.sampled_from([None, None, None, 0, 7, 30]),
        "sink_full_after": st.sampled_from([None, None, None, 0, 5]),
        "concurrency": st.sampled_from([1, 3, 20]),
    }
)


class Story(Bench):
    """A bench whose server knows all backups that exist."""

    def _real(self, install: str) -> set[str]:
        return {each.id for each in self.world.backups(install)}

    @property
    def world(self) -> World:
        assert isinstance(self.api, World)
        return self.api

    def _hold_outcome(self, outcome: Outcome, made: list[Backup]) -> None:
        super()._hold_outcome(outcome, made)
        ends = {backup_id: name for backup_id, (_, name) in self.world.ends.items()}
        told = [*outcome.earlier, *([outcome.backup] if outcome.backup else [])]
        assert len({each.id for each in told}) == len(told)
        assert all(ends[each.id] == "aborted" for each in outcome.earlier)
        if outcome.kind in {COMPLETE, ABORT}:
            backup = backup_of(outcome)
            assert backup.status == ends[backup.id] == ("completed" if outcome.kind is COMPLETE else "aborted")
            assert backup.id in {each.id for each in made}
        if outcome.kind is SKIP:
            backup = backup_of(outcome)
            assert backup.id.startswith("other")
            assert self.wait is None or ends[backup.id] == "completed"
        if outcome.kind is INCOMPLETE and "cut short" not in error_of(outcome).message:
            self._hold_wait(outcome)

    def _hold_wait(self, outcome: Outcome) -> None:
        assert error_of(outcome).kind is ErrorKind.TIMEOUT
        made, backup = self.world._made[outcome.planned.install.id or ""], backup_of(outcome)
        own_at = next((at for at, each in made if each.id == backup.id), BEGAN_S)
        assert outcome.finished_at.timestamp() - STARTED_S >= own_at + TIMEOUT_S


def story(nature: Nature, rules: dict[str, Any]) -> Story:
    fields = dict(rules)
    concurrency, full_after, sink_full_after, first_s, signals = (fields.pop(name) for name in OF_PARTS)
    world = World(nature)
    backups = [PendingBackup(planned(number)) for number in range(12)]
    for pending in backups:
        if rules["recent_s"] and world.chance.random() < nature.recent:
            world.exists(pending.planned.request.install_id, world.chance.choice([30.0, 5000.0]), BEGAN_S)
    return Story(
        api=world,
        pending=backups,
        reconcile=ReconcilePolicy(grace_s=GRACE_S),
        throttle=FakeThrottle(concurrency),
        journal=FakeJournal(full_after),
        sink=ListSink(sink_full_after),
        signals=tuple((first_s + after_s, signal.SIGTERM) for after_s in signals),
        **fields,
    )


OF_PARTS = ["concurrency", "full_after", "sink_full_after", "first_signal_s", "signals"]
"""Rules that are parameters of a bench's parts, not fields of the bench."""


@settings(max_examples=400)
@given(NATURES, RULES)
def test_each_install_has_one_outcome_and_no_backup_is_made_twice_or_lost_or_invented(
    nature: Nature, rules: dict[str, Any]
) -> None:
    bench = story(nature, rules)
    end = bench.run()
    assert not bench.world.faults
    assert end.crash is None
    stops = [after_s for after_s, _ in bench.signals[:1]] + [bench.deadline_s] * (bench.deadline_s is not None)
    for after_s in stops:
        assert max(bench.world.posted_at, default=0.0) <= BEGAN_S + (after_s or 0.0) + 1e-6
    assert bench.signals or not end.interrupted
