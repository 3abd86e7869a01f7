"""The limiter over real sockets: the command as a process, checked by the requests that the stand-in saw."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from command import PASSWORD, USER, Ended, StandIn, fleet, run_command, stand_in, start_command, until

from orchestrator.simulator import Scenario, Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("without_coverage")

Request = dict[str, Any]
Number = TypeVar("Number", int, float)

IN_FLIGHT_S = 0.4
"""A request within this time after a 429 may have been sent before the 429 was read. Every hold is longer."""

UNTOLD = ("--max-rate", "500", "--concurrency", "32")
"""A ceiling above every limit in this file, so that the run has to find the limit."""


def ids_from(first: int, count: int) -> list[str]:
    return [f"00000000-0000-4000-8000-{number:012d}" for number in range(first, first + count)]


def fleet_of(base_url: str, ids: list[str], more: str = "") -> str:
    return fleet(base_url, 0, more) + "".join(f"  - {each}\n" for each in ids)


@contextmanager
def served(folder: Path, **scenario: Any) -> Iterator[StandIn]:
    """Serve a scenario in its own process."""
    folder.mkdir(exist_ok=True)
    (folder / "scenario.yaml").write_text(json.dumps(scenario))  # JSON is YAML
    with stand_in("--scenario", str(folder / "scenario.yaml")) as server:
        yield server


def side_by_side(judge: Callable[..., Number], cases: list[tuple[Any, ...]]) -> list[Number]:
    """Return ``judge(*case)`` for all ``cases``. They run at the same time, because they mostly wait."""
    with ThreadPoolExecutor(len(cases)) as pool:
        return list(pool.map(lambda case: judge(*case), cases))


def lines(ended: Ended) -> list[dict[str, Any]]:
    """Return the report's ``backup`` lines."""
    return ended.lines()[:-1]


def assert_all_made_once(ended: Ended, server: StandIn, count: int) -> None:
    assert (ended.code, ended.stderr.count("Traceback")) == (0, 0)
    assert [line["outcome"] for line in lines(ended)] == ["accepted"] * count
    stats = server.stats()
    assert (stats["backups_made"], stats["installs_backed_up"], stats["most_per_install"]) == (count, count, 1)


# -- a fixed rate ------------------------------------------------------------------------------------------------------


SLACK_S = 0.75
"""The longest delay between the sending and the arrival of the first request on a busy machine."""

HURRY = "start_requests_per_second: 500, max_requests_per_second: 500"


def test_a_fixed_rate_is_kept_from_the_yaml_and_from_the_options(tmp_path: Path) -> None:
    """Another test checks each second in virtual time; here the machine may delay the requests."""

    def takes(name: str, count: int, more: str, options: tuple[str, ...]) -> float:
        folder = tmp_path / name
        with served(folder) as server:
            (folder / "wpe-backup.yaml").write_text(fleet(server.base_url, count, more))
            ended = run_command("run", "-o", "-", *options, cwd=folder)
            assert_all_made_once(ended, server, count)
            assert server.stats()["requests"] == count + 1
            arrivals = [request["at"] for request in server.requests()]
            return float(max(arrivals) - min(arrivals))

    by_option, by_yaml, slow = side_by_side(
        takes,
        [
            ("option", 50, f"throttle: {{{HURRY}}}", ("--rate", "20")),
            ("yaml", 50, f"throttle: {{rate: 20, {HURRY}}}", ()),
            ("slow", 2, f"throttle: {{{HURRY}}}", ("--rate", "0.5")),
        ],
    )
    assert by_option + SLACK_S >= 50 / 20
    assert by_yaml + SLACK_S >= 50 / 20
    assert slow + SLACK_S >= 2 / 0.5


# -- holds: many accounts of one command, each with a stand-in of its own ----------------------------------------------


def accounts_fleet(servers: dict[str, StandIn], each: int, more: str) -> str:
    """Return a YAML with an account for each of ``servers``; each account has ``each`` installs."""
    accounts = "".join(
        f'  {name}: {{user_id: {USER}, password: {PASSWORD}, base_url: "{server.base_url}"}}\n'
        for name, server in servers.items()
    )
    installs = "".join(
        f"  - {{id: {install_id}, account: {name}}}\n"
        for index, name in enumerate(servers)
        for install_id in ids_from(1000 * index, each)
    )
    defaults = "defaults: {notification_emails: []}"
    return f"version: 1\naccounts:\n{accounts}{defaults}\n{more}\ninstalls:\n{installs}"


