"""The stand-in itself, over HTTP: it behaves as the API's documentation says, and fails as the scenario sets."""

from __future__ import annotations

import asyncio
import socket
import struct
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import yaml
from command import install_ids
from pydantic import ValidationError

from orchestrator.simulator import Scenario, Simulator
from orchestrator.simulator.fault_keys import Operation
from orchestrator.simulator.faults import Asked, fault_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ID, OTHER = install_ids(2)
BODY = {"description": "d", "notification_emails": ["a@b"]}
BACKUPS = f"/installs/{ID}/backups"


def scenario(**keys: Any) -> Scenario:
    return Scenario.model_validate({"latency": "0s"} | keys)


def against(wanted: Scenario, script: Callable[[Any], Awaitable[None]]) -> Simulator:
    """Run ``script`` with a function that calls the stand-in and returns status, body and headers."""

    async def main() -> Simulator:
        auth = {"Authorization": aiohttp.encode_basic_auth("u", "p")}
        async with Simulator(wanted) as simulator, aiohttp.ClientSession() as session:

            async def call(method: str, path: str, headers: dict[str, str] = auth, **more: Any) -> Any:
                url = simulator.base_url.removesuffix("/v1" * path.startswith("/..")) + path.removeprefix("/..")
                async with session.request(method, url, headers=headers, allow_redirects=False, **more) as response:
                    is_json = response.content_type == "application/json"
                    return response.status, await (response.json() if is_json else response.text()), response.headers

            await script(call)
        return simulator

    return asyncio.run(main())


def post(wanted: Scenario, times: int = 1, install_id: str = ID) -> tuple[list[Any], Simulator]:
    """Send POSTs one after the other. Return the answers (``None`` if the connection broke) and the stand-in."""
    answers: list[Any] = []

    async def script(call: Any) -> None:
        for _ in range(times):
            try:
                answers.append(await call("POST", f"/installs/{install_id}/backups", json=BODY))
            except (aiohttp.ClientError, ValueError):
                answers.append(None)

    simulator = against(wanted, script)
    return answers, simulator


def test_a_backup_goes_from_requested_to_completed() -> None:
    async def script(call: Any) -> None:
        status, backup, headers = await call("POST", BACKUPS, json=BODY)
        assert (status, backup["status"], backup["description"]) == (202, "requested", "d")
        assert backup["complete_time"] is None
        assert headers["x-amzn-RequestId"]
        await asyncio.sleep(0.16)
        assert (await call("GET", f"{BACKUPS}/{backup['id']}"))[1]["status"] == "in_progress"
        await asyncio.sleep(0.2)
        shown = (await call("GET", f"{BACKUPS}/{backup['id']}"))[1]
        assert shown["status"] == "completed"
        assert shown["complete_time"]
        assert (await call("GET", f"{BACKUPS}/{ID}"))[0] == 404

    against(scenario(backups={"completes_after": "300ms"}), script)


def test_a_share_of_the_backups_is_aborted() -> None:
    async def script(call: Any) -> None:
        backups = [(await call("POST", f"/installs/{each}/backups", json=BODY))[1] for each in install_ids(40)]
        await asyncio.sleep(0.02)
        ends = [
            (await call("GET", f"/installs/{install}/backups/{backup['id']}"))[1]
            for install, backup in zip(install_ids(40), backups, strict=True)
        ]
        aborted = [end for end in ends if end["status"] == "aborted"]
        assert 8 < len(aborted) < 32
        assert all(end["complete_time"] is None for end in aborted)

    against(scenario(backups={"completes_after": "10ms", "aborts": 0.5}), script)


def test_every_operation_but_status_requires_credentials() -> None:
    async def script(call: Any) -> None:
        assert (await call("GET", "/user"))[0] == 200
        assert (await call("GET", "/status", headers={}))[1]["success"] is True
        for authorization in ("", "Basic", "Basic !", "Bearer x", "Basic eA=="):
            status, body, _ = await call("GET", "/user", headers={"Authorization": authorization})
            assert (status, body["message"]) == (401, "Bad Credentials")

    against(scenario(), script)


def test_a_scenario_can_set_and_revoke_credentials() -> None:
    statuses: list[int] = []

    async def script(call: Any) -> None:
        statuses.extend([(await call("GET", "/user"))[0] for _ in range(3)])

    against(scenario(credentials={"password": "another"}), script)
    against(scenario(credentials={"revoked_after_requests": 2}), script)
    against(scenario(credentials={"revoked_after": 0}), script)
    assert statuses == [401, 401, 401, 200, 200, 401, 401, 401, 401]


