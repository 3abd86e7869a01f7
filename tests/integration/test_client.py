"""The client against raw sockets: every failure of an answer becomes an attempt result."""

from __future__ import annotations

import asyncio
import base64
import gzip
import inspect
import json
import re
import shutil
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING

import aiohttp
import aiohttp.client_proto
import pytest
from aiohttp import http_exceptions, http_parser
from rawserver import answer, playing, raw_server, read_request, reset

from orchestrator import __version__
from orchestrator.model import Account, AttemptResult, BackupRequest, Fault
from orchestrator.outcome import Answer, classify
from orchestrator.policies import Timeouts
from orchestrator.simulator import Scenario, Simulator
from orchestrator.wpengine.client import Client, fault_of
from orchestrator.wpengine.connector import Transmission

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Ask = Callable[[Client], Awaitable[AttemptResult]]

ID = "294deacc-d8b8-4005-82c4-0727ba8ddde0"
REQUEST = BackupRequest(ID, "d [wpe-backup R]", ("a@b",))
ACCEPTED = b'{"id": "b", "status": "requested"}'
QUICK = Timeouts(connect_s=0.5, read_s=0.5)
"""For tests in which a timeout must come soon."""

PATIENT = Timeouts(connect_s=30.0, read_s=30.0)


async def post(port: int, timeouts: Timeouts = PATIENT, scheme: str = "http") -> AttemptResult:
    account = Account("default", f"{scheme}://127.0.0.1:{port}/v1", "user", "password")
    async with Client(account, timeouts) as client:
        return await client.create_backup(REQUEST)


def play(data: bytes, *, then_reset: bool = False, pause_s: float = 0.0) -> AttemptResult:
    async def main() -> AttemptResult:
        async with raw_server(playing(data, then_reset=then_reset, pause_s=pause_s)) as port:
            return await post(port, QUICK if pause_s else PATIENT)

    return asyncio.run(main())


def test_a_request_has_the_headers_and_the_body_of_the_specification() -> None:
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
        (answer("429 T", b"<html>Limit Exceeded", "Content-Type: text/html"), (429, None, Answer.THROTTLED)),
        (answer("503 S", b"<html>", "x-amz-cf-id: c"), (503, None, Answer.AMBIGUOUS)),
        (answer("302 F", b"", "Location: http://127.0.0.1:9/x"), (302, None, Answer.PERMANENT)),
    ],
)
def test_each_answer_gets_its_class(data: bytes, expected: tuple[int | None, Fault | None, Answer]) -> None:
    result = play(data)
    assert (result.status, result.fault, classify(result)) == expected
    assert result.sent


def test_a_reset_before_or_within_the_answer_is_ambiguous() -> None:
    assert classify(play(b"", then_reset=True)) is Answer.AMBIGUOUS
    assert classify(play(b"HTTP/1.1 20", then_reset=True)) is Answer.AMBIGUOUS
    cut_short = play(b"HTTP/1.1 202 A\r\nContent-Length: 50\r\n\r\n{", then_reset=True)
    assert classify(cut_short) is Answer.UNREADABLE


def test_a_reset_before_the_request_is_read_is_ambiguous_or_not_sent() -> None:
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


def test_a_body_that_drips_for_ever_ends_at_the_read_timeout() -> None:
    async def main() -> AttemptResult:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(b"HTTP/1.1 202 A\r\nContent-Length: 1000\r\n\r\n")
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.1)

        async with raw_server(handler) as port:
            return await post(port, QUICK)

    assert classify(asyncio.run(main())) is Answer.UNREADABLE


def test_a_refused_connection_or_an_unknown_host_means_not_sent() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        refused = asyncio.run(post(free.getsockname()[1]))
    assert (refused.fault, refused.sent, classify(refused)) == (Fault.UNREACHABLE, False, Answer.NOT_SENT)
    assert re.fullmatch(r"cannot connect to 127\.0\.0\.1:\d+: Connection refused", refused.message or "")

    async def main() -> AttemptResult:
        async with Client(Account("default", "https://nowhere.invalid/v1", "u", "p"), QUICK) as client:
            return await client.create_backup(REQUEST)

    assert classify(asyncio.run(main())) is Answer.NOT_SENT