def run_accounts(
    folder: Path, scenarios: dict[str, dict[str, Any]], each: int, more: str
) -> tuple[Ended, dict[str, list[Request]]]:
    """Run one command with an account for each of ``scenarios``. Return its end and each stand-in's requests."""

    async def main() -> tuple[Ended, dict[str, list[Request]]]:
        async with AsyncExitStack() as stack:
            servers = {
                name: StandIn((await stack.enter_async_context(Simulator(Scenario.model_validate(keys)))).base_url)
                for name, keys in scenarios.items()
            }
            (folder / "wpe-backup.yaml").write_text(accounts_fleet(servers, each, more))
            ended = await asyncio.to_thread(run_command, "run", "-o", "-", cwd=folder)
            return ended, {name: await asyncio.to_thread(server.requests) for name, server in servers.items()}

    return asyncio.run(main())


def named_at(request: Request, clock_skew_s: float) -> float:
    """Return the moment that a 429's ``Retry-After`` named, on the monotonic clock of ``at``."""
    value = request["retry_after"]
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(request["ended_at"]) + float(value)
    server_now = time.time() + clock_skew_s
    named = parsedate_to_datetime(value).replace(tzinfo=UTC).timestamp()
    return time.monotonic() + named - server_now


def too_early(requests: list[Request], clock_skew_s: float) -> list[str]:
    """Return the requests that came before the moment named by an earlier 429. The client sends one at a time."""
    return [
        f"{named_at(refused, clock_skew_s) - request['at']:.3f} s before {refused['retry_after']!r}"
        for refused in requests
        if refused["status"] == 429
        for request in requests
        if refused["ended_at"] < request["at"] < named_at(refused, clock_skew_s)
    ]


def beside_canaries(requests: list[Request]) -> list[int]:
    """Return, for each hold, how many requests arrived between its canary and the canary's answer.

    A hold begins with a 429; others that were in flight may follow. The first request after them is the canary.
    """
    found, refused_at = list[int](), None
    for request in sorted(requests, key=lambda each: each["at"]):
        if refused_at is not None and request["at"] > refused_at + IN_FLIGHT_S:
            found.append(sum(request["at"] < each["at"] < request["ended_at"] for each in requests))
            refused_at = None
        if request["status"] == 429:
            refused_at = request["ended_at"]
    return found


def test_no_request_comes_before_the_moment_of_retry_after_in_any_form(tmp_path: Path) -> None:
    dates = ("date", "rfc850", "asctime")
    skews = {f"{form}_{side}": (form, hours) for form in dates for side, hours in (("ahead", 1), ("behind", -1))}
    cases = {form: (form, 0) for form in ("seconds", "decimal", *dates)} | skews
    scenarios = {
        name: {
            "retry_after": form,
            "clock_skew": f"{hours}h" if hours else 0,
            "limits": [{"kind": "fixed_window", "requests": 4, "per": "3s"}],
        }
        for name, (form, hours) in cases.items()
    }
    ended, seen = run_accounts(tmp_path, scenarios, 6, "throttle: {start_requests_per_second: 10, concurrency: 1}")
    assert ended.code == 0
    assert [line["outcome"] for line in lines(ended)] == ["accepted"] * 6 * len(cases)
    refused = {name: [each for each in requests if each["status"] == 429] for name, requests in seen.items()}
    # Otherwise only the limiter's own hold would have delayed the requests.
    assert all(
        any(named_at(each, 3600 * cases[name][1]) > each["ended_at"] + 1.0 for each in refused[name]) for name in cases
    )
    early = {name: too_early(requests, 3600 * cases[name][1]) for name, requests in seen.items()}
    assert {name: found for name, found in early.items() if found} == {}


