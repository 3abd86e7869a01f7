"""The client against raw sockets: every way in which an answer can fail becomes an attempt result."""

from __future__ import annotations

import asyncio
import base64
import gzip
import inspect
import json
import socket
import ssl
import time
from typing import TYPE_CHECKING

import aiohttp
import pytest
from rawserver import answer, playing, raw_server, read_request, reset

from orchestrator import __version__
from orchestrator.model import Account, AttemptResult, BackupRequest, Fault, Timeouts
from orchestrator.outcome import Answer, classify
from orchestrator.wpengine.client import Client, fault_of

if TYPE_CHECKING:
    from pathlib import Path

ID = "294deacc-d8b8-4005-82c4-0727ba8ddde0"
REQUEST = BackupRequest(ID, "d [wpe-backup R]", ("a@b",))
ACCEPTED = b'{"id": "b", "status": "requested"}'
QUICK = Timeouts(connect_s=0.5, read_s=0.5)


async def post(port: int, timeouts: Timeouts = QUICK, scheme: str = "http") -> AttemptResult:
    account = Account("default", f"{scheme}://127.0.0.1:{port}/v1", "user", "password")
    async with Client(account, timeouts) as client:
        return await client.create_backup(REQUEST)


def play(data: bytes, *, then_reset: bool = False, pause_s: float = 0.0) -> AttemptResult:
    async def main() -> AttemptResult:
        async with raw_server(playing(data, then_reset=then_reset, pause_s=pause_s)) as port:
            return await post(port)

    return asyncio.run(main())


def test_a_request_says_what_the_specification_asks_for() -> None:
    async def main() -> bytes:
        seen: list[bytes] = []

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await read_request(reader))
            writer.write(answer("202 Accepted", ACCEPTED, "x-amzn-RequestId: q"))

        async with raw_server(handler) as port:
            result = await post(port)
        assert (result.status, result.request_id) == (202, "q")
        assert result.backup is not None
        return seen[0]

    head, _, body = asyncio.run(main()).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert lines[0] == f"POST /v1/installs/{ID}/backups HTTP/1.1"
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"user:password").decode()
    assert headers["User-Agent"] == f"wpe-backup/{__version__}"
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {"description": "d [wpe-backup R]", "notification_emails": ["a@b"]}


def test_the_credentials_are_checked_with_the_cheapest_call() -> None:
    async def main() -> AttemptResult:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = await read_request(reader)
            assert request.startswith(b"GET /v1/user HTTP/1.1\r\n")
            writer.write(answer("200 OK", b"{}"))

        async with (
            raw_server(handler) as port,
            Client(Account("default", f"http://127.0.0.1:{port}/v1", "u", "p"), QUICK) as client,
        ):
            return await client.check_credentials()

    assert classify(asyncio.run(main())) is Answer.ACCEPTED


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", (None, Fault.DISCONNECTED, Answer.AMBIGUOUS)),
        (b"HTTP/1.1 202 Acc", (None, Fault.DISCONNECTED, Answer.AMBIGUOUS)),
        (b"HELLO\r\n\r\n", (None, Fault.MALFORMED, Answer.AMBIGUOUS)),
        (b"HTTP/1.1 202 A\r\nContent-Length: 100\r\n\r\n{", (202, Fault.UNREADABLE, Answer.UNREADABLE)),
        (b"HTTP/1.1 202 A\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", (None, Fault.MALFORMED, Answer.AMBIGUOUS)),
        (answer("202 A", b"{broken"), (202, Fault.UNREADABLE, Answer.UNREADABLE)),
        (answer("202 A", b'{"status": "requested"}'), (202, Fault.UNREADABLE, Answer.UNREADABLE)),
        (answer("202 A", ACCEPTED + b" " * 2_000_000), (202, Fault.UNREADABLE, Answer.UNREADABLE)),
        (b"HTTP/1.1 202 A\r\n\r\n" + ACCEPTED, (202, None, Answer.ACCEPTED)),
        (answer("202 A", gzip.compress(ACCEPTED), "Content-Encoding: gzip"), (202, None, Answer.ACCEPTED)),
        (
            answer("202 A", gzip.compress(b"0" * 20_000_000), "Content-Encoding: gzip"),
            (202, Fault.UNREADABLE, Answer.UNREADABLE),
        ),
        (b"HTTP/1.1 429 T\r\nContent-Length: 100\r\n\r\n{", (429, None, Answer.THROTTLED)),
        (answer("429 T", b'{"message": "Limit Exceeded"}'), (429, None, Answer.QUOTA)),
        (answer("503 S", b"<html>", "x-amz-cf-id: c"), (503, None, Answer.AMBIGUOUS)),
        (answer("302 F", b"", "Location: http://127.0.0.1:9/x"), (302, None, Answer.PERMANENT)),
    ],
)
def test_each_answer_is_what_it_is(data: bytes, expected: tuple[int | None, Fault | None, Answer]) -> None:
    result = play(data)
    assert (result.status, result.fault, classify(result)) == expected
    assert result.sent


