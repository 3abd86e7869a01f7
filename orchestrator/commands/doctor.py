"""Check each account: does the API answer, are the credentials accepted, can it list, and do the clocks agree.

Each account sends three reads, under its limiter. They change nothing.
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
"""Seconds that an answer may take, and that the API may refuse requests, before a check fails."""

TRIES, AT_ONCE = 2, Persistence(reach_s=1.0)

ODD_CLOCK_S, WRONG_CLOCK_S = 5.0, 300.0
"""Seconds between the clocks above which the check warns, and above which it fails."""

_OK, _MULTIPLE_CHOICES, _BAD_REQUEST, _FORBIDDEN, _NOT_FOUND, _TOO_MANY = 200, 300, 400, 403, 404, 429

_BUSY = "find out who else uses these credentials or this address, and try again when they have finished"

_REMEDIES = {
    Fault.UNREACHABLE: "check base_url, DNS and the firewall; if a proxy is needed, set proxy_from_environment: true",
    Fault.PROXY: "correct the user and password in the variable that names the proxy, or list this host in no_proxy",
    Fault.TLS: "the server there does not speak TLS: check the scheme and the port of base_url",
    Fault.CERTIFICATE: "check base_url and this machine's clock; if a proxy signs certificates, set ca_file to its CA",
    Fault.CONNECT_TIMEOUT: "check base_url and the firewall; if a proxy is needed, set proxy_from_environment: true",
    Fault.READ_TIMEOUT: "try again later; if it fails again, check which server base_url leads to",
    Fault.DISCONNECTED: "try again; if it fails again, check the scheme and the port of base_url",
    Fault.MALFORMED: "the server there does not speak plain HTTP: check the scheme and the port of base_url",
    Fault.INVALID_URL: "check base_url",
    Fault.UNREADABLE: "the server there is not the API: check base_url",
}
_CLOCK_REMEDY = (
    "let NTP set this machine's clock: {date}, {time}, run ids, the report's times and certificates depend on it"
)


@dataclass(frozen=True, slots=True)
class _Heard:
    """One answer, the seconds that it took, and the seconds that the server's clock is ahead, if known."""

    result: AttemptResult
    took_s: float
    ahead_s: float | None


class _Witness:
    """An ``Api`` that passes every call on, and remembers the answers."""

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
    """Return how many seconds the server's clock is ahead, approximately; 0 if the clocks may agree.

    ``server_at`` is in whole seconds, and was read at some moment between ``asked_at`` and ``answered_at``.
    """
    if server_at is None:
        return None
    least, most = server_at - answered_at, server_at + 1 - asked_at
    return 0.0 if least <= 0 <= most else (least + most) / 2