def test_after_a_hold_one_request_goes_alone_and_an_empty_retry_after_stops_nothing(tmp_path: Path) -> None:
    forms = ("none", "words", "odd", "empty", "negative", "past_date", "zero")
    scenarios = {
        form: {
            "retry_after": form,
            "latency": ["250ms", "400ms"],
            "limits": [{"kind": "bucket", "rate": 8, "burst": 3}],
        }
        for form in forms
    }
    ended, seen = run_accounts(tmp_path, scenarios, 15, "throttle: {start_requests_per_second: 12}")
    assert ended.code == 0
    assert [line["outcome"] for line in lines(ended)] == ["accepted"] * 15 * len(forms)
    beside = {form: beside_canaries(requests) for form, requests in seen.items()}
    assert all(beside.values()), "there was a hold in each"
    assert {form: found for form, found in beside.items() if any(found)} == {}


# -- finding the limit -------------------------------------------------------------------------------------------------


def test_batches_of_60_and_300_find_their_limits_with_few_429s(tmp_path: Path) -> None:
    """Other tests check the number of 429s in virtual time. A busy machine delays answers and causes a few more."""

    def throttled(count: int, rate: int, burst: int) -> int:
        folder = tmp_path / str(count)
        with served(folder, limits=[{"kind": "bucket", "rate": rate, "burst": burst}]) as server:
            (folder / "wpe-backup.yaml").write_text(fleet(server.base_url, count))
            ended = run_command("run", "-o", "-", *UNTOLD, cwd=folder)
            assert_all_made_once(ended, server, count)
            return int(server.stats()["throttled"])

    small, large = side_by_side(throttled, [(60, 10, 10), (300, 50, 100)])
    assert small <= 60 / 5
    assert large <= 300 / 10


def test_two_commands_on_one_limit_share_it(tmp_path: Path) -> None:
    with served(tmp_path, limits=[{"kind": "bucket", "rate": 40, "burst": 10}]) as server:
        owners, commands = dict[str, str](), []
        for name, first in (("one", 0), ("two", 1000)):
            ids = ids_from(first, 150)
            owners |= dict.fromkeys(ids, name)
            (tmp_path / name).mkdir()
            (tmp_path / name / "wpe-backup.yaml").write_text(fleet_of(server.base_url, ids))
            commands.append(start_command("run", "-o", "report.jsonl", *UNTOLD, cwd=tmp_path / name))
        for command in commands:
            ended = command.ended()
            assert (ended.code, ended.stdout) == (0, "")
        stats, requests = server.stats(), server.requests()
    assert (stats["backups_made"], stats["installs_backed_up"], stats["most_per_install"]) == (300, 300, 1)
    assert stats["throttled"] <= 30
    accepted: dict[str, list[float]] = {"one": [], "two": []}
    for request in requests:
        if request["status"] == 202:
            accepted[owners[request["path"].split("/")[3]]].append(request["at"])
    begins, ends = max(map(min, accepted.values())), min(map(max, accepted.values()))
    shares = [sum(begins <= at <= ends for at in arrivals) for arrivals in accepted.values()]
    assert sum(shares) >= 50, "they ran at the same time"
    assert min(shares) >= sum(shares) / 10


# -- a long hold -------------------------------------------------------------------------------------------------------


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used."""
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - a file of the kernel's
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_20000_installs_use_little_cpu_in_a_long_hold_and_can_be_stopped_in_it(tmp_path: Path) -> None:
    limits = [{"kind": "fixed_window", "requests": 3, "per": "30s"}]
    with served(tmp_path, limits=limits, retry_after="seconds") as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet_of(server.base_url, ids_from(0, 20_000)))
        process = start_command("run", "-o", "report.jsonl", "--rate", "20", cwd=tmp_path)
        until(lambda: server.stats()["throttled"] > 0)
        time.sleep(0.3)
        before, began = cpu_s(process.pid), time.monotonic()
        time.sleep(3)
        used = (cpu_s(process.pid) - before) / (time.monotonic() - began)
        sent = server.stats()["requests"]
        process.send_signal(signal.SIGINT)
        ended = process.ended()
        assert server.stats()["requests"] == sent
    assert used <= 0.25
    assert (ended.code, "Traceback" in ended.stderr) == (130, False)
    *backups, summary = [json.loads(line) for line in (tmp_path / "report.jsonl").read_bytes().splitlines()]
    assert sorted(line["install_id"] for line in backups) == ids_from(0, 20_000)
    assert summary["outcomes"]["accepted"] == 2
    assert summary["outcomes"]["cancelled"] == 19_998
