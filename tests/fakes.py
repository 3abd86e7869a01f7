"""Fakes of the core's Protocols, and shortcuts to make the domain's objects."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from orchestrator.errors import StorageError
from orchestrator.listings import Page
from orchestrator.marker import marker
from orchestrator.model import (
    AttemptResult,
    Backup,
    BackupRequest,
    Checkpoint,
    ErrorInfo,
    Fault,
    Install,
    Outcome,
    OutcomeKind,
    PlannedBackup,
)
from orchestrator.pacing import Effect, Feedback, Ticket
from orchestrator.summary import AccountTotals, Summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

RUN_ID = "01JD0000000000000000000000"
EARLIER_RUN_ID = "01JC0000000000000000000000"
SUMMARY = Summary(
    run_id="R1",
    started_at=datetime(2026, 11, 23, 1, 0, 0, 123456, tzinfo=UTC),
    finished_at=datetime(2026, 11, 23, 1, 0, 0, 123456, tzinfo=UTC),
    duration_s=75.0,
    planned=2,
    disabled=1,
    outcomes=dict.fromkeys(OutcomeKind, 0) | {OutcomeKind.ACCEPTED: 1, OutcomeKind.REJECTED: 1},
    retries=3,
    reconciled=1,
    accounts={"default": AccountTotals(5, 2, 12.3456), "b": AccountTotals(1, 1, 5.0)},
    exit_code=3,
    config="f.yaml",
    report="report.jsonl",
    version="0",
)
OK = AttemptResult(status=200)
ACCEPTED = AttemptResult(status=202, backup=Backup("b-1", "requested"), request_id="r-1")
THROTTLED = AttemptResult(status=429, message="Too Many Requests")
QUOTA = AttemptResult(status=429, message="Limit Exceeded")
UNAUTHORIZED = AttemptResult(status=401, message="Bad Credentials")
NOT_FOUND = AttemptResult(status=404, message="Not Found")
GATEWAY_TIMEOUT = AttemptResult(status=504, message="Endpoint request timed out")
DISCONNECTED = AttemptResult(fault=Fault.DISCONNECTED, sent=True, message="broken off")
CERTIFICATE = AttemptResult(fault=Fault.CERTIFICATE, sent=False, message="expired")
UNREADABLE = AttemptResult(status=202, fault=Fault.UNREADABLE, message="no JSON")
GARBAGE = replace(UNREADABLE, status=200)
REFUSED = AttemptResult(fault=Fault.UNREACHABLE, sent=False, message="refused")
BROKEN_OFF = AttemptResult(fault=Fault.INTERRUPTED, sent=True, message="broken off")


def install_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def planned(number: int, account: str = "default") -> PlannedBackup:
    install = Install(install_id(number), account, "x", (), name=f"install{number}")
    return PlannedBackup(number, install, BackupRequest(install_id(number), f"x {marker(RUN_ID)}", ()))


def shown(backup_id: str, description: str | None = None, **fields: str) -> Backup:
    """Return a backup as a listing shows it, by default with the marker of ``RUN_ID``."""
    text = f"x {marker(RUN_ID)}" if description is None else description
    return replace(Backup(backup_id, "completed", text), **fields)


def listing(*backups: Backup, next_offset: int | None = None) -> AttemptResult:
    """Return an answer with one page of a listing."""
    return AttemptResult(status=200, page=Page(backups, next_offset))


EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""The wall clock's time at second 0 of virtual time."""


