"""Whether the API can be asked: is it there, are the credentials good, does it list, are the clocks together.

Three reads for each account, under its limiter, and none that changes anything.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.commands.machine import Check, Grade
from orchestrator.engine.queues import AccountState
from orchestrator.marker import runs_marked
from orchestrator.model import ErrorInfo, ErrorKind, Fault
from orchestrator.policies import RetryPolicy, Timeouts
from orchestrator.selection import Selection
from orchestrator.session.connections import Connections
from orchestrator.session.inventory import asked_accounts
from orchestrator.session.queries import Persistence, asked
from orchestrator.units import age_text

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from orchestrator.engine.ports import Api, Clock, Log
    from orchestrator.engine.queues import AccountQueue
    from orchestrator.engine.stop import StopSwitch
    from orchestrator.listings import ListedInstall
    from orchestrator.model import AttemptResult, BackupRequest, Config
    from orchestrator.session.queries import Queries

ACCOUNT_CHECKS = ("api", "credentials", "installs", "backups", "clock")

PATIENCE_S = 10.0
"""How long an answer may take, and the API refuse, before somebody who waits for the verdict is told."""

TRIES, AT_ONCE = 2, Persistence(reach_s=1.0)

ODD_CLOCK_S, WRONG_CLOCK_S = 5.0, 300.0
"""Seconds between the clocks from which on they are worth a word, and from which on times cannot be relied on."""

_OK, _MULTIPLE_CHOICES, _BAD_REQUEST, _FORBIDDEN, _NOT_FOUND, _TOO_MANY = 200, 300, 400, 403, 404, 429

_BUSY = "see who else asks with these credentials or from this address, and try again when that is over"

_REMEDIES = {
    Fault.UNREACHABLE: "check base_url, the name's DNS, the firewall; behind a proxy set proxy_from_environment: true",
    Fault.PROXY: "correct the user and password in the variable that names the proxy, or set no_proxy",
    Fault.TLS: "what answers there speaks no TLS: check the scheme and the port of base_url",
    Fault.CERTIFICATE: "check base_url and this machine's clock; if a proxy of your own signs, name its ca_file",
    Fault.CONNECT_TIMEOUT: "a firewall may drop it: check base_url; behind a proxy set proxy_from_environment: true",
    Fault.READ_TIMEOUT: "try again later; if it stays so, check what base_url leads to",
    Fault.DISCONNECTED: "try again; if it stays so, check the scheme and the port of base_url",
    Fault.MALFORMED: "what answers there speaks no plain HTTP: check the scheme and the port of base_url",
    Fault.INVALID_URL: "check base_url",
    Fault.UNREADABLE: "something else than the API answers there: check base_url",
}
_CLOCK_REMEDY = (
    "let NTP set this machine's clock: {date}, {time}, run ids and the report's times are by it, and certificates"
)


@dataclass(frozen=True, slots=True)
class _Heard:
    """One answer, how many seconds it took, and how many the server's clock is ahead, if known."""

    result: AttemptResult
    took_s: float
    ahead_s: float | None


