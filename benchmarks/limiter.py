"""Measure the limiter's control law in virtual time, beside other clients that a user might choose, on the same work.

``python benchmarks/limiter.py`` runs every server of ``benchmarks/servers`` with several seeds: thousands of simulated
seconds in a few real ones. Each figure is the mean over the seeds, with the worst in parentheses if it differs. The
second run begins with the limit that the first one learned.

A 429 takes as long as any answer, as at the real gateway: half of the latency comes before the limits, so what is in
flight at the first 429 is refused, too. ``--no-late-refusals`` measures servers that refuse at once, as the stand-in
does. ``--check`` does so, too, and compares both runs with the server's bands.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from statistics import fmean
from typing import TYPE_CHECKING

from rivals import GUESS_PER_S, backoff, fixed_rate, known_rate, throttle_alone
from servers import all_servers, ideal_s
from simulation import ACCEPTED, GATEWAY_TIMEOUT, THROTTLED, Simulation, StuckError, figures

from orchestrator.pacing import Effect, Feedback, Observation, learned, next_pace, opening, ready_at, started
from orchestrator.policies import ThrottlePolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rivals import Rival
    from servers import Band, Server
    from simulation import Answer, Seen

    from orchestrator.model import Learned
    from orchestrator.pacing import Ticket

FIRST, SECOND = "this limiter", "this limiter, second run"

PATIENCE, PATIENCE_S = 100.0, 3600.0
"""A run is given up after a hundred times the ideal time plus an hour."""

ANOTHER_DAY = 1_000_000
"""Added to the seed for the second run, so that its random numbers differ."""

LITTLE = 0.1
"""Shares below this are written with two decimals."""

WORDS = {
    ACCEPTED: (Effect.SERVED, True),
    THROTTLED: (Effect.THROTTLED, False),
    GATEWAY_TIMEOUT: (Effect.FAILED, False),
}


def all_rivals() -> dict[str, Rival]:
    """Return every rival by its name, botocore's adaptive mode only if botocore is installed."""
    rivals: dict[str, Rival] = {
        "limit known": known_rate,
        f"fixed {GUESS_PER_S:g}/s": fixed_rate(GUESS_PER_S),
        "asyncio-throttle": throttle_alone,
        "full jitter": backoff,
    }
    if importlib.util.find_spec("botocore"):
        from rival_botocore import adaptive  # noqa: PLC0415 - only where it is installed

        rivals["botocore adaptive"] = adaptive
    return rivals


class Limited:
    """The dispatcher and its gate in virtual time. The control law decides when the next request may start."""

    def __init__(self, simulation: Simulation, server: Server, known: Learned | None) -> None:
        """Start the batch immediately, with the limit that an earlier run learned."""
        self._simulation, self._left = simulation, server.batch
        policy = ThrottlePolicy(start_rate=server.start_rate, ceiling=server.ceiling, concurrency=server.concurrency)
        self.pace = opening(policy, known)
        self._wakes_at = float("inf")
        self._admit()

    def _admit(self) -> None:
        """Start all requests that may start now, and wake up when the next one may."""
        simulation = self._simulation
        while self._left > 0:
            at = ready_at(self.pace)
            if at is None:
                return
            if at > simulation.now:
                self._wake_at(at)
                return
            self.pace, ticket = started(self.pace, simulation.now)
            self._left -= not ticket.read_only
            self._send(ticket)

    def _send(self, ticket: Ticket) -> None:
        self._simulation.send(lambda answer: self._hear(ticket, answer), read_only=ticket.read_only)

    def _wake_at(self, moment: float) -> None:
        """Wake up at ``moment``, unless an earlier timer is set. A timer that is too early does no harm."""
        if moment < self._wakes_at or self._wakes_at <= self._simulation.now:
            self._wakes_at = moment
            self._simulation.call_at(moment, self._admit)

    def _hear(self, ticket: Ticket, answer: Answer) -> None:
        self._left += answer.status == THROTTLED and not ticket.read_only
        effect, accepted = WORDS[answer.status]
        feedback = Feedback(effect, accepted and not ticket.read_only, answer.retry_after_s)
        draw = self._simulation.chance.random()
        self.pace = next_pace(self.pace, Observation(ticket, feedback, self._simulation.now, draw))
        self._admit()


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures (``servers.FIGURES``) of one client with one seed."""

    client: str
    seed: int
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RunWork:
    """One measurement: the limiter twice in a row, or a rival once."""

    server: Server
    client: str
    seed: int
    late_refusals: bool = False


def measure(work: RunWork) -> list[Measured]:
    """Run ``work``. A rival that is never done has no figures. For the limiter, raises ``simulation.StuckError``."""
    if work.client == FIRST:
        return _measured_twice(work)
    rival = all_rivals()[work.client]
    try:
        seen = _run(work, work.seed, lambda simulation: rival(simulation, work.server))
    except StuckError:
        return [Measured(work.client, work.seed, {})]
    return [Measured(work.client, work.seed, figures(work.server, seen))]


def _measured_twice(work: RunWork) -> list[Measured]:
    runs: list[Limited] = []

    def begin(simulation: Simulation) -> None:
        runs.append(Limited(simulation, work.server, learned(runs[-1].pace) if runs else None))

    first = _run(work, work.seed, begin)
    second = _run(work, work.seed + ANOTHER_DAY, begin)
    found = [figures(work.server, seen) for seen in (first, second)]
    found[1]["time_over_first"] = round(second.ended_at / first.ended_at, 2)
    for figures_of_run, run in zip(found, runs, strict=True):
        known = learned(run.pace)
        figures_of_run["learned_rate"] = known.rate if known else 0.0
    return [Measured(client, work.seed, each) for client, each in zip((FIRST, SECOND), found, strict=True)]


def _run(work: RunWork, seed: int, begin: Callable[[Simulation], None]) -> Seen:
    simulation = Simulation(work.server.scenario, seed, late_refusals=work.late_refusals)
    begin(simulation)
    simulation.run(PATIENCE * ideal_s(work.server, work.server.batch) + PATIENCE_S)
    return simulation.seen


def broken_bands(server: Server, measured: Sequence[Measured]) -> Iterator[str]:
    """Yield a message for each figure of the limiter that is outside its band."""
    for each in measured:
        bands: Mapping[str, Band] = {FIRST: server.bands, SECOND: server.warm_bands}.get(each.client, {})
        for name, (least, most) in bands.items():
            if not least <= each.figures[name] <= most:
                where = f"{server.name}, seed {each.seed}, {'second' if each.client == SECOND else 'first'} run"
                yield f"{where}: {name} {each.figures[name]:.4f} is not in [{least}, {most}]"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table: its title, its figure, how to write a value, and how to choose the worst value."""

    title: str
    figure: str
    write: Callable[[float], str]
    worst: Callable[[Sequence[float]], float] = field(default=max)

    def cell(self, measured: Sequence[Measured]) -> str:
        """Return the mean, and the worst value if it looks different."""
        values = [each.figures[self.figure] for each in measured if self.figure in each.figures]
        if not values:
            return ""
        mean, worst = self.write(fmean(values)), self.write(self.worst(values))
        return mean if mean == worst else f"{mean} ({worst})"


