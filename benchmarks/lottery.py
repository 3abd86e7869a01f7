"""Measure the control law on servers drawn by chance, in virtual time, beside other clients.

``python benchmarks/lottery.py`` draws servers by seed from the ranges below: buckets, fixed and sliding windows of any
period and phase, limits in flight, two limits at once. It prints the quantiles of time and of 429s, and the worst
servers with the option that replays each. The law was developed on other seeds than the documents report.

A figure is the time over ``max(10 s, ideal + one answer)``: short batches are not judged by fractions of a second.
``--check`` draws a hundred servers, and compares the quantiles with bands.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import fmean
from typing import TYPE_CHECKING, Any

from limiter import ANOTHER_DAY, PATIENCE, PATIENCE_S, Limited, all_rivals
from servers import Server, ideal_s
from simulation import Simulation, StuckError

from orchestrator.pacing import learned
from orchestrator.simulator import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from simulation import Seen

FIRST, SECOND = "first run", "second run"

RATES = (0.7, 56.0)
"""Requests per second that a bucket or a window sustains."""
BURSTS_S = (0.1, 10.0)
"""A bucket's burst, in seconds of its rate."""
PERIODS_S = (0.8, 75.0)
IN_FLIGHT = (2, 24)
LATENCIES_S = (0.02, 2.0)
BATCHES = (40, 2000)
CEILING, CONCURRENCY, START_RATE = 200.0, 64, 5.0

SHORTEST_S = 10.0
"""Seconds that a batch may take in any case: the denominator of ``Drawn.time`` is at least this."""

CHECKED = range(9000, 9100)
"""The seeds of the servers that ``--check`` draws. The law was not developed on them."""

BANDS: Mapping[bool, Mapping[str, Sequence[tuple[str, float, float]]]] = {
    True: {
        FIRST: (("time", 0.5, 1.06), ("time", 0.9, 1.53), ("rejected", 0.5, 16), ("rejected", 0.9, 59)),
        SECOND: (("time", 0.5, 1.04), ("time", 0.9, 1.37), ("rejected", 0.5, 3), ("rejected", 0.9, 25)),
    },
    False: {
        FIRST: (("time", 0.5, 1.05), ("time", 0.9, 1.34), ("rejected", 0.5, 5), ("rejected", 0.9, 13)),
        SECOND: (("time", 0.5, 1.03), ("time", 0.9, 1.29), ("rejected", 0.5, 2), ("rejected", 0.9, 10)),
    },
}
"""For ``--check``, by whether refusals are late, and by run: a figure, the share of its quantile, and the most it may
be."""

KINDS = {"bucket": 0.4, "fixed_window": 0.2, "sliding_window": 0.2, "in_flight": 0.12, "two": 0.08}
"""The share of each kind of limit; ``two`` is two of the others at once."""


def log_uniform(chance: random.Random, low: float, high: float) -> float:
    """Return a number whose logarithm is uniform."""
    return math.exp(chance.uniform(math.log(low), math.log(high)))


def _limit(chance: random.Random, kind: str) -> dict[str, Any]:
    if kind == "in_flight":
        return {"kind": kind, "requests": chance.randint(*IN_FLIGHT)}
    rate = log_uniform(chance, *RATES)
    if kind == "bucket":
        return {"kind": kind, "rate": rate, "burst": max(1, round(rate * log_uniform(chance, *BURSTS_S)))}
    per = log_uniform(chance, *PERIODS_S)
    found = {"kind": kind, "requests": max(1, round(rate * per)), "per": f"{per:.3f}s"}
    if kind == "fixed_window":
        found["phase"] = f"{chance.uniform(0, 0.999 * per):.3f}s"
    return found


def drawn(seed: int) -> Server:
    """Return the server that ``seed`` draws."""
    chance = random.Random(f"lottery {seed}")  # noqa: S311 - seeded on purpose: a draw must be repeatable
    (kind,) = chance.choices([*KINDS], [*KINDS.values()])
    kinds = chance.sample([each for each in KINDS if each != "two"], 2) if kind == "two" else [kind]
    mean, spread = log_uniform(chance, *LATENCIES_S), chance.uniform(0.0, 0.7)
    limits = [_limit(chance, each) for each in kinds]
    latency = [f"{mean * (1 - spread) * 1000:.1f}ms", f"{mean * (1 + spread) * 1000:.1f}ms"]
    about = ", ".join(" ".join(f"{key}={value}" for key, value in limit.items()) for limit in limits)
    return Server(
        name=f"--draw {seed}",
        about=about,
        scenario=Scenario.model_validate({"limits": limits, "latency": latency}),
        batch=round(log_uniform(chance, *BATCHES)),
        ceiling=CEILING,
        concurrency=CONCURRENCY,
        start_rate=START_RATE,
        bands={},
        warm_bands={},
        figures={},
        warm_figures={},
    )


@dataclass(frozen=True, slots=True)
class Drawn:
    """The figures of one run of one client: ``time`` over the ideal, 429s, and what the server was."""

    seed: int
    run: str
    time: float
    rejected: int
    about: str


