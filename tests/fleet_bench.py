"""A dispatcher over fakes, in virtual time, that waits, screens and stops early; and what holds whatever happens."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fakes import (
    RUN_ID,
    FakeApi,
    FakeClock,
    FakeJournal,
    FakeThrottle,
    ListLog,
    ListSink,
    counted,
    install_id,
    planned,
)
from virtual import run_virtual

from orchestrator.engine.dispatch import DispatchEnd, Dispatcher
from orchestrator.engine.efforts import Effort, Screen
from orchestrator.engine.lanes import Budget, Lane
from orchestrator.engine.stop import StopSwitch
from orchestrator.engine.surroundings import Limits, Surroundings
from orchestrator.marker import marker, second
from orchestrator.model import (
    AttemptResult,
    Backup,
    BackupRequest,
    Outcome,
    OutcomeKind,
    ReconcilePolicy,
    RetryPolicy,
    WaitPolicy,
)

if TYPE_CHECKING:
    from orchestrator.summary import Brake

BEGAN_S = 1000.0
"""When virtual time begins."""
TIMEOUT_S, INTERVAL_S = 600.0, 15.0
WAIT = WaitPolicy(TIMEOUT_S, INTERVAL_S)
REPEAT = replace(WAIT, retry_aborted=True)
HOUR_S = 3600.0
HELD_S = 3 * TIMEOUT_S
"""Until when a limiter lets nothing through, where it is held."""
LONGEST_S = 20_000.0
"""After so many virtual seconds a run has no end."""
SECOND = marker(second(RUN_ID))

_MADE = {OutcomeKind.ACCEPTED, OutcomeKind.COMPLETED, OutcomeKind.ABORTED, OutcomeKind.INCOMPLETE}


def status(name: str, backup_id: str = "b-1", **fields: str) -> AttemptResult:
    """Return the answer that shows a backup with the status ``name``."""
    return AttemptResult(status=200, backup=Backup(backup_id, name, **fields))


@dataclass
class Bench:
    """A dispatcher of the account ``default``, and of ``other`` if that has installs, numbered from 100.

    Whatever a test is about: each planned backup has one outcome, none is made twice except after an abort, none is
    requested twice under one marker, polled before it is in the journal, or made up; no ticket and no task is left.
    """

    installs: int = 1
    others: int = 0
    wait: WaitPolicy | None = WAIT
    recent_s: float | None = None
    deadline_s: float | None = None
    brake: Brake | None = None
    retry: RetryPolicy = field(default_factory=lambda: RetryPolicy(3, HOUR_S))
    reconcile: ReconcilePolicy = field(default_factory=lambda: ReconcilePolicy(grace_s=20.0))
    give_up_s: float = 1800.0
    efforts: list[Effort] = field(default_factory=list)
    api: FakeApi = field(default_factory=FakeApi)
    other_api: FakeApi = field(default_factory=FakeApi)
    throttle: FakeThrottle = field(default_factory=FakeThrottle)
    journal: FakeJournal = field(default_factory=FakeJournal)
    sink: ListSink = field(default_factory=ListSink)
    log: ListLog = field(default_factory=ListLog)
    signals: tuple[tuple[float, int], ...] = ()
    held_after_s: float | None = None
    faults: list[str] = field(default_factory=list)

    def run(self) -> DispatchEnd:
        return run_virtual(self._run())

    @property
    def limits(self) -> Limits:
        return Limits(
            self.retry, self.reconcile, 60.0, self.give_up_s, self.wait, self.recent_s, self.deadline_s, self.brake
        )

    async def _run(self) -> DispatchEnd:
        self.stop = StopSwitch()
        for after_s, signum in self.signals:
            asyncio.get_running_loop().call_later(after_s, self.stop.press, signum)
        self.lanes = [Lane("default", self.api)]
        self._queue(self.lanes[0], self.efforts or [Effort(planned(number)) for number in range(self.installs)])
        if self.others:
            self.lanes.append(Lane("other", self.other_api))
            self._queue(self.lanes[1], [Effort(planned(100 + number, "other")) for number in range(self.others)])
        for api in (self.api, self.other_api):
            api.on_request = self._hold_against_rules
            self._watch_polls(api)
        around = Surroundings(RUN_ID, self.journal, self.sink, FakeClock(), self.log, self.stop)
        if self.held_after_s is not None:
            asyncio.get_running_loop().call_later(self.held_after_s, self._hold)
        async with asyncio.timeout(LONGEST_S):
            self.end = await Dispatcher([Budget(self.throttle, list(self.lanes))], self.limits, around).run()
        self.seconds = asyncio.get_running_loop().time() - BEGAN_S
        assert self.throttle.out == 0, "a ticket was not given back"
        assert len(asyncio.all_tasks()) == 1, "a task was left behind"
        assert not self.faults
        self._hold_against_made()
        return self.end

    def _hold(self) -> None:
        self.throttle.held_until = BEGAN_S + HELD_S

    def _queue(self, lane: Lane, efforts: list[Effort]) -> None:
        for effort in efforts:
            if self.recent_s is not None and not (effort.watch or effort.doubt):
                effort.screen = Screen()
            if effort.screen or effort.watch or effort.doubt:
                lane.queue(effort, BEGAN_S)
            else:
                lane.fresh.append(effort)

    def _hold_against_rules(self, request: BackupRequest) -> None:
        stood = [each for each in self.journal.standings if each.planned.install.id == request.install_id]
        name = second(RUN_ID) if SECOND in request.description else RUN_ID
        if not (stood and stood[-1] in self.journal.noted and stood[-1].sought == (name,)):
            self.faults.append(f"{request} was sent without its intent on disk")
        if len(request.description) > 255:
            self.faults.append(f"{request} has too long a description")

    def _watch_polls(self, api: FakeApi) -> None:
        asked, watched = api.on_poll, {each.planned.install.id for each in self.efforts if each.watch}

        def on_poll(install: str, backup_id: str, nth: int) -> AttemptResult | None:
            noted = {each.made.backup.id for each in self.journal.noted if each.made.backup}
            is_listed = self.recent_s is not None and backup_id not in {each.id for each in self.all_made(install)}
            if backup_id not in noted and install not in watched and not is_listed:
                self.faults.append(f"{backup_id} of {install} was polled before it was in the journal")
            return asked(install, backup_id, nth)

        api.on_poll = on_poll

    def all_made(self, install: str) -> list[Backup]:
        return [backup for api in (self.api, self.other_api) for _, backup in api._made.get(install, [])]

    def _hold_against_made(self) -> None:
        told = [*self.sink.outcomes, *self.end.unwritten]
        count = len(self.efforts) or self.installs
        assert len(told) == len({each.planned.position for each in told}) == count + self.others
        for outcome in told:
            self._hold_outcome(outcome, self.all_made(outcome.planned.install.id or ""))

    def _hold_outcome(self, outcome: Outcome, made: list[Backup]) -> None:
        seconds = [each for each in made if SECOND in (each.description or "")]
        assert len(made) - len(seconds) <= 1, "an install was backed up twice"
        assert len(seconds) <= bool(outcome.earlier and self.wait and self.wait.retry_aborted)
        if outcome.kind in _MADE:
            assert outcome.backup
            if self.recent_s is None and not self.efforts:
                assert {outcome.backup.id, *(each.id for each in outcome.earlier)} == {each.id for each in made}
        elif outcome.kind in {OutcomeKind.CANCELLED, OutcomeKind.EXHAUSTED} and not outcome.earlier:
            assert not made, "a backup was lost"
        assert self.end.crash or bool(outcome.sought) is (outcome.kind is OutcomeKind.UNCONFIRMED)
        assert (outcome.error is None) is (outcome.kind.is_success or outcome.kind is OutcomeKind.ABORTED)
        assert bool(outcome.reason) is (outcome.kind is OutcomeKind.SKIPPED)

    def kinds(self) -> dict[object, int]:
        return counted(outcome.kind for outcome in self.sink.outcomes)

    @property
    def only(self) -> Outcome:
        (outcome,) = self.sink.outcomes
        return outcome

    def polled(self, number: int = 0) -> list[float]:
        """Return after how many seconds an install's backup was polled."""
        api = self.api if number < 100 else self.other_api
        return [at - BEGAN_S for at in api.polls[install_id(number)]]

    def posted(self, number: int = 0) -> list[float]:
        api = self.api if number < 100 else self.other_api
        return [at - BEGAN_S for at in api.post_times[install_id(number)]]

    def requested(self) -> list[str]:
        """Return the descriptions of what was made for the first install."""
        return [each.description or "" for each in self.all_made(install_id(0))]
