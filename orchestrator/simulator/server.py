"""Serve the stand-in with aiohttp.web: the API below ``/v1``, what it counted below ``/_admin``."""

from __future__ import annotations

import asyncio
import base64
import random
import re
import uuid
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from math import ceil
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from orchestrator.simulator.scenario import Fate, RetryAfter, Scenario
from orchestrator.simulator.world import TokenBucket, World

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DOCUMENTATION = "https://wpengineapi.com/reference"
_LARGEST_PAGE = 100

_GATEWAY_TIMEOUT = (HTTPStatus.GATEWAY_TIMEOUT, {"message": "Endpoint request timed out"})
_ANSWERS: dict[Fate, tuple[HTTPStatus, dict[str, Any]]] = {
    Fate.INVALID: (
        HTTPStatus.BAD_REQUEST,
        {
            "message": "Invalid backup request",
            "documentation_url": _DOCUMENTATION,
            "errors": [
                {
                    "resource": "Backup",
                    "field": "notification_emails",
                    "type": "invalid_value",
                    "code": "invalid",
                    "message": "is not an address that mail can be sent to",
                }
            ],
        },
    ),
    Fate.FORBIDDEN: (
        HTTPStatus.FORBIDDEN,
        {"message": "You do not have permission to back up this install", "documentation_url": _DOCUMENTATION},
    ),
    Fate.NOT_FOUND: (HTTPStatus.NOT_FOUND, {"message": "Not Found", "documentation_url": _DOCUMENTATION}),
    Fate.UNAVAILABLE: (HTTPStatus.SERVICE_UNAVAILABLE, {"message": "Service Unavailable"}),
    Fate.TIMED_OUT: _GATEWAY_TIMEOUT,
    Fate.TIMED_OUT_CREATED: _GATEWAY_TIMEOUT,
}