class FakeClock:
    """The running loop's time, a wall clock that follows it, and random draws that are always 0.5."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.monotonic())

    def draw(self) -> float:
        return 0.5


class FakeThrottle:
    """Admit without delay, ``concurrency`` at a time, and remember all feedback.

    If ``spaced``, starts are 0.1 s apart (as ``rate`` says). Nothing starts before ``held_until``.
    """

    always_waits = False
    """Whether even the first ticket needs a wait."""

    def __init__(self, concurrency: int = 4, *, spaced: bool = False) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._gap_s = 1.0 / self.rate() if spaced else 0.0
        self._next_at = 0.0
        self.held_until = 0.0
        self.words: list[Feedback] = []
        self.released = 0
        self.out = 0
        self.read_only_once = False

    def admit_at_once(self) -> Ticket | None:
        if (
            self.always_waits
            or self._slots.locked()
            or max(self._next_at, self.held_until) > asyncio.get_running_loop().time()
        ):
            return None
        with suppress(StopIteration):
            self._slots.acquire().send(None)  # a free slot needs no wait
        return self._started()

    async def admit(self) -> Ticket:
        await self._slots.acquire()
        try:
            await self._start()
        except asyncio.CancelledError:
            self._slots.release()
            raise
        return self._started()

    def _started(self) -> Ticket:
        self._next_at = asyncio.get_running_loop().time() + self._gap_s
        self.out += 1
        read_only, self.read_only_once = self.read_only_once, False
        return Ticket(0.0, 0, canary=read_only, read_only=read_only)

    async def _start(self) -> None:
        now = asyncio.get_running_loop().time
        while (wait_s := max(self._next_at, self.held_until) - now()) > 0:  # noqa: ASYNC110 - a wait that may grow
            await asyncio.sleep(wait_s)

    def observe(self, ticket: Ticket, feedback: Feedback) -> None:  # noqa: ARG002 - the Protocol's
        self.words.append(feedback)
        self._back()

    def release(self, ticket: Ticket) -> None:  # noqa: ARG002 - the Protocol's
        self.released += 1
        self._back()

    def _back(self) -> None:
        self.out -= 1
        self._slots.release()

    def rate(self) -> float:
        return 10.0

    def held_s(self) -> float:
        return 0.0

    @property
    def effects(self) -> Counter[Effect]:
        return Counter(feedback.effect for feedback in self.words)


class FakeApi:
    """Answer each install's POSTs, its listing and the credential checks from scripts. A script's last entry repeats.

    A POST whose answer has a backup makes a backup. Every POST of an install in ``makes`` makes one too, whatever its
    answer. A listing without a script shows the backups that are at least ``lists_after_s`` old, with their
    descriptions, on one page. Each answer takes ``takes_s``. A backup ends ``ends_after_s`` after its POST with the
    status ``ends_as``. ``on_poll`` gets the install, the backup and the number of the poll; it returns the answer, or
    ``None`` for the real one.
    """

    def __init__(self, default: AttemptResult = ACCEPTED, takes_s: float = 0.1) -> None:
        self._default = default
        self._takes_s = takes_s
        self.check_takes_s = takes_s
        self.list_takes_s = takes_s
        self.post_takes_s = takes_s
        self.poll_takes_s = takes_s
        self.lists_after_s = 0.0
        self._scripts: dict[str, list[AttemptResult]] = {}
        self._listings: dict[str, list[AttemptResult | None]] = {}
        self._made: dict[str, list[tuple[float, Backup]]] = defaultdict(list)
        self.makes: set[str] = set()
        self.checks: list[AttemptResult] = [OK]
        self.posts: Counter[str] = Counter()
        self.post_times: dict[str, list[float]] = defaultdict(list)
        self.looks: dict[str, list[tuple[float, int]]] = defaultdict(list)
        self.polls: dict[str, list[float]] = defaultdict(list)
        self.on_poll: Callable[[str, str, int], AttemptResult | None] = lambda *_: None
        self.ends_after_s = 60.0
        self.ends_as: Callable[[str], str] = lambda _: "completed"
        self.checked = 0
        self.on_post: Callable[[], None] = lambda: None
        self.on_request: Callable[[BackupRequest], None] = lambda _: None

    def script(self, number: int, *results: AttemptResult) -> None:
        """Set the answers to an install's POSTs."""
        self._scripts[install_id(number)] = list(results)

    def script_listing(self, number: int, *results: AttemptResult | None) -> None:
        """Set the answers to the reads of an install's listing; ``None`` is the real listing."""
        self._listings[install_id(number)] = list(results)

    def lose(self, number: int, *results: AttemptResult) -> None:
        """Set the answers to an install's POSTs, and let each POST make a backup whatever its answer."""
        self.makes.add(install_id(number))
        self.script(number, *results)

    def made(self, number: int) -> list[str]:
        """Return the ids of an install's backups."""
        return [backup.id for _, backup in self._made[install_id(number)]]

    def backups_of(self, install_id: str) -> list[Backup]:
        """Return an install's backups as first made, without later changes of status."""
        return [backup for _, backup in self._made.get(install_id, [])]

    def is_listing_scripted(self, install_id: str) -> bool:
        """Tell whether an install's listing is scripted, and so may show backups that were never made."""
        return install_id in self._listings

    def unmake(self, install_id: str) -> None:
        """Forget an install's backups, as if they had never been made."""
        self._made.pop(install_id)

    async def create_backup(self, request: BackupRequest) -> AttemptResult:
        nth = self.posts[request.install_id]
        self.posts[request.install_id] += 1
        self.post_times[request.install_id].append(asyncio.get_running_loop().time())
        self.on_post()
        self.on_request(request)
        script = self._scripts.get(request.install_id, [self._default])
        result = script[min(nth, len(script) - 1)]
        backup = result.backup or (Backup(f"made-{nth}", "requested") if request.install_id in self.makes else None)
        if backup:
            now = asyncio.get_running_loop().time()
            if backup.id in {each.id for _, each in self._made[request.install_id]}:
                backup = replace(backup, id=f"{backup.id}.{nth}")
                result = replace(result, backup=backup if result.backup else None)
            self._made[request.install_id].append((now, replace(backup, description=request.description)))
        return await _after(self.post_takes_s, result)

    async def list_backups(self, install_id: str, offset: int) -> AttemptResult:
        nth, now = len(self.looks[install_id]), asyncio.get_running_loop().time()
        self.looks[install_id].append((now, offset))
        script = self._listings.get(install_id, [None])
        scripted = script[min(nth, len(script) - 1)]
        made = [(at, backup) for at, backup in self._made[install_id] if at + self.lists_after_s <= now]
        listed = [self._stands(at, backup, now) for at, backup in made]
        return await _after(self.list_takes_s, scripted or listing(*listed))

    async def show_backup(self, install_id: str, backup_id: str) -> AttemptResult:
        now = asyncio.get_running_loop().time()
        polls = self.polls[install_id]
        polls.append(now)
        answer = self.on_poll(install_id, backup_id, len(polls))
        made = next((entry for entry in self._made[install_id] if entry[1].id == backup_id), None)
        if answer is None:
            answer = AttemptResult(status=200, backup=self._stands(*made, now)) if made else NOT_FOUND
        return await _after(self.poll_takes_s, answer)

    def _stands(self, began_at: float, backup: Backup, now: float) -> Backup:
        if backup.status in {"completed", "aborted"}:
            return backup
        status = self.ends_as(backup.id) if now - began_at >= self.ends_after_s else "in_progress"
        return replace(backup, status=status)

    async def list_installs(self, account_id: str | None, offset: int) -> AttemptResult:  # noqa: ARG002 - the Protocol's
        return await _after(self._takes_s, NOT_FOUND)

    async def list_accounts(self, offset: int) -> AttemptResult:  # noqa: ARG002 - the Protocol's
        return await _after(self._takes_s, NOT_FOUND)

    async def check_credentials(self) -> AttemptResult:
        nth = self.checked
        self.checked += 1
        return await _after(self.check_takes_s, self.checks[min(nth, len(self.checks) - 1)])


