"""One account's client: it sends each request once, and turns whatever happens into an ``AttemptResult``."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from orchestrator.model import AttemptResult, Fault
from orchestrator.proxy import proxy_for
from orchestrator.redaction import Redactor
from orchestrator.value import replace
from orchestrator.version import __version__
from orchestrator.wpengine.answers import (
    LONGEST_BODY,
    REQUEST_ID_HEADERS,
    Received,
    cut,
    is_success,
    rate_headers,
    read_backup,
    read_shown,
    read_user,
    unpack,
)
from orchestrator.wpengine.connector import TRANSMISSION, Connector, Transmission
from orchestrator.wpengine.pages import ACCOUNTS, BACKUPS, INSTALLS, LARGEST_PAGE, PageKind, page_reader
from orchestrator.wpengine.retry_after import retry_after_s, server_time_s

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from aiohttp.connector import Connection

    from orchestrator.listings import Entry
    from orchestrator.model import Account, BackupRequest
    from orchestrator.policies import Timeouts

PROXY_WANTS_CREDENTIALS = 407

_REPEATED_BY_AIOHTTP = {"GET"}
"""Methods that aiohttp would send again by itself, since they are idempotent."""

_USER_OF_URL = re.compile(r"//[^/\s@]*(?:@[^/\s@]*)*@")

_FAULTS: tuple[tuple[type[BaseException], Fault], ...] = (
    (aiohttp.ClientConnectorCertificateError, Fault.CERTIFICATE),
    (aiohttp.ServerFingerprintMismatch, Fault.CERTIFICATE),
    (aiohttp.ClientSSLError, Fault.TLS),
    (aiohttp.ConnectionTimeoutError, Fault.CONNECT_TIMEOUT),
    (aiohttp.ServerTimeoutError, Fault.READ_TIMEOUT),
    (TimeoutError, Fault.READ_TIMEOUT),
    (aiohttp.InvalidURL, Fault.INVALID_URL),
    (aiohttp.NonHttpUrlClientError, Fault.INVALID_URL),
    (aiohttp.ClientHttpProxyError, Fault.UNREACHABLE),
    (aiohttp.ClientConnectorError, Fault.UNREACHABLE),
    (aiohttp.ClientResponseError, Fault.MALFORMED),
    (aiohttp.ClientPayloadError, Fault.MALFORMED),
    (HttpProcessingError, Fault.MALFORMED),
    (aiohttp.ClientError, Fault.DISCONNECTED),
    (OSError, Fault.DISCONNECTED),
    (ValueError, Fault.INVALID_URL),
)
"""The first class that matches gives the fault, so a class stands before its base classes."""

_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError, ValueError)
"""The exceptions of a request. aiohttp's pure Python parser raises ``HttpProcessingError`` while a body is read."""


def utc_now() -> datetime:
    """Return the time of this machine's clock."""
    return datetime.now(UTC)