@pytest.mark.parametrize("body", [None, {}, {"description": "d"}, {"description": 1, "notification_emails": []}, []])
def test_an_invalid_request_is_answered_400_with_every_field_of_an_error(body: Any) -> None:
    async def script(call: Any) -> None:
        status, answer, _ = await call("POST", BACKUPS, json=body)
        assert status == 400
        assert all(set(entry) == {"resource", "field", "type", "code", "message"} for entry in answer["errors"])

    assert against(scenario(), script).stats()["backups_made"] == 0


def test_an_unknown_path_or_id_is_not_found() -> None:
    async def script(call: Any) -> None:
        assert (await call("POST", "/installs/nope/backups", json=BODY))[0] == 404
        assert (await call("GET", "/nowhere"))[0] == 404
        assert (await call("GET", f"/installs/{ID}"))[0] == 404

    against(scenario(), script)


def raw_post(install_id: str) -> bytes:
    """Return a POST's bytes."""
    body = b'{"description": "d", "notification_emails": []}'
    head = f"POST /v1/installs/{install_id}/backups HTTP/1.1\r\nHost: x\r\nAuthorization: Basic dTpw\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def with_raw_sockets(wanted: Scenario, script: Callable[[Simulator], Awaitable[None]]) -> Simulator:
    async def main() -> Simulator:
        async with Simulator(wanted) as simulator:
            await script(simulator)
        return simulator

    return asyncio.run(main())


def answered(wanted: Scenario) -> bytes | None:
    """Return the bytes of the answer to one POST, or ``None`` after a reset."""
    found: list[bytes | None] = []

    async def script(simulator: Simulator) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
        writer.write(raw_post(ID))
        try:
            found.append(await asyncio.wait_for(reader.read(), 5))
        except ConnectionResetError:
            found.append(None)
        writer.close()

    with_raw_sockets(wanted, script)
    return found[0]


def test_a_reset_and_a_short_body_are_real_on_the_wire() -> None:
    assert answered(scenario(faults=[{"kind": "reset"}])) is None
    cut = answered(scenario(faults=[{"kind": "cut_short"}]))
    assert cut is not None
    head, _, body = cut.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    assert 0 < len(body) < length


def test_a_nonsense_body_is_answered_400() -> None:
    async def script(call: Any) -> None:
        for data in (b"[" * 200_000, b"\xff\xfe", b"{"):
            assert (await call("POST", BACKUPS, data=data))[0] == 400

    against(scenario(), script)


# -- accounts and installs --------------------------------------------------------------------------------------------


def test_accounts_and_installs_are_listed_in_pages() -> None:
    accounts = [
        {"name": "agencyone", "installs": 230, "environments": ["production", "staging"]},
        {"name": "other", "installs": [{"name": "torquemag", "id": ID, "status": "pending", "environment": None}]},
    ]

    async def script(call: Any) -> None:
        found = (await call("GET", "/accounts"))[1]
        assert [each["name"] for each in found["results"]] == ["agencyone", "other"]
        listed: list[Any] = []
        while len(listed) < 231:
            page = (await call("GET", f"/installs?limit=100&offset={len(listed)}"))[1]
            assert page["count"] == 231
            listed += page["results"]
            assert (page["next"] is None) is (len(listed) == 231)
        assert len({each["id"] for each in listed}) == 231
        assert {each["environment"] for each in listed[:230]} == {"production", "staging"}
        of_other = (await call("GET", f"/installs?account_id={found['results'][1]['id']}"))[1]["results"]
        assert [(each["id"], each["name"], each["status"]) for each in of_other] == [(ID, "torquemag", "pending")]
        assert (await call("GET", f"/installs/{ID}"))[1]["wp_version"]
        assert (await call("POST", BACKUPS, json=BODY))[0] == 202
        assert (await call("POST", f"/installs/{OTHER}/backups", json=BODY))[0] == 404
        for query in ("limit=101", "limit=x", "offset=-1"):
            assert (await call("GET", f"/installs?{query}"))[0] == 400

    against(scenario(accounts=accounts), script)