def _percent(share: float) -> str:
    return f"{share:.2%}" if share < LITTLE else f"{share:.1%}"


def _seconds(value: float) -> str:
    return "never" if value == float("inf") else f"{value:.1f} s"


COLUMNS = (
    Column("limit used", "capacity_used", _percent, min),
    Column("rejected", "rejected_share", _percent),
    Column("504s", "failed_share", _percent),
    Column("time to 95%", "time_to_95_s", _seconds),
    Column("429s in a row", "longest_run_of_429s", "{:.0f}".format),
    Column("time / ideal", "time_over_ideal", "{:.3f}".format),
)


def rows(measured: Sequence[Measured]) -> Iterator[list[str]]:
    """Yield one row of cells for each client, in the order of ``measured``."""
    for client in dict.fromkeys(each.client for each in measured):
        own = [each for each in measured if each.client == client]
        yield [client, *(column.cell(own) for column in COLUMNS)]


def plain(server: Server, measured: Sequence[Measured]) -> str:
    """Return the server's table for a terminal."""
    head = f"{server.name}: {server.about} {server.batch:,} installs, ideal {ideal_s(server, server.batch):,.1f} s."
    table = [["", *(column.title for column in COLUMNS)], *rows(measured)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)
    return "\n".join([head, *(f"  {line.rstrip()}" for line in lines), ""])


def markdown(server: Server, measured: Sequence[Measured]) -> str:
    """Return the server's rows for the table in the documents."""
    return "\n".join(f"| {' | '.join([f'`{server.name}`', *row])} |" for row in rows(measured))


def markdown_head() -> str:
    """Return the first two lines of the table in the documents."""
    titles = ["server", "client", *(column.title for column in COLUMNS)]
    return f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and return the exit code: 1 if ``--check`` finds a broken band."""
    options = _options(arguments)
    servers = [server for server in all_servers() if options.server in {None, server.name}]
    if not servers:
        print(f"no such server: {options.server}", file=sys.stderr)
        return 2
    clients = [FIRST, *(all_rivals() if options.rivals else ())]
    broken: list[str] = []
    if options.markdown:
        print(markdown_head())
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        running = [
            (server, pool.map(measure, [RunWork(server, *each) for each in _jobs(clients, options)]))
            for server in servers
        ]
        for server, results in running:
            measured = [each for result in results for each in result]
            print((markdown if options.markdown else plain)(server, measured), flush=True)
            broken += broken_bands(server, measured)
    if options.check:
        print("\n".join(broken) or "every figure is within its band", file=sys.stderr)
    return int(options.check and bool(broken))


def _jobs(clients: Sequence[str], options: argparse.Namespace) -> list[tuple[str, int, bool]]:
    return [(client, seed, options.late_refusals) for client in clients for seed in range(options.seeds)]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="limiter.py", description="Measure the limiter in virtual time.")
    parser.add_argument("--server", metavar="NAME", help="measure only this server of benchmarks/servers")
    parser.add_argument("--seeds", metavar="N", type=int, default=5, help="run each server with N seeds (default: 5)")
    parser.add_argument("--rivals", action=argparse.BooleanOptionalAction, default=True, help="measure the rivals too")
    parser.add_argument(
        "--late-refusals",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="half of the latency comes before the limits, and 429s take all of it (default)",
    )
    parser.add_argument("--markdown", action="store_true", help="print the table in the documents' format")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a figure is outside its band")
    options = parser.parse_args(arguments)
    options.late_refusals = options.late_refusals and not options.check
    return options


if __name__ == "__main__":
    sys.exit(main())