def test_a_connection_that_is_never_established_is_a_connect_timeout() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            result = asyncio.run(post(port, QUICK))
    assert (result.fault, classify(result)) == (Fault.CONNECT_TIMEOUT, Answer.NOT_SENT)


def test_a_server_without_tls_means_not_sent() -> None:
    async def main() -> AttemptResult:
        async with raw_server(playing(b"HTTP/1.1 400 Bad\r\n\r\n")) as port:
            return await post(port, QUICK, scheme="https")

    assert classify(asyncio.run(main())) is Answer.NOT_SENT


def test_a_cancelled_post_returns_a_result_instead_of_raising() -> None:
    async def main() -> AttemptResult:
        has_come = asyncio.Event()

        async def handler(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await read_request(reader)
            has_come.set()
            await reader.read()

        async with raw_server(handler) as port:
            sending = asyncio.create_task(post(port, Timeouts()))
            await has_come.wait()
            sending.cancel()
            return await sending

    result = asyncio.run(main())
    assert (result.fault, result.sent, classify(result)) == (Fault.INTERRUPTED, True, Answer.AMBIGUOUS)


@pytest.mark.parametrize("asked_for", [True, False])
def test_a_proxy_is_used_only_on_request_and_netrc_is_never_read(
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


def test_a_proxy_is_not_used_for_a_host_in_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_every_exception_of_aiohttps_client_becomes_a_fault() -> None:
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
def test_every_exception_of_the_system_becomes_a_fault(error: Exception, fault: Fault) -> None:
    assert fault_of(error) is fault


def test_every_parsing_error_of_aiohttp_becomes_a_fault() -> None:
    kinds = [
        kind
        for _, kind in inspect.getmembers(http_exceptions, inspect.isclass)
        if issubclass(kind, http_exceptions.HttpProcessingError)
    ]
    assert len(kinds) > 10
    assert {fault_of(kind.__new__(kind)) for kind in kinds} == {Fault.MALFORMED}


def test_a_value_error_means_a_wrong_url_only_before_the_request_is_sent() -> None:
    client = Client(Account("default", "http://127.0.0.1/v1", "u", "p"), QUICK)
    assert client._failed(ValueError(), Transmission()).fault is Fault.INVALID_URL
    after = client._failed(ValueError(), Transmission(sent_at=0.0))
    assert (after.fault, classify(after)) == (Fault.MALFORMED, Answer.AMBIGUOUS)


def created(client: Client) -> Awaitable[AttemptResult]:
    return client.create_backup(REQUEST)


def listed(client: Client) -> Awaitable[AttemptResult]:
    return client.list_backups(ID)


async def with_client(port: int, ask: Ask, scheme: str = "http", ca_file: str | None = None) -> AttemptResult:
    account = Account("default", f"{scheme}://127.0.0.1:{port}/v1", "user", "password", ca_file)
    async with Client(account, QUICK) as client:
        return await ask(client)


@pytest.mark.parametrize("unasked", ["408 Request Timeout", "202 Accepted"])
def test_bytes_on_an_idle_connection_do_not_answer_the_next_request(unasked: str) -> None:
    connections: list[int] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        while True:
            await read_request(reader)
            own = json.dumps({"id": f"of connection {len(connections)}", "status": "requested"}).encode()
            writer.write(answer("202 Accepted", own))
            await asyncio.sleep(0.05)
            writer.write(answer(unasked, b'{"id": "of nobody", "status": "requested"}'))

    async def main() -> list[AttemptResult]:
        async with (
            raw_server(handler) as port,
            Client(Account("default", f"http://127.0.0.1:{port}/v1", "user", "password"), QUICK) as client,
        ):
            first = await client.create_backup(REQUEST)
            await asyncio.sleep(0.2)
            return [first, await client.create_backup(REQUEST)]

    results = asyncio.run(main())
    assert [each.backup and each.backup.id for each in results] == ["of connection 1", "of connection 2"]


def test_a_server_that_speaks_first_gets_no_request_and_no_second_connection() -> None:
    connections: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer("202 Accepted", ACCEPTED))
        connections.append(await reader.read())

    async def while_it_speaks(*_: object) -> None:
        await asyncio.sleep(0.1)

    async def slowly(client: Client) -> AttemptResult:
        assert client._session is not None
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(while_it_speaks)
        trace.freeze()
        client._session.trace_configs.append(trace)
        result = await client.create_backup(REQUEST)
        await asyncio.sleep(0.1)
        return result

    async def main() -> AttemptResult:
        async with raw_server(handler) as port:
            return await with_client(port, slowly)

    result = asyncio.run(main())
    assert (result.fault, result.sent, classify(result)) == (Fault.DISCONNECTED, False, Answer.NOT_SENT)
    assert result.message.endswith("the server sent data before the request")
    assert connections == [b""]


def test_a_quiet_connection_is_reused() -> None:
    connections: list[int] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        while True:
            await read_request(reader)
            writer.write(answer("202 Accepted", ACCEPTED))

    async def main() -> None:
        async with (
            raw_server(handler) as port,
            Client(Account("default", f"http://127.0.0.1:{port}/v1", "user", "password"), QUICK) as client,
        ):
            for _ in range(5):
                assert classify(await client.create_backup(REQUEST)) is Answer.ACCEPTED

    asyncio.run(main())
    assert len(connections) == 1


@pytest.mark.parametrize("parser", [http_parser.HttpResponseParser, http_parser.HttpResponseParserPy])
@pytest.mark.parametrize(
    ("status", "chunk"),
    [
        ("202 A", b"ZZ\r\n"),
        ("202 A", b"-1\r\n"),
        ("202 A", b"2\r\nlonger\r\n"),
        ("202 A", b"F" * 30 + b"\r\n"),
        ("202 A", b"5;" + b"x" * 50_000),
        ("429 T", b"ZZ\r\n"),
    ],
)
def test_a_broken_chunk_loses_the_body_but_not_the_status(
    monkeypatch: pytest.MonkeyPatch, parser: type, chunk: bytes, status: str
) -> None:
    monkeypatch.setattr(aiohttp.client_proto, "HttpResponseParser", parser)  # aiohttp picks the C parser if it can

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + b'5\r\n{"id"\r\n')
        await asyncio.sleep(0.05)
        writer.write(chunk)

    async def main() -> AttemptResult:
        async with raw_server(handler) as port:
            return await post(port, Timeouts(connect_s=0.5, read_s=0.5))

    result = asyncio.run(main())
    assert result.status == int(status[:3])
    assert classify(result) is (Answer.THROTTLED if result.status == 429 else Answer.UNREADABLE)


