"""The stand-in itself, over HTTP: it behaves as the API's documentation says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from command import install_ids

from orchestrator.simulator import Fate, RetryAfter, Scenario, Simulator

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ID = install_ids(1)[0]
BODY = {"description": "d", "notification_emails": ["a@b"]}
QUICK = Scenario(latency_s=(0.0, 0.0))


def against(scenario: Scenario, script: Callable[[Any], Awaitable[None]]) -> Simulator:
    """Run ``script`` with a function that calls the stand-in and returns status, body and headers."""

    async def main() -> Simulator:
        auth = {"Authorization": aiohttp.encode_basic_auth("u", "p")}
        async with Simulator(scenario) as simulator, aiohttp.ClientSession() as session:

            async def call(method: str, path: str, headers: dict[str, str] = auth, **more: Any) -> Any:
                async with session.request(method, simulator.base_url + path, headers=headers, **more) as response:
                    return response.status, await response.json(), response.headers

            await script(call)
        return simulator

    return asyncio.run(main())


def test_a_backup_goes_from_requested_to_completed() -> None:
    async def script(call: Any) -> None:
        status, backup, headers = await call("POST", f"/installs/{ID}/backups", json=BODY)
        assert (status, backup["status"], backup["description"], backup["complete_time"]) == (
            202,
            "requested",
            "d",
            None,
        )
        assert headers["x-amzn-RequestId"]
        await asyncio.sleep(0.16)
        assert (await call("GET", f"/installs/{ID}/backups/{backup['id']}"))[1]["status"] == "in_progress"
        await asyncio.sleep(0.2)
        shown = (await call("GET", f"/installs/{ID}/backups/{backup['id']}"))[1]
        assert shown["status"] == "completed"
        assert shown["complete_time"]
        assert (await call("GET", f"/installs/{ID}/backups/{ID}"))[0] == 404

    against(Scenario(latency_s=(0.0, 0.0), completes_after_s=0.3), script)


def test_the_listing_has_pages() -> None:
    async def script(call: Any) -> None:
        for _ in range(5):
            await call("POST", f"/installs/{ID}/backups", json=BODY)
        page = (await call("GET", f"/installs/{ID}/backups?limit=2&offset=2"))[1]
        assert (page["count"], len(page["results"])) == (5, 2)
        assert page["next"].endswith("limit=2&offset=4")
        assert page["previous"].endswith("limit=2&offset=0")
        assert (await call("GET", f"/installs/{ID}/backups"))[1]["next"] is None
        for query in ("limit=101", "limit=x", "offset=-1"):
            assert (await call("GET", f"/installs/{ID}/backups?{query}"))[0] == 400

    against(QUICK, script)


def test_credentials_are_asked_for_except_by_status() -> None:
    async def script(call: Any) -> None:
        assert (await call("GET", "/user"))[0] == 200
        assert (await call("GET", "/status", headers={}))[1]["success"] is True
        for authorization in ("", "Basic", "Basic !", "Bearer x", "Basic eA=="):
            status, body, _ = await call("GET", "/user", headers={"Authorization": authorization})
            assert (status, body["message"]) == (401, "Bad Credentials")

    against(QUICK, script)


@pytest.mark.parametrize("body", [None, {}, {"description": "d"}, {"description": 1, "notification_emails": []}, []])
def test_a_request_that_is_not_as_specified_is_answered_400_with_every_field_of_an_error(body: Any) -> None:
    async def script(call: Any) -> None:
        status, answer, _ = await call("POST", f"/installs/{ID}/backups", json=body)
        assert status == 400
        assert all(set(entry) == {"resource", "field", "type", "code", "message"} for entry in answer["errors"])

    assert against(QUICK, script).world.stats()["backups_made"] == 0


def test_an_id_that_is_no_uuid_is_not_found() -> None:
    async def script(call: Any) -> None:
        assert (await call("POST", "/installs/nope/backups", json=BODY))[0] == 404
        assert (await call("GET", "/nowhere"))[0] == 404

    against(QUICK, script)


@pytest.mark.parametrize(
    ("form", "present"), [(RetryAfter.NONE, False), (RetryAfter.SECONDS, True), (RetryAfter.DATE, True)]
)
def test_a_429_looks_like_the_gateways(form: RetryAfter, present: bool) -> None:  # noqa: FBT001 - a column of the table
    async def script(call: Any) -> None:
        await call("GET", "/user")
        status, body, headers = await call("GET", "/user")
        assert (status, body) == (429, {"message": "Too Many Requests"})
        assert headers["x-amzn-ErrorType"] == "TooManyRequestsException"
        assert ("Retry-After" in headers) is present

    simulator = against(Scenario(rate=0.5, burst=1, latency_s=(0.0, 0.0), retry_after=form), script)
    assert simulator.world.stats()["throttled"] == 1


def test_faults_hit_the_same_installs_and_posts_whatever_the_order() -> None:
    scenario = Scenario(not_found=0.3, unavailable=0.3, timed_out=0.1, timed_out_created=0.1, seed=1)
    fates = {(install, nth): scenario.fate(install, nth) for install in install_ids(300) for nth in range(2)}
    assert fates == {key: scenario.fate(*key) for key in reversed(fates)}
    gone = {install for (install, _), fate in fates.items() if fate is Fate.NOT_FOUND}
    assert all(fates[install, nth] is Fate.NOT_FOUND for install in gone for nth in range(2))
    assert 60 < len(gone) < 120
    assert set(fates.values()) == {
        Fate.NOT_FOUND,
        Fate.UNAVAILABLE,
        Fate.TIMED_OUT,
        Fate.TIMED_OUT_CREATED,
        Fate.ACCEPTED,
    }


def test_a_504_may_hide_a_backup_that_was_made() -> None:
    async def script(call: Any) -> None:
        status, body, _ = await call("POST", f"/installs/{ID}/backups", json=BODY)
        assert (status, body["message"]) == (504, "Endpoint request timed out")

    assert against(Scenario(latency_s=(0.0, 0.0), timed_out_created=1.0), script).world.stats()["backups_made"] == 1
    assert against(Scenario(latency_s=(0.0, 0.0), timed_out=1.0), script).world.stats()["backups_made"] == 0