def test_without_accounts_a_default_fleet_is_listed_and_any_other_id_accepts_backups() -> None:
    async def script(call: Any) -> None:
        (account,) = (await call("GET", "/accounts"))[1]["results"]
        shown: list[Any] = []
        path = "/installs?limit=7"
        while path:
            page = (await call("GET", path.removeprefix("/v1")))[1]
            assert page["count"] == 24
            assert (page["previous"] is None) is (not shown)
            shown += page["results"]
            path = page["next"]
        assert [each["name"] for each in shown] == [f"shop{number:02}" for number in range(1, 25)]
        listed = yaml.safe_load((Path(__file__).parents[2] / "examples/rehearsal.yaml").read_text())["installs"]
        assert [(each["id"], each["name"]) for each in shown] == [(each["id"], each["name"]) for each in listed]
        sites: dict[str, list[str]] = {}
        for each in shown:
            sites.setdefault(each["site"]["id"], []).append(each["environment"])
            assert each["account"]["id"] == account["id"]
            assert (await call("GET", f"/installs/{each['id']}"))[1] == each | {"wp_version": "6.8.1"}
        assert list(sites.values()) == [["production", "staging", "development"]] * 8
        assert (await call("GET", f"/installs?account_id={account['id']}"))[1]["results"] == shown
        for install_id in (shown[0]["id"], ID):
            made = (await call("POST", f"/installs/{install_id}/backups", json=BODY))[1]
            assert [each["id"] for each in (await call("GET", f"/installs/{install_id}/backups"))[1]["results"]] == [
                made["id"]
            ]
        assert (await call("GET", f"/installs/{ID}"))[0] == 404

    against(scenario(), script)


@pytest.mark.parametrize("accounts", [[], [{"name": "empty", "installs": []}]])
def test_if_the_scenario_names_accounts_no_others_exist(accounts: list[Any]) -> None:
    async def script(call: Any) -> None:
        for path in ("/installs", f"/installs?account_id={ID}"):
            assert (await call("GET", path))[1] == {"previous": None, "next": None, "count": 0, "results": []}
        assert [each["name"] for each in (await call("GET", "/accounts"))[1]["results"]] == [
            each["name"] for each in accounts
        ]
        assert (await call("POST", BACKUPS, json=BODY))[0] == 404

    against(scenario(accounts=accounts), script)


# -- the listing of backups -------------------------------------------------------------------------------------------


def listed(listing: dict[str, Any], count: int = 5, **keys: Any) -> list[Any]:
    """Make ``count`` backups of an install, and return the pages of its listing."""
    pages: list[Any] = []

    async def script(call: Any) -> None:
        for number in range(count):
            await call("POST", BACKUPS, json=BODY | {"description": f"number {number} of <all> [wpe-backup RUN]"})
        path: str | None = f"{BACKUPS}?limit=100&offset=0"
        while path is not None:
            status, page, _ = await call("GET", path)
            pages.append(page if status == 200 else status)
            path = page["next"].partition("/v1")[2] if status == 200 and page["next"] else None

    against(scenario(listing=listing, **keys), script)
    return pages


def test_a_scenario_sets_the_page_size_and_the_order_of_the_listing() -> None:
    pages = listed({"order": "oldest"}, pages={"size": 2})
    assert [len(page["results"]) for page in pages] == [2, 2, 1]
    assert [page["count"] for page in pages] == [5, 5, 5]
    assert pages[1]["previous"].endswith("offset=0")
    numbers = [
        [int(each["description"].split()[1]) for page in listed({"order": order}) for each in page["results"]]
        for order in ("oldest", "newest", "random")
    ]
    assert numbers[:2] == [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]]
    assert sorted(numbers[2]) == [0, 1, 2, 3, 4]
    assert numbers[2] not in numbers[:2]
    assert [len(page["results"]) for page in listed({}, count=4, pages={"size": 2})] == [2, 2]


@pytest.mark.parametrize(
    ("form", "begins"), [("path", "/v1/installs"), ("url", "http://127.0.0.1"), ("elsewhere", "https://elsewhere")]
)
def test_the_link_to_the_next_page_can_have_each_form(form: str, begins: str) -> None:
    assert listed({}, pages={"next": form, "size": 3})[0]["next"].startswith(begins)


def test_the_listing_may_lag_or_be_missing() -> None:
    async def script(call: Any) -> None:
        await call("POST", BACKUPS, json=BODY)
        assert (await call("GET", BACKUPS))[1]["results"] == []
        await asyncio.sleep(0.35)
        assert len((await call("GET", BACKUPS))[1]["results"]) == 1

    against(scenario(listing={"lag": "300ms"}), script)
    assert listed({"available": False}) == [404]