@dataclass(frozen=True, slots=True)
class Work:
    """One server, and the client: ``None`` for this limiter, else the name of a rival."""

    seed: int
    late: bool
    rival: str | None = None


def measure(work: Work) -> list[Drawn]:
    """Return the figures of both runs of the limiter, or of a rival's only run."""
    server = drawn(work.seed)
    if work.rival:
        client = all_rivals()[work.rival]
        return [_figures(work, server, work.rival, work.seed, lambda simulation: client(simulation, server))]
    runs: list[Limited] = []

    def begin(simulation: Simulation) -> None:
        runs.append(Limited(simulation, server, learned(runs[-1].pace) if runs else None))

    return [
        _figures(work, server, FIRST, work.seed, begin),
        _figures(work, server, SECOND, work.seed + ANOTHER_DAY, begin),
    ]


def _figures(work: Work, server: Server, run: str, seed: int, begin: Callable[[Simulation], None]) -> Drawn:
    simulation = Simulation(server.scenario, seed, late_refusals=work.late)
    begin(simulation)
    ideal = ideal_s(server, server.batch)
    about = f"{server.about}; {server.batch} installs, ideal {ideal:.1f} s, answers {_range(server)}"
    try:
        simulation.run(PATIENCE * ideal + PATIENCE_S)
    except StuckError:
        return Drawn(work.seed, run, math.inf, simulation.seen.rejected, about)
    seen: Seen = simulation.seen
    fair = max(SHORTEST_S, ideal + fmean(server.scenario.latency))
    return Drawn(work.seed, run, seen.ended_at / fair, seen.rejected, about)


def _range(server: Server) -> str:
    low, high = server.scenario.latency
    return f"{low * 1000:.0f} to {high * 1000:.0f} ms"


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of the values do not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, math.ceil(share * len(ranked)) - 1)]


def table(found: Sequence[Drawn]) -> Iterator[str]:
    """Yield one row for each run: quantiles of time over ideal, and of 429s."""
    yield f"{'':28}{'p50':>7}{'p90':>7}{'p99':>7}{'worst':>8}   429s {'p50':>5}{'p90':>6}{'most':>6}"
    for run in dict.fromkeys(each.run for each in found):
        times = [each.time for each in found if each.run == run]
        rejected = [each.rejected for each in found if each.run == run]
        yield (
            f"{run:28}"
            + "".join(f"{quantile(times, share):7.2f}" for share in (0.5, 0.9, 0.99))
            + f"{max(times):8.2f}        "
            + f"{quantile(rejected, 0.5):5.0f}{quantile(rejected, 0.9):6.0f}{max(rejected):6.0f}"
        )


def broken_bands(found: Sequence[Drawn], *, late: bool) -> Iterator[str]:
    """Yield a message for each quantile of the limiter's runs that is outside its band."""
    for run, bands in BANDS[late].items():
        own = [each for each in found if each.run == run]
        for figure, share, most in bands:
            value = quantile([getattr(each, figure) for each in own], share)
            if value > most:
                where = f"{'late' if late else 'prompt'} refusals, {run}"
                yield f"{where}: {figure} p{share * 100:.0f} is {value:.2f}, over {most}"


def measured(works: Iterable[Work]) -> list[Drawn]:
    """Return the figures of all ``works``, on all processors."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        return [each for runs in pool.map(measure, works, chunksize=4) for each in runs]


def check() -> int:
    """Draw the checked servers, with late and with prompt refusals. Return 1 if a quantile is outside its band."""
    broken: list[str] = []
    for late in (True, False):
        found = measured(Work(seed, late) for seed in CHECKED)
        print("\n".join(table(found)))
        broken += broken_bands(found, late=late)
    print("\n".join(broken) or "every quantile is within its band", file=sys.stderr)
    return int(bool(broken))


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, measure, print."""
    parser = argparse.ArgumentParser(prog="lottery.py", description="Measure the limiter on servers drawn by chance.")
    parser.add_argument("--servers", metavar="N", type=int, default=300)
    parser.add_argument("--first", metavar="SEED", type=int, default=0, help="the seed of the first server")
    parser.add_argument("--draw", metavar="SEED", type=int, help="only the server of this seed")
    parser.add_argument("--late-refusals", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--rivals", action="store_true", help="measure the other clients, too")
    parser.add_argument("--worst", metavar="N", type=int, default=10)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a quantile is outside its band")
    options = parser.parse_args(arguments)
    if options.check:
        return check()
    seeds = range(options.first, options.first + options.servers) if options.draw is None else [options.draw]
    clients = [None, *(all_rivals() if options.rivals else ())]
    works = [Work(seed, options.late_refusals, client) for client in clients for seed in seeds]
    found = measured(works)
    print("\n".join(table(found)))
    for run in (FIRST, SECOND):
        print(f"\nworst of the {run}:")
        own = sorted((each for each in found if each.run == run), key=lambda each: -each.time)
        for each in own[: options.worst]:
            print(f"  {each.time:5.2f}  {each.rejected:4} x 429  --draw {each.seed}  {each.about}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
