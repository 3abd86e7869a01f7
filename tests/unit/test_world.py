"""The stand-in's data depend on its own clock, which is an argument."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.simulator import Scenario
from orchestrator.simulator.world import World

INSTALL = "00000000-0000-4000-8000-000000000000"
STARTS = [
    *(datetime(2026, 11, 24, hour, minute, tzinfo=UTC) for hour in range(24) for minute in (0, 10, 45)),
    datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC),
    datetime(2026, 12, 1, 0, 0, 0, tzinfo=UTC),
    datetime(2027, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2028, 2, 29, 2, 10, tzinfo=UTC),
]


@pytest.mark.parametrize("start", STARTS, ids=str)
@pytest.mark.parametrize("skew", ["0s", "-2h", "3d"])
def test_nightly_checkpoints_are_completed_and_half_a_day_old_at_any_hour(start: datetime, skew: str) -> None:
    scenario = Scenario.model_validate({"listing": {"nightly": 3}, "clock_skew": skew})
    now = [start]
    world = World(scenario, lambda: now[0])

    def ages_h(at: float) -> list[float]:
        now[0] = start + timedelta(seconds=at)
        shown = world.listed(INSTALL, at)
        assert [each["status"] for each in shown] == ["completed"] * 3
        return [(world.clock() - datetime.fromisoformat(each["create_time"])) / timedelta(hours=1) for each in shown]

    newest, *older = ages_h(0.0)
    assert 11 <= newest <= 12
    assert older == [pytest.approx(newest + 24), pytest.approx(newest + 48)]
    assert ages_h(11 * 3600.0)[0] == pytest.approx(newest + 11)
    assert ages_h(14 * 3600.0)[0] == pytest.approx(newest + 14 - 24), "the next night is over by then"


def test_a_nightly_checkpoint_stays_the_same_backup_after_the_next_night() -> None:
    now = [STARTS[0]]
    world = World(Scenario.model_validate({"listing": {"nightly": 3}}), lambda: now[0])
    before = {each["id"]: each for each in world.listed(INSTALL, 0.0)}
    now[0] += timedelta(days=1)
    after = {each["id"]: each for each in world.listed(INSTALL, 86_400.0)}
    same = before.keys() & after.keys()
    assert len(same) == 2
    assert all(before[each] == after[each] for each in same)