def test_a_reset_is_ambiguous_before_and_in_the_answer() -> None:
    assert classify(play(b"", then_reset=True)) is Answer.AMBIGUOUS
    assert classify(play(b"HTTP/1.1 20", then_reset=True)) is Answer.AMBIGUOUS
    cut_short = play(b"HTTP/1.1 202 A\r\nContent-Length: 50\r\n\r\n{", then_reset=True)
    assert classify(cut_short) is Answer.UNREADABLE


def test_a_reset_before_the_request_was_read_is_not_taken_for_unsent() -> None:
    async def main() -> AttemptResult:
        async def handler(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            reset(writer)

        async with raw_server(handler) as port:
            return await post(port)

    assert classify(asyncio.run(main())) in {Answer.AMBIGUOUS, Answer.NOT_SENT}


def test_headers_that_never_come_are_a_read_timeout() -> None:
    result = play(b"", pause_s=5.0)
    assert (result.fault, result.sent, classify(result)) == (Fault.READ_TIMEOUT, True, Answer.AMBIGUOUS)
    assert result.message == "no complete answer within 0.5 s"


def test_a_body_that_drips_for_ever_ends_all_the_same() -> None:
    async def main() -> tuple[AttemptResult, float]:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(b"HTTP/1.1 202 A\r\nContent-Length: 1000\r\n\r\n")
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.1)

        async with raw_server(handler) as port:
            began = time.monotonic()
            return await post(port), time.monotonic() - began

    result, seconds = asyncio.run(main())
    assert classify(result) is Answer.UNREADABLE
    assert seconds < 5


def test_a_refused_connection_and_an_unknown_name_were_not_sent() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        refused = asyncio.run(post(free.getsockname()[1]))
    assert (refused.fault, refused.sent, classify(refused)) == (Fault.UNREACHABLE, False, Answer.NOT_SENT)

    async def main() -> AttemptResult:
        async with Client(Account("default", "https://nowhere.invalid/v1", "u", "p"), QUICK) as client:
            return await client.create_backup(REQUEST)

    assert classify(asyncio.run(main())) is Answer.NOT_SENT


def test_a_connection_that_never_stands_is_a_connect_timeout() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            result = asyncio.run(post(port))
    assert (result.fault, classify(result)) == (Fault.CONNECT_TIMEOUT, Answer.NOT_SENT)


def test_no_tls_where_tls_is_expected_was_not_sent() -> None:
    async def main() -> AttemptResult:
        async with raw_server(playing(b"HTTP/1.1 400 Bad\r\n\r\n")) as port:
            return await post(port, scheme="https")

    assert classify(asyncio.run(main())) is Answer.NOT_SENT