async def _after(takes_s: float, result: AttemptResult) -> AttemptResult:
    try:
        await asyncio.sleep(takes_s)
    except asyncio.CancelledError:
        return BROKEN_OFF
    return result


class FakeJournal:
    """Keep checkpoints in a list; a write takes ``takes_s``. After ``full_after`` checkpoints every write fails.

    ``noted`` has the checkpoints that a caller waited for: intents, and backups that will be polled.
    """

    def __init__(self, full_after: int | None = None, takes_s: float = 0.0) -> None:
        self.checkpoints: list[Checkpoint] = []
        self.noted: list[Checkpoint] = []
        self.takes_s = takes_s
        self._full_after = full_after
        self._last: dict[str | None, Checkpoint] = {}
        self._last_noted: dict[str | None, Checkpoint] = {}
        self._backups: set[tuple[str | None, str]] = set()

    async def note(self, checkpoint: Checkpoint) -> None:
        await asyncio.sleep(self.takes_s)
        if self._is_full:
            message = "the journal's disk is full"
            raise StorageError(message)
        self._keep(checkpoint)
        self.noted.append(checkpoint)
        install, backup = checkpoint.planned.install.id, checkpoint.made.backup
        self._last_noted[install] = checkpoint
        if backup:
            self._backups.add((install, backup.id))

    def note_soon(self, checkpoint: Checkpoint) -> None:
        if not self._is_full:
            self._keep(checkpoint)

    def _keep(self, checkpoint: Checkpoint) -> None:
        self.checkpoints.append(checkpoint)
        self._last[checkpoint.planned.install.id] = checkpoint

    @property
    def _is_full(self) -> bool:
        return self._full_after is not None and len(self.checkpoints) >= self._full_after

    def last_if_noted(self, install_id: str) -> Checkpoint | None:
        """Return an install's last checkpoint, or ``None`` if no caller waited until it was on disk."""
        last = self._last.get(install_id)
        return last if last is self._last_noted.get(install_id) else None

    def has_backup(self, install_id: str, backup_id: str) -> bool:
        """Tell whether a caller waited until a checkpoint with this backup was on disk."""
        return (install_id, backup_id) in self._backups

    def of(self, number: int) -> list[Checkpoint]:
        """Return an install's checkpoints in order."""
        return [each for each in self.checkpoints if each.planned.install.id == install_id(number)]


class ListSink:
    """Keep outcomes in a list; each takes ``takes_s`` seconds. After ``full_after`` outcomes every write fails."""

    def __init__(self, full_after: int | None = None, takes_s: Callable[[Outcome], float] = lambda _: 0.0) -> None:
        self.outcomes: list[Outcome] = []
        self._full_after = full_after
        self._takes_s = takes_s
        self._keeping: set[asyncio.Task[None]] = set()

    def record(self, outcome: Outcome, on_failure: Callable[[Outcome, Exception], None]) -> None:
        keeping = asyncio.create_task(self._keep(outcome, on_failure))
        self._keeping.add(keeping)
        keeping.add_done_callback(self._keeping.discard)

    async def drain(self) -> None:
        while self._keeping:
            await asyncio.wait(self._keeping)

    async def _keep(self, outcome: Outcome, on_failure: Callable[[Outcome, Exception], None]) -> None:
        await asyncio.sleep(self._takes_s(outcome))
        if self._full_after is not None and len(self.outcomes) >= self._full_after:
            on_failure(outcome, StorageError("the disk is full"))
        else:
            self.outcomes.append(outcome)

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


def error_of(outcome: Outcome) -> ErrorInfo:
    """Return the error of an outcome that has one."""
    assert outcome.error
    return outcome.error


def backup_of(outcome: Outcome) -> Backup:
    """Return the backup of an outcome that has one."""
    assert outcome.backup
    return outcome.backup
