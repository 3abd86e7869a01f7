"""The errors that the API and its gateway send, and broken answers."""

from __future__ import annotations

import asyncio
import gzip
import json
import struct
import uuid
from contextlib import suppress
from datetime import timedelta
from email.utils import format_datetime
from functools import cache
from math import ceil
from socket import SO_LINGER, SOL_SOCKET, socket
from typing import TYPE_CHECKING, Any

from aiohttp import web

from orchestrator.simulator.fault_keys import Kind
from orchestrator.simulator.limit_keys import RetryAfter

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

DOCUMENTATION = "https://wpengineapi.com/reference"
ELSEWHERE = "https://elsewhere.invalid/v1"
HUGE, BOMB = 10_000_000, 100_000_000
"""Bytes of a body that is too large, and of a body that is small until it is unpacked."""
DRIP_S = 1.0

_BLOCKED = "<html><body><h1>403 ERROR</h1><p>The request could not be satisfied. Request blocked.</p></body></html>"
_HTML = "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>"


def answer(status: int, body: dict[str, Any]) -> web.Response:
    """Return a JSON answer."""
    return web.json_response(body, status=status)


def refusal(status: int, message: str, **more: object) -> web.Response:
    """Return an error in the API's format."""
    return answer(status, {"message": message, "documentation_url": DOCUMENTATION} | more)


def invalid(message: str, resource: str, **problems: str) -> web.Response:
    """Return a 400 that names each wrong field and its problem."""
    errors = [
        {"resource": resource, "field": name, "type": "invalid_value", "code": "invalid", "message": problem}
        for name, problem in problems.items()
    ]
    return refusal(400, message, errors=errors)


def too_many_requests(message: str = "Too Many Requests") -> web.Response:
    """Return the gateway's 429."""
    response = answer(429, {"message": message})
    response.headers["x-amzn-ErrorType"] = "TooManyRequestsException"
    return response


def gateway_timeout() -> web.Response:
    """Return the gateway's 504."""
    return answer(504, {"message": "Endpoint request timed out"})


def retry_after(form: RetryAfter, wait_s: float, now: datetime) -> str | None:
    """Return the value of ``Retry-After`` for a wait of ``wait_s`` from ``now`` on the server's clock."""
    moment = now + timedelta(seconds=wait_s)
    moment += timedelta(microseconds=-moment.microsecond % 1_000_000)
    values = {
        RetryAfter.SECONDS: str(ceil(wait_s) or 1),
        RetryAfter.DECIMAL: f"{max(wait_s, 0.001):.3f}",
        RetryAfter.DATE: _http_date(moment),
        RetryAfter.RFC850: f"{moment:%A, %d-%b-%y %H:%M:%S} GMT",
        RetryAfter.ASCTIME: f"{moment:%a %b} {moment.day:2} {moment:%H:%M:%S %Y}",
        RetryAfter.PAST_DATE: _http_date(now - timedelta(hours=1)),
        RetryAfter.ZERO: "0",
        RetryAfter.NEGATIVE: "-1",
        RetryAfter.WORDS: "soon",
        RetryAfter.ODD: "1.5x",
        RetryAfter.EMPTY: "",
        RetryAfter.HUGE: "9" * 30,
        RetryAfter.HOUR: "3600",
    }
    return values.get(form)


def _http_date(moment: datetime) -> str:
    return format_datetime(moment.replace(microsecond=0), usegmt=True)


_OWN: dict[Kind, Callable[[], web.Response]] = {
    Kind.BAD_REQUEST: lambda: invalid("Invalid backup request", "Backup", notification_emails="cannot receive mail"),
    Kind.FORBIDDEN: lambda: refusal(403, "You do not have permission to back up this install"),
    Kind.NOT_FOUND: lambda: refusal(404, "Not Found"),
    Kind.SERVER_ERROR: lambda: answer(500, {"message": "An unexpected error occurred, please try again later"}),
    Kind.BAD_GATEWAY: lambda: web.Response(status=502, text=_HTML, content_type="text/html"),
    Kind.BLOCKED: lambda: web.Response(status=403, text=_BLOCKED, content_type="text/html"),
    Kind.UNAVAILABLE: lambda: answer(503, {"message": "Service Unavailable"}),
    Kind.GATEWAY_TIMEOUT: gateway_timeout,
    Kind.QUOTA: lambda: too_many_requests("Limit Exceeded"),
    Kind.REDIRECT: lambda: web.Response(status=302, headers={"Location": ELSEWHERE}),
}


def refused_by(kind: Kind) -> web.Response | None:
    """Return the answer that a fault of this kind sends, ``None`` if the kind has no fixed answer."""
    return _OWN[kind]() if kind in _OWN else None


def broken(kind: Kind, status: int, body: dict[str, Any]) -> web.Response:
    """Return an answer with ``body``, broken in the way of ``kind``."""
    match kind:
        case Kind.BROKEN_JSON:
            return web.Response(status=status, text=json.dumps(body)[:-12], content_type="application/json")
        case Kind.MISSING_ID:
            return answer(status, {key: value for key, value in body.items() if key not in {"id", "results"}})
        case Kind.HUGE_BODY:
            return web.Response(status=status, text=" " * HUGE + json.dumps(body), content_type="application/json")
        case Kind.GZIP_BOMB:
            packed = _packed_spaces() + gzip.compress(json.dumps(body).encode())
            headers = {"Content-Encoding": "gzip"}
            return web.Response(status=status, body=packed, content_type="application/json", headers=headers)
        case _:
            return web.json_response([body], status=status)


@cache
def _packed_spaces() -> bytes:
    """Return ``BOMB`` spaces in ten gzip members.

    JSON may begin with spaces, and more members may follow. Repeating one compressed member is ten times faster than
    compressing all spaces.
    """
    return gzip.compress(b" " * (BOMB // 10)) * 10


async def cut_head(request: web.Request) -> None:
    """Send half of the header of a success, then reset the connection."""
    success = b"200 OK" if request.method == "GET" else b"202 Accepted"
    if request.transport:
        request.transport.write(b"HTTP/1.1 " + success + b"\r\nContent-Type: applica")
        await asyncio.sleep(0.05)  # an immediate reset may overtake the data
        reset(request)


async def cut_short(request: web.Request, status: int, body: dict[str, Any]) -> web.StreamResponse:
    """Send the header of an answer and half of its body, then close the connection."""
    data = json.dumps(body).encode()
    response = await _head(request, status, data)
    await response.write(data[: len(data) // 2])
    if request.transport:
        request.transport.close()
    return response


async def drip(request: web.Request, status: int, body: dict[str, Any]) -> web.StreamResponse:
    """Send the header of an answer, then its body at one byte per ``DRIP_S``, until the client has gone."""
    data = json.dumps(body).encode()
    response = await _head(request, status, data)
    with suppress(ConnectionError):
        for byte in data:
            await response.write(bytes([byte]))
            await asyncio.sleep(DRIP_S)
    return response


async def _head(request: web.Request, status: int, data: bytes) -> web.StreamResponse:
    headers = {"Content-Type": "application/json", "x-amzn-RequestId": str(uuid.uuid4())}
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = len(data)
    await response.prepare(request)
    return response


def reset(request: web.Request) -> None:
    """Reset the connection instead of closing it in order."""
    transport = request.transport
    if transport:
        sock: socket | None = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


async def hang(request: web.Request) -> None:
    """Wait until the client has gone."""
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0.05)