def test_the_listing_may_spoil_descriptions() -> None:
    def first(**keys: Any) -> Any:
        return listed({"order": "oldest"} | keys.pop("listing", {}), 1, **keys)[0]["results"][0]

    assert first()["description"] == "number 0 of <all> [wpe-backup RUN]"
    assert first(listing={"descriptions": "cut"})["description"] == "number 0 of <all> [w"
    assert first(listing={"descriptions": "escaped"})["description"] == "number 0 of &lt;all&gt; &#91;wpe-backup RUN]"
    assert "description" not in first(listing={"descriptions": "missing"})
    assert set(first(backups={"fields": "minimal"})) == {"id", "status"}


def test_the_listing_may_show_wp_engines_nightly_checkpoints() -> None:
    async def script(call: Any) -> None:
        results = (await call("GET", BACKUPS))[1]["results"]
        moments = [datetime.fromisoformat(each["create_time"]) for each in results]
        assert [each["status"] for each in results] == ["completed"] * 3
        assert moments == sorted(moments, reverse=True)
        assert timedelta() <= datetime.now(UTC) - moments[0] < timedelta(days=1)
        assert (await call("GET", f"{BACKUPS}/{results[2]['id']}"))[1] == results[2]

    against(scenario(listing={"nightly": 3}), script)


