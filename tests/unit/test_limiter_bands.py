"""The limiter against the servers of the benchmark, in virtual time: what was reached once must be reached again.

The longest runs are left to ``benchmarks/limiter.py --check``.
"""

from __future__ import annotations

import pytest
from limiter import FIRST, RunWork, broken_bands, measure
from servers import Server, all_servers

LONGEST_BATCH = 10_000


@pytest.mark.parametrize(
    "server",
    [each for each in all_servers() if each.batch < LONGEST_BATCH],
    ids=lambda server: server.name,
)
def test_both_runs_stay_within_their_bands(server: Server) -> None:
    assert not list(broken_bands(server, measure(RunWork(server, FIRST, seed=0))))