async def account_checks(config: Config, log: Log, stop: StopSwitch) -> list[Check]:
    """Check all accounts of ``config`` at the same time. Raises ``StoppedError`` if a signal comes first."""
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
        self._queue = account
        self._queries = queries
        self._witness = _Witness(account.api, clock)
        account.api = self._witness

    async def checks(self) -> list[Check]:
        installs = await self._queries.ask(self._queue.name, lambda api: api.list_installs(None, 0))
        subject = self._subject(installs)
        backups = None
        if subject and not self._queue.stop:
            backups = await self._queries.ask(self._queue.name, lambda api: api.list_backups(subject, 0))
        reached = [self._api(), self._credentials()]
        listed = [self._installs(installs), self._backups(subject, backups, installs)]
        return [*reached, *listed, self._clock()]

    def _check(self, name: str, grade: Grade, found: str, remedy: str = "") -> Check:
        return Check(name, grade, found, "" if grade is Grade.OK else remedy, self._queue.name)

    def _subject(self, installs: AttemptResult | ErrorInfo) -> str | None:
        """Return the id of the install whose backups are listed: configured and shown, else shown, else configured.

        A shown install exists, so a refusal concerns the listing of its backups. A configured install may be gone.
        """
        shown = [each.id for each in _shown(installs) if not each.is_pending]
        configured = [
            each.id for each in self._config.installs if each.account == self._queue.name and each.enabled and each.id
        ]
        both = set(configured).intersection(shown)
        return next(iter([*(each for each in shown if each in both), *shown, *configured]), None)

    def _api(self) -> Check:
        stop, url = self._queue.stop, self._config.accounts[self._queue.name].base_url
        if stop is None or stop.kind is ErrorKind.CREDENTIALS:
            fastest = min(each.took_s for each in self._witness.heard if each.result.status is not None)
            if self._queue.throttled:
                found = f"{url} answers, but refused {self._queue.throttled} of the few requests of this check (429)"
                return self._check("api", Grade.WARN, found, _BUSY)
            return self._check("api", Grade.OK, f"{url} answers in {fastest * 1000:.0f} ms")
        last = self._witness.heard[-1].result if self._witness.heard else None
        fault = last.fault if last else None
        remedy = _remedy(fault, stop.status)
        said = _said(stop if last is None or not last.message else replace(stop, message=last.message))
        return self._check("api", Grade.FAIL, f"{url} cannot be used: {said}", remedy)

    def _credentials(self) -> Check:
        stop = self._queue.stop
        if stop and stop.kind is ErrorKind.CREDENTIALS:
            remedy = "compare user id and password with the User Portal's page on API access, or create new ones there"
            return self._check("credentials", Grade.FAIL, f"refused: {self._witness.heard[-1].result.message}", remedy)
        if self._queue.state is AccountState.OPEN or any(_is_user(each.result) for each in self._witness.heard):
            return self._check("credentials", Grade.OK, "accepted")
        return self._skipped("credentials")

    def _installs(self, installs: AttemptResult | ErrorInfo) -> Check:
        if self._queue.stop:
            return self._skipped("installs")
        if isinstance(installs, ErrorInfo):
            is_needed = self._queue.name in asked_accounts(self._config, Selection())
            found = f"the installs cannot be listed: {_said(installs)}"
            remedy = (
                "give ids instead of names, or check what these credentials may do: names, discover and installs --diff"
                " need this listing"
            )
            return self._check("installs", Grade.FAIL if is_needed else Grade.WARN, found, remedy)
        page = installs.installs
        entries = _shown(installs)
        total = page.total if page and page.total is not None else len(entries)
        more = " or more" if page and page.total is None and page.next_offset is not None else ""
        return self._check("installs", Grade.OK, f"installs that the credentials see: {total}{more}")

    def _backups(
        self, subject: str | None, backups: AttemptResult | ErrorInfo | None, installs: AttemptResult | ErrorInfo
    ) -> Check:
        if self._queue.stop or backups is None or subject is None:
            return self._skipped("backups", "" if self._queue.stop else "there is no install to list backups of")
        if isinstance(backups, ErrorInfo):
            found = f"the backups of {subject} cannot be listed: {_said(backups)}"
            remedy = (
                "backups can be requested, but without this listing a lost answer ends in unconfirmed (look in the User"
                " Portal, then use wpe-backup settle), --skip-if-recent skips nothing, and audit says unknown"
            )
            if backups.status == _NOT_FOUND and subject not in {each.id for each in _shown(installs)}:
                remedy = (
                    f"if this install is gone, take it out of the YAML (wpe-backup installs --diff); if not, {remedy}"
                )
            return self._check("backups", Grade.WARN, found, remedy)
        entries = backups.page.entries if backups.page else ()
        if any(runs_marked(each.description or "") for each in entries):
            return self._check("backups", Grade.OK, f"the backups of {subject} are listed, with markers of wpe-backup")
        if entries and not any(each.description for each in entries):
            found = f"the backups of {subject} are listed without descriptions"
            remedy = (
                "backups can be requested, but without the marker an ambiguous answer may end in unconfirmed (look in"
                " the User Portal, then use wpe-backup settle)"
            )
            return self._check("backups", Grade.WARN, found, remedy)
        return self._check(
            "backups", Grade.OK, f"the backups of {subject} are listed; wpe-backup has requested none of them yet"
        )

    def _clock(self) -> Check:
        known = [each.ahead_s for each in self._witness.heard if each.ahead_s is not None]
        if not known:
            return self._skipped("clock", "no answer had a usable Date header")
        ahead_s = min(known, key=abs)
        if not ahead_s:
            return self._check("clock", Grade.OK, "this machine's clock agrees with the server's")
        how = "behind" if ahead_s > 0 else "ahead of"
        found = f"this machine's clock is {age_text(abs(ahead_s))} {how} the server's"
        grade = Grade.OK if abs(ahead_s) <= ODD_CLOCK_S else Grade.WARN
        return self._check("clock", Grade.FAIL if abs(ahead_s) > WRONG_CLOCK_S else grade, found, _CLOCK_REMEDY)

    def _skipped(self, name: str, why: str = "") -> Check:
        return self._check(name, Grade.SKIPPED, why or "the requests of this account fail")


def _said(error: ErrorInfo) -> str:
    return error.message if error.status is None else f"{error.status}, {error.message}"


def _shown(installs: AttemptResult | ErrorInfo) -> tuple[ListedInstall, ...]:
    return () if isinstance(installs, ErrorInfo) or installs.installs is None else installs.installs.entries


def _is_user(result: AttemptResult) -> bool:
    return result.status == _OK and result.fault is None


def _remedy(fault: Fault | None, status: int | None) -> str:
    """Return the remedy for an API that gives no usable answer."""
    if fault in _REMEDIES:
        return _REMEDIES[fault]
    if status == _FORBIDDEN:
        return "the API, or a firewall before it, refuses this machine's address: have the address allowed there"
    if status is not None and _MULTIPLE_CHOICES <= status < _BAD_REQUEST:
        return "a redirect is never followed: set base_url to the address that it leads to"
    if status == _TOO_MANY:
        return _BUSY
    if status == _NOT_FOUND:
        return "base_url does not lead to the API: check it, including its /v1"
    return "try again later; if it fails again, see WP Engine's status page"