def test_a_reset_while_a_large_body_is_sent_is_ambiguous() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.read(100_000)
        reset(writer)

    async def main() -> AttemptResult:
        large = BackupRequest(ID, "x" * 1_000_000, ())
        async with raw_server(handler) as port:
            return await with_client(port, lambda client: client.create_backup(large))

    result = asyncio.run(main())
    assert (result.status, result.fault, result.sent) == (None, Fault.DISCONNECTED, True)
    assert classify(result) is Answer.AMBIGUOUS


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"<html>HTTP/0.9 has no head</html>", Answer.AMBIGUOUS),
        (b"HTTP/2 202\r\n\r\n", Answer.AMBIGUOUS),
        (b"HTTP/1.1 000 Odd\r\nContent-Length: 0\r\n\r\n", Answer.AMBIGUOUS),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nx", Answer.AMBIGUOUS),
        (b"HTTP/1.1 202 A\r\nX: a\0b\r\n\r\n" + ACCEPTED, Answer.AMBIGUOUS),
        (b"HTTP/1.1 204 No\r\n\r\n", Answer.UNREADABLE),
        (b"HTTP/1.1 202 \xff\r\nX-Request-ID: \xff\r\nContent-Length: 34\r\n\r\n" + ACCEPTED, Answer.ACCEPTED),
    ],
)
def test_each_odd_head_gets_its_class(data: bytes, expected: Answer) -> None:
    result = play(data)
    assert (result.sent, classify(result)) == (True, expected)


def test_the_message_about_an_odd_head_holds_no_credentials() -> None:
    encoded = base64.b64encode(b"user:password")
    result = play(b"HTTP/1.1 202 A\r\nBasic " + encoded + b" password\r\n\r\n")
    assert result.fault is Fault.MALFORMED
    assert encoded.decode() not in result.message
    assert "password" not in result.message