class _Witness:
    """An ``Api`` that passes everything on, and remembers what it heard."""

    def __init__(self, api: Api, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self.heard: list[_Heard] = []

    async def _hear(self, call: Coroutine[object, object, AttemptResult]) -> AttemptResult:
        asked_at, began = self._clock.now().timestamp(), self._clock.monotonic()
        result = await call
        took_s = self._clock.monotonic() - began
        self.heard.append(_Heard(result, took_s, _ahead_s(result.server_at, asked_at, asked_at + took_s)))
        return result

    async def create_backup(self, request: BackupRequest) -> AttemptResult:
        return await self._hear(self._api.create_backup(request))

    async def list_backups(self, install_id: str, offset: int) -> AttemptResult:
        return await self._hear(self._api.list_backups(install_id, offset))

    async def list_installs(self, account_id: str | None, offset: int) -> AttemptResult:
        return await self._hear(self._api.list_installs(account_id, offset))

    async def list_accounts(self, offset: int) -> AttemptResult:
        return await self._hear(self._api.list_accounts(offset))

    async def show_backup(self, install_id: str, backup_id: str) -> AttemptResult:
        return await self._hear(self._api.show_backup(install_id, backup_id))

    async def check_credentials(self) -> AttemptResult:
        return await self._hear(self._api.check_credentials())


def _ahead_s(server_at: float | None, asked_at: float, answered_at: float) -> float | None:
    """Return how far the server's clock is ahead, about; 0 where it need not be.

    It gives whole seconds, of any moment between two of ours.
    """
    if server_at is None:
        return None
    least, most = server_at - answered_at, server_at + 1 - asked_at
    return 0.0 if least <= 0 <= most else (least + most) / 2


async def account_checks(config: Config, log: Log, stop: StopSwitch) -> list[Check]:
    """Check every account of ``config``, all at once. Raises ``StoppedError`` if a signal comes first."""
    impatient = replace(
        config,
        retry=RetryPolicy(TRIES, PATIENCE_S),
        timeouts=Timeouts(min(config.timeouts.connect_s, PATIENCE_S), min(config.timeouts.read_s, PATIENCE_S)),
        throttle=replace(config.throttle, give_up_s=PATIENCE_S, max_pause_s=PATIENCE_S),
    )
    async with AsyncExitStack() as stack:
        connections = Connections(impatient, None, log, stack)

        async def look(queries: Queries) -> list[list[Check]]:
            return await asyncio.gather(
                *(
                    _Examination(config, connections.accounts[each], queries, connections.clock).checks()
                    for each in connections.accounts
                )
            )

        return [check for checks in await asked(connections, config.accounts, look, stop, AT_ONCE) for check in checks]


class _Examination:
    """The checks of one account."""

    def __init__(self, config: Config, account: AccountQueue, queries: Queries, clock: Clock) -> None:
        self._config = config
        self._lane = account
        self._asker = queries
        self._witness = _Witness(account.api, clock)
        account.api = self._witness

    async def checks(self) -> list[Check]:
        installs = await self._asker.ask(self._lane.name, lambda api: api.list_installs(None, 0))
        subject = self._subject(installs)
        backups = None
        if subject and not self._lane.stop:
            backups = await self._asker.ask(self._lane.name, lambda api: api.list_backups(subject, 0))
        reached = [self._api(), self._credentials()]
        listed = [self._installs(installs), self._backups(subject, backups, installs)]
        return [*reached, *listed, self._clock()]

    def _check(self, name: str, grade: Grade, found: str, remedy: str = "") -> Check:
        return Check(name, grade, found, "" if grade is Grade.OK else remedy, self._lane.name)

    def _subject(self, installs: AttemptResult | ErrorInfo) -> str | None:
        """Return the install whose backups are listed: one that is configured and shown, else either.

        What is shown is there, so a refusal is about the listing of its backups; what is configured may be gone.
        """
        shown = [each.id for each in _shown(installs) if not each.is_pending]
        configured = [
            each.id for each in self._config.installs if each.account == self._lane.name and each.enabled and each.id
        ]
        both = set(configured).intersection(shown)
        return next(iter([*(each for each in shown if each in both), *shown, *configured]), None)

    def _api(self) -> Check:
        stop, url = self._lane.stop, self._config.accounts[self._lane.name].base_url
        if stop is None or stop.kind is ErrorKind.CREDENTIALS:
            fastest = min(each.took_s for each in self._witness.heard if each.result.status is not None)
            if self._lane.throttled:
                found = f"{url} answers, and refused {self._lane.throttled} of these few requests (429)"
                return self._check("api", Grade.WARN, found, _BUSY)
            return self._check("api", Grade.OK, f"{url} answers in {fastest * 1000:.0f} ms")
        last = self._witness.heard[-1].result if self._witness.heard else None
        fault = last.fault if last else None
        remedy = _remedy(fault, stop.status)
        said = _said(stop if last is None or not last.message else replace(stop, message=last.message))
        return self._check("api", Grade.FAIL, f"{url} cannot be used: {said}", remedy)

    def _credentials(self) -> Check:
        stop = self._lane.stop
        if stop and stop.kind is ErrorKind.CREDENTIALS:
            remedy = "compare user id and password with the User Portal's page on API access, or make new ones there"
            return self._check("credentials", Grade.FAIL, f"refused: {self._witness.heard[-1].result.message}", remedy)
        if self._lane.state is AccountState.OPEN or any(_is_user(each.result) for each in self._witness.heard):
            return self._check("credentials", Grade.OK, "accepted")
        return self._skipped("credentials")

    def _installs(self, installs: AttemptResult | ErrorInfo) -> Check:
        if self._lane.stop:
            return self._skipped("installs")
        if isinstance(installs, ErrorInfo):
            is_needed = self._lane.name in asked_accounts(self._config, Selection())
            found = f"cannot be listed: {_said(installs)}"
            remedy = "names, discover and installs --diff need this listing; give ids instead, or see what is allowed"
            return self._check("installs", Grade.FAIL if is_needed else Grade.WARN, found, remedy)
        page = installs.installs
        entries = _shown(installs)
        total = page.total if page and page.total is not None else len(entries)
        more = " or more" if page and page.total is None and page.next_offset is not None else ""
        return self._check("installs", Grade.OK, f"the credentials see {total}{more}")

    def _backups(
        self, subject: str | None, backups: AttemptResult | ErrorInfo | None, installs: AttemptResult | ErrorInfo
    ) -> Check:
        if self._lane.stop or backups is None or subject is None:
            return self._skipped("backups", "" if self._lane.stop else "there is no install to try it on")
        if isinstance(backups, ErrorInfo):
            found = f"those of {subject} cannot be listed: {_said(backups)}"
            remedy = (
                "backups can be requested, but without this listing an answer that is lost ends in unconfirmed,"
                " --skip-if-recent skips nothing, and audit says unknown"
            )
            if backups.status == _NOT_FOUND and subject not in {each.id for each in _shown(installs)}:
                remedy = f"if this install is gone, take it out of the YAML (wpe-backup installs --diff); else {remedy}"
            return self._check("backups", Grade.WARN, found, remedy)
        entries = backups.page.entries if backups.page else ()
        if any(runs_marked(each.description or "") for each in entries):
            return self._check("backups", Grade.OK, f"those of {subject} are listed, with our markers")
        if entries and not any(each.description for each in entries):
            remedy = "an ambiguous answer cannot be settled by the marker then, and ends in unconfirmed"
            return self._check("backups", Grade.WARN, f"those of {subject} are listed without descriptions", remedy)
        return self._check("backups", Grade.OK, f"those of {subject} are listed, none of ours yet")

    def _clock(self) -> Check:
        known = [each.ahead_s for each in self._witness.heard if each.ahead_s is not None]
        if not known:
            return self._skipped("clock", "no answer told the time")
        ahead_s = min(known, key=abs)
        if not ahead_s:
            return self._check("clock", Grade.OK, "this machine's agrees with the server's")
        found = f"this machine's is {age_text(abs(ahead_s))} {'behind' if ahead_s > 0 else 'ahead of'} the server's"
        grade = Grade.OK if abs(ahead_s) <= ODD_CLOCK_S else Grade.WARN
        return self._check("clock", Grade.FAIL if abs(ahead_s) > WRONG_CLOCK_S else grade, found, _CLOCK_REMEDY)

    def _skipped(self, name: str, why: str = "") -> Check:
        return self._check(name, Grade.SKIPPED, why or "the account cannot be asked")


def _said(error: ErrorInfo) -> str:
    return error.message if error.status is None else f"{error.status}, {error.message}"


def _shown(installs: AttemptResult | ErrorInfo) -> tuple[ListedInstall, ...]:
    return () if isinstance(installs, ErrorInfo) or installs.installs is None else installs.installs.entries


def _is_user(result: AttemptResult) -> bool:
    return result.status == _OK and result.fault is None


def _remedy(fault: Fault | None, status: int | None) -> str:
    """Return what can be done about an API that does not answer as it should."""
    if fault in _REMEDIES:
        return _REMEDIES[fault]
    if status == _FORBIDDEN:
        return "something in between, or the API, refuses this address: see its firewall's list"
    if status is not None and _MULTIPLE_CHOICES <= status < _BAD_REQUEST:
        return "a redirect is never followed: give the address that it leads to as base_url"
    if status == _TOO_MANY:
        return _BUSY
    if status == _NOT_FOUND:
        return "base_url leads to something else than the API: check it, with its /v1"
    return "try again later; if it stays so, see WP Engine's status page"
