"""The limiter against the benchmark's servers, in virtual time: its results must stay within the recorded bands.

Only ``benchmarks/limiter.py --check`` has the longest runs.
"""

from __future__ import annotations

import lottery
import pytest
from limiter import FIRST, RunWork, broken_bands, measure
from servers import Server, all_servers

LONGEST_BATCH = 10_000


@pytest.mark.parametrize(
    "server",
    [each for each in all_servers() if each.batch < LONGEST_BATCH],
    ids=lambda server: server.name,
)
def test_the_first_and_the_second_run_stay_within_their_bands(server: Server) -> None:
    assert not list(broken_bands(server, measure(RunWork(server, FIRST, seed=0))))


@pytest.mark.parametrize("late", [True, False], ids=["late refusals", "prompt refusals"])
def test_the_quantiles_on_servers_drawn_by_chance_stay_within_their_bands(*, late: bool) -> None:
    found = [drawn for seed in lottery.CHECKED for drawn in lottery.measure(lottery.Work(seed, late))]
    assert not list(lottery.broken_bands(found, late=late))
