"""Measure the real command against the real stand-in, both as processes, over loopback: the rows of the table.

    .venv/bin/python benchmarks/endtoend.py [--row NAME]... [--seeds N] [--markdown]

Each row runs twice, each time against a fresh stand-in at the same address. The first run has an empty state directory,
the second uses the state of the first. Rows run one after the other, because they would disturb each other: 15 minutes
per seed.

- ``requests``, ``429``, ``504``, ``rejected``: the counts of the stand-in.
- ``server``: from the arrival of the first request at the stand-in to the arrival of the last one that was not
  rejected. If requests in flight or slots are limited, to the answer of that request, because the ideal includes it
  there. The verdict is about this time.
- ``command``: from the start of the command to its end. ``summary``: the duration in its summary.
- ``x``: each time divided by the ideal of ``servers.ideal_s`` for the requests that were not rejected.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from servers import Server, all_servers, ideal_s

from orchestrator.policies import ThrottlePolicy
from orchestrator.simulator.limit_keys import InFlight

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

COMMAND = [sys.executable, "-m", "orchestrator"]
THROTTLED, GATEWAY_TIMEOUT = 429, 504

IN_FLIGHT_S = 0.05
"""A request that arrives so soon after a 429 may have started before the client read the 429."""

NOISE = 0.02
"""Two equal runs in real time differ by up to 1%. A second run within twice that counts as no slower than the first."""

AGENCY, AGENCY_INSTALLS = "bucket-10-burst-10", 60
"""A row with a smaller batch, of an agency's size. It uses the server and the figures of the row with this name."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of the command.

    ``server_s``, ``command_s`` and ``summary_s`` are the three times of the table. ``early`` counts the requests that
    came before the moment that a ``Retry-After`` had named.
    """

    requests: int
    rejected: int
    failed: int
    early: int
    server_s: float
    command_s: float
    summary_s: float
    exit_code: int
    learned_rate: float

    @property
    def let_in(self) -> int:
        """Return how many requests were not answered 429."""
        return self.requests - self.rejected

    def figures(self, server: Server, first: Measured | None) -> dict[str, float]:
        """Return the figures of ``servers.FIGURES`` that can be measured from outside the command."""
        ideal = ideal_s(server, self.let_in)
        figures = {
            "time_over_ideal": self.server_s / ideal,
            "capacity_used": ideal / self.server_s,
            "rejected": float(self.rejected),
            "rejected_share": self.rejected / self.requests,
            "failed_share": self.failed / self.requests,
            "early": float(self.early),
            "learned_rate": self.learned_rate,
        }
        return figures if first is None else figures | {"time_over_first": self.server_s / first.server_s}


# -- processes ---------------------------------------------------------------------------------------------------------


def environment(folder: Path) -> dict[str, str]:
    """Return the environment for the command, without any settings of this process."""
    ours = ("WPE_", "XDG_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"WPE_API_USER_ID": "a-user", "WPE_API_PASSWORD": "a-password", "HOME": str(folder)}


@contextmanager
def stand_in(server: Server, port: int, folder: Path) -> Iterator[str]:
    """Serve ``server`` on ``port``, 0 for any, and yield its base URL."""
    scenario = folder / "scenario.yaml"
    scenario.write_text(server.scenario.model_dump_json(by_alias=True), encoding="utf-8")  # JSON is YAML
    process = subprocess.Popen(  # noqa: S603 - our own command
        [*COMMAND, "simulate", "--port", str(port), "--scenario", str(scenario)],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        base_url = process.stdout.readline().strip() if process.stdout else ""
        if not base_url:
            message = f"the stand-in did not start: {process.communicate()[1]}"
            raise RuntimeError(message)
        yield base_url
    finally:
        process.terminate()
        process.communicate()


def counted(base_url: str, page: str) -> dict[str, Any]:
    """Return the content of an ``/_admin`` page of the stand-in at ``base_url``."""
    with urllib.request.urlopen(base_url.replace("/v1", f"/_admin/{page}"), timeout=30) as reply:  # noqa: S310 - loopback
        return json.load(reply)  # type: ignore[no-any-return]  # it is an object


def options(server: Server) -> list[str]:
    """Return the options of the run: only those that differ from the default."""
    default = ThrottlePolicy()
    given = []
    if server.ceiling != default.ceiling:
        given += ["--max-rate", f"{server.ceiling:g}"]
    if server.concurrency != default.concurrency:
        given += ["--concurrency", str(server.concurrency)]
    return given


def configuration(server: Server, base_url: str) -> str:
    """Return the YAML of the row's batch."""
    start = "" if server.start_rate == ThrottlePolicy().start_rate else f"{server.start_rate:g}"
    throttle = f"throttle: {{start_requests_per_second: {start}}}\n" if start else ""
    installs = "".join(f"  - 00000000-0000-4000-8000-{number:012d}\n" for number in range(server.batch))
    head = f'version: 1\naccounts: {{default: {{base_url: "{base_url}"}}}}\ndefaults: {{notification_emails: []}}\n'
    return f"{head}{throttle}installs:\n{installs}"


