"""The command killed under faults and resumed to its end: a few trials of ``make soak``, over smaller fleets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from kills import drawn, played

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("without_coverage")

SEED = 1
INSTALLS = (8, 12)


@pytest.mark.parametrize("number", [294, 395])
def test_a_run_that_is_killed_under_faults_makes_one_backup_an_install_and_reports_each(
    tmp_path: Path, number: int
) -> None:
    play = played(drawn(SEED, number, INSTALLS), tmp_path)
    assert play.problems == []
    assert play.last is not None
