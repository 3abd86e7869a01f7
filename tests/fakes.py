"""Fakes of the core's Protocols, and short ways to make the domain's objects."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from orchestrator.errors import WriteError
from orchestrator.model import AttemptResult, Backup, BackupRequest, Fault, Install, Outcome, OutcomeKind, PlannedBackup
from orchestrator.pacing import Effect, Ticket, Word
from orchestrator.summary import AccountTotals, Summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SUMMARY = Summary(
    run_id="R1",
    started_at=datetime(2026, 11, 23, 1, 0, 0, 123456, tzinfo=UTC),
    finished_at=datetime(2026, 11, 23, 1, 0, 0, 123456, tzinfo=UTC),
    duration_s=75.0,
    planned=2,
    disabled=1,
    outcomes=dict.fromkeys(OutcomeKind, 0) | {OutcomeKind.ACCEPTED: 1, OutcomeKind.REJECTED: 1},
    retries=3,
    accounts={"default": AccountTotals(5, 2, 12.3456), "b": AccountTotals(1, 1, 5.0)},
    exit_code=3,
    config="f.yaml",
    report="report.jsonl",
    version="0",
)
OK = AttemptResult(status=200)
ACCEPTED = AttemptResult(status=202, backup=Backup("b-1", "requested"), request_id="r-1")
THROTTLED = AttemptResult(status=429, message="Too Many Requests")
UNAUTHORIZED = AttemptResult(status=401, message="Bad Credentials")
NOT_FOUND = AttemptResult(status=404, message="Not Found")
GATEWAY_TIMEOUT = AttemptResult(status=504, message="Endpoint request timed out")
REFUSED = AttemptResult(fault=Fault.UNREACHABLE, sent=False, message="refused")


def install_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def planned(number: int, account: str = "default") -> PlannedBackup:
    install = Install(install_id(number), account, "x", (), name=f"install{number}")
    return PlannedBackup(install, BackupRequest(install.id, "x [wpe-backup R]", ()))


class FakeClock:
    """The running loop's time, a wall clock that follows it, and draws of a half."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.monotonic())

    def draw(self) -> float:
        return 0.5


class FakeThrottle:
    """Admit at once, ``concurrency`` at a time, and remember what it was told."""

    def __init__(self, concurrency: int = 4) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self.words: list[Word] = []
        self.released = 0
        self.out = 0
        self.read_only_once = False

    async def admit(self) -> Ticket:
        await self._slots.acquire()
        self.out += 1
        read_only, self.read_only_once = self.read_only_once, False
        return Ticket(0.0, 0, canary=read_only, read_only=read_only)

    def observe(self, ticket: Ticket, word: Word) -> None:  # noqa: ARG002 - the Protocol's
        self.words.append(word)
        self._back()

    def release(self, ticket: Ticket) -> None:  # noqa: ARG002 - the Protocol's
        self.released += 1
        self._back()

    def _back(self) -> None:
        self.out -= 1
        self._slots.release()

    def held_s(self) -> float:
        return 0.0

    @property
    def effects(self) -> Counter[Effect]:
        return Counter(word.effect for word in self.words)


class FakeApi:
    """Answer each install's POSTs, and the checks, from scripts; the last entry of a script repeats.

    ``takes_s`` is how long each answer takes.
    """

    def __init__(self, default: AttemptResult = ACCEPTED, takes_s: float = 0.1) -> None:
        self._default = default
        self._takes_s = takes_s
        self.check_takes_s = takes_s
        self._scripts: dict[str, list[AttemptResult]] = {}
        self.checks: list[AttemptResult] = [OK]
        self.posts: Counter[str] = Counter()
        self.post_times: dict[str, list[float]] = defaultdict(list)
        self.checked = 0
        self.on_post: Callable[[], None] = lambda: None

    def script(self, number: int, *results: AttemptResult) -> None:
        self._scripts[install_id(number)] = list(results)

    async def create_backup(self, request: BackupRequest) -> AttemptResult:
        nth = self.posts[request.install_id]
        self.posts[request.install_id] += 1
        self.post_times[request.install_id].append(asyncio.get_running_loop().time())
        self.on_post()
        try:
            await asyncio.sleep(self._takes_s)
        except asyncio.CancelledError:
            return AttemptResult(fault=Fault.INTERRUPTED, sent=True, message="broken off")
        script = self._scripts.get(request.install_id, [self._default])
        return script[min(nth, len(script) - 1)]

    async def check_credentials(self) -> AttemptResult:
        nth = self.checked
        self.checked += 1
        try:
            await asyncio.sleep(self.check_takes_s)
        except asyncio.CancelledError:
            return AttemptResult(fault=Fault.INTERRUPTED, sent=True, message="broken off")
        return self.checks[min(nth, len(self.checks) - 1)]


class ListSink:
    """Keep outcomes in a list; refuse from the ``full_after``-th on."""

    def __init__(self, full_after: int | None = None) -> None:
        self.outcomes: list[Outcome] = []
        self._full_after = full_after

    async def record(self, outcome: Outcome) -> None:
        if self._full_after is not None and len(self.outcomes) >= self._full_after:
            message = "the disk is full"
            raise WriteError(message)
        self.outcomes.append(outcome)

    def kinds(self) -> dict[str, OutcomeKind]:
        return {outcome.planned.install.label: outcome.kind for outcome in self.outcomes}

    def of(self, number: int) -> Outcome:
        (found,) = (each for each in self.outcomes if each.planned.install.id == install_id(number))
        return found


class ListLog:
    """Keep events in a list."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def _keep(self, event: str, **fields: object) -> None:
        self.events.append((event, fields))

    debug = info = warning = error = _keep

    def bind(self, **_fields: object) -> ListLog:
        return self

    @property
    def names(self) -> list[str]:
        return [event for event, _ in self.events]


def counted(items: Iterable[object]) -> dict[object, int]:
    return dict(Counter(items))
