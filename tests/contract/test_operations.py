"""Check the stand-in's answers and our requests against the schemas, and the schemas against the specification."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import operations
import pytest
from aiohttp import web
from jsonschema import Draft202012Validator, FormatChecker

from orchestrator.model import Account, BackupRequest
from orchestrator.policies import Timeouts
from orchestrator.simulator import Scenario, Simulator
from orchestrator.simulator.fault_keys import OF_INSTALLS, Kind
from orchestrator.wpengine.client import Client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

OPERATIONS = operations.committed()
SPECIFICATIONS = sorted(Path(__file__).parents[3].glob("shared/openapi/*.swagger.json"))
ID, ACCOUNT_ID = "294deacc-d8b8-4005-82c4-0727ba8ddde0", "eeda3227-9a39-46ae-9e14-20958bb4e6c9"
ACCOUNTS = [
    {"name": "one", "installs": [{"name": "torquemag", "id": ID, "environment": None}]},
    {"name": "two", "installs": 3},
]
BODY = {"description": "d", "notification_emails": ["a@b"]}

NOT_DECLARED = {302, 500, 502, 504}
"""Statuses that the gateway may answer with, even if an operation does not declare them."""

OWN = {400: "bad_request", 403: "forbidden", 404: "not_found"}
"""Faults that a scenario may ask for, even if an operation does not declare their status."""

formats = FormatChecker([])
formats.checks("uuid")(
    lambda value: bool(re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", str(value))) or value is None
)
formats.checks("date-time")(
    lambda value: bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", str(value))) or value is None
)


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Return ``schema`` with a ban on properties that it does not name."""
    changed = {key: closed(each) if isinstance(each, dict) else each for key, each in schema.items()}
    if "properties" in schema:
        changed["properties"] = {key: closed(each) for key, each in schema["properties"].items()}
        changed["additionalProperties"] = False
    return changed


def faults_of(schema: dict[str, Any], value: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(closed(schema), format_checker=formats).iter_errors(value)]


def operation_of(method: str, path: str) -> tuple[str, dict[str, str]]:
    """Return the operation that a request asks for, and the parameters in its path."""
    for name, each in OPERATIONS.items():
        match = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", each["path"]), path)
        if match and each["method"] == method.lower():
            return name, match.groupdict()
    raise AssertionError(method, path)


# -- the committed schemas against the public specification ------------------------------------------------------------


@pytest.mark.skipif(not SPECIFICATIONS, reason="the public specification is not beside this checkout")
def test_the_committed_schemas_match_the_specification() -> None:
    assert operations.from_specification(json.loads(SPECIFICATIONS[-1].read_text())) == OPERATIONS


def test_each_operation_that_we_use_has_a_schema_for_its_success() -> None:
    assert set(OPERATIONS) == set(operations.OPERATIONS)
    for name, each in OPERATIONS.items():
        assert each["operation_id"] == name
        Draft202012Validator.check_schema(each["answers"]["202" if name == "createBackup" else "200"])


# -- the stand-in ------------------------------------------------------------------------------------------------------


def ask_everything(scenario: dict[str, Any]) -> list[tuple[str, int, Any]]:
    """Call each operation of the stand-in. Return the operation, status and JSON (or None) of each answer."""

    async def main() -> list[tuple[str, int, Any]]:
        answers: list[tuple[str, int, Any]] = []
        wanted = Scenario.model_validate(
            {"latency": 0, "accounts": ACCOUNTS, "backups": {"completes_after": "1ms"}} | scenario
        )
        async with Simulator(wanted) as simulator, aiohttp.ClientSession() as session:

            async def ask(method: str, path: str, **more: Any) -> Any:
                headers = {"Authorization": aiohttp.encode_basic_auth("u", "p")}
                url = simulator.base_url + path
                async with session.request(method, url, headers=headers, allow_redirects=False, **more) as response:
                    body = await response.json() if response.content_type == "application/json" else None
                    answers.append((operation_of(method, path.partition("?")[0])[0], response.status, body))
                    return body

            made = await ask("POST", f"/installs/{ID}/backups", json=BODY)
            backup_id = made.get("id", ID) if isinstance(made, dict) else ID
            for path in (
                f"/installs/{ID}/backups?limit=1",
                f"/installs/{ID}/backups?limit=1&offset=1",
                f"/installs/{ID}/backups/{backup_id}",
                f"/installs/{ID}/backups/{ACCOUNT_ID}",
                "/installs?limit=2",
                f"/installs?account_id={ACCOUNT_ID}",
                f"/installs/{ID}",
                f"/installs/{ACCOUNT_ID}",
                "/accounts?limit=1&offset=1",
                "/accounts?limit=1000",
                "/user",
                "/status",
            ):
                await ask("GET", path)
        return answers

    return asyncio.run(main())