@pytest.mark.parametrize("ask", [created, listed, Client.check_credentials])
@pytest.mark.parametrize("status", ["301 M", "302 F", "303 S", "307 T", "308 P"])
def test_a_redirect_to_the_same_host_is_not_followed_either(ask: Ask, status: str) -> None:
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await read_request(reader))
            writer.write(answer(status, b"", "Location: /v1/user"))

    async def main() -> AttemptResult:
        async with raw_server(handler) as port:
            return await with_client(port, ask)

    assert classify(asyncio.run(main())) is Answer.PERMANENT
    assert len(seen) == 1


LISTING_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("data", "then_reset", "expected"),
    [
        (b"", False, (None, Answer.AMBIGUOUS)),
        (b"", True, (None, Answer.AMBIGUOUS)),
        (b"HTTP/1.1 20", True, (None, Answer.AMBIGUOUS)),
        (b"HELLO\r\n\r\n", False, (None, Answer.AMBIGUOUS)),
        (LISTING_HEAD + b"X: " + b"y" * 1_000_000 + b"\r\n\r\n", False, (None, Answer.AMBIGUOUS)),
        (LISTING_HEAD + b'Content-Length: 50\r\n\r\n{"results": []', True, (200, Answer.UNREADABLE)),
        (LISTING_HEAD + b'Content-Length: 50\r\n\r\n{"results": []}', False, (200, Answer.UNREADABLE)),
        (LISTING_HEAD + b"\r\n" + b" " * 10_000_000, False, (200, Answer.UNREADABLE)),
        (LISTING_HEAD + b'\r\n{"results": [{"id": "a"}, ', False, (200, Answer.UNREADABLE)),
        (answer("200 OK", gzip.compress(b"0" * 10_000_000), "Content-Encoding: gzip"), False, (200, Answer.UNREADABLE)),
        (answer("200 OK", b'{"results": []}', "Content-Encoding: br"), False, (200, Answer.UNREADABLE)),
        (answer("206 Partial Content", b'{"results": []}'), False, (206, Answer.UNREADABLE)),
        (answer("202 Accepted", b'{"results": []}'), False, (202, Answer.UNREADABLE)),
        (answer("502 Bad Gateway", b"<html>"), False, (502, Answer.AMBIGUOUS)),
        (answer("429 T", b'{"message": "Too Many Requests"}'), False, (429, Answer.THROTTLED)),
        (answer("404 N", b"<html>"), False, (404, Answer.PERMANENT)),
    ],
)
def test_a_listing_that_fails_is_never_an_empty_page(
    data: bytes, expected: tuple[int | None, Answer], *, then_reset: bool
) -> None:
    async def main() -> AttemptResult:
        async with raw_server(playing(data, then_reset=then_reset)) as port:
            return await with_client(port, listed)

    result = asyncio.run(main())
    assert (result.status, classify(result)) == expected
    assert (result.page, result.sent) == (None, True)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: ", LISTING_HEAD + b"Content-Length: 1000\r\n\r\n"])
def test_a_listing_that_drips_for_ever_ends_at_the_read_timeout(head: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(head)
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.1)

    async def main() -> AttemptResult:
        async with raw_server(handler) as port:
            return await with_client(port, listed)

    result = asyncio.run(main())
    assert (result.page, classify(result)) in {(None, Answer.AMBIGUOUS), (None, Answer.UNREADABLE)}


def test_each_page_is_requested_by_its_offset() -> None:
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(answer("200 OK", b'{"results": []}'))

    async def main() -> None:
        async with raw_server(handler) as port:
            await with_client(port, lambda client: client.list_backups(ID, 200))

    asyncio.run(main())
    assert seen[0].startswith(f"GET /v1/installs/{ID}/backups?limit=100&offset=200 HTTP/1.1\r\n".encode())


def test_any_backup_id_stays_one_part_of_the_path() -> None:
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(answer("404 N", b""))

    async def main() -> None:
        async with raw_server(handler) as port:
            await with_client(port, lambda client: client.show_backup(ID, "a/../b?c#d%2Fé e"))

    asyncio.run(main())
    assert seen[0].startswith(f"GET /v1/installs/{ID}/backups/a%2F..%2Fb%3Fc%23d%252F%C3%A9%20e HTTP/1.1\r\n".encode())


FLEET = {
    "latency": 0,
    "accounts": [{"name": "one", "installs": 3}, {"name": "two", "installs": [{"name": "shop", "id": ID}]}],
    "backups": {"completes_after": "1ms"},
}


