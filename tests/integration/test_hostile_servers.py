"""The client against servers that break the protocol, over real sockets and real TLS."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rawserver import answer, playing, raw_server, read_request, reset

from orchestrator.listings import Page
from orchestrator.model import Account, AttemptResult, Backup, BackupRequest, Fault
from orchestrator.outcome import Answer, classify
from orchestrator.policies import Timeouts
from orchestrator.wpengine.client import Client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Ask = Callable[[Client], Awaitable[AttemptResult]]

CERTS = Path(__file__).parents[1] / "certs"
ID = "294deacc-d8b8-4005-82c4-0727ba8ddde0"
ACCEPTED = b'{"id": "b", "status": "requested"}'
QUICK = Timeouts(connect_s=0.5, read_s=0.5)
LOST = (202, Fault.UNREADABLE, Answer.UNREADABLE)
ODD = (None, Fault.MALFORMED, Answer.AMBIGUOUS)
HEAD = b"HTTP/1.1 202 A\r\nContent-Type: application/json\r\n"


def post(client: Client) -> Awaitable[AttemptResult]:
    return client.create_backup(BackupRequest(ID, "d", ("a@b",)))


def listing(client: Client) -> Awaitable[AttemptResult]:
    return client.list_backups(ID)


async def ask(port: int, wanted: Ask = post, **settings: Any) -> AttemptResult:
    scheme = settings.pop("scheme", "http")
    account = Account("default", f"{scheme}://127.0.0.1:{port}/v1", "user", "password", **settings)
    async with Client(account, QUICK) as client:
        return await wanted(client)


def play(data: bytes, wanted: Ask = post, *, then_reset: bool = False) -> AttemptResult:
    async def main() -> AttemptResult:
        async with raw_server(playing(data, then_reset=then_reset)) as port:
            return await ask(port, wanted)

    return asyncio.run(main())


def against(
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], wanted: Ask = post
) -> AttemptResult:
    async def main() -> AttemptResult:
        async with raw_server(handler) as port:
            return await ask(port, wanted)

    return asyncio.run(main())


def deflated(data: bytes) -> bytes:
    return zlib.compress(data)


# -- answers that are no HTTP, or not quite ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status", "fault", "expected"),
    [
        (b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", 999, None, Answer.AMBIGUOUS),
        (b"HTTP/1.1 99 Odd\r\n\r\n", *ODD),
        (b"HTTP/1.1 abc Odd\r\n\r\n", *ODD),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", *ODD),
        (b"\x16\x03\x01\x02\x00" * 30 + b"\r\n\r\n", *ODD),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 34\r\n\r\n" + ACCEPTED, *ODD),
        (HEAD + b"Content-Length: -5\r\n\r\n" + ACCEPTED, *ODD),
        (HEAD + b"X: " + b"y" * 1_000_000 + b"\r\n\r\n", *ODD),
        (HEAD + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"id"\r\nZZ\r\n', *ODD),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n22\r\n" + ACCEPTED + b"\r\n", *LOST),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n22\r\n" + ACCEPTED + b"\r\n0\r\n\r\n", 202, None, Answer.ACCEPTED),
        (HEAD + b"\r\n" + b" " * 10_000_000 + ACCEPTED, *LOST),
        (answer("202 A", b" " * 10_000_000), *LOST),
        (answer("503 S", b"<" * 10_000_000), 503, None, Answer.AMBIGUOUS),
        (answer("202 A", gzip.compress(b" " * 10_000_000), "Content-Encoding: gzip"), *LOST),
        (answer("202 A", deflated(b" " * 10_000_000), "Content-Encoding: deflate"), *LOST),
        (answer("202 A", deflated(ACCEPTED), "Content-Encoding: deflate"), 202, None, Answer.ACCEPTED),
        (answer("202 A", gzip.compress(ACCEPTED)[:-9], "Content-Encoding: gzip"), *LOST),
        (answer("202 A", ACCEPTED, "Content-Encoding: br"), *LOST),
        (answer("202 A", ACCEPTED, "Content-Encoding: gzip, gzip"), *LOST),
        (answer("429 T", gzip.compress(b" " * 10_000_000), "Content-Encoding: gzip"), 429, None, Answer.THROTTLED),
        (answer("202 A", b"[" * 100_000), *LOST),
        (answer("202 A", b'{"id": NaN}'), *LOST),
        (answer("202 A", b"\xff\xfe"), *LOST),
    ],
)  # fmt: skip
def test_each_odd_answer_gets_its_class(data: bytes, status: int | None, fault: Fault | None, expected: Answer) -> None:
    result = play(data)
    assert (result.status, result.fault, classify(result)) == (status, fault, expected)
    assert result.sent
    assert len(result.message) < 5000


def test_ten_thousand_headers_are_refused_or_read_and_never_crash() -> None:
    headers = b"".join(b"X-%d: y\r\n" % number for number in range(10_000))
    assert classify(play(HEAD + headers + b"Content-Length: 34\r\n\r\n" + ACCEPTED)) in {
        Answer.ACCEPTED,
        Answer.AMBIGUOUS,
    }


def test_a_post_whose_head_alone_was_read_is_ambiguous() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reset(writer)

    result = against(handler)
    assert (result.sent, classify(result)) == (True, Answer.AMBIGUOUS)


@pytest.mark.parametrize(
    ("begin", "on"), [(b"HTTP/1.1 202 A\r\nX-Slow: ", b"y"), (b"", b"HTTP/1.1 100 Continue\r\n\r\n")]
)
def test_a_head_that_never_ends_is_a_timeout(begin: bytes, on: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(begin)
        while True:
            writer.write(on)
            await writer.drain()
            await asyncio.sleep(0.1)

    result = against(handler)
    assert (result.fault, result.sent, classify(result)) == (Fault.READ_TIMEOUT, True, Answer.AMBIGUOUS)


# -- one call is one request ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [post, listing, Client.check_credentials])
@pytest.mark.parametrize("then_reset", [True, False])
def test_the_client_does_not_repeat_a_request_whose_connection_breaks(wanted: Ask, *, then_reset: bool) -> None:
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await read_request(reader))
            if len(seen) > 1:
                if then_reset:
                    reset(writer)
                return
            writer.write(answer("200 OK", b"{}"))

    async def main() -> AttemptResult:
        async with raw_server(handler) as port:
            account = Account("default", f"http://127.0.0.1:{port}/v1", "user", "password")
            async with Client(account, QUICK) as client:
                await client.check_credentials()  # leaves a connection to reuse
                return await wanted(client)

    assert classify(asyncio.run(main())) is Answer.AMBIGUOUS
    assert len(seen) == 2


@pytest.mark.parametrize("wanted", [post, listing, Client.check_credentials])
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"])
def test_a_redirect_is_not_followed_and_gets_no_credentials(wanted: Ask, status: str) -> None:
    arrived: list[str] = []

    async def main() -> AttemptResult:
        async def elsewhere(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            arrived.append("another host")
            writer.close()

        async with raw_server(elsewhere) as other:

            async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await read_request(reader)
                arrived.append("the host")
                writer.write(answer(status, b"", f"Location: http://127.0.0.1:{other}/v1/user"))

            async with raw_server(handler) as port:
                return await ask(port, wanted)

    result = asyncio.run(main())
    assert (result.status, classify(result)) == (int(status[:3]), Answer.PERMANENT)
    assert "redirect" in result.message
    assert arrived == ["the host"]


def test_a_cookie_is_not_sent_back() -> None:
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await read_request(reader))
            writer.write(answer("200 OK", b"{}", "Set-Cookie: session=x; Path=/"))

    async def main() -> None:
        async with raw_server(handler) as port:
            account = Account("default", f"http://localhost:{port}/v1", "user", "password")
            async with Client(account, QUICK) as client:
                await client.check_credentials()
                await client.check_credentials()

    asyncio.run(main())
    assert len(seen) == 2
    assert b"cookie" not in seen[1].lower()


def test_no_message_shows_a_proxys_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    async def main() -> list[AttemptResult]:
        async with raw_server(playing(b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n")) as port:
            account = Account("default", "https://api.invalid/v1", "user", "password", proxy_from_environment=True)
            results = []
            for proxy in (f"http://pxuser:px%40secret@127.0.0.1:{port}", "http://pxuser:px%40secret@127.0.0.1:1"):
                monkeypatch.setenv("https_proxy", proxy)
                async with Client(account, QUICK) as client:
                    results.append(await client.check_credentials())
            return results

    for result in asyncio.run(main()):
        assert not result.sent
        assert not any(secret in result.message for secret in ("pxuser", "px%40", "px@", "secret"))


# -- TLS --------------------------------------------------------------------------------------------------------------


def served_with(certificate: str, ca_file: str | None) -> AttemptResult:
    async def main() -> AttemptResult:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTS / certificate)
        async with raw_server(playing(answer("202 A", ACCEPTED)), tls=context) as port:
            return await ask(port, scheme="https", ca_file=ca_file)

    return asyncio.run(main())


def test_a_certificate_of_the_named_authority_is_accepted() -> None:
    assert served_with("good.pem", str(CERTS / "authority.pem")).backup == Backup("b", "requested")


@pytest.mark.parametrize(
    ("certificate", "ca_file", "says"),
    [
        ("expired.pem", "authority.pem", "certificate has expired"),
        ("othername.pem", "authority.pem", "IP address mismatch"),
        ("good.pem", None, "unable to get local issuer certificate"),
    ],
)
def test_a_certificate_that_does_not_verify_stops_the_account_before_anything_is_sent(
    certificate: str, ca_file: str | None, says: str
) -> None:
    result = served_with(certificate, ca_file and str(CERTS / ca_file))
    assert (result.fault, result.sent, classify(result)) == (Fault.CERTIFICATE, False, Answer.MISCONFIGURED)
    assert says in result.message


def test_garbage_instead_of_a_handshake_means_not_sent() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"\x15\x03\x01\x00\x02\x02\x28" * 10)

    async def main() -> AttemptResult:
        async with raw_server(handler) as port:
            return await ask(port, scheme="https")

    result = asyncio.run(main())
    assert (result.sent, classify(result)) == (False, Answer.NOT_SENT)


def test_a_handshake_that_never_ends_means_not_sent() -> None:
    async def handler(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def main() -> AttemptResult:
        async with raw_server(handler) as port:
            return await ask(port, scheme="https")

    result = asyncio.run(main())
    assert (result.sent, classify(result)) == (False, Answer.NOT_SENT)


# -- pages of a listing -----------------------------------------------------------------------------------------------


def page(document: Any, offset: int = 0) -> AttemptResult:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return play(answer("200 OK", data), lambda client: client.list_backups(ID, offset))


BACKUPS = [{"id": f"b{number}", "status": "completed"} for number in range(100)]


@pytest.mark.parametrize(
    ("document", "following"),
    [
        ({"results": []}, None),
        ({"results": BACKUPS[:3]}, 53),
        ({"results": BACKUPS[:3], "count": 3, "next": None}, None),
        ({"results": BACKUPS[:3], "count": 53}, None),
        ({"results": BACKUPS[:3], "count": 54}, 53),
        ({"results": BACKUPS}, 150),
        ({"results": BACKUPS, "next": None}, None),
        ({"results": BACKUPS, "count": 150}, None),
        ({"results": BACKUPS, "count": True}, 150),
        ({"results": BACKUPS[:3], "next": "/v1/installs/x/backups?limit=3&offset=53"}, 53),
        ({"results": BACKUPS[:3], "next": "backups?offset=53"}, 53),
        ({"results": [], "next": "/v1/installs/x/backups?limit=3&offset=53", "count": 99}, None),
    ],
)
def test_a_page_gives_the_offset_of_the_next_one(document: dict[str, Any], following: int | None) -> None:
    result = page(document, offset=50)
    assert result.page is not None
    assert (len(result.page.entries), result.page.next_offset) == (len(document["results"]), following)
    assert classify(result) is Answer.ACCEPTED


def test_a_page_is_read_without_its_optional_fields() -> None:
    result = page(
        {
            "results": [
                {"id": "a"},
                {"id": "b", "status": "odd"},
                {"id": "c", "status": "completed", "description": None},
            ]
        }
    )
    assert result.page == Page((Backup("a"), Backup("b", "odd"), Backup("c", "completed")), next_offset=3)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{",
        b"<html>",
        {},
        {"results": None},
        {"results": {}},
        {"results": ["b"]},
        {"results": [{"status": "x"}]},
        {"results": [{"id": ""}]},
        {"results": [{"id": 3}]},
    ],
)
def test_a_page_with_an_unreadable_part_proves_nothing(document: Any) -> None:
    result = page(document)
    assert (result.page, result.fault, classify(result)) == (None, Fault.UNREADABLE, Answer.UNREADABLE)


@pytest.mark.parametrize(
    "name",
    [
        "http://127.0.0.1:{other}/v1/x",
        "https://127.0.0.1:{port}/v1/x",
        "//127.0.0.1:{other}/x",
        "http://[",
        "ftp://127.0.0.1:{port}/",
    ],
)
def test_a_next_page_on_another_host_is_read_from_our_host_by_its_offset(name: str) -> None:
    arrived: list[bytes] = []

    async def main() -> AttemptResult:
        async def elsewhere(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
            arrived.append(await reader.read(10))

        async with raw_server(elsewhere) as other:

            async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await read_request(reader)
                port = writer.get_extra_info("sockname")[1]
                document = {"results": BACKUPS, "next": name.format(other=other, port=port)}
                writer.write(answer("200 OK", json.dumps(document).encode()))

            async with raw_server(handler) as port:
                return await ask(port, listing)

    result = asyncio.run(main())
    assert result.page is not None
    assert result.page.next_offset == len(BACKUPS)
    assert arrived == []


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed", "401 Unauthorized", "429 Too Many"])
def test_a_refused_listing_keeps_the_status_and_the_message(status: str) -> None:
    result = play(answer(status, b'{"message": "no"}'), listing)
    assert (result.status, result.message, result.page) == (int(status[:3]), "no", None)


def test_a_page_of_a_hundred_long_descriptions_is_read() -> None:
    long = [each | {"description": "x" * 4096} for each in BACKUPS]
    result = page({"results": long})
    assert result.page is not None
    assert all(backup.description == "x" * 4096 for backup in result.page.entries)