class Client:
    """One account's session with the API; the engine's ``Api``. Use it as an asynchronous context manager."""

    def __init__(self, account: Account, timeouts: Timeouts, now: Callable[[], datetime] = utc_now) -> None:
        """Prepare for ``account``; send nothing and open no socket yet.

        ``now`` gives the time if an answer has no ``Date``. Raises ``ValueError`` if the environment names a proxy that
        cannot be used.
        """
        self._base_url = account.base_url
        self._account = account
        self._timeouts = timeouts
        self._now = now
        # Not headers of the session: aiohttp sends those to a proxy as well, with its CONNECT.
        self._headers = {
            "Authorization": aiohttp.encode_basic_auth(account.user_id, account.password),
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
        self._redactor = Redactor().knowing(account.user_id, account.password)
        self._proxy = proxy_for(account.base_url, os.environ) if account.proxy_from_environment else None
        self._connector: Connector | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the session. Raises ``OSError`` if the account's ``ca_file`` cannot be read."""
        seconds = self._timeouts
        self._connector = Connector(_tls(self._account.ca_file))
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            timeout=aiohttp.ClientTimeout(
                total=seconds.connect_s + seconds.read_s, connect=seconds.connect_s, sock_read=seconds.read_s
            ),
            headers={"User-Agent": f"wpe-backup/{__version__}"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            request_class=_MarkedRequest,
            middlewares=[_sent_once],
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session and its connections."""
        if self._session:
            await self._session.close()

    async def create_backup(self, request: BackupRequest) -> AttemptResult:
        """Send ``POST /installs/{install_id}/backups`` once."""
        body = {"description": request.description, "notification_emails": list(request.notification_emails)}
        return await self._send("POST", f"/installs/{request.install_id}/backups", read_backup, body)

    async def list_backups(self, install_id: str, offset: int = 0) -> AttemptResult:
        """Send ``GET /installs/{install_id}/backups`` once, for the page that starts at ``offset``."""
        return await self._list(BACKUPS, f"/installs/{install_id}/backups?", offset)

    async def show_backup(self, install_id: str, backup_id: str) -> AttemptResult:
        """Send ``GET /installs/{install_id}/backups/{backup_id}`` once."""
        path = f"/installs/{install_id}/backups/{quote(backup_id, safe='')}"
        return await self._send("GET", path, partial(read_shown, backup_id))

    async def list_installs(self, account_id: str | None, offset: int) -> AttemptResult:
        """Send ``GET /installs`` once, for the page that starts at ``offset``.

        ``account_id`` limits the listing to one of WP Engine's accounts; ``None`` lists all installs that the
        credentials can see.
        """
        of_account = "" if account_id is None else f"account_id={quote(account_id, safe='')}&"
        return await self._list(INSTALLS, f"/installs?{of_account}", offset)

    async def list_accounts(self, offset: int) -> AttemptResult:
        """Send ``GET /accounts`` once, for the page of WP Engine's accounts that starts at ``offset``."""
        return await self._list(ACCOUNTS, "/accounts?", offset)

    async def check_credentials(self) -> AttemptResult:
        """Send ``GET /user`` once: the cheapest call that proves credentials."""
        return await self._send("GET", "/user", read_user)

    async def _list(self, listing: PageKind[Entry], path: str, offset: int) -> AttemptResult:
        path = f"{path}limit={LARGEST_PAGE}&offset={offset}"
        return await self._send("GET", path, page_reader(listing, offset))

    async def _send(
        self,
        method: str,
        path: str,
        read: Callable[[Received], AttemptResult],
        body: Mapping[str, object] | None = None,
    ) -> AttemptResult:
        if self._session is None or self._connector is None:
            message = "the client is used outside its context manager"
            raise RuntimeError(message)
        transmission = Transmission()
        TRANSMISSION.set(transmission)
        try:
            async with self._session.request(
                method,
                self._base_url + path,
                data=None if body is None else json.dumps(body).encode(),
                headers=self._headers if body is None else self._headers | {"Content-Type": "application/json"},
                allow_redirects=False,
                proxy=self._proxy.url if self._proxy else None,
                middlewares=None if method in _REPEATED_BY_AIOHTTP else (),
            ) as response:
                self._connector.has_served(transmission)
                if self._proxy and response.status == PROXY_WANTS_CREDENTIALS:
                    return AttemptResult(fault=Fault.PROXY, sent=False, message=self._refused_by_proxy())
                return await self._read(response, read)
        except asyncio.CancelledError:
            return AttemptResult(
                fault=Fault.INTERRUPTED,
                sent=transmission.sent,
                message="interrupted before the answer came",
            )
        except _SentOnceError as error:
            return self._failed(error.cause, transmission)
        except _ERRORS as error:
            return self._failed(error, transmission)

    async def _read(self, response: aiohttp.ClientResponse, read: Callable[[Received], AttemptResult]) -> AttemptResult:
        headers = response.headers
        clean = self._redactor.clean
        base = AttemptResult(
            status=response.status,
            request_id=next((cut(clean(headers[name])) for name in REQUEST_ID_HEADERS if name in headers), None),
            retry_after_s=retry_after_s(headers.get("Retry-After"), headers.get("Date"), self._now()),
            rate_headers=rate_headers(headers, clean),
            server_at=server_time_s(headers.get("Date")),
        )
        try:
            body = await _bounded_body(response)
        except _ERRORS as error:
            return _bodiless(base, clean(f"{response.status} with an incomplete body: {_words(error)}"))
        text = None if body is None else unpack(body, headers.get("Content-Encoding", "").strip().lower())
        if text is None:
            return _bodiless(base, f"{response.status} with a body that is too large or cannot be unpacked")
        return read(Received(base, text, clean))

    def _failed(self, error: Exception, transmission: Transmission) -> AttemptResult:
        fault, sent = fault_of(error), transmission.sent
        message = self._redactor.clean(_words(error))
        if fault is Fault.READ_TIMEOUT and not sent:
            fault = Fault.CONNECT_TIMEOUT
        elif fault is Fault.INVALID_URL and sent:
            fault = Fault.MALFORMED
        if fault is Fault.CONNECT_TIMEOUT:
            message = f"no connection within {self._timeouts.connect_s:g} s{self._by_proxy()}"
        elif transmission.sent_at is not None and fault is Fault.READ_TIMEOUT:
            waited_s = asyncio.get_running_loop().time() - transmission.sent_at
            message = f"no complete answer within {round(waited_s, 1):g} s"
        elif isinstance(error, aiohttp.ClientHttpProxyError):
            is_refused = error.status == PROXY_WANTS_CREDENTIALS
            fault = Fault.PROXY if is_refused else fault
            message = self._refused_by_proxy() if is_refused else f"{error.status} {error.message}{self._by_proxy()}"
        elif isinstance(error, aiohttp.ClientProxyConnectionError):
            message = f"{message}{self._by_proxy()}"
        on_reused = transmission.is_reused and fault is Fault.DISCONNECTED and not _has_begun_to_answer(error)
        if on_reused and self._connector:
            self._connector.has_broken(transmission)
        return AttemptResult(fault=fault, sent=sent, message=message, on_reused=on_reused)

    def _by_proxy(self) -> str:
        return f" (using the proxy in {self._proxy.variable})" if self._proxy else ""

    def _refused_by_proxy(self) -> str:
        if self._proxy is None:
            return "a proxy asks for credentials"
        if self._proxy.has_credentials:
            return f"the proxy refuses the user and password in {self._proxy.variable} (407): correct them there"
        return f"the proxy asks for credentials (407): put them into {self._proxy.variable}, as http://user:password@host:port"


def _bodiless(base: AttemptResult, message: str) -> AttemptResult:
    return replace(base, fault=Fault.UNREADABLE if is_success(base.status) else None, message=message)


def fault_of(error: BaseException) -> Fault:
    """Return the fault that an exception of aiohttp or the system stands for."""
    return next(fault for kind, fault in _FAULTS if isinstance(error, kind))


def _has_begun_to_answer(error: BaseException) -> bool:
    return isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str)


def _words(error: BaseException) -> str:
    """Return a text for ``error``, without the credentials that a proxy's URL may hold."""
    if type(error) is aiohttp.ClientConnectorError and error.os_error.errno:
        return f"cannot connect to {error.host}:{error.port}: {os.strerror(error.os_error.errno)}"
    said = _USER_OF_URL.sub("//", str(error))
    return cut(f"{type(error).__name__}: {said}" if said else type(error).__name__)


class _SentOnceError(Exception):
    """Carry an error past aiohttp, which would repeat a GET after some errors."""

    def __init__(self, cause: aiohttp.ClientError) -> None:
        super().__init__(str(cause))
        self.cause = cause


async def _sent_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from repeating a GET by itself: each request must pass the limiter and be counted."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectionError as error:
        raise _SentOnceError(error) from error


class _MarkedRequest(aiohttp.ClientRequest):
    """Mark the transmission as sent just before the first byte may leave; a tunnel's CONNECT has another class."""

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        TRANSMISSION.get().sent_at = asyncio.get_running_loop().time()
        return await super().send(conn)


async def _bounded_body(response: aiohttp.ClientResponse) -> bytes | None:
    """Return the body; if it is longer than ``LONGEST_BODY``, stop reading and return ``None``."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > LONGEST_BODY:
            response.close()
            return None
    return bytes(body)


def _tls(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(cafile=ca_file)
    return context