async def every_page(ask: Callable[[int], Awaitable[AttemptResult]], field: str) -> list[str]:
    """Return the names of all entries of a listing."""
    names: list[str] = []
    offset: int | None = 0
    while offset is not None:
        page = getattr(await ask(offset), field)
        assert 0 < len(page.entries) <= 2
        names += [entry.name for entry in page.entries]
        offset = page.next_offset
    return names


def test_installs_accounts_and_one_backup_are_read_from_the_stand_in_page_by_page() -> None:
    async def main() -> None:
        scenario = Scenario.model_validate(FLEET | {"pages": {"size": 2}})
        async with Simulator(scenario) as simulator:
            account = Account("default", simulator.base_url, "user", "password")
            async with Client(account, QUICK) as client:
                names = await every_page(lambda offset: client.list_installs(None, offset), "installs")
                assert (len(names), len(set(names)), names[3]) == (4, 4, "shop")
                assert await every_page(client.list_accounts, "accounts") == ["one", "two"]
                accounts = (await client.list_accounts(0)).accounts
                installs = (await client.list_installs(None, 2)).installs
                assert accounts is not None
                assert installs is not None
                two, shop = accounts.entries[1], installs.entries[1]
                assert (shop.id, shop.account_id) == (ID, two.id)
                assert await every_page(lambda offset: client.list_installs(two.id, offset), "installs") == ["shop"]
                made = (await client.create_backup(REQUEST)).backup
                assert made is not None
                shown = (await client.show_backup(ID, made.id)).backup
                assert shown is not None
                assert (shown.id, shown.description) == (made.id, REQUEST.description)
                assert classify(await client.show_backup(ID, two.id)) is Answer.PERMANENT

    asyncio.run(main())


def test_a_next_page_on_another_host_is_read_by_its_offset_from_our_host() -> None:
    async def main() -> None:
        scenario = Scenario.model_validate(FLEET | {"pages": {"size": 1, "next": "elsewhere"}})
        async with Simulator(scenario) as simulator:
            account = Account("default", simulator.base_url, "user", "password")
            async with Client(account, QUICK) as client:
                first = await client.list_accounts(0)
                assert first.accounts is not None
                assert first.accounts.next_offset == 1
                last = await client.list_accounts(1)
                assert last.accounts is not None
                assert last.accounts.next_offset is None

    asyncio.run(main())


def self_signed(folder: Path) -> ssl.SSLContext:
    """Return a server's TLS context with a self-signed certificate, which is also written to ``folder/own.pem``."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the openssl command, which makes the certificate, is not installed")
    made = f"{openssl} req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 2 -subj /CN=own"
    where = ["-keyout", "key.pem", "-out", "own.pem", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*made.split(), *where], cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "own.pem", folder / "key.pem")
    return context


def test_a_self_signed_certificate_is_trusted_only_as_ca_file(tmp_path: Path) -> None:
    context = self_signed(tmp_path)

    async def main(ca_file: str | None) -> AttemptResult:
        async with raw_server(playing(answer("202 A", ACCEPTED)), tls=context) as port:
            return await with_client(port, created, "https", ca_file)

    refused = asyncio.run(main(None))
    assert (refused.fault, refused.sent, classify(refused)) == (Fault.CERTIFICATE, False, Answer.MISCONFIGURED)
    assert classify(asyncio.run(main(str(tmp_path / "own.pem")))) is Answer.ACCEPTED


def test_a_reset_right_after_the_handshake_is_ambiguous_if_the_request_was_sent(tmp_path: Path) -> None:
    context = self_signed(tmp_path)

    async def handler(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async def main() -> AttemptResult:
        async with raw_server(handler, tls=context) as port:
            return await with_client(port, created, "https", str(tmp_path / "own.pem"))

    result = asyncio.run(main())
    assert result.status is None
    assert classify(result) is (Answer.AMBIGUOUS if result.sent else Answer.NOT_SENT)


def test_using_a_client_outside_its_context_raises() -> None:
    client = Client(Account("default", "http://127.0.0.1/v1", "u", "p"), QUICK)
    with pytest.raises(RuntimeError, match="context manager"):
        asyncio.run(client.check_credentials())
    asyncio.run(client.__aexit__(None, None, None))