class Simulator:
    """One stand-in, listening while it is entered as an asynchronous context manager."""

    def __init__(self, scenario: Scenario, host: str = "127.0.0.1", port: int = 0) -> None:
        """Prepare for ``scenario``; port 0 picks a free one."""
        self.scenario = scenario
        self.world = World()
        self.host, self.port = host, port
        self._latencies = random.Random(scenario.seed)  # noqa: S311 - latencies of a stand-in, not secrets
        self._bucket: TokenBucket | None = None
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        """Return the URL to give as an account's ``base_url``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/v1"

    async def __aenter__(self) -> Self:
        """Listen. Raises ``OSError`` if the port cannot be had."""
        if self.scenario.rate is not None:
            self._bucket = TokenBucket(self.scenario.rate, self.scenario.burst, _now())
        self._runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=1.0)
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
        """Stop listening."""
        if self._runner:
            await self._runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._gateway()])
        app.router.add_post("/v1/installs/{install_id}/backups", self._create_backup)
        app.router.add_get("/v1/installs/{install_id}/backups", self._list_backups)
        app.router.add_get("/v1/installs/{install_id}/backups/{backup_id}", self._show_backup)
        app.router.add_get("/v1/user", self._user)
        app.router.add_get("/v1/status", self._status)
        app.router.add_get("/_admin/stats", self._admin_stats)
        app.router.add_get("/_admin/requests", self._admin_requests)
        app.router.add_get("/_admin/backups", self._admin_backups)
        return app

    # -- what sits in front -----------------------------------------------------------------------------------------

    def _gateway(self) -> Callable[..., Awaitable[web.StreamResponse]]:
        @web.middleware
        async def gateway(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            if request.path.startswith("/_admin/"):
                return await handler(request)
            arrived_at = _now()
            response = await self._behind_the_gateway(request, handler)
            response.headers["x-amzn-RequestId"] = str(uuid.uuid4())
            self.world.statuses[response.status] += 1
            self.world.requests.append(
                {"at": arrived_at, "method": request.method, "path": request.path, "status": response.status}
            )
            return response

        return gateway

    async def _behind_the_gateway(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self._bucket and not self._bucket.take(_now()):
            return self._too_many_requests(self._bucket)
        await asyncio.sleep(self._latencies.uniform(*self.scenario.latency_s))
        if request.path != "/v1/status" and not self._is_known(request.headers.get("Authorization", "")):
            return _answer(401, {"message": "Bad Credentials", "documentation_url": _DOCUMENTATION})
        try:
            return await handler(request)
        except web.HTTPException as error:
            return _answer(error.status, {"message": error.reason})

    def _too_many_requests(self, bucket: TokenBucket) -> web.Response:
        response = _answer(429, {"message": "Too Many Requests"})
        response.headers["x-amzn-ErrorType"] = "TooManyRequestsException"
        wait_s = ceil(bucket.next_s()) or 1
        if self.scenario.retry_after is RetryAfter.SECONDS:
            response.headers["Retry-After"] = str(wait_s)
        elif self.scenario.retry_after is RetryAfter.DATE:
            moment = datetime.now(UTC) + timedelta(seconds=wait_s + 1)
            response.headers["Retry-After"] = format_datetime(moment.replace(microsecond=0), usegmt=True)
        return response

    def _is_known(self, authorization: str) -> bool:
        kind, _, encoded = authorization.partition(" ")
        try:
            user_id, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:
            return False
        if kind.lower() != "basic" or not colon:
            return False
        wanted = self.scenario
        return wanted.user_id in {None, user_id} and wanted.password in {None, password}

    # -- the API ----------------------------------------------------------------------------------------------------

    async def _create_backup(self, request: web.Request) -> web.Response:
        install_id = _install_id(request)
        body = await _backup_body(request)
        nth = self.world.posts[install_id]
        self.world.posts[install_id] += 1
        if isinstance(body, web.Response):
            return body
        fate = self.scenario.fate(install_id, nth)
        if fate in {Fate.ACCEPTED, Fate.TIMED_OUT_CREATED}:
            backup = self.world.make(install_id, body, _now())
            if fate is Fate.ACCEPTED:
                return _answer(202, backup.as_json(_now(), self.scenario.completes_after_s))
        return _answer(*_ANSWERS[fate])

    async def _list_backups(self, request: web.Request) -> web.Response:
        install_id = _install_id(request)
        limit, offset = _page(request)
        made = self.world.backups.get(install_id, [])
        results = [backup.as_json(_now(), self.scenario.completes_after_s) for backup in made[offset : offset + limit]]
        has_more = limit > 0 and offset + limit < len(made)
        following = f"{request.path}?limit={limit}&offset={offset + limit}" if has_more else None
        before = f"{request.path}?limit={limit}&offset={max(0, offset - limit)}" if offset else None
        return _answer(200, {"previous": before, "next": following, "count": len(made), "results": results})

    async def _show_backup(self, request: web.Request) -> web.Response:
        install_id = _install_id(request)
        for backup in self.world.backups.get(install_id, []):
            if backup.id == request.match_info["backup_id"]:
                return _answer(200, backup.as_json(_now(), self.scenario.completes_after_s))
        return _answer(*_ANSWERS[Fate.NOT_FOUND])

    async def _user(self, _request: web.Request) -> web.Response:
        return _answer(
            200,
            {
                "id": str(uuid.UUID(int=1)),
                "first_name": "Sim",
                "last_name": "Ulator",
                "email": "simulator@example.com",
                "phone_number": "",
            },
        )

    async def _status(self, _request: web.Request) -> web.Response:
        return _answer(200, {"success": True, "created_on": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"})

    # -- what it counted --------------------------------------------------------------------------------------------

    async def _admin_stats(self, _request: web.Request) -> web.Response:
        return _answer(200, self.world.stats())

    async def _admin_requests(self, _request: web.Request) -> web.Response:
        return _answer(200, {"requests": list(self.world.requests)})

    async def _admin_backups(self, _request: web.Request) -> web.Response:
        backups = [
            {"id": backup.id, "install_id": backup.install_id, "description": backup.description}
            for made in self.world.backups.values()
            for backup in made
        ]
        return _answer(200, {"backups": backups})


def _now() -> float:
    return asyncio.get_running_loop().time()


def _answer(status: int, body: dict[str, Any]) -> web.Response:
    return web.json_response(body, status=status)


def _install_id(request: web.Request) -> str:
    install_id = request.match_info["install_id"]
    if not _UUID.fullmatch(install_id):
        raise web.HTTPNotFound
    return install_id.lower()


async def _backup_body(request: web.Request) -> dict[str, Any] | web.Response:
    """Return the POST's body, or the 400 that names every field which is not as the specification wants it."""
    try:
        body = await request.json()
    except (ValueError, LookupError):
        body = None
    fields = body if isinstance(body, dict) else {}
    emails = fields.get("notification_emails")
    wrong = []
    if not isinstance(fields.get("description"), str):
        wrong.append("description")
    if not isinstance(emails, list) or not all(isinstance(email, str) for email in emails):
        wrong.append("notification_emails")
    if not wrong:
        return fields
    errors = [
        {"resource": "Backup", "field": name, "type": "invalid_value", "code": "invalid", "message": "is required"}
        for name in wrong
    ]
    return _answer(400, {"message": "Invalid backup request", "documentation_url": _DOCUMENTATION, "errors": errors})


def _page(request: web.Request) -> tuple[int, int]:
    try:
        limit, offset = (int(request.query.get(name, default)) for name, default in (("limit", 100), ("offset", 0)))
    except ValueError:
        raise web.HTTPBadRequest from None
    if not 0 <= limit <= _LARGEST_PAGE or offset < 0:
        raise web.HTTPBadRequest
    return limit, offset
