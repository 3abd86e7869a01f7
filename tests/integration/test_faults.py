"""The command against every fault that it must survive, over real sockets, checked by the server's counts."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from socket import SO_REUSEPORT, SOL_SOCKET, socket
from typing import TYPE_CHECKING, Any

import pytest
from command import Ended, StandIn, fleet, install_ids, run_command, stand_in
from rawserver import raw_server, read_request, reset
from schemas import report_line_problems

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from rawserver import Handler

pytestmark = pytest.mark.usefixtures("without_coverage")

CERTS = Path(__file__).parents[1] / "certs"
PACE = ("--rate", "40", "--max-rate", "40")
QUICK = "timeouts: {connect: 1s, read: 2s}\nreconcile: {grace: 1s}\nretry: {max_attempts: 3}\n"
PATIENT = QUICK.replace("max_attempts: 3", "max_attempts: 9")
"""For temporary faults: chance decides how many of them hit one install."""

Fault = dict[str, Any]
LOST: Fault = {"kind": "gateway_timeout", "created": True, "first_tries": 1}
NOT_MADE: Fault = {"kind": "gateway_timeout", "first_tries": 1}


@dataclass(frozen=True)
class Case:
    """The faults of one install and its expected end: ``posts`` that arrive, backups that are ``made``."""

    name: str = "nothing"
    faults: tuple[Fault, ...] = ()
    outcome: str = "accepted"
    reconciled: bool = False
    posts: int = 1
    made: int = 1


HEALTHY = Case()


@dataclass(frozen=True)
class Seen:
    """The end of the command, and the backups and requests that the server counted."""

    ended: Ended
    made: list[dict[str, Any]]
    requests: list[dict[str, Any]]

    @property
    def lines(self) -> list[dict[str, Any]]:
        return self.ended.lines()[:-1]

    def outcomes(self) -> list[str]:
        return [line["outcome"] for line in sorted(self.lines, key=lambda line: line["install_id"])]

    def end_of(self, install_id: str, case: Case) -> Case:
        """Return ``case`` with its real end. Check that the report and the server agree on the attempts."""
        (line,) = (line for line in self.lines if line["install_id"] == install_id)
        path = f"/v1/installs/{install_id}/backups"
        posts = sum((each["method"], each["path"]) == ("POST", path) for each in self.requests)
        assert line["attempts"] == posts, install_id
        made = sum(backup["install_id"] == install_id for backup in self.made)
        return replace(case, outcome=line["outcome"], reconciled=line["reconciled"], posts=posts, made=made)

    def listings(self) -> int:
        return sum((each["method"], each["path"][-8:]) == ("GET", "/backups") for each in self.requests)


def run(folder: Path, server: StandIn, text: str, *options: str) -> Seen:
    """Run the command with the YAML ``text``, and check its report against the counts of ``server``."""
    (folder / "wpe-backup.yaml").write_text(text)
    ended = run_command("run", "-o", "-", *options, cwd=folder)
    seen = Seen(ended, server.backups(), server.requests())
    hold(seen, text.count("  - {id:"))
    return seen


def hold(seen: Seen, planned: int) -> None:
    """Check that no backup is made twice, lost or guessed, and that every install has exactly one line."""
    assert "Traceback" not in seen.ended.stderr
    assert seen.ended.stdout, seen.ended.stderr
    *lines, summary = seen.ended.lines()
    assert [problem for line in (*lines, summary) for problem in report_line_problems(line)] == []
    assert sorted(line["install_id"] for line in lines) == install_ids(planned)
    assert seen.ended.code == summary["exit_code"]
    assert summary["reconciled"] == sum(line["reconciled"] for line in lines)
    assert {kind: n for kind, n in summary["outcomes"].items() if n} == Counter(seen.outcomes())
    made = {backup["id"]: backup["install_id"] for backup in seen.made}
    assert max(Counter(made.values()).values(), default=0) <= 1, "an install was backed up twice"
    accepted = {line["backup"]["id"]: line["install_id"] for line in lines if line["outcome"] == "accepted"}
    assert accepted.items() <= made.items()
    unknown = {line["install_id"] for line in lines if line["outcome"] == "unconfirmed"}
    assert set(made.values()) <= unknown | set(accepted.values()), "a backup that was made is in no line"


def rehearse(folder: Path, scenario: dict[str, Any], cases: Sequence[Case], more: str = QUICK) -> Seen:
    """Run the command with one install for each case, and check that each ends as its case says."""
    ids = install_ids(len(cases))
    faults = [fault | {"installs": [each]} for each, case in zip(ids, cases, strict=True) for fault in case.faults]
    (folder / "scenario.yaml").write_text(json.dumps({"seed": 1} | scenario | {"faults": faults}))
    with stand_in("--scenario", str(folder / "scenario.yaml")) as server:
        seen = run(folder, server, fleet(server.base_url, len(cases), more), *PACE)
    assert [seen.end_of(each, case) for each, case in zip(ids, cases, strict=True)] == list(cases)
    return seen


def with_healthy_ones(cases: Sequence[Case]) -> list[Case]:
    """Put a healthy install after each other one, because ten failures in a row would hold the account."""
    return [each for case in cases for each in (case, HEALTHY)]


# -- each install with a fault of its own -----------------------------------------------------------------------------

AMBIGUOUS = ("server_error", "bad_gateway", "unavailable", "gateway_timeout", "reset", "cut_head", "hang")
SPOILED = ("cut_short", "drip", "broken_json", "missing_id", "wrong_type", "huge_body", "gzip_bomb")

GROUPS = {
    "an answer that leaves it open, and nothing made": [
        *(Case(kind, ({"kind": kind, "first_tries": 1},), posts=2) for kind in AMBIGUOUS),
        Case("for ever", ({"kind": "server_error"},), outcome="exhausted", posts=3, made=0),
    ],
    "an answer that leaves it open, and the backup made": [
        *(Case(kind, ({"kind": kind, "created": True},), reconciled=True) for kind in AMBIGUOUS),
        Case("made by the second", (NOT_MADE, {"kind": "reset", "created": True}), reconciled=True, posts=2),
    ],
    "a 202 whose body is of no use": [Case(kind, ({"kind": kind},), reconciled=True) for kind in SPOILED],
    "a listing that fails once": [
        Case(kind, (LOST, {"kind": kind, "operation": "listing", "first_tries": 1}), reconciled=True)
        for kind in ("server_error", "reset", "cut_head", "hang", *SPOILED)
    ],
    "a listing that fails twice": [
        Case("made", (LOST, {"kind": "unavailable", "operation": "listing", "first_tries": 2}), reconciled=True),
        Case("not made", (NOT_MADE, {"kind": "bad_gateway", "operation": "listing", "first_tries": 2}), posts=2),
    ],
    "a listing that cannot be had": [
        *(
            Case(kind, (LOST, {"kind": kind, "operation": "listing"}), outcome="unconfirmed")
            for kind in ("not_found", "forbidden", "redirect", "unavailable", "missing_id", "wrong_type")
        ),
        Case("not made", (NOT_MADE, {"kind": "not_found", "operation": "listing"}), outcome="unconfirmed", made=0),
        Case("202", ({"kind": "drip"}, {"kind": "not_found", "operation": "listing"}), outcome="unconfirmed"),
    ],
}


@pytest.mark.parametrize("group", GROUPS)
def test_every_install_gets_the_outcome_of_its_own_fault(group: str, tmp_path: Path) -> None:
    seen = rehearse(tmp_path, {}, with_healthy_ones(GROUPS[group]))
    assert seen.ended.code == (0 if set(seen.outcomes()) == {"accepted"} else 3)


# -- listings ---------------------------------------------------------------------------------------------------------

MADE_OR_NOT = [Case("made", (LOST,), reconciled=True), HEALTHY, Case("not made", (NOT_MADE,), posts=2), HEALTHY]


@pytest.mark.parametrize(("order", "link"), [("oldest", "path"), ("newest", "url"), ("random", "path")])
def test_a_lagging_listing_of_three_pages_settles_doubts_in_any_order(order: str, link: str, tmp_path: Path) -> None:
    listing = {"nightly": 2, "order": order, "lag": "700ms"}
    scenario = {"listing": listing, "pages": {"size": 1, "next": link}}
    assert rehearse(tmp_path, scenario, MADE_OR_NOT).ended.code == 0


@pytest.mark.parametrize(
    ("scenario", "is_proof_of_absence"),
    [
        ({"listing": {"descriptions": "cut", "nightly": 2}}, True),
        ({"listing": {"descriptions": "escaped", "nightly": 2}}, True),
        ({"listing": {"descriptions": "missing", "nightly": 2}}, True),
        ({"listing": {"descriptions": "missing", "nightly": 2}, "clock_skew": "-1h"}, True),
        ({"listing": {"nightly": 0}, "backups": {"fields": "minimal"}}, True),
        ({"listing": {"nightly": 2}, "backups": {"fields": "minimal"}}, False),
        ({"listing": {"available": False}}, False),
    ],
    ids=str,
)
def test_a_listing_without_our_marker_proves_absence_only_by_its_times(
    scenario: dict[str, Any], *, is_proof_of_absence: bool, tmp_path: Path
) -> None:
    made, not_made = Case("made", (LOST,), outcome="unconfirmed"), Case("not made", (NOT_MADE,), posts=2)
    if not is_proof_of_absence:
        not_made = replace(not_made, outcome="unconfirmed", posts=1, made=0)
    assert rehearse(tmp_path, scenario, [made, HEALTHY, not_made, HEALTHY]).ended.code == 3


def test_an_unreadable_202_that_is_never_listed_is_not_requested_again(tmp_path: Path) -> None:
    cases = [Case(kind, ({"kind": kind},), outcome="unconfirmed") for kind in ("broken_json", "missing_id")]
    seen = rehearse(tmp_path, {"listing": {"lag": "1h"}}, cases)
    assert seen.ended.code == 3
    assert {line["error"]["kind"] for line in seen.lines} == {"protocol"}


def test_on_ambiguous_fail_sends_no_lookup(tmp_path: Path) -> None:
    made, of_no_use = (Case("", (fault,), outcome="unconfirmed") for fault in (LOST, {"kind": "broken_json"}))
    not_made = Case("", (NOT_MADE,), outcome="unconfirmed", made=0)
    seen = rehearse(tmp_path, {}, [made, not_made, of_no_use, HEALTHY], QUICK + "on_ambiguous: fail\n")
    assert seen.ended.code == 3
    assert seen.listings() == 0


def test_credentials_revoked_before_the_lookup_leave_the_install_unconfirmed(tmp_path: Path) -> None:
    made = Case("made", (LOST,), outcome="unconfirmed")
    scenario = {"listing": {"lag": "1h"}, "credentials": {"revoked_after_requests": 1 + 4 + 2}}  # the first lookups
    assert rehearse(tmp_path, scenario, [made, HEALTHY, made, HEALTHY]).ended.code == 12


# -- faults of all requests -------------------------------------------------------------------------------------------


def outage(kind: str) -> dict[str, Any]:
    hit = {"kind": kind, "from": "300ms", "until": "2500ms"}
    return {"faults": [hit | {"operation": operation} for operation in ("post", "listing", "user")]}


LATE = {"seed": 2, "backend": {"slots": 40, "takes": ["10ms", "900ms"]}, "gateway_timeout": "700ms"}
LIMITED = {
    "limits": [{"kind": "bucket", "rate": 10, "burst": 2}],
    "faults": [
        {"kind": "unavailable", "share": 0.3, "first_tries": 1},
        {"kind": "reset", "created": True, "share": 0.3, "first_tries": 1},
    ],
}


@pytest.mark.parametrize(
    ("status", "scenario", "pace"),
    [(500, outage("server_error"), PACE), (503, outage("unavailable"), PACE), (504, LATE, PACE), (429, LIMITED, ())],
    ids=["an outage of 500", "an outage of 503", "backups made after the 504", "lost answers under a limit"],
)
def test_a_temporary_fault_of_all_requests_fails_no_install(
    status: int, scenario: dict[str, Any], pace: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "scenario.yaml").write_text(json.dumps(scenario))
    with stand_in("--scenario", str(tmp_path / "scenario.yaml")) as server:
        seen = run(tmp_path, server, fleet(server.base_url, 15, PATIENT), *pace)
    assert status in {each["status"] for each in seen.requests}
    all_were_made(seen, 15)


def all_were_made(seen: Seen, planned: int) -> None:
    assert set(seen.outcomes()) == {"accepted"}
    assert (seen.ended.code, len(seen.made)) == (0, planned)


# -- below HTTP -------------------------------------------------------------------------------------------------------


def one_request_a_connection(port: int) -> Handler:
    """Pass a request on to ``port``, and close the connection after its answer, so that each request has its own."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        answers, there = await asyncio.open_connection("127.0.0.1", port)
        there.write(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        writer.write(await answers.read())
        there.close()

    return handler


def behind(pick: Callable[[int], int | None]) -> Handler:
    """Forward the ``n``-th connection (from 0) to the port ``pick(n)``. If that is ``None``, reset it unread."""
    numbers = count()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = pick(next(numbers))
        if port is None:
            reset(writer)
            return
        answers, there = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_pass_on(reader, there), _pass_on(answers, writer))

    return handler


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def garbage(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x15\x03\x01\x00\x02\x02\x28" * 10)


@asynccontextmanager
async def tls_server(handler: Handler, certificate: str) -> AsyncIterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTS / certificate)
    async with raw_server(handler, tls=context) as port:
        yield port