def test_a_cancelled_post_returns_its_fate_instead_of_raising() -> None:
    async def main() -> AttemptResult:
        async with raw_server(playing(b"", pause_s=30.0)) as port:
            sending = asyncio.create_task(post(port, Timeouts()))
            await asyncio.sleep(0.3)
            sending.cancel()
            return await sending

    result = asyncio.run(main())
    assert (result.fault, result.sent, classify(result)) == (Fault.INTERRUPTED, True, Answer.AMBIGUOUS)


@pytest.mark.parametrize("asked_for", [True, False])
def test_a_proxy_is_used_only_when_asked_for_and_netrc_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, asked_for: bool
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    seen: list[bytes] = []

    async def main() -> None:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await read_request(reader))
            writer.write(answer("200 OK", b"{}"))

        async with raw_server(handler) as proxy, raw_server(handler) as direct:
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy}")
            url = f"http://127.0.0.1:{direct}/v1"
            account = Account("default", url, "user", "password", proxy_from_environment=asked_for)
            async with Client(account, QUICK) as client:
                assert classify(await client.check_credentials()) is Answer.ACCEPTED

    asyncio.run(main())
    assert seen[0].startswith(b"GET http://127.0.0.1:" if asked_for else b"GET /v1/user")
    assert b"Basic " + base64.b64encode(b"user:password") in seen[0]


def test_a_proxy_is_not_used_for_a_host_that_the_environment_excepts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    account = Account("default", "http://127.0.0.1:1/v1", "u", "p", proxy_from_environment=True)
    assert Client(account, QUICK)._proxy is None


FAULTS = {
    Fault.CERTIFICATE: ["ClientConnectorCertificateError", "ServerFingerprintMismatch"],
    Fault.TLS: ["ClientSSLError", "ClientConnectorSSLError"],
    Fault.CONNECT_TIMEOUT: ["ConnectionTimeoutError"],
    Fault.READ_TIMEOUT: ["ServerTimeoutError", "SocketTimeoutError"],
    Fault.UNREACHABLE: [
        "ClientConnectorError",
        "ClientConnectorDNSError",
        "ClientHttpProxyError",
        "ClientProxyConnectionError",
        "UnixClientConnectorError",
    ],
    Fault.INVALID_URL: [
        "InvalidURL",
        "InvalidUrlClientError",
        "InvalidUrlRedirectClientError",
        "NonHttpUrlClientError",
        "NonHttpUrlRedirectClientError",
    ],
    Fault.MALFORMED: [
        "ClientPayloadError",
        "ClientResponseError",
        "ContentTypeError",
        "TooManyRedirects",
        "WSServerHandshakeError",
    ],
    Fault.DISCONNECTED: [
        "ClientError",
        "ClientConnectionError",
        "ClientConnectionResetError",
        "ClientOSError",
        "RedirectClientError",
        "ServerConnectionError",
        "ServerDisconnectedError",
        "UploadAbortedError",
    ],
}


def test_every_exception_of_aiohttps_client_has_the_fault_that_it_means() -> None:
    found = {
        name: fault_of(kind.__new__(kind))
        for name, kind in inspect.getmembers(aiohttp.client_exceptions, inspect.isclass)
        if issubclass(kind, aiohttp.ClientError)
    }
    assert found == {name: fault for fault, names in FAULTS.items() for name in names}


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (TimeoutError(), Fault.READ_TIMEOUT),
        (ConnectionResetError(), Fault.DISCONNECTED),
        (BrokenPipeError(), Fault.DISCONNECTED),
        (socket.gaierror(), Fault.DISCONNECTED),
        (ssl.SSLError(), Fault.DISCONNECTED),
        (UnicodeError(), Fault.INVALID_URL),
    ],
)
def test_what_the_system_raises_has_a_fault_too(error: Exception, fault: Fault) -> None:
    assert fault_of(error) is fault


def test_a_client_outside_its_context_is_a_mistake() -> None:
    client = Client(Account("default", "http://127.0.0.1/v1", "u", "p"), QUICK)
    with pytest.raises(RuntimeError, match="context manager"):
        asyncio.run(client.check_credentials())
    asyncio.run(client.__aexit__(None, None, None))
