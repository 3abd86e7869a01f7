"""Answers of the stand-in that no web framework gives by itself, checked as bytes on the wire."""

from __future__ import annotations

import asyncio
import gzip
import json
from dataclasses import dataclass
from typing import Any

import pytest
from command import install_ids
from pydantic import ValidationError

from orchestrator.simulator import Scenario, Simulator

(ID,) = install_ids(1)
BODY = b'{"description": "d", "notification_emails": []}'
OPERATIONS = [("POST", "post"), ("GET", "listing")]
HEAD = b"HTTP/1.1 "


@dataclass(frozen=True)
class Reply:
    """The bytes that came before the time was over or the connection ended, and how it ended."""

    data: bytes
    ended_by: str
    stats: dict[str, Any]

    @property
    def head(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]


def ask(method: str, fault: dict[str, Any], wait_s: float = 10.0) -> Reply:
    """Send one request to a stand-in with ``fault``, and read for at most ``wait_s``."""

    async def main() -> Reply:
        wanted = Scenario.model_validate({"latency": "0s", "faults": [fault], "listing": {"nightly": 2}})
        async with Simulator(wanted) as simulator:
            reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
            body = BODY if method == "POST" else b""
            head = f"{method} /v1/installs/{ID}/backups HTTP/1.1\r\nHost: x\r\nAuthorization: Basic dTpw\r\n"
            head += f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            data, ended_by = await _read(reader, wait_s)
            writer.close()
            return Reply(data, ended_by, simulator.stats())

    return asyncio.run(main())


async def _read(reader: asyncio.StreamReader, wait_s: float) -> tuple[bytes, str]:
    data = b""
    try:
        async with asyncio.timeout(wait_s):
            while more := await reader.read(1_000_000):
                data += more
    except TimeoutError:
        return data, "nobody"
    except ConnectionResetError:
        return data, "reset"
    return data, "close"


@pytest.mark.parametrize(("method", "operation"), OPERATIONS)
def test_a_reset_cuts_off_the_head_of_an_answer(method: str, operation: str) -> None:
    reply = ask(method, {"kind": "cut_head", "operation": operation})
    assert reply.data.startswith(HEAD + (b"202 " if method == "POST" else b"200 "))
    assert b"\r\n\r\n" not in reply.data
    assert reply.ended_by == "reset"
    assert reply.stats["backups_made"] == 0
    assert reply.stats["by_status"] == {"none": 1}
    assert reply.stats["faults"] == {f"{operation} cut_head": 1}


def test_a_post_whose_answer_is_cut_off_may_still_make_the_backup() -> None:
    assert ask("POST", {"kind": "cut_head", "created": True}).stats["backups_made"] == 1


@pytest.mark.parametrize(("method", "operation"), OPERATIONS)
def test_a_body_of_ten_megabytes_is_still_valid_json(method: str, operation: str) -> None:
    reply = ask(method, {"kind": "huge_body", "operation": operation})
    assert len(reply.body) > 10_000_000
    _is_the_answer_of(method, json.loads(reply.body), reply)


@pytest.mark.parametrize(("method", "operation"), OPERATIONS)
def test_a_gzip_bomb_is_small_until_it_is_unpacked(method: str, operation: str) -> None:
    reply = ask(method, {"kind": "gzip_bomb", "operation": operation})
    assert b"content-encoding: gzip" in reply.head.lower()
    assert len(reply.body) < 200_000
    unpacked = gzip.decompress(reply.body)
    assert len(unpacked) > 100_000_000
    _is_the_answer_of(method, json.loads(unpacked), reply)


def _is_the_answer_of(method: str, document: dict[str, Any], reply: Reply) -> None:
    if method == "POST":
        assert document["status"] == "requested"
        assert (reply.stats["backups_made"], reply.stats["by_status"]) == (1, {"202": 1})
    else:
        assert len(document["results"]) == 2
        assert reply.stats["by_status"] == {"200": 1}


@pytest.mark.parametrize(("method", "operation"), OPERATIONS)
def test_the_body_of_an_answer_can_drip(method: str, operation: str) -> None:
    reply = ask(method, {"kind": "drip", "operation": operation}, wait_s=1.5)
    assert reply.head.startswith(HEAD)
    assert 1 <= len(reply.body) <= 3
    assert reply.ended_by == "nobody"
    assert reply.stats["backups_made"] == (method == "POST")


@pytest.mark.parametrize("kind", ["drip", "huge_body", "gzip_bomb"])
def test_a_fault_of_the_body_cannot_be_without_a_backup(kind: str) -> None:
    with pytest.raises(ValidationError, match="the body of the answer"):
        Scenario.model_validate({"faults": [{"kind": kind, "created": False}]})