def secured(port: int, installs: int) -> str:
    text = fleet(f"https://127.0.0.1:{port}/v1", installs, PATIENT)
    return text.replace("{base_url", f"{{ca_file: {CERTS / 'authority.pem'}, base_url")


def test_connections_that_are_reset_before_the_request_fail_no_install(tmp_path: Path) -> None:
    async def main() -> Seen:
        with stand_in() as server:
            async with (
                raw_server(one_request_a_connection(_port_of(server))) as good,
                raw_server(behind(lambda number: None if 2 <= number < 6 else good)) as port,
            ):
                text = fleet(f"http://127.0.0.1:{port}/v1", 8, PATIENT)
                return await asyncio.to_thread(run, tmp_path, server, text, *PACE)

    all_were_made(asyncio.run(main()), 8)


def _port_of(server: StandIn) -> int:
    return int(server.base_url.removesuffix("/v1").rpartition(":")[2])


@pytest.mark.parametrize(
    ("certificate", "first_bad", "expected"),
    [(None, 4, {"accepted"}), ("expired.pem", 4, {"accepted", "cancelled"}), ("expired.pem", 0, {"cancelled"})],
)
def test_a_broken_tls_connection_sends_nothing(
    certificate: str | None, first_bad: int, expected: set[str], tmp_path: Path
) -> None:
    """After garbage the client tries again. An expired certificate stops the account. Neither server gets a request."""
    arrived: list[bytes] = []

    async def never(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        arrived.append(await reader.read(1))

    async def main() -> Seen:
        with stand_in() as server:
            async with (
                tls_server(one_request_a_connection(_port_of(server)), "good.pem") as good,
                tls_server(never, certificate) if certificate else raw_server(garbage) as bad,
                raw_server(behind(lambda number: bad if first_bad <= number < first_bad + 4 else good)) as port,
            ):
                return await asyncio.to_thread(run, tmp_path, server, secured(port, 8), *PACE)

    seen = asyncio.run(main())
    assert set(seen.outcomes()) == expected
    assert seen.ended.code == (3 if certificate else 0)
    assert {line["error"]["kind"] for line in seen.lines if line["error"]} <= {"network"}
    assert (any(arrived), seen.listings()) == (False, 0)
    assert len(seen.made) == seen.outcomes().count("accepted")
    assert all(line["attempts"] == (line["outcome"] == "accepted") for line in seen.lines)


def test_a_server_that_refuses_connections_for_a_while_fails_no_install(tmp_path: Path) -> None:
    async def main() -> Seen:
        numbers = count()
        with stand_in() as server, socket() as held:
            held.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
            held.bind(("127.0.0.1", 0))  # keeps the port reserved while no server listens
            pass_on = one_request_a_connection(_port_of(server))

            async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                if next(numbers) == 3:
                    listening.close()
                    restarts.append(asyncio.create_task(restart()))
                with suppress(ConnectionError, asyncio.IncompleteReadError):
                    await pass_on(reader, writer)
                writer.close()

            async def listen() -> asyncio.Server:
                return await asyncio.start_server(handler, *held.getsockname(), reuse_port=True)

            async def restart() -> asyncio.Server:
                await asyncio.sleep(1.0)
                return await listen()

            restarts: list[asyncio.Task[asyncio.Server]] = []
            listening = await listen()
            text = fleet(f"http://127.0.0.1:{held.getsockname()[1]}/v1", 12, PATIENT)
            seen = await asyncio.to_thread(run, tmp_path, server, text, *PACE)
            (await restarts[0]).close()
            return seen

    all_were_made(asyncio.run(main()), 12)


def test_a_host_that_does_not_resolve_cancels_all_installs_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "wpe-backup.yaml").write_text(fleet("https://api.invalid/v1", 3, f"{QUICK}throttle: {{give_up: 1s}}\n"))
    seen = Seen(run_command("run", "-o", "-", cwd=tmp_path), [], [])
    hold(seen, 3)
    assert (seen.ended.code, seen.outcomes()) == (3, ["cancelled"] * 3)
    assert {line["error"]["kind"] for line in seen.lines} == {"network"}
    assert "api.invalid" in seen.lines[0]["error"]["message"]
