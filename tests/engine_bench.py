"""The bench of the engine's tests: a fleet, a scripted server, virtual time, and checks that every run must pass.

A test gives the installs and the rules of the run, scripts the answers and runs the bench. Then it checks the requests
and the outcomes::

    bench = Bench(installs=3, wait=WAIT)
    bench.api.script(1, GATEWAY_TIMEOUT, ACCEPTED)
    end = bench.run()
    assert (bench.kinds(), bench.posted(1)) == ({COMPLETE: 3}, [...])

A test that only reads runs ``bench.attend(bench.ask())`` instead. A test may replace the parts (``fakes.py``): ``api``,
``throttle``, ``journal``, ``sink``, ``clock``.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from fakes import (
    RUN_ID,
    FakeApi,
    FakeClock,
    FakeJournal,
    FakeThrottle,
    ListLog,
    ListSink,
    backup_of,
    counted,
    install_id,
    planned,
)
from virtual import run_virtual

from orchestrator.engine.context import DispatchContext, RunLimits
from orchestrator.engine.dispatch import DispatchEnd, Dispatcher
from orchestrator.engine.pending import CompletionWait, PendingBackup, RecencyCheck, ToRequest
from orchestrator.engine.queues import AccountQueue, Budget
from orchestrator.engine.stop import StopSwitch
from orchestrator.errors import StoppedError
from orchestrator.marker import marker, second
from orchestrator.model import AttemptResult, Backup, BackupRequest, ErrorInfo, Outcome, OutcomeKind
from orchestrator.policies import ReconcilePolicy, RetryPolicy, WaitPolicy

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from orchestrator.summary import FailureLimit

T = TypeVar("T")

ACCEPT, REJECT, CANCEL, SKIP = OutcomeKind.ACCEPTED, OutcomeKind.REJECTED, OutcomeKind.CANCELLED, OutcomeKind.SKIPPED
COMPLETE, ABORT, INCOMPLETE = OutcomeKind.COMPLETED, OutcomeKind.ABORTED, OutcomeKind.INCOMPLETE
UNKNOWN, EXHAUST = OutcomeKind.UNCONFIRMED, OutcomeKind.EXHAUSTED

BEGAN_S = 1000.0
"""The start of virtual time."""
HOUR_S = 3600.0
RETRY = RetryPolicy(3, HOUR_S)
LOOKS, FAILS = ReconcilePolicy(), ReconcilePolicy(looks=False)
GRACE_S = LOOKS.grace_s
TIMEOUT_S, INTERVAL_S = 600.0, 15.0
WAIT = WaitPolicy(TIMEOUT_S, INTERVAL_S)
REPEAT = replace(WAIT, retry_aborted=True)
HELD_S = 3 * TIMEOUT_S
"""If the limiter is held, it lets nothing through until this time after the start."""
LONGEST_S = 20_000.0
"""A run that takes more virtual seconds counts as endless."""
SECOND = marker(second(RUN_ID))


def status(name: str, backup_id: str = "b-1", **fields: str) -> AttemptResult:
    """Return the answer that shows a backup with the status ``name``."""
    return AttemptResult(status=200, backup=Backup(backup_id, name, **fields))


@dataclass
class Bench:
    """A dispatcher for the accounts ``default`` and ``other`` in one budget. The installs of ``other`` start at 100.

    If ``pending`` is given, it is queued instead of ``installs`` new ones. ``signals`` are pairs: seconds after the
    start, and the signal's number. From ``held_after_s`` on the limiter lets nothing through. The other fields are the
    rules of a run, as in ``RunLimits``.

    Every run is checked: each planned backup has one outcome. No backup is made twice except after an abort, and none
    is lost or invented. No request is sent twice under one marker, or before its intent is on disk. No backup is polled
    before it is in the journal. No ticket and no task is left.
    """

    installs: int = 1
    others: int = 0
    pending: list[PendingBackup] = field(default_factory=list)
    wait: WaitPolicy | None = None
    recent_s: float | None = None
    deadline_s: float | None = None
    failure_limit: FailureLimit | None = None
    retry: RetryPolicy = RETRY
    reconcile: ReconcilePolicy = LOOKS
    give_up_s: float = 1800.0
    reach_s: float = math.inf
    signals: tuple[tuple[float, int], ...] = ()
    held_after_s: float | None = None
    api: FakeApi = field(default_factory=FakeApi)
    other_api: FakeApi = field(default_factory=FakeApi)
    throttle: FakeThrottle = field(default_factory=FakeThrottle)
    journal: FakeJournal = field(default_factory=FakeJournal)
    sink: ListSink = field(default_factory=ListSink)
    clock: FakeClock = field(default_factory=FakeClock)
    log: ListLog = field(default_factory=ListLog)
    stop: StopSwitch = field(default_factory=StopSwitch)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.accounts = [AccountQueue("default", self.api), AccountQueue("other", self.other_api)]
        self.budget = Budget(self.throttle, list(self.accounts))

    # -- running ------------------------------------------------------------------------------------------------------

    def run(self) -> DispatchEnd:
        """Run the fleet to its end."""
        return run_virtual(self._run())

    def attend(self, work: Coroutine[object, object, T]) -> T:
        """Return the result of ``work``, which reads with ``ask``. Then check that one more install can be run."""
        return run_virtual(self._attend(work))

    async def ask(self, account: str = "default", number: int = 0) -> AttemptResult | ErrorInfo:
        """Read the first page of an install's listing; works only inside ``attend``."""
        return await self.dispatcher.ask(account, lambda api: api.list_backups(install_id(number), 0))

    def press_after(self, turns: int, *signums: int) -> None:
        """Send the signals after so many turns of the running loop."""
        if turns:
            asyncio.get_running_loop().call_soon(self.press_after, turns - 1, *signums)
            return
        for signum in signums:
            self.stop.press(signum)

    async def _run(self) -> DispatchEnd:
        self._inherited = {
            each.planned.install.id: _ids(
                each.made.backup,
                *each.made.earlier,
                each.state.known if isinstance(each.state, RecencyCheck) else None,
            )
            for each in self.pending
        }
        self._queue(
            self.accounts[0], self.pending or [PendingBackup(planned(number)) for number in range(self.installs)]
        )
        self._queue(self.accounts[1], [PendingBackup(planned(100 + number, "other")) for number in range(self.others)])
        for api in (self.api, self.other_api):
            self._watch(api)
        self._begin()
        try:
            async with asyncio.timeout(LONGEST_S):
                self.end = await self.dispatcher.run()
        finally:
            self._ended()
        assert not self.faults
        self._hold_against_made()
        return self.end

    async def _attend(self, work: Coroutine[object, object, T]) -> T:
        self._begin()
        try:
            async with asyncio.timeout(LONGEST_S):
                result = await self.stop.unless_pressed(self.dispatcher.attend(work))
        except StoppedError:
            self._ended()
            raise
        await asyncio.sleep(0)  # let the switch's own task end
        self._ended()
        if self.accounts[0].stop is None:
            self.accounts[0].fresh.append(PendingBackup(planned(9)))
            await self._new_dispatcher().run()
            assert self.sink.of(9).kind is ACCEPT
            self._hold_nothing_is_left()
        return result

    def _ended(self) -> None:
        self.seconds = asyncio.get_running_loop().time() - BEGAN_S
        self._hold_nothing_is_left()

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        for after_s, signum in self.signals:
            loop.call_later(after_s, self.stop.press, signum)
        if self.held_after_s is not None:
            loop.call_later(self.held_after_s, setattr, self.throttle, "held_until", BEGAN_S + HELD_S)
        self.dispatcher = self._new_dispatcher()

    def _new_dispatcher(self) -> Dispatcher:
        rules = (self.retry, self.reconcile, 60.0, self.give_up_s, self.wait, self.recent_s, self.deadline_s)
        limits = RunLimits(*rules, self.failure_limit, self.reach_s)
        context = DispatchContext(RUN_ID, limits, self.journal, self.sink, self.clock, self.log, self.stop)
        return Dispatcher([self.budget], context)

    def _queue(self, account: AccountQueue, backups: list[PendingBackup]) -> None:
        for pending in backups:
            if self.recent_s is not None and isinstance(pending.state, ToRequest):
                pending.state = RecencyCheck()
            if isinstance(pending.state, ToRequest):
                account.fresh.append(pending)
            else:
                account.queue(pending, BEGAN_S)

    # -- checks -------------------------------------------------------------------------------------------------------

    def _watch(self, api: FakeApi) -> None:
        requested, polled = api.on_request, api.on_poll
        watched = {each.planned.install.id for each in self.pending if isinstance(each.state, CompletionWait)}

        def on_request(request: BackupRequest) -> None:
            self._hold_against_intent(request)
            requested(request)

        def on_poll(install: str, backup_id: str, nth: int) -> AttemptResult | None:
            is_listed = self.recent_s is not None and backup_id not in _ids(*self.all_made(install))
            if not (self.journal.has_backup(install, backup_id) or install in watched or is_listed):
                self.faults.append(f"{backup_id} of {install} was polled before it was in the journal")
            return polled(install, backup_id, nth)

        api.on_request, api.on_poll = on_request, on_poll

    def _hold_against_intent(self, request: BackupRequest) -> None:
        stands = self.journal.last_if_noted(request.install_id)
        name = second(RUN_ID) if SECOND in request.description else RUN_ID
        if not (stands and stands.sought == (name,) and stands.error is None):
            self.faults.append(f"{request} was sent without its intent on disk")
        if len(request.description) > 255:
            self.faults.append(f"{request} has too long a description")

    def _hold_nothing_is_left(self) -> None:
        assert self.throttle.out == 0, "a ticket was not given back"
        assert self.budget.in_flight == 0, "a worker was left behind"
        assert len(asyncio.all_tasks()) == 1, "a task was left behind"

    def _hold_against_made(self) -> None:
        told = [*self.sink.outcomes, *self.end.unwritten]
        count = (len(self.pending) or self.installs) + self.others
        assert len(told) == len({each.planned.position for each in told}) == count
        for outcome in told:
            self._hold_outcome(outcome, self.all_made(outcome.planned.install.id or ""))

    def _hold_outcome(self, outcome: Outcome, made: list[Backup]) -> None:
        kind, told = outcome.kind, _ids(outcome.backup, *outcome.earlier)
        seconds = [each for each in made if SECOND in (each.description or "")]
        assert len(made) - len(seconds) <= 1, "an install was backed up twice"
        assert len(seconds) <= bool(outcome.earlier and self.wait and self.wait.retry_aborted)
        real = self._real(outcome.planned.install.id or "")
        assert real is None or told <= real, "a backup was made up"
        if kind.is_success or kind in {ABORT, INCOMPLETE}:
            assert backup_of(outcome)
        if kind is SKIP:
            assert not made
        elif kind is not UNKNOWN:
            is_told = bool(told) or not made if real is None else _ids(*made) <= told
            assert is_told, "a backup was lost"
        assert self.end.crash or bool(outcome.sought) is (kind is UNKNOWN)
        assert (outcome.error is None) is (kind.is_success or kind is ABORT)
        assert bool(outcome.reason) is (kind is SKIP)

    def _real(self, install: str) -> set[str] | None:
        """Return the ids of an install's backups, or ``None`` if its listing is scripted and may show others."""
        if self.api.is_listing_scripted(install) or self.other_api.is_listing_scripted(install):
            return None
        return _ids(*self.all_made(install)) | self._inherited.get(install, set())

    # -- requests and outcomes ----------------------------------------------------------------------------------------

    def kinds(self) -> dict[object, int]:
        """Count the outcomes by kind."""
        return counted(outcome.kind for outcome in self.sink.outcomes)

    @property
    def only(self) -> Outcome:
        """The only outcome of a bench with one install."""
        (outcome,) = self.sink.outcomes
        return outcome

    def posted(self, number: int = 0) -> list[float]:
        """Return the times of an install's POSTs, in seconds after the start."""
        return [at - BEGAN_S for at in self._api_of(number).post_times[install_id(number)]]

    def looked(self, number: int = 0) -> list[float]:
        """Return the times of the reads of an install's listing, in seconds after the start."""
        return [at - BEGAN_S for at, _ in self._api_of(number).looks[install_id(number)]]

    def polled(self, number: int = 0) -> list[float]:
        """Return the times of the polls of an install's backups, in seconds after the start."""
        return [at - BEGAN_S for at in self._api_of(number).polls[install_id(number)]]

    def offsets(self, number: int = 0) -> list[int]:
        """Return the offsets at which an install's listing was read."""
        return [offset for _, offset in self._api_of(number).looks[install_id(number)]]

    def requested(self) -> list[str]:
        """Return the descriptions of the backups made for the first install."""
        return [each.description or "" for each in self.all_made(install_id(0))]

    def all_made(self, install: str) -> list[Backup]:
        """Return the backups that the server made for the install with this id."""
        return [*self.api.backups_of(install), *self.other_api.backups_of(install)]

    def _api_of(self, number: int) -> FakeApi:
        return self.api if number < 100 else self.other_api


def _ids(*backups: Backup | None) -> set[str]:
    return {each.id for each in backups if each}