# -- the gateway ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ("none", None), ("seconds", "2"), ("decimal", "2.000"), ("date", "GMT"), ("past_date", "GMT"),
        ("rfc850", "GMT"), ("asctime", "20"), ("zero", "0"), ("negative", "-1"), ("words", "soon"), ("odd", "1.5x"),
        ("empty", ""), ("huge", "9" * 30), ("hour", "3600"),
    ],
)  # fmt: skip
def test_a_429_looks_like_the_gateways_and_has_each_form_of_retry_after(form: str, value: str | None) -> None:
    async def script(call: Any) -> None:
        await call("GET", "/user")
        status, body, headers = await call("GET", "/user")
        assert (status, body) == (429, {"message": "Too Many Requests"})
        assert headers["x-amzn-ErrorType"] == "TooManyRequestsException"
        shown = headers.get("Retry-After")
        if value == "GMT":
            waits_s = (parsedate_to_datetime(shown) - datetime.now(UTC)).total_seconds()
            assert -3602 < waits_s < -3599 if form == "past_date" else 1 < waits_s < 3
        elif form == "asctime":
            moment = datetime.strptime(shown, "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC)
            assert 1 < (moment - datetime.now(UTC)).total_seconds() < 3
        elif form == "decimal":
            assert 1.5 < float(shown) <= 2
        else:
            assert shown == value

    limits = [{"kind": "bucket", "rate": 0.5, "burst": 1}]
    assert against(scenario(limits=limits, retry_after=form), script).stats()["throttled"] == 1


def test_the_servers_clock_may_be_wrong() -> None:
    async def script(call: Any) -> None:
        _, backup, headers = await call("POST", BACKUPS, json=BODY)
        for moment in (parsedate_to_datetime(headers["Date"]), datetime.fromisoformat(backup["create_time"])):
            assert timedelta(minutes=119) < datetime.now(UTC) - moment < timedelta(minutes=121)

    against(scenario(clock_skew="-2h"), script)


@pytest.mark.parametrize("kind", ["fixed_window", "sliding_window"])
def test_a_window_lets_its_number_of_requests_through(kind: str) -> None:
    statuses: list[int] = []

    async def script(call: Any) -> None:
        for pause_s in (0.0, 0.0, 0.0, 0.0, 0.35, 0.0):
            await asyncio.sleep(pause_s)
            statuses.append((await call("GET", "/user"))[0])

    against(scenario(limits=[{"kind": kind, "requests": 3, "per": "300ms"}]), script)
    assert statuses == [200, 200, 200, 429, 200, 200]


def test_a_limit_in_flight_bounds_the_requests_at_a_time() -> None:
    async def script(call: Any) -> None:
        statuses = [each[0] for each in await asyncio.gather(*(call("GET", "/user") for _ in range(10)))]
        assert sorted(statuses) == [200] * 4 + [429] * 6
        assert (await call("GET", "/user"))[0] == 200

    limits = [{"kind": "in_flight", "requests": 4}]
    assert against(scenario(limits=limits, latency="200ms"), script).stats()["most_in_flight"] == 4


def test_limits_change_on_a_schedule_and_a_bucket_keeps_its_tokens() -> None:
    async def burst(call: Any) -> int:
        statuses = [(await call("GET", "/user"))[0] for _ in range(8)]
        return statuses.count(200)

    counts: list[int] = []

    async def script(call: Any) -> None:
        counts.append(await burst(call))
        await asyncio.sleep(0.4)
        counts.append(await burst(call))
        await asyncio.sleep(0.4)
        counts.append(await burst(call))

    slow = {"kind": "bucket", "rate": 0.001, "burst": 5}
    schedule = [{"at": "600ms", "limits": []}, {"at": "300ms", "limits": [slow | {"burst": 8}]}]
    against(scenario(limits=[slow], schedule=schedule), script)
    assert counts == [5, 0, 8]


def test_a_slow_backend_causes_504s_and_still_makes_the_backups() -> None:
    async def script(call: Any) -> None:
        paths = [f"/installs/{each}/backups" for each in install_ids(6)]
        answers = await asyncio.gather(*(call("POST", path, json=BODY) for path in paths))
        statuses = sorted(each[0] for each in answers)
        assert statuses == [202] * 4 + [504] * 2
        assert {each[1]["message"] for each in answers if each[0] == 504} == {"Endpoint request timed out"}
        await asyncio.sleep(0.6)

    wanted = scenario(backend={"slots": 2, "takes": "200ms"}, gateway_timeout="500ms")
    stats = against(wanted, script).stats()
    assert (stats["backups_made"], stats["most_per_install"]) == (6, 1)


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_a_request_is_carried_out_even_if_the_client_goes_away(leave: str) -> None:
    async def script(simulator: Simulator) -> None:
        for number, install_id in enumerate(install_ids(6)):
            reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
            writer.write(raw_post(install_id))
            await writer.drain()
            await asyncio.sleep(0.02 * number)
            if leave == "reset":
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()
            del reader
        await asyncio.sleep(0.6)

    for more in (
        {},
        {"backend": {"slots": 2, "takes": "100ms"}},
        {"faults": [{"kind": "gateway_timeout", "created": True}]},
    ):
        stats = with_raw_sockets(scenario(**({"latency": "200ms"} | more)), script).stats()
        assert (stats["backups_made"], stats["most_per_install"], stats["in_flight"]) == (6, 1, 0)


def test_credentials_are_revoked_after_exactly_so_many_concurrent_requests() -> None:
    async def script(call: Any) -> None:
        statuses = [each[0] for each in await asyncio.gather(*(call("GET", "/user") for _ in range(20)))]
        assert sorted(statuses) == [200] * 12 + [401] * 8

    against(scenario(latency="50ms", credentials={"revoked_after_requests": 12}), script)


def test_a_backend_takes_a_different_time_for_each_request() -> None:
    async def script(call: Any) -> None:
        async def seconds() -> float:
            began = asyncio.get_running_loop().time()
            await call("GET", "/user")
            return asyncio.get_running_loop().time() - began

        taken = await asyncio.gather(*(seconds() for _ in range(20)))
        assert max(taken) - min(taken) > 0.1

    against(scenario(backend={"slots": 20, "takes": ["10ms", "400ms"]}), script)


def test_requests_in_flight_still_count_after_the_limits_change() -> None:
    async def script(call: Any) -> None:
        first = [asyncio.create_task(call("GET", "/user")) for _ in range(6)]
        await asyncio.sleep(0.2)
        later = [asyncio.create_task(call("GET", "/user")) for _ in range(6)]
        statuses = [each[0] for each in await asyncio.gather(*first, *later)]
        assert statuses.count(200) == 4

    limit = {"kind": "in_flight", "requests": 4}
    wanted = scenario(latency="500ms", limits=[limit], schedule=[{"at": "100ms", "limits": [limit]}])
    assert against(wanted, script).stats()["most_in_flight"] == 4


def test_a_request_that_one_limit_refuses_is_not_counted_by_the_others() -> None:
    async def script(call: Any) -> None:
        for _ in range(2):
            statuses = [each[0] for each in await asyncio.gather(*(call("GET", "/user") for _ in range(10)))]
            assert statuses.count(200) == 4

    limits = [{"kind": "bucket", "rate": 0.001, "burst": 8}, {"kind": "in_flight", "requests": 4}]
    against(scenario(latency="100ms", limits=limits), script)


def test_posts_and_gets_may_have_limits_of_their_own() -> None:
    async def script(call: Any) -> None:
        assert [(await call("POST", BACKUPS, json=BODY))[0] for _ in range(4)] == [202, 202, 429, 429]
        assert [(await call("GET", "/user"))[0] for _ in range(4)] == [200, 200, 200, 429]

    bucket = {"kind": "bucket", "rate": 0.001}
    limits = [bucket | {"burst": 2, "applies_to": "posts"}, bucket | {"burst": 3, "applies_to": "gets"}]
    against(scenario(limits=limits), script)


def test_a_post_that_its_own_limit_refuses_takes_nothing_from_the_limit_of_all_requests() -> None:
    async def script(call: Any) -> None:
        assert [(await call("POST", BACKUPS, json=BODY))[0] for _ in range(4)] == [202, 429, 429, 429]
        assert [(await call("GET", "/user"))[0] for _ in range(4)] == [200, 200, 200, 429]

    bucket = {"kind": "bucket", "rate": 0.001}
    against(scenario(limits=[bucket | {"burst": 4}, bucket | {"burst": 1, "applies_to": "posts"}]), script)


def test_gets_in_flight_leave_room_for_posts() -> None:
    async def script(call: Any) -> None:
        for _ in range(2):
            gets = [asyncio.create_task(call("GET", "/user")) for _ in range(4)]
            posts = [asyncio.create_task(call("POST", BACKUPS, json=BODY)) for _ in range(3)]
            assert [each[0] for each in await asyncio.gather(*gets)] == [200] * 4
            assert sorted(each[0] for each in await asyncio.gather(*posts)) == [202, 429, 429]

    against(scenario(latency="500ms", limits=[{"kind": "in_flight", "requests": 1, "applies_to": "posts"}]), script)


def test_a_request_has_the_latency_in_force_when_it_arrives() -> None:
    async def script(call: Any) -> None:
        async def taken_s() -> float:
            began = asyncio.get_running_loop().time()
            assert (await call("GET", "/user"))[0] == 200
            return asyncio.get_running_loop().time() - began

        first = await taken_s()
        second = await taken_s()
        assert first >= 1.0 > second
        await asyncio.sleep(1.5)
        assert await taken_s() >= 0.3

    schedule = [{"at": "500ms", "latency": 0}, {"at": "1500ms", "latency": "300ms"}]
    against(scenario(latency="1s", schedule=schedule), script)


def test_limits_may_count_each_api_user_separately() -> None:
    async def script(call: Any) -> None:
        other = {"Authorization": aiohttp.encode_basic_auth("other", "p")}
        assert [(await call("GET", "/user"))[0] for _ in range(2)] == [200, 429]
        assert [(await call("GET", "/user", headers=other))[0] for _ in range(2)] == [200, 429]

    against(scenario(limits=[{"kind": "bucket", "rate": 0.001, "burst": 1}], limits_per="credentials"), script)


def test_reading_the_admin_pages_does_not_start_the_clock() -> None:
    async def script(call: Any) -> None:
        await call("GET", "/../_admin/backups")
        await call("GET", "/../_admin/stats")
        await asyncio.sleep(0.3)
        assert (await call("POST", BACKUPS, json=BODY))[0] == 202

    against(scenario(faults=[{"kind": "unavailable", "from": "200ms"}]), script)


def test_a_page_of_one_accounts_installs_links_to_that_accounts_next_page() -> None:
    async def script(call: Any) -> None:
        account_id = (await call("GET", "/accounts"))[1]["results"][0]["id"]
        path, found = f"/installs?account_id={account_id}", list[Any]()
        while path:
            page = (await call("GET", path))[1]
            found += page["results"]
            path = (page["next"] or "").partition("/v1")[2]
        assert len(found) == 6
        assert {each["account"]["id"] for each in found} == {account_id}
        for query in ("account_id=nope", "limit=1_0", "limit=%D9%A3", "offset=x"):
            assert (await call("GET", f"/installs?{query}"))[0] == 400

    against(
        scenario(accounts=[{"name": "one", "installs": 6}, {"name": "two", "installs": 5}], pages={"size": 2}), script
    )


def test_a_fault_may_be_delayed_up_to_the_gateways_timeout() -> None:
    async def script(call: Any) -> None:
        began = asyncio.get_running_loop().time()
        assert (await call("POST", BACKUPS, json=BODY))[0] == 504
        assert asyncio.get_running_loop().time() - began > 0.2

    def stats(**keys: Any) -> Any:
        return against(
            scenario(faults=[{"kind": "unavailable", "created": True, "after": "1h"}], **keys), script
        ).stats()

    assert stats(gateway_timeout="250ms")["backups_made"] == 1
    late = scenario(faults=[{"kind": "gateway_timeout", "after": "250ms"}])
    assert against(late, script).stats()["backups_made"] == 0


@pytest.mark.parametrize("kind", ["reset", "cut_short"])
def test_the_backends_work_after_a_504_does_not_touch_the_connection(kind: str) -> None:
    async def script(simulator: Simulator) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
        writer.write(raw_post(ID))
        assert (await reader.readline()).startswith(b"HTTP/1.1 504")
        await asyncio.sleep(0.4)
        writer.write(raw_post(OTHER))
        everything = b""
        while everything.count(b"timed out") < 2:
            everything += await reader.read(1000)
        assert everything.count(b"HTTP/1.1") == 1
        writer.close()

    wanted = scenario(backend={"slots": 1, "takes": "300ms"}, gateway_timeout="100ms", faults=[{"kind": kind}])
    with_raw_sockets(wanted, script)


@pytest.mark.parametrize(
    ("first", "in_the_answer", "later"),
    [
        ("initiated", "initiated", "initiated"),
        ("completed", "completed", "completed"),
        ("queued", "queued", "in_progress"),
        ("in_progress", "in_progress", "in_progress"),
    ],
)
def test_a_scenario_can_set_the_first_status_of_a_backup(first: str, in_the_answer: str, later: str) -> None:
    async def script(call: Any) -> None:
        backup = (await call("POST", BACKUPS, json=BODY))[1]
        assert (backup["status"], backup["complete_time"] is not None) == (in_the_answer, first == "completed")
        await asyncio.sleep(0.35)
        assert (await call("GET", f"{BACKUPS}/{backup['id']}"))[1]["status"] == later

    against(scenario(backups={"first_status": first, "completes_after": "600ms"}), script)


def test_the_log_of_requests_has_the_fields_to_check_a_report() -> None:
    async def script(call: Any) -> None:
        _, _, headers = await call("POST", BACKUPS, json=BODY)
        (noted,) = (await call("GET", "/../_admin/requests"))[1]["requests"]
        assert noted["request_id"] == headers["x-amzn-RequestId"]
        assert (noted["status"], noted["fault"], noted["method"]) == (503, "unavailable", "POST")
        assert noted["ended_at"] - noted["at"] >= 0.05

    against(scenario(latency="60ms", faults=[{"kind": "unavailable"}]), script)


# -- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "status", "made"),
    [
        ("bad_request", 400, 0), ("forbidden", 403, 0), ("not_found", 404, 0), ("server_error", 500, 0),
        ("bad_gateway", 502, 0), ("unavailable", 503, 0), ("gateway_timeout", 504, 0), ("quota", 429, 0),
        ("blocked", 403, 0), ("redirect", 302, 0), ("reset", None, 0), ("cut_short", None, 1), ("broken_json", None, 1),
        ("missing_id", 202, 1), ("wrong_type", 202, 1),
    ],
)  # fmt: skip
def test_each_fault_of_a_post_has_its_status_and_effect(kind: str, status: int | None, made: int) -> None:
    (answer,), simulator = post(scenario(faults=[{"kind": kind}]))
    assert (answer and answer[0]) == status
    assert simulator.stats()["backups_made"] == made
    assert simulator.stats()["faults"] == {f"post {kind}": 1}
    if kind in {"bad_gateway", "blocked"}:
        assert answer[1].startswith("<html>")
    if kind == "redirect":
        assert answer[2]["Location"].startswith("https://elsewhere.")
    if kind == "quota":
        assert answer[1]["message"] == "Limit Exceeded"
    if kind == "missing_id":
        assert "id" not in answer[1]
    if kind == "wrong_type":
        assert isinstance(answer[1], list)


