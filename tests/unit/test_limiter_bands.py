"""The limiter against every server of the benchmark, in virtual time: what was reached once must be reached again."""

from __future__ import annotations

import pytest
from limiter import FIRST, Job, broken_bands, measure
from servers import Server, all_servers


@pytest.mark.parametrize("server", all_servers(), ids=lambda server: server.name)
def test_both_runs_stay_within_their_bands(server: Server) -> None:
    assert not list(broken_bands(server, measure(Job(server, FIRST, seed=0))))
