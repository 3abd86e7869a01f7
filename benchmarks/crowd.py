"""Measure separate runs of the limiter on one limit, in virtual time: whether they share it, and how much they use.

``python benchmarks/crowd.py`` lets 2, 5, 10 and 20 runs begin together on one token bucket, with the same number of
installs each. The last one begins late. No run knows of the others. For each crowd it prints:

- used: the share of the bucket's rate that was used while at least two runs had work left
- 429s: refused requests, divided by all requests
- fairness: Jain's index of the requests that each run was served while all of them had work left (Jain, Chiu and Hawe,
  "A Quantitative Measure of Fairness", 1984): 1 if all got the same, 1/n if one got everything
- done: the time until all are done, over the ideal of a client that knows the limit
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from limiter import Limited
from servers import Server, ideal_s
from simulation import ACCEPTED, Simulation

from orchestrator.simulator import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from simulation import Answer

CROWDS = (2, 5, 10, 20)
LATE_S, LATE_SHARE = 20.0, 0.25
"""The last run begins after 20 s, or after a quarter of the ideal time if that is less."""

INSTALLS = 1_000
"""Installs of each run."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """The figures of one crowd."""

    used: float
    rejected_share: float
    fairness: float
    done: float


class _Shared:
    """One run's view of the shared simulation: it notes the instants at which this run was served."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.served_at: list[float] = []

    @property
    def now(self) -> float:
        return self._simulation.now

    @property
    def chance(self) -> object:
        return self._simulation.chance

    def call_at(self, moment: float, act: Callable[[], None]) -> None:
        self._simulation.call_at(moment, act)

    def send(self, answered: Callable[[Answer], None], *, read_only: bool = False) -> None:
        def note(answer: Answer) -> None:
            if answer.status == ACCEPTED:
                self.served_at.append(self.now)
            answered(answer)

        self._simulation.send(note, read_only=read_only)


def measure(runs: int, seed: int, rate: float, burst: int, *, late_refusals: bool) -> Crowd:
    """Return the figures of ``runs`` runs on one bucket, the last of which begins late."""
    scenario = Scenario.model_validate(
        {"limits": [{"kind": "bucket", "rate": rate, "burst": burst}], "latency": ["100ms", "400ms"]}
    )
    server = Server("crowd", "", scenario, INSTALLS, 200.0, 64, 5.0, {}, {}, {}, {})
    simulation = Simulation(scenario, seed, late_refusals=late_refusals)
    ideal = ideal_s(server, runs * INSTALLS)
    late_s = min(LATE_S, LATE_SHARE * ideal)
    began, views = simulation.now, [_Shared(simulation) for _ in range(runs)]

    def begin(view: _Shared) -> None:
        Limited(view, server, None)  # type: ignore[arg-type]  # a view has all that a client uses of a simulation

    for number, view in enumerate(views):
        simulation.call_at(began + (late_s if number == runs - 1 else 0.0), lambda view=view: begin(view))  # type: ignore[misc]  # a default binds the view
    simulation.run(100 * ideal + 3600)
    ends = sorted(view.served_at[-1] for view in views)
    all_since, all_until, two_until = began + late_s, ends[0], ends[-2]
    shares = [sum(all_since <= at <= all_until for at in view.served_at) for view in views]
    served = sum(at <= two_until for view in views for at in view.served_at)
    seen = simulation.seen
    return Crowd(
        used=(served - burst) / (rate * (two_until - began)),
        rejected_share=seen.rejected / seen.requests,
        fairness=sum(shares) ** 2 / max(1, runs * sum(share**2 for share in shares)),
        done=seen.ended_at / ideal,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each crowd with several seeds, and print the means."""
    parser = argparse.ArgumentParser(prog="crowd.py", description="Measure separate runs of the limiter on one limit.")
    parser.add_argument("--seeds", metavar="N", type=int, default=3)
    parser.add_argument("--late-refusals", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args(arguments)
    print(f"{'':34}{'used':>7}{'429s':>8}{'fairness':>10}{'done':>7}")
    for rate, burst in ((10.0, 10), (50.0, 100)):
        for runs in CROWDS:
            found = [
                measure(runs, seed, rate, burst, late_refusals=options.late_refusals) for seed in range(options.seeds)
            ]
            used, rejected, fairness, done = (
                fmean(getattr(each, figure) for each in found)
                for figure in ("used", "rejected_share", "fairness", "done")
            )
            print(
                f"bucket {rate:g}/s, burst {burst}, {runs:2} runs".ljust(34)
                + f"{used:7.2f}{rejected:8.2%}{fairness:10.2f}{done:7.2f}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