FAULTS = [
    {"faults": [{"kind": kind, "operation": operation}]}
    for kind in Kind
    if kind in OF_INSTALLS | {Kind.UNAVAILABLE, Kind.QUOTA, Kind.BAD_GATEWAY, Kind.SERVER_ERROR, Kind.GATEWAY_TIMEOUT}
    for operation in ("post", "listing", "show")
]


@pytest.mark.parametrize(
    "scenario",
    [
        {},
        {"listing": {"nightly": 3}, "pages": {"next": "url", "size": 2}},
        {"listing": {"nightly": 3, "descriptions": "missing", "order": "random"}},
        {"backups": {"fields": "minimal"}},
        {"accounts": None},
        {"backups": {"completes_after": "1h"}},
        {"backups": {"completes_after": 0, "aborts": 1}},
        {"listing": {"available": False}},
        {"credentials": {"password": "another"}},
        {"limits": [{"kind": "bucket", "rate": 0.001, "burst": 1}], "retry_after": "seconds"},
        *FAULTS,
    ],
    ids=json.dumps,
)
def test_the_stand_in_answers_as_the_specification_declares(scenario: dict[str, Any]) -> None:
    answers = ask_everything(scenario)
    assert {name for name, _, _ in answers} == set(OPERATIONS)
    for name, status, body in answers:
        declared = OPERATIONS[name]["answers"].get(str(status))
        if declared is None:
            # An answer that only the gateway gives, or one that the scenario's fault asked for.
            asked_for = [fault["kind"] for fault in scenario.get("faults", [])]
            assert status in NOT_DECLARED or any(OWN[status] == kind for kind in asked_for), (name, status)
        elif declared:
            assert faults_of(declared, body) == [], (name, status, body)


def test_the_schema_check_refuses_wrong_answers() -> None:
    schema = OPERATIONS["createBackup"]["answers"]["202"]
    good = {"id": ID, "status": "requested", "create_time": "2026-01-01T00:00:00Z", "complete_time": None}
    assert faults_of(schema, good) == []
    for bad in ({"id": "x"}, {"status": "done"}, {"create_time": "yesterday"}, {"more": 1}, {"description": 1}):
        assert faults_of(schema, good | bad)
    assert faults_of(schema, {"id": ID})


# -- our own requests --------------------------------------------------------------------------------------------------

ASK: dict[str, Callable[[Client], Awaitable[Any]]] = {
    "create_backup": lambda client: client.create_backup(BackupRequest(ID, "d [wpe-backup R]", ("a@b",))),
    "list_backups": lambda client: client.list_backups(ID, 100),
    "show_backup": lambda client: client.show_backup(ID, ID),
    "list_installs": lambda client: client.list_installs(None, 100),
    "list_installs of one account": lambda client: client.list_installs(ACCOUNT_ID, 100),
    "list_accounts": lambda client: client.list_accounts(100),
    "check_credentials": lambda client: client.check_credentials(),
}


def test_every_operation_of_the_client_is_checked_against_the_schemas() -> None:
    public = {
        name for name, each in inspect.getmembers(Client, inspect.iscoroutinefunction) if not name.startswith("_")
    }
    assert public == {name.partition(" ")[0] for name in ASK}


@pytest.mark.parametrize("name", ASK)
def test_our_requests_match_the_specification(name: str) -> None:
    seen: list[tuple[str, str, dict[str, str], Any, bytes]] = []

    async def remember(request: web.Request) -> web.Response:
        seen.append((request.method, request.path, dict(request.query), request.headers, await request.read()))
        return web.json_response({"results": []})

    async def main() -> None:
        app = web.Application()
        app.router.add_route("*", "/v1/{rest:.*}", remember)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        async with Client(Account("default", base_url, "u", "p"), Timeouts()) as client:
            await ASK[name](client)
        await runner.cleanup()

    asyncio.run(main())
    ((method, path, query, headers, body),) = seen
    authorization, content_type = headers["Authorization"], headers.get("Content-Type")
    operation, in_path = operation_of(method, path.removeprefix("/v1"))
    described = OPERATIONS[operation]
    assert authorization.startswith("Basic ")
    assert set(query) <= set(described["parameters"])
    for key, value in (in_path | query).items():
        schema = described["parameters"][key]
        assert faults_of(schema, int(value) if schema["type"] == "integer" else value) == []
    if described["body"] is None:
        assert body == b""
    else:
        assert faults_of(described["body"], json.loads(body)) == []
        assert described["consumes"] == ["application/json"] == [content_type]
