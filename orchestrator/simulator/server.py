"""Serve the stand-in with aiohttp.web: the API below ``/v1``, its records below ``/_admin``."""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

from aiohttp import web

from orchestrator.simulator import answers
from orchestrator.simulator.answers import ELSEWHERE, answer, invalid
from orchestrator.simulator.fault_keys import MADE_ALL_THE_SAME, OF_INSTALLS, OF_THE_CONNECTION, Kind, Operation
from orchestrator.simulator.faults import Asked, fault_of
from orchestrator.simulator.gateway import NOTED, Gateway, RefusedError, UnansweredError
from orchestrator.simulator.tally import Tally
from orchestrator.simulator.world import WORDPRESS, World, iso, utc_now

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime
    from types import TracebackType

    from orchestrator.simulator.fault_keys import Fault
    from orchestrator.simulator.scenario import Scenario

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
LARGEST_PAGE = 100

Answer = tuple[int, dict[str, Any]]


class Simulator:
    """One stand-in, an asynchronous context manager. It listens from entry to exit."""

    def __init__(
        self, scenario: Scenario, host: str = "127.0.0.1", port: int = 0, now: Callable[[], datetime] = utc_now
    ) -> None:
        """Prepare a stand-in for ``scenario``. Port 0 picks a free port. ``now`` is this machine's clock."""
        self.scenario = scenario
        self.world, self.tally = World(scenario, now), Tally()
        self.host, self.port = host, port
        self._gateway: Gateway | None = None
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        """Return the URL to give as an account's ``base_url``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/v1"

    def stats(self) -> dict[str, Any]:
        """Return the totals of requests and backups."""
        return self.tally.stats(self.world)

    async def __aenter__(self) -> Self:
        """Listen. Raises ``OSError`` if the port is not available."""
        self._gateway = Gateway(self.scenario, self.world, self.tally)
        self._runner = web.AppRunner(self._app(self._gateway), access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening, and cancel the backend's work."""
        if self._runner:
            await self._runner.cleanup()
        if self._gateway:
            await self._gateway.close()

    def _app(self, gateway: Gateway) -> web.Application:
        @web.middleware
        async def in_front(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            return await (
                handler(request) if request.path.startswith("/_admin/") else gateway.pass_on(request, handler)
            )

        api = _Api(self.scenario, self.world, self.tally, lambda: gateway.at)
        app = web.Application(middlewares=[in_front])
        app.router.add_routes(
            [
                web.post("/v1/installs/{install_id}/backups", api.handler(Operation.POST, api.create_backup)),
                web.get("/v1/installs/{install_id}/backups", api.handler(Operation.LISTING, api.list_backups)),
                web.get("/v1/installs/{install_id}/backups/{backup_id}", api.handler(Operation.SHOW, api.show_backup)),
                web.get("/v1/installs", api.handler(Operation.INSTALLS, api.list_installs)),
                web.get("/v1/installs/{install_id}", api.handler(Operation.INSTALL, api.get_install)),
                web.get("/v1/accounts", api.handler(Operation.ACCOUNTS, api.list_accounts)),
                web.get("/v1/user", api.handler(Operation.USER, api.user)),
                web.get("/v1/status", api.handler(Operation.STATUS, api.status)),
                web.get("/_admin/stats", self._admin_stats),
                web.get("/_admin/requests", self._admin_requests),
                web.get("/_admin/backups", self._admin_backups),
            ]
        )
        return app

    async def _admin_stats(self, _request: web.Request) -> web.Response:
        return answer(200, self.stats() | {"working": self._gateway.working if self._gateway else 0})

    async def _admin_requests(self, _request: web.Request) -> web.Response:
        return answer(200, {"requests": list(self.tally.requests)})

    async def _admin_backups(self, _request: web.Request) -> web.Response:
        at = self._gateway.at if self._gateway else 0.0
        backups = [
            {
                "id": backup.id,
                "install_id": backup.install_id,
                "description": backup.description,
                "status": backup.status(at),
                "made_at": backup.made_at,
            }
            for made in self.world.backups.values()
            for backup in made
        ]
        return answer(200, {"backups": backups})


class _Api:
    """The eight operations of the API, and the faults that hit them."""

    def __init__(self, scenario: Scenario, world: World, tally: Tally, at: Callable[[], float]) -> None:
        self._scenario, self._world, self._tally, self._at = scenario, world, tally, at

    def handler(
        self, operation: Operation, carry_out: Callable[[web.Request], Awaitable[Answer]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Return the handler of ``operation``. It calls ``carry_out`` unless a fault prevents the operation."""

        async def handle(request: web.Request) -> web.StreamResponse:
            fault = self._fault(operation, self._install_id(request))
            if fault is None:
                return answer(*await carry_out(request))
            self._tally.faults[f"{operation} {fault.kind}"] += 1
            request[NOTED]["fault"] = fault.kind
            if operation is Operation.POST and fault.kind in OF_INSTALLS:
                self._tally.refused.add(self._install_id(request))
            status, body = 0, dict[str, Any]()
            if fault.kind in MADE_ALL_THE_SAME or (operation is Operation.POST and fault.makes_the_backup):
                status, body = await carry_out(request)
            await asyncio.sleep(fault.after)
            return _faulty(fault.kind, status, body)

        return handle

    def _install_id(self, request: web.Request) -> str:
        install_id = request.match_info.get("install_id", "")
        if "install_id" in request.match_info and not (
            _UUID.fullmatch(install_id) and self._world.has(install_id.lower())
        ):
            raise web.HTTPNotFound
        return install_id.lower()

    def _fault(self, operation: Operation, install_id: str) -> Fault | None:
        nth = self._tally.asked[f"{operation} {install_id}"]
        self._tally.asked[f"{operation} {install_id}"] += 1
        if operation is Operation.POST:
            self._tally.posts[install_id] += 1
        if not self._scenario.faults:
            return None
        return fault_of(self._scenario.faults, self._scenario.seed, Asked(operation, install_id, nth, self._at()))

    async def create_backup(self, request: web.Request) -> Answer:
        """Make a backup."""
        body = await _backup_body(request)
        at = self._at()
        backup = self._world.make(self._install_id(request), body, at)
        return 202, self._world.shown(backup, at)

    async def list_backups(self, request: web.Request) -> Answer:
        """List the backups of one install."""
        if not self._scenario.listing.available:
            raise web.HTTPNotFound
        return 200, self._page(request, self._world.listed(self._install_id(request), self._at()))

    async def show_backup(self, request: web.Request) -> Answer:
        """Show one backup."""
        backup = self._world.find(self._install_id(request), request.match_info["backup_id"].lower(), self._at())
        if backup is None:
            raise web.HTTPNotFound
        return 200, self._world.shown(backup, self._at())

    async def list_installs(self, request: web.Request) -> Answer:
        """List the installs of all accounts, or of the account ``account_id`` in the query."""
        account_id = request.query.get("account_id")
        installs = list(self._world.installs.values())
        if account_id is not None and not _UUID.fullmatch(account_id):
            raise RefusedError(invalid("Invalid account", "Account", account_id="must be a UUID"))
        if account_id is not None:
            installs = [install for install in installs if install["account"]["id"] == account_id.lower()]
        return 200, self._page(request, installs)

    async def get_install(self, request: web.Request) -> Answer:
        """Show one install."""
        install = self._world.installs.get(self._install_id(request))
        if install is None:
            raise web.HTTPNotFound
        return 200, install | {"wp_version": WORDPRESS}

    async def list_accounts(self, request: web.Request) -> Answer:
        """List the accounts."""
        return 200, self._page(request, self._world.accounts)

    def _page(self, request: web.Request, results: list[dict[str, Any]]) -> dict[str, Any]:
        pages = self._scenario.pages
        limit = _number(request, "limit", LARGEST_PAGE, LARGEST_PAGE)
        offset = _number(request, "offset", 0, 10**9)
        shown = min(limit, pages.size)
        base = {"path": request.path, "url": str(request.url.with_query(None)), "elsewhere": ELSEWHERE + request.path}
        query = {key: value for key, value in request.query.items() if key not in {"limit", "offset"}}

        def link(to: int) -> str:
            return f"{base[pages.next]}?{urlencode(query | {'limit': limit, 'offset': to})}"

        return {
            "previous": link(max(0, min(offset, len(results)) - shown)) if offset else None,
            "next": link(offset + shown) if shown and offset + shown < len(results) else None,
            "count": len(results),
            "results": results[offset : offset + shown],
        }

    async def user(self, _request: web.Request) -> Answer:
        """Show the API user."""
        return 200, {
            "id": str(uuid.UUID(int=1)),
            "first_name": "Sim",
            "last_name": "Ulator",
            "email": "simulator@example.com",
            "phone_number": None,
        }

    async def status(self, _request: web.Request) -> Answer:
        """Show that the API is up."""
        return 200, {"success": True, "created_on": iso(self._world.clock())}


def _faulty(kind: Kind, status: int, body: dict[str, Any]) -> web.StreamResponse:
    own = answers.refused_by(kind)
    if own is not None:
        return own
    if kind in OF_THE_CONNECTION:
        raise UnansweredError(kind, status, body)
    return answers.broken(kind, status, body)


async def _backup_body(request: web.Request) -> dict[str, Any]:
    """Return the POST's body. Raises ``RefusedError`` with a 400 that names every wrong field."""
    try:
        body = await request.json()
    except (ValueError, LookupError, RecursionError):
        body = None
    fields = body if isinstance(body, dict) else {}
    emails = fields.get("notification_emails")
    wrong = {}
    if not isinstance(fields.get("description"), str):
        wrong["description"] = "is required"
    if not isinstance(emails, list) or not all(isinstance(email, str) for email in emails):
        wrong["notification_emails"] = "is required"
    if wrong:
        raise RefusedError(invalid("Invalid backup request", "Backup", **wrong))
    return fields


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    given = request.query.get(name, str(default))
    if not re.fullmatch("[0-9]{1,9}", given) or int(given) > most:
        raise RefusedError(invalid("Invalid page", "Page", **{name: f"must be a number from 0 to {most}"}))
    return int(given)
