"""The benchmarks' own calculations: ideal times, the virtual server, the rival clients, the bands."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import throughput
from limiter import FIRST, SECOND, Limited, Measured, RunWork, broken_bands, markdown, markdown_head, measure, plain
from pydantic import ValidationError
from rivals import fixed_rate, known_rate, throttle_alone
from servers import DIRECTORY, Server, all_servers, ideal_s, limit_per_s, load
from simulation import ACCEPTED, GATEWAY_TIMEOUT, THROTTLED, Answer, Simulation, StuckError, figures, time_to_s

from orchestrator.simulator.limits import Limits
from orchestrator.simulator.scenario import Scenario

if TYPE_CHECKING:
    from rivals import Rival
    from simulation import Seen


def bucket(rate: float, burst: int) -> dict[str, Any]:
    return {"kind": "bucket", "rate": rate, "burst": burst}


def server(*limits: dict[str, Any], batch: int = 100, **more: Any) -> Server:
    scenario = Scenario.model_validate({"limits": limits, "latency": "100ms"} | more)
    return Server(
        "made-up", "Made up.", scenario, batch, 200.0, 32, 5.0, bands={}, warm_bands={}, figures={}, warm_figures={}
    )


def seen_of(rival: Rival, at: Server, seed: int = 0) -> Seen:
    simulation = Simulation(at.scenario, seed)
    rival(simulation, at)
    simulation.run(1e5)
    return simulation.seen


@pytest.mark.parametrize(
    ("limits", "accepted", "seconds"),
    [
        ([bucket(50, 100)], 1000, (1000 - 100) / 50),
        ([bucket(0.5, 1)], 10, (10 - 1) / 0.5),
        ([bucket(10, 10)], 5, 0.0),
        ([{"kind": "fixed_window", "requests": 20, "per": "2s"}], 300, 28.0),
        ([{"kind": "sliding_window", "requests": 50, "per": "5s"}], 300, 25.0),
        ([{"kind": "in_flight", "requests": 8}], 500, 63 * 0.1),
        ([{"kind": "in_flight", "requests": 1}, bucket(20, 1)], 101, 101 * 0.1),
        ([{"kind": "in_flight", "requests": 9}, bucket(5, 1)], 101, 100 / 5),
    ],
)
def test_the_ideal_time_assumes_a_client_that_knows_the_limits(
    limits: list[dict[str, Any]], accepted: int, seconds: float
) -> None:
    assert ideal_s(server(*limits), accepted) == pytest.approx(seconds)


def test_the_ideal_time_follows_the_schedule() -> None:
    changes = [{"at": "10s", "limits": [bucket(5, 5)]}, {"at": "30s", "limits": [bucket(20, 20)]}]
    steps = server(bucket(20, 20), schedule=changes)
    assert ideal_s(steps, 220) == pytest.approx(10.0)
    assert ideal_s(steps, 320) == pytest.approx(30.0)
    assert ideal_s(steps, 600) == pytest.approx(44.0)


def test_a_change_of_the_limits_ends_the_wait_for_a_token() -> None:
    dry = server(bucket(0.001, 1), schedule=[{"at": "3s", "limits": [bucket(1, 1)]}])
    assert ideal_s(dry, 3) == pytest.approx(3.0 + (1 - 0.003) + 1.0)


def test_the_ideal_time_of_a_backend_assumes_one_worker_for_each_slot() -> None:
    slots = server(backend={"slots": 8, "takes": ["200ms", "400ms"]})
    assert ideal_s(slots, 80) == pytest.approx(10 * (0.1 + 0.3))
    assert limit_per_s(slots.scenario) == pytest.approx(8 / 0.4)


def test_the_ideal_time_of_workers_follows_the_latency() -> None:
    """Two workers send 4 requests of 0.5 s and 6 of 2 s. A change of the limits does not reset the latency."""
    changes = [{"at": "1s", "latency": ["1s", "3s"]}]
    assert ideal_s(server({"kind": "in_flight", "requests": 2}, latency="500ms", schedule=changes), 10) == (
        pytest.approx(2 * 0.5 + 3 * 2.0)
    )


def test_limits_of_gets_do_not_slow_down_posts() -> None:
    gets = [bucket(1, 1), {"kind": "in_flight", "requests": 1}]
    at = server(bucket(20, 20), *(limit | {"applies_to": "gets"} for limit in gets))
    assert limit_per_s(at.scenario) == 20
    assert ideal_s(at, 100) == pytest.approx(80 / 20)


def test_a_server_that_admits_nobody_has_no_ideal_time() -> None:
    with pytest.raises(ValueError, match="never lets a request in"):
        ideal_s(server(bucket(1e-7, 1)), 3)


def test_every_data_file_loads_and_has_bands_that_its_runs_can_break() -> None:
    servers = all_servers()
    assert len(servers) == len(list(DIRECTORY.glob("*.yaml"))) > 40
    assert {each.concurrency for each in servers if each.is_row} == {32, 64}
    for each in servers:
        assert each.bands
        assert ideal_s(each, each.batch) > 0
        assert limit_per_s(each.scenario) < each.ceiling
    assert not any("time_over_first" in each.bands for each in servers)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("bands: {elegance: [0, 1]}", "no such figure: elegance"),
        ("bands: {rejected: [2, 1]}", "in this order"),
        ("bands: {}\nfigures: {elegance: [0, 1]}", "no such figure: elegance"),
        ("bands: {}\nlimits: []", "limits"),
        ("bands: {}\nscenario: {latency: soon}", "latency"),
    ],
)
def test_a_data_file_with_a_mistake_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    whole = "about: x\nscenario: {}\nbatch: 1\nceiling: 2\nconcurrency: 3\nstart_rate: 4\n"
    if "scenario" in text:
        whole = whole.replace("scenario: {}\n", "")
    path = tmp_path / "odd.yaml"
    path.write_text(whole + text)
    with pytest.raises(ValidationError, match=problem):
        load(path)


@pytest.mark.parametrize(
    "limit",
    [bucket(3, 4), {"kind": "fixed_window", "requests": 5, "per": "2s"}, {"kind": "in_flight", "requests": 2}],
)
def test_the_virtual_server_admits_the_same_requests_as_the_limits(limit: dict[str, Any]) -> None:
    """A request starts every 0.13 s and takes 0.5 s. Under a limit in flight it counts for all of that time."""
    at = server(limit, latency="500ms")
    simulation = Simulation(at.scenario, 0)
    statuses: dict[int, int] = {}
    for number in range(60):

        def send(number: int = number) -> None:
            simulation.send(lambda answer: statuses.__setitem__(number, answer.status))

        simulation.call_at(simulation.now + 0.13 * number, send)
    simulation.run(100.0)

    limits, inside, expected = Limits(at.scenario), list[float](), dict[int, int]()
    for number in range(60):
        now = 0.13 * number
        while inside and inside[0] <= now:
            inside.pop(0)
            limits.leave()
        expected[number] = THROTTLED if limits.enter(now) > 0 else ACCEPTED
        if expected[number] == ACCEPTED:
            inside.append(now + 0.5)
    assert statuses == expected
    assert simulation.seen.rejected == sum(status == THROTTLED for status in expected.values()) > 0


@pytest.mark.parametrize(("late_refusals", "seconds"), [(True, 0.1), (False, 0.0)])
def test_a_429_takes_the_latency_only_with_late_refusals(*, late_refusals: bool, seconds: float) -> None:
    simulation = Simulation(server(bucket(1, 1)).scenario, 0, late_refusals=late_refusals)
    began, heard = simulation.now, dict[int, float]()
    for _ in range(2):
        simulation.send(lambda answer: heard.__setitem__(answer.status, simulation.now - began))
    simulation.run(10.0)
    assert heard == {ACCEPTED: pytest.approx(0.1), THROTTLED: pytest.approx(seconds)}


def test_the_virtual_server_counts_posts_and_gets_separately() -> None:
    posts, gets = bucket(0.01, 2) | {"applies_to": "posts"}, bucket(0.01, 3) | {"applies_to": "gets"}
    simulation = Simulation(server(posts, gets, {"kind": "in_flight", "requests": 4}).scenario, 0)
    heard: list[tuple[bool, int]] = []
    for read_only in (False, True) * 4:
        simulation.send(lambda answer, each=read_only: heard.append((each, answer.status)), read_only=read_only)  # type: ignore[misc]
    simulation.run(10.0)
    assert sorted(heard) == [
        *[(False, ACCEPTED)] * 2,
        *[(False, THROTTLED)] * 2,
        *[(True, ACCEPTED)] * 2,
        *[(True, THROTTLED)] * 2,
    ]
    assert len(simulation.seen.accepted_at) == 2
    simulation.send(lambda answer: heard.append((True, answer.status)), read_only=True)
    simulation.run(20.0)
    assert heard[-1] == (True, ACCEPTED)


@pytest.mark.parametrize(("late_refusals", "seconds"), [(False, [1.0, 1.0, 0.2, 0.2]), (True, [1.0, 0.6, 0.2, 0.2])])
def test_a_virtual_request_has_the_latency_in_force_when_it_arrives(
    *, late_refusals: bool, seconds: list[float]
) -> None:
    """With late refusals, the request that starts at 0.9 s is half a second under way and arrives after the change."""
    at = server(latency="1s", schedule=[{"at": "1s", "latency": "200ms"}])
    simulation = Simulation(at.scenario, 0, late_refusals=late_refusals)
    began, taken = simulation.now, dict[float, float]()
    # The clock of the schedule starts with the first arrival, which is half a second late with late refusals.
    for start in (0.0, 0.9 + late_refusals / 2, 1.5 + late_refusals / 2, 3.0):

        def send(start: float = start) -> None:
            simulation.send(lambda _: taken.__setitem__(start, simulation.now - began - start))

        simulation.call_at(began + start, send)
    simulation.run(10.0)
    assert [taken[start] for start in sorted(taken)] == pytest.approx(seconds)


def test_after_its_timeout_the_gateway_answers_504_and_the_backend_works_on() -> None:
    slow = server(backend={"slots": 1, "takes": "1s"}, gateway_timeout="1500ms", latency="10ms")
    simulation = Simulation(slow.scenario, 0)
    began, heard = simulation.now, list[tuple[int, float]]()
    for _ in range(2):
        simulation.send(lambda answer: heard.append((answer.status, round(simulation.now - began, 3))))
    simulation.call_at(began + 1.9, lambda: simulation.send(lambda answer: heard.append((answer.status, 0.0))))
    simulation.run(10.0)
    assert heard == [(ACCEPTED, 1.01), (GATEWAY_TIMEOUT, 1.51), (ACCEPTED, 0.0)]
    assert simulation.seen.failed == 1
    assert len(simulation.seen.accepted_at) == 3


def test_a_run_ends_with_the_last_backup_and_not_with_its_504() -> None:
    slow = server(backend={"slots": 1, "takes": "5s"}, gateway_timeout="1s", batch=1)
    assert seen_of(fixed_rate(1.0), slow).ended_at == pytest.approx(5.0)


def test_a_request_before_the_moment_of_retry_after_is_counted_as_early() -> None:
    simulation = Simulation(server(bucket(0.1, 1), retry_after="seconds").scenario, 0)
    answers: list[Answer] = []

    def too_soon(answer: Answer) -> None:
        answers.append(answer)
        simulation.send(lambda _: None)

    simulation.send(lambda _: None)
    simulation.send(too_soon)
    simulation.run(100.0)
    assert answers == [Answer(THROTTLED, 10.0)]
    assert simulation.seen.early == 1


def test_a_simulation_that_never_ends_is_stopped() -> None:
    simulation = Simulation(server().scenario, 0)

    def again() -> None:
        simulation.call_at(simulation.now + 1.0, again)

    again()
    with pytest.raises(StuckError, match="50 s"):
        simulation.run(50.0)


def test_the_time_to_a_rate_ends_with_the_first_window_at_that_rate() -> None:
    assert time_to_s([0.0, 1.0, 2.0, 2.5, 3.0, 3.4], 2.0) == 3.4
    assert time_to_s([0.0, 1.0, 2.0], 2.0) == float("inf")


def test_a_fixed_rate_at_the_limit_is_almost_never_rejected_and_half_the_rate_takes_twice_as_long() -> None:
    at = server(bucket(10, 10), latency=["20ms", "80ms"], batch=300)
    seen = seen_of(known_rate, at)
    assert seen.rejected <= 1
    assert figures(at, seen)["time_over_ideal"] == pytest.approx(30 / 29, abs=0.02)
    assert seen_of(fixed_rate(5.0), at).ended_at == pytest.approx(60.0, abs=0.5)


def test_the_throttle_alone_starts_at_most_its_ceiling_in_a_second() -> None:
    at = replace(server(batch=500), concurrency=500)
    seen = seen_of(throttle_alone, at)
    assert seen.accepted_at[199] == pytest.approx(seen.accepted_at[0])
    assert seen.accepted_at[200] - seen.accepted_at[0] == pytest.approx(1.0)


@pytest.mark.parametrize("client", ["limit known", "fixed 5/s", "asyncio-throttle", "full jitter", FIRST])
def test_every_client_finishes_and_the_same_seed_gives_the_same_figures(client: str) -> None:
    work = RunWork(server(bucket(20, 20), latency=["20ms", "80ms"], batch=200), client, 3)
    measured = measure(work)
    assert measured == measure(work)
    assert all(each.figures["time_over_ideal"] >= 1.0 for each in measured)


def test_the_limiter_gets_each_install_accepted_once_even_if_a_canary_only_reads() -> None:
    ill = server(backend={"slots": 1, "takes": "500ms"}, gateway_timeout="1s", batch=100)
    simulation = Simulation(ill.scenario, 3)
    Limited(simulation, ill, None)
    simulation.run(1e5)
    assert len(simulation.seen.accepted_at) == 100
    assert simulation.seen.failed > 10
    assert simulation.seen.requests > 100


def test_botocore_gets_all_installs_accepted_and_slows_down_when_it_is_rejected() -> None:
    pytest.importorskip("botocore")
    work = RunWork(server(bucket(20, 20), latency=["20ms", "80ms"], batch=1000), "botocore adaptive", 0)
    [measured] = measure(work)
    assert 0 < measured.figures["rejected_share"] < 0.1
    assert measured.figures["time_over_ideal"] < 1.5


def test_a_figure_outside_of_its_band_is_named_with_its_server_seed_and_run() -> None:
    strict = replace(server(), bands={"rejected": (0, 4)}, warm_bands={"rejected": (0, 2)})
    measured = [Measured(FIRST, 7, {"rejected": 4}), Measured(SECOND, 7, {"rejected": 3}), Measured("else", 7, {})]
    assert list(broken_bands(strict, measured)) == ["made-up, seed 7, second run: rejected 3.0000 is not in [0, 2]"]


def test_the_tables_have_a_row_for_each_client_with_the_mean_and_the_worst() -> None:
    figures_of_two = [{"capacity_used": 0.9, "rejected_share": 0.01}, {"capacity_used": 0.8, "rejected_share": 0.02}]
    measured = [Measured(FIRST, seed, each) for seed, each in enumerate(figures_of_two)]
    assert markdown(server(), measured).startswith(f"| `made-up` | {FIRST} | 85.0% (80.0%) | 1.50% (2.00%) |")
    assert markdown_head().count("|") == 2 * markdown(server(), measured).count("|")
    assert "85.0% (80.0%)" in plain(server(bucket(1, 1)), measured)


def test_the_command_and_the_bare_loop_send_the_same_bodies_to_the_light_server(tmp_path: Path) -> None:
    load = throughput.Load(installs=20, concurrency=4)
    with throughput.server() as base_url:
        command, summary_per_s = throughput.run_command(base_url, load, tmp_path)
        bare = throughput.run_bare(base_url, load, tmp_path)
        with pytest.raises(RuntimeError, match="after 0 POSTs"):
            throughput.measure(base_url, [sys.executable, "-c", "pass"], load, tmp_path)
    assert command.body_bytes == bare.body_bytes == 20 * len(_body(throughput.MARKED))
    assert min(command.per_s, bare.per_s, summary_per_s, command.start_s, bare.start_s, command.end_s, bare.end_s) > 0.0


def _body(description: str) -> bytes:
    return json.dumps({"description": description, "notification_emails": []}).encode()


def test_the_light_server_reports_its_counts_and_resets_them() -> None:
    seen = throughput.Seen()
    answer = seen.answer(b"POST /v1/installs/1/backups HTTP/1.1", _body("x")).decode()
    head, _, body = answer.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 202 Accepted\r\nDate: ")
    assert f"Content-Length: {len(body)}" in head
    backup = json.loads(body)
    assert (backup["status"], backup["description"]) == ("requested", "x")

    def stats() -> Any:
        return json.loads(seen.answer(b"GET /_stats HTTP/1.1", b"").partition(b"\r\n\r\n")[2])

    assert (stats()["posts"], stats()["bytes"]) == (1, len(_body("x")))
    assert stats()["first_at"] == stats()["last_at"] > 0.0
    seen.answer(b"POST /_reset HTTP/1.1", b"")
    assert stats() == {"posts": 0, "bytes": 0, "first_at": 0.0, "last_at": 0.0}


def test_the_time_of_shared_code_counts_for_its_callers() -> None:
    law, worker, shared, builtin = (
        ("/x/orchestrator/pacing/law.py", 1, "started"),
        ("/x/orchestrator/engine/posts.py", 1, "post"),
        ("/lib/dataclasses.py", 1, "replace"),
        ("~", 0, "<built-in method builtins.getattr>"),
    )
    timings: dict[throughput.Function, throughput.Timing] = {
        law: (1, 1, 1.0, 9.0, {}),
        worker: (1, 1, 2.0, 9.0, {}),
        shared: (4, 4, 4.0, 6.0, {law: (3, 3, 3.0, 4.5), worker: (1, 1, 1.0, 1.5)}),
        builtin: (8, 8, 2.0, 2.0, {shared: (8, 8, 2.0, 2.0)}),
        ("~", 0, "<method 'poll' of 'select.epoll' objects>"): (1, 1, 5.0, 5.0, {}),
    }
    assert throughput.by_group(timings) == {"pacing": 5.5, "engine": 3.5, throughput.WAITING: 5.0}


def test_the_benchmark_finds_the_file_system_that_it_writes_to() -> None:
    assert throughput.file_system(Path("/proc/self")) == "proc"
    assert throughput.folder_on_disk().is_dir()
