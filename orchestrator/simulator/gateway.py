"""What sits in front of the API: its limits, its latency, its patience with the backend; and the credentials."""

from __future__ import annotations

import asyncio
import base64
import uuid
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from orchestrator.simulator.answers import gateway_timeout, refusal, retry_after, too_many_requests
from orchestrator.simulator.chance import between
from orchestrator.simulator.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orchestrator.simulator.limits import Limiter
    from orchestrator.simulator.scenario import Scenario
    from orchestrator.simulator.tally import Tally
    from orchestrator.simulator.world import World

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

STATUS_PATH = "/v1/status"


class NoAnswerError(Exception):
    """Say that a request was left without a whole answer, on purpose."""


class RefusedError(Exception):
    """Carry the answer of a request that the API refuses."""

    def __init__(self, response: web.Response) -> None:
        """Keep the answer."""
        super().__init__(response.status)
        self.response = response


class Gateway:
    """One stand-in's front. Moments are seconds since its first request."""

    def __init__(self, scenario: Scenario, world: World, tally: Tally) -> None:
        """Stand before ``world``, and count into ``tally``."""
        self._scenario, self._world, self._tally = scenario, world, tally
        self._limits = Limits(scenario)
        self._slots = asyncio.Semaphore(scenario.backend.slots) if scenario.backend else None
        self._began: float | None = None
        self._let_in = 0
        self._working: set[asyncio.Task[web.StreamResponse]] = set()

    def at(self) -> float:
        """Return the seconds since the first request."""
        now = asyncio.get_running_loop().time()
        if self._began is None:
            self._began = now
        return now - self._began

    async def pass_on(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer ``request``, with the API's answer if it gets that far."""
        at = self.at()
        noted: dict[str, Any] = {"at": asyncio.get_running_loop().time(), "method": request.method}
        noted |= {"path": request.path, "status": None}
        try:
            response = await self._let_through(request, handler, at)
            noted["status"] = response.status
        except NoAnswerError:
            return web.Response()
        finally:
            self._tally.note(noted)
        response.headers["x-amzn-RequestId"] = str(uuid.uuid4())
        if self._scenario.clock_skew:
            response.headers["Date"] = format_datetime(self._world.clock().replace(microsecond=0), usegmt=True)
        return response

    async def _let_through(self, request: web.Request, handler: Handler, at: float) -> web.StreamResponse:
        taken = self._limits.take(at)
        if not isinstance(taken, list):
            return self._throttled(taken, at)
        self._tally.enter()
        try:
            self._let_in += 1
            await asyncio.sleep(between(*self._scenario.latency, self._scenario.seed, f"latency {self._let_in}"))
            if request.path != STATUS_PATH and not self._is_known(request.headers.get("Authorization", "")):
                return refusal(401, "Bad Credentials")
            return await self._within_patience(request, handler)
        finally:
            self._tally.leave()
            for limiter in taken:
                limiter.give_back()

    async def _within_patience(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let the backend work for as long as the gateway waits; it goes on afterwards all the same."""
        if self._slots is None:
            return await self._worked_on(request, handler)
        await request.read()
        working = asyncio.create_task(self._worked_on(request, handler))
        self._working.add(working)
        working.add_done_callback(self._working.discard)
        done, _ = await asyncio.wait({working}, timeout=self._scenario.gateway_timeout)
        return working.result() if done else gateway_timeout()

    async def _worked_on(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._slots is not None and self._scenario.backend is not None:
            async with self._slots:
                name = f"backend {self._let_in}"
                await asyncio.sleep(between(*self._scenario.backend.takes, self._scenario.seed, name))
        try:
            return await handler(request)
        except RefusedError as error:
            return error.response
        except web.HTTPException as error:
            return refusal(error.status, error.reason)

    def _throttled(self, limiter: Limiter, at: float) -> web.Response:
        response = too_many_requests()
        value = retry_after(self._scenario.retry_after, limiter.next_s(at), self._world.clock())
        if value is not None:
            response.headers["Retry-After"] = value
        return response

    def _is_known(self, authorization: str) -> bool:
        kind, _, encoded = authorization.partition(" ")
        try:
            user_id, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:
            return False
        if kind.lower() != "basic" or not colon or self._are_revoked():
            return False
        wanted = self._scenario.credentials
        return wanted.user_id in {None, user_id} and wanted.password in {None, password}

    def _are_revoked(self) -> bool:
        credentials = self._scenario.credentials
        too_late = credentials.revoked_after is not None and self.at() >= credentials.revoked_after
        many = credentials.revoked_after_requests
        return too_late or (many is not None and self._let_in > many)

    async def close(self) -> None:
        """Stop the work that nobody waits for any more."""
        for task in list(self._working):
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)
