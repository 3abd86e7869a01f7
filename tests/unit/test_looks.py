"""What is open is looked up: the engine against fakes, in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from fakes import (
    GATEWAY_TIMEOUT,
    RUN_ID,
    FakeApi,
    FakeClock,
    FakeJournal,
    FakeThrottle,
    ListLog,
    ListSink,
    counted,
    install_id,
    listing,
    planned,
    shown,
)
from virtual import run_virtual

from orchestrator.engine.dispatch import DispatchEnd, Dispatcher
from orchestrator.engine.lanes import Budget, Effort, Lane
from orchestrator.engine.stop import StopSwitch
from orchestrator.engine.surroundings import Limits, Surroundings
from orchestrator.marker import marker
from orchestrator.model import OutcomeKind, ReconcilePolicy, RetryPolicy

GRACE_S = 120.0


@dataclass
class Bench:
    """A dispatcher of one account: ``efforts``, else a new one for each of its installs, numbered from 0."""

    installs: int = 1
    efforts: list[Effort] = field(default_factory=list)
    retry: RetryPolicy = field(default_factory=lambda: RetryPolicy(3, 3600.0))
    reconcile: ReconcilePolicy = field(default_factory=lambda: ReconcilePolicy(grace_s=GRACE_S))
    api: FakeApi = field(default_factory=FakeApi)
    throttle: FakeThrottle = field(default_factory=FakeThrottle)
    journal: FakeJournal = field(default_factory=FakeJournal)
    sink: ListSink = field(default_factory=ListSink)
    log: ListLog = field(default_factory=ListLog)
    signals: tuple[tuple[float, int], ...] = ()

    def run(self) -> DispatchEnd:
        return run_virtual(self._run())

    async def _run(self) -> DispatchEnd:
        stop = StopSwitch()
        for after_s, signum in self.signals:
            asyncio.get_running_loop().call_later(after_s, stop.press, signum)
        self.lane = Lane("default", self.api)
        self.lane.fresh.extend(self.efforts or [Effort(planned(number)) for number in range(self.installs)])
        around = Surroundings(RUN_ID, self.journal, self.sink, FakeClock(), self.log, stop)
        limits = Limits(self.retry, self.reconcile, 60.0, 1800.0)
        began = asyncio.get_running_loop().time()
        end = await Dispatcher([Budget(self.throttle, [self.lane])], limits, around).run()
        self.seconds = asyncio.get_running_loop().time() - began
        assert self.throttle.out == 0, "a ticket was not given back"
        assert len(asyncio.all_tasks()) == 1, "a task was left behind"
        return end

    def kinds(self) -> dict[object, int]:
        return counted(outcome.kind for outcome in self.sink.outcomes)


def test_an_api_that_cuts_long_descriptions_is_not_asked_again_for_the_backup_whose_marker_it_cut() -> None:
    bench = Bench(installs=2)
    long = replace(planned(1).request, description=f"{'Before the upgrade of all plugins, ' * 3}{marker(RUN_ID)}")
    bench.efforts = [Effort(planned(0)), Effort(replace(planned(1), request=long))]
    bench.api.lose(1, GATEWAY_TIMEOUT)
    cut = shown("made-0", long.description[:64], create_time="2026-01-01T00:20:00Z")
    bench.api.script_listing(1, listing(cut))
    bench.run()
    assert bench.api.posts == {install_id(0): 1, install_id(1): 1}
    assert bench.sink.of(1).kind is OutcomeKind.UNCONFIRMED