@pytest.mark.parametrize("kind", ["server_error", "bad_gateway", "unavailable", "gateway_timeout", "reset"])
def test_a_fault_may_still_make_the_backup(kind: str) -> None:
    answers, simulator = post(scenario(faults=[{"kind": kind, "created": True}]))
    assert answers[0] is None or answers[0][0] >= 500
    assert simulator.stats()["backups_made"] == 1


def test_a_hanging_request_ends_when_the_client_disconnects() -> None:
    async def script(call: Any) -> None:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await call("POST", BACKUPS, json=BODY, timeout=aiohttp.ClientTimeout(total=0.2))
        await asyncio.sleep(0.2)

    stats = against(scenario(faults=[{"kind": "hang", "created": True}]), script).stats()
    assert (stats["backups_made"], stats["by_status"]) == (2, {"none": 2})


@pytest.mark.parametrize("kind", ["unavailable", "reset", "cut_short", "broken_json", "missing_id", "not_found"])
def test_each_fault_can_hit_the_listing(kind: str) -> None:
    async def script(call: Any) -> None:
        assert (await call("POST", BACKUPS, json=BODY))[0] == 202
        try:
            status, page, _ = await call("GET", BACKUPS)
        except (aiohttp.ClientError, ValueError):
            assert kind in {"reset", "cut_short", "broken_json"}
        else:
            assert status != 200 or "results" not in page
        assert (await call("GET", BACKUPS))[0] == 200

    tries = 2 if kind == "reset" else 1  # aiohttp repeats a GET by itself after a reset
    against(scenario(faults=[{"kind": kind, "operation": "listing", "first_tries": tries}]), script)


