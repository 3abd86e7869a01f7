"""The gateway in front of the API: limits, latency, credentials, and the timeout for the backend."""

from __future__ import annotations

import asyncio
import base64
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from orchestrator.simulator import answers
from orchestrator.simulator.chance import between
from orchestrator.simulator.fault_keys import Kind
from orchestrator.simulator.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from orchestrator.simulator.scenario import Scenario
    from orchestrator.simulator.tally import Tally
    from orchestrator.simulator.world import World

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

STATUS_PATH = "/v1/status"
NOTED = web.RequestKey("noted", dict[str, Any])
"""The key under which a request keeps its record in the tally."""


class RefusedError(Exception):
    """The API refuses a request. Carries the answer."""

    def __init__(self, response: web.Response) -> None:
        """Keep the answer."""
        super().__init__(response.status)
        self.response = response


class UnansweredError(Exception):
    """A fault leaves a request without a whole answer. Carries the kind of the fault."""

    def __init__(self, kind: Kind, status: int, body: dict[str, Any]) -> None:
        """Keep the kind, and the answer. The client gets only a part of the answer."""
        super().__init__(kind)
        self.kind, self.status, self.body = kind, status, body


class Gateway:
    """The gateway of one stand-in. Times are seconds since its first request."""

    def __init__(self, scenario: Scenario, world: World, tally: Tally) -> None:
        """Serve ``world`` and record requests in ``tally``."""
        self._scenario, self._world, self._tally = scenario, world, tally
        self._limits: dict[str, Limits] = {}
        self._slots = asyncio.Semaphore(scenario.backend.slots) if scenario.backend else None
        self._began: float | None = None
        self._let_in = 0
        self._working: set[asyncio.Task[web.StreamResponse]] = set()

    @property
    def at(self) -> float:
        """Return the seconds since the first request; 0 before it."""
        return 0.0 if self._began is None else asyncio.get_running_loop().time() - self._began

    @property
    def working(self) -> int:
        """Return the number of requests that the backend is working on, including those answered with a 504."""
        return len(self._working)

    async def pass_on(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer ``request``: with an error of the gateway, or with the answer of ``handler``.

        The body is read first, so that the request is carried out even if the client goes away.
        """
        try:
            await request.read()
        except (OSError, web.HTTPException):
            return web.Response(status=400)
        if self._began is None:
            self._began = asyncio.get_running_loop().time()
        noted = self._tally.begin(asyncio.get_running_loop().time(), request)
        request[NOTED] = noted
        try:
            response = await self._let_through(request, handler, noted)
        finally:
            self._tally.end(noted, asyncio.get_running_loop().time())
        if noted["status"] is None:
            return response
        response.headers["x-amzn-RequestId"] = noted["request_id"]
        noted["retry_after"] = response.headers.get("Retry-After")
        response.headers["Date"] = format_datetime(self._world.clock(), usegmt=True)
        return response

    async def _let_through(self, request: web.Request, handler: Handler, noted: dict[str, Any]) -> web.StreamResponse:
        authorization = request.headers.get("Authorization", "")
        key = authorization if self._scenario.limits_per == "credentials" else ""
        limits, at, read_only = self._limits_of(key), self.at, request.method != "POST"
        wait_s = limits.enter(at, read_only=read_only)
        if wait_s > 0:
            return _answered(noted, self._throttled(wait_s))
        self._let_in += 1  # read now: other requests change the counter while this one waits
        number = self._let_in
        self._tally.enter()
        try:
            await asyncio.sleep(between(*self._scenario.latency_at(at), self._scenario.seed, f"latency {number}"))
            if request.path != STATUS_PATH and not self._is_known(authorization, number):
                return _answered(noted, answers.refusal(401, "Bad Credentials"))
            return _answered(noted, await self._within_patience(self._worked_on(request, handler, number)))
        except UnansweredError as error:
            return await _left_unanswered(request, error)
        finally:
            self._tally.leave()
            limits.leave(read_only=read_only)

    def _limits_of(self, key: str) -> Limits:
        if key not in self._limits:
            self._limits[key] = Limits(self._scenario)
        return self._limits[key]

    async def _within_patience(self, work: Coroutine[Any, Any, web.StreamResponse]) -> web.StreamResponse:
        """Return the result of ``work``, or a 504 after the gateway's timeout. The work goes on after a 504."""
        working = asyncio.create_task(work)
        self._working.add(working)
        working.add_done_callback(self._done)
        done, _ = await asyncio.wait({working}, timeout=self._scenario.gateway_timeout)
        return working.result() if done else answers.gateway_timeout()

    def _done(self, working: asyncio.Task[web.StreamResponse]) -> None:
        self._working.discard(working)
        if not working.cancelled():
            working.exception()  # retrieve it, else asyncio logs it: after a 504 nobody awaits it

    async def _worked_on(self, request: web.Request, handler: Handler, number: int) -> web.StreamResponse:
        if self._slots is not None and self._scenario.backend is not None:
            async with self._slots:
                takes = self._scenario.backend.takes
                await asyncio.sleep(between(*takes, self._scenario.seed, f"backend {number}"))
        try:
            return await handler(request)
        except RefusedError as error:
            return error.response
        except web.HTTPException as error:
            return answers.refusal(error.status, error.reason)

    def _throttled(self, wait_s: float) -> web.Response:
        response = answers.too_many_requests()
        value = answers.retry_after(self._scenario.retry_after, wait_s, self._world.clock())
        if value is not None:
            response.headers["Retry-After"] = value
        return response

    def _is_known(self, authorization: str, number: int) -> bool:
        kind, _, encoded = authorization.partition(" ")
        try:
            user_id, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:
            return False
        if kind.lower() != "basic" or not colon or self._are_revoked(number):
            return False
        wanted = self._scenario.credentials
        return wanted.user_id in {None, user_id} and wanted.password in {None, password}

    def _are_revoked(self, number: int) -> bool:
        credentials = self._scenario.credentials
        too_late = credentials.revoked_after is not None and self.at >= credentials.revoked_after
        many = credentials.revoked_after_requests
        return too_late or (many is not None and number > many)

    async def close(self) -> None:
        """Cancel the work that goes on after a 504."""
        for task in list(self._working):
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)


def _answered(noted: dict[str, Any], response: web.StreamResponse) -> web.StreamResponse:
    noted["status"] = response.status
    return response


async def _left_unanswered(request: web.Request, error: UnansweredError) -> web.StreamResponse:
    match error.kind:
        case Kind.RESET:
            answers.reset(request)
        case Kind.HANG:
            await answers.hang(request)
        case Kind.CUT_HEAD:
            await answers.cut_head(request)
        case Kind.DRIP:
            return await answers.drip(request, error.status, error.body)
        case _:
            return await answers.cut_short(request, error.status, error.body)
    return web.Response()
