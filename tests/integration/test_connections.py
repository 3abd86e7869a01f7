"""Reused connections that break, and proxies: checked by the requests that raw servers on loopback saw."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from command import PASSWORD, USER, Ended, fleet, install_ids, run_command
from rawserver import answer, raw_server, read_request, reset

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("without_coverage")

BACKUP = {"status": "requested", "create_time": None, "complete_time": None, "wordpress_version": None}
QUICK = "timeouts: {connect: 2s, read: 6s}\nreconcile: {grace: 1s}\n"
PACE = ("--rate", "200", "--max-rate", "200", "-o", "-")


class Api:
    """A server of raw bytes that makes backups. If ``breaks(n)``, it resets a connection at its n-th request."""

    def __init__(self, breaks: Any) -> None:
        self.breaks = breaks
        self.made: dict[str, list[dict[str, Any]]] = {}
        self.resets = 0

    async def handler(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nth = 0
        while True:
            request = await read_request(reader)
            nth += 1
            if self.breaks(nth):
                self.resets += 1
                await asyncio.sleep(0.02)
                reset(writer)
                return
            writer.write(self.answered(request))
            await writer.drain()

    def answered(self, request: bytes) -> bytes:
        if request.startswith(b"GET /v1/user"):
            return answer("200 OK", b'{"id": "294deacc-d8b8-4005-82c4-0727ba8ddde0"}')
        found = re.match(rb"(GET|POST) /v1/installs/([0-9a-f-]+)/backups", request)
        assert found
        made = self.made.setdefault(found[2].decode(), [])
        if found[1] == b"GET":
            return answer("200 OK", json.dumps({"results": made, "count": len(made), "next": None}).encode())
        body = json.loads(request.partition(b"\r\n\r\n")[2])
        number = sum(map(len, self.made.values()))
        backup = BACKUP | {"id": f"00000000-0000-4000-9000-{number:012d}", "description": body["description"]}
        made.append(backup)
        return answer("202 Accepted", json.dumps(backup).encode())


def backed_up(folder: Path, api: Api, count: int, more: str = "") -> Ended:
    """Run a fleet of ``count`` installs against ``api``, with one attempt for each."""

    async def main() -> Ended:
        async with raw_server(api.handler) as port:
            rules = f"{QUICK}retry: {{max_attempts: 1}}\n{more}"
            (folder / "wpe-backup.yaml").write_text(fleet(f"http://127.0.0.1:{port}/v1", count, rules))
            return await asyncio.to_thread(run_command, "run", *PACE, cwd=folder)

    return asyncio.run(main())


def outcomes(ended: Ended) -> Counter[str]:
    return Counter(line["outcome"] for line in ended.lines()[:-1])


@pytest.mark.parametrize(
    "breaks",
    [lambda nth: nth == 2, lambda nth: nth > 1, lambda nth: nth % 3 == 0],
    ids=["the second request", "all but the first request", "every third request"],
)
def test_a_reset_of_a_reused_connection_uses_no_attempt(tmp_path: Path, breaks: Any) -> None:
    api = Api(breaks)
    ended = backed_up(tmp_path, api, 120)
    assert api.resets > 0
    assert (ended.code, outcomes(ended)) == (0, {"accepted": 120})
    assert {each: len(made) for each, made in api.made.items()} == dict.fromkeys(install_ids(120), 1)
    assert "ten failures" not in ended.stderr


def test_a_reset_of_a_new_connection_uses_an_attempt(tmp_path: Path) -> None:
    ended = backed_up(tmp_path, Api(lambda _nth: True), 3, "throttle: {give_up: 1s}")
    assert (ended.code, outcomes(ended)) == (3, {"cancelled": 3})


# -- proxies -----------------------------------------------------------------------------------------------------------


def with_proxy(folder: Path, handler: Any, scheme: str = "https", **more: str) -> Ended:
    """Run a fleet of three installs; the API is behind the proxy ``handler``."""

    async def main() -> Ended:
        async with raw_server(handler) as port:
            text = fleet(f"{scheme}://127.0.0.1:9/v1", 3, f"{QUICK}throttle: {{give_up: 1s}}")
            (folder / "wpe-backup.yaml").write_text(text.replace('/v1"', '/v1", proxy_from_environment: true'))
            user = more.get("user", "")
            proxies = {f"{scheme}_proxy".upper(): f"{user}127.0.0.1:{port}"}
            return await asyncio.to_thread(run_command, "run", *PACE, cwd=folder, **proxies)

    return asyncio.run(main())


def words(ended: Ended) -> str:
    (message,) = {line["error"]["message"] for line in ended.lines()[:-1]}
    assert isinstance(message, str)
    return message


@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.parametrize(("user", "remedy"), [("", "put them into"), ("me:s3cret@", "correct them there")])
def test_a_proxy_that_wants_credentials_stops_the_account_and_names_the_remedy(
    tmp_path: Path, scheme: str, user: str, remedy: str
) -> None:
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(answer("407 Proxy Authentication Required", b""))

    ended = with_proxy(tmp_path, handler, scheme, user=user)
    assert (ended.code, outcomes(ended), len(seen)) == (3, {"cancelled": 3}, 1)
    assert f"{scheme.upper()}_PROXY" in words(ended)
    assert remedy in words(ended)
    assert "(407)" in words(ended)
    encoded = base64.b64encode(b"me:s3cret").decode() if user else None
    assert (encoded is not None) is (b"Proxy-Authorization: Basic" in seen[0])
    assert encoded is None or f"Proxy-Authorization: Basic {encoded}".encode() in seen[0]
    assert (base64.b64encode(f"{USER}:{PASSWORD}".encode()) in seen[0]) is (scheme == "http"), "not with a CONNECT"
    assert "s3cret" not in ended.stdout + ended.stderr


def test_a_proxy_that_cannot_reach_the_api_is_tried_again(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(answer("503 Service Unavailable", b""))

    ended = with_proxy(tmp_path, handler)
    assert (ended.code, outcomes(ended)) == (3, {"cancelled": 3})
    assert len(seen) > 1
    assert "503 Service Unavailable (using the proxy in HTTPS_PROXY)" in words(ended)
    assert {line["error"]["kind"] for line in ended.lines()[:-1]} == {"network"}


def test_a_proxy_that_hangs_ends_at_the_connect_timeout(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await asyncio.Event().wait()

    ended = with_proxy(tmp_path, handler)
    assert "no connection within 2 s (using the proxy in HTTPS_PROXY)" in words(ended)
    assert ended.lines()[-1]["duration_s"] < 6 * 2, "two or three tries of 2 s, not of 8 s"


def test_an_unusable_proxy_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    text = fleet("https://127.0.0.1:9/v1", 1).replace('/v1"', '/v1", proxy_from_environment: true')
    (tmp_path / "wpe-backup.yaml").write_text(text)
    ended = run_command("run", cwd=tmp_path, HTTPS_PROXY="socks5://me:s3cret@p:1080")
    assert ended.code == 2
    assert "accounts.default.proxy_from_environment: HTTPS_PROXY names a socks5 proxy" in ended.stderr
    assert "s3cret" not in ended.stderr
    assert not (tmp_path / "state").exists()