def test_a_fault_can_be_limited_to_installs_first_tries_and_a_time() -> None:
    only_one = scenario(faults=[{"kind": "unavailable", "installs": [ID]}])
    assert post(only_one)[0][0][0] == 503
    assert post(only_one, install_id=OTHER)[0][0][0] == 202
    first = post(scenario(faults=[{"kind": "unavailable", "first_tries": 2}]), times=3)[0]
    assert [each[0] for each in first] == [503, 503, 202]
    assert post(scenario(faults=[{"kind": "unavailable", "from": "1h", "until": "2h"}]))[0][0][0] == 202
    assert post(scenario(faults=[{"kind": "unavailable", "from": "1h"}]))[0][0][0] == 202


def test_faults_hit_the_same_installs_and_posts_in_any_order() -> None:
    wanted = scenario(
        seed=1,
        faults=[
            {"kind": "not_found", "share": 0.3},
            {"kind": "unavailable", "share": 0.3},
            {"kind": "gateway_timeout", "share": 0.2},
            {"kind": "gateway_timeout", "share": 0.5, "created": True},
        ],
    )

    def fate(install: str, nth: int) -> str:
        fault = fault_of(wanted.faults, wanted.seed, Asked(Operation.POST, install, nth, 0.0))
        return f"{fault.kind}{' made' if fault.makes_the_backup else ''}" if fault else "accepted"

    fates = {(install, nth): fate(install, nth) for install in install_ids(300) for nth in range(2)}
    assert fates == {key: fate(*key) for key in reversed(fates)}
    gone = {install for (install, _), each in fates.items() if each == "not_found"}
    assert all(fates[install, nth] == "not_found" for install in gone for nth in range(2))
    assert 60 < len(gone) < 120
    other_seed = {key: fault_of(wanted.faults, 2, Asked(Operation.POST, *key, 0.0)) for key in fates}
    assert [each and each.kind for each in other_seed.values()] != [each.split()[0] for each in fates.values()]
    assert set(fates.values()) == {"not_found", "unavailable", "gateway_timeout", "gateway_timeout made"}