def measure(server: Server, port: int, folder: Path) -> tuple[Measured, int]:
    """Run the command once in ``folder``, and return its figures and the port. Its state stays in ``folder``."""
    report = folder / "report.jsonl"
    with stand_in(server, port, folder) as base_url:
        (folder / "fleet.yaml").write_text(configuration(server, base_url), encoding="utf-8")
        command = [*COMMAND, "run", "-c", "fleet.yaml", "-o", str(report), "--state-dir", "state", *options(server)]
        began = time.monotonic()
        ended = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, check=False)  # noqa: S603 - our own command
        command_s = time.monotonic() - began
        stats, requests = counted(base_url, "stats"), counted(base_url, "requests")["requests"]
    lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
    if not lines or not requests:
        message = f"{server.name}: the command ended with {ended.returncode}: {ended.stderr.decode()}"
        raise RuntimeError(message)
    summary = json.loads(lines[-1])
    first = min(request["at"] for request in requests)
    last = "ended_at" if is_flat_out(server) else "at"
    measured = Measured(
        requests=stats["requests"],
        rejected=stats["throttled"],
        failed=stats["by_status"].get(str(GATEWAY_TIMEOUT), 0),
        early=early(requests),
        server_s=max(request[last] for request in requests if request["status"] not in {None, THROTTLED}) - first,
        command_s=command_s,
        summary_s=summary["duration_s"],
        exit_code=ended.returncode,
        learned_rate=summary["accounts"]["default"]["rate"],
    )
    return measured, int(base_url.removesuffix("/v1").rpartition(":")[2])


def is_flat_out(server: Server) -> bool:
    """Tell whether the server limits the requests in flight, not their rate."""
    limits = server.scenario.limits
    return server.scenario.backend is not None or any(isinstance(limit, InFlight) for limit in limits)


def early(requests: Sequence[Mapping[str, Any]]) -> int:
    """Count the requests that arrived before a moment that a 429 had named, except those already in flight."""
    named = [
        (request["ended_at"] + IN_FLIGHT_S, named_at(request["retry_after"], request["ended_at"]))
        for request in requests
        if request["status"] == THROTTLED and request["retry_after"]
    ]
    return sum(any(known < request["at"] < until for known, until in named) for request in requests)


def named_at(value: str, answered_at: float) -> float:
    """Return the moment that ``value`` names, on the clock of the stand-in's record (the machine's monotonic clock)."""
    if value.replace(".", "").isdecimal():
        return answered_at + float(value)
    named = parsedate_to_datetime(value).replace(tzinfo=UTC).timestamp()
    return time.monotonic() + named - time.time()


# -- the table ---------------------------------------------------------------------------------------------------------

COLUMNS = ("row", "run", "requests", "429", "504", "server", "command", "summary", "rejected", "exit", "verdict")
WIDTHS = (30, 6, 8, 4, 4, 15, 15, 15, 8, 4, 0)


def verdict(figures: Mapping[str, float], asked: Mapping[str, tuple[float, float]]) -> str:
    """Return ``met``, or ``MISSED`` with each figure outside its range. A second run may be slower by ``NOISE``."""
    wrong = [
        f"{name} {figures[name]:.4g}, not {least:g} to {most:g}"
        for name, (least, most) in asked.items()
        if name in figures and not least <= figures[name] <= most + NOISE * (name == "time_over_first")
    ]
    return "MISSED: " + "; ".join(wrong) if wrong else "met"


def cells(server: Server, measured: Measured, first: Measured | None) -> list[str]:
    """Return one line of the table. ``first`` is the first run if ``measured`` is the second one."""
    ideal = ideal_s(server, measured.let_in)
    asked = server.figures if first is None else server.warm_figures
    return [
        server.name,
        "first" if first is None else "second",
        str(measured.requests),
        str(measured.rejected),
        str(measured.failed),
        *(f"{each:.2f} s x{each / ideal:.2f}" for each in (measured.server_s, measured.command_s, measured.summary_s)),
        f"{measured.rejected / measured.requests:.2%}",
        str(measured.exit_code),
        verdict(measured.figures(server, first), asked),
    ]


def show(line: Sequence[str], *, markdown: bool) -> None:
    """Print one line immediately, because the next one takes a while."""
    text = "| " + " | ".join(line) + " |" if markdown else " ".join(map(str.ljust, line, WIDTHS))
    sys.stdout.write(text.rstrip() + "\n")
    sys.stdout.flush()


def rows() -> list[Server]:
    """Return the rows of the table, and the row of an agency's size."""
    servers = [server for server in all_servers() if server.is_row]
    small = [
        replace(server, name=f"{server.name}-x{AGENCY_INSTALLS}", batch=AGENCY_INSTALLS)
        for server in servers
        if server.name == AGENCY
    ]
    return [*servers, *small]


def chosen(argv: Sequence[str] | None) -> tuple[list[Server], argparse.Namespace]:
    """Return the rows to measure and the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = {server.name: server for server in rows()}
    parser.add_argument("--row", action="append", choices=every, metavar="NAME", help=f"one of {', '.join(every)}")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="run each row with N seeds")
    parser.add_argument("--markdown", action="store_true", help="print a table for a document")
    given = parser.parse_args(argv)
    return [every[name] for name in given.row or every], given


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the rows and print the table."""
    servers, given = chosen(argv)
    sys.stdout.write(f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f} at the start\n\n")
    show(COLUMNS, markdown=given.markdown)
    if given.markdown:
        show(["---"] * len(COLUMNS), markdown=True)
    for server in servers:
        for seed in range(given.seeds):
            seeded = replace(server, scenario=server.scenario.model_copy(update={"seed": seed}))
            with TemporaryDirectory() as folder:
                first, port = measure(seeded, 0, Path(folder))
                show(cells(seeded, first, None), markdown=given.markdown)
                second, _ = measure(seeded, port, Path(folder))
                show(cells(seeded, second, first), markdown=given.markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