@pytest.mark.parametrize(
    "keys",
    [
        {"faults": [{"kind": "nonsense"}]},
        {"faults": [{"kind": "forbidden", "created": True}]},
        {"faults": [{"kind": "unavailable", "operation": "listing", "created": True}]},
        {"faults": [{"kind": "broken_json", "created": False}]},
        {"faults": [{"kind": "unavailable", "share": 0.6}, {"kind": "reset", "share": 0.6}]},
        {"faults": [{"kind": "unavailable", "share": -1}]},
        {"limits": [{"kind": "bucket", "rate": 0}]},
        {"limits": [{"kind": "bucket"}]},
        {"limits": [{"rate": 1}]},
        {"latency": "fast"},
        {"latency": ["1s"]},
        {"latency": ["2s", "1s"]},
        {"limits": [{"kind": "fixed_window", "requests": 1, "per": 0}]},
        {"faults": [{"kind": "unavailable", "from": "2s", "until": "1s"}]},
        {"faults": [{"kind": "unavailable", "operation": "user", "installs": [ID]}]},
        {"faults": [{"kind": "unavailable", "share": 0.6, "first_tries": 1}] * 2},
        {"accounts": [{"name": "one"}, {"name": "one"}]},
        {"accounts": [{"name": "agencyone", "installs": 1}, {"name": "agencyonetwo", "installs": 1}]},
        {"accounts": [{"name": "one", "installs": [{"name": "abc", "id": ID}, {"name": "abd", "id": ID}]}]},
        {"latncy": "1s"},
        {"accounts": [{"name": "UPPER"}]},
    ],
)
def test_an_invalid_scenario_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        scenario(**keys)
