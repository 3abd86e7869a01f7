"""The keys of a scenario that depend on each other, and the latency that its schedule sets."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.simulator.scenario import Scenario

BUCKET = {"kind": "bucket", "rate": 5}
WINDOW = {"kind": "fixed_window", "requests": 7, "per": "10s"}


def scenario(**keys: Any) -> Scenario:
    return Scenario.model_validate(keys)


@pytest.mark.parametrize(
    ("limit", "problem"),
    [
        (WINDOW | {"phase": "10s"}, "phase is for fixed_window, and must be less than per"),
        (WINDOW | {"phase": "1m"}, "phase is for fixed_window, and must be less than per"),
        (WINDOW | {"kind": "sliding_window", "phase": "1s"}, "phase is for fixed_window, and must be less than per"),
        (WINDOW | {"phase": "-1s"}, "must be a duration"),
        (BUCKET | {"phase": "1s"}, "Extra inputs"),
        (WINDOW | {"applies_to": "puts"}, "'all', 'posts' or 'gets'"),
    ],
)
def test_a_wrong_phase_or_kind_of_request_is_refused(limit: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem) as caught:
        scenario(limits=[limit])
    [found] = caught.value.errors()
    assert not found["msg"].startswith("Value error")


@pytest.mark.parametrize("limit", [WINDOW | {"phase": "9999ms"}, WINDOW | {"kind": "sliding_window", "phase": 0}])
def test_a_phase_within_the_period_is_accepted(limit: dict[str, Any]) -> None:
    assert scenario(limits=[limit]).limits


@pytest.mark.parametrize("kind", [BUCKET, WINDOW, {"kind": "in_flight", "requests": 3}])
def test_a_limit_of_any_kind_applies_to_all_requests_by_default(kind: dict[str, Any]) -> None:
    wanted = scenario(limits=[kind, kind | {"applies_to": "gets"}])
    assert [limit.applies_to for limit in wanted.limits] == ["all", "gets"]


def test_a_change_must_change_something() -> None:
    with pytest.raises(ValidationError, match="a change must have limits, latency, or both"):
        scenario(schedule=[{"at": "5s"}])
    changes = [{"at": "1s", "limits": []}, {"at": "2s", "latency": 0}, {"at": "3s", "limits": [], "latency": "1s"}]
    assert len(scenario(schedule=changes).schedule) == 3


def test_the_latest_change_so_far_decides_the_latency() -> None:
    changing = scenario(
        latency="100ms",
        schedule=[
            {"at": "20s", "latency": ["1s", "2s"]},
            {"at": "10s", "latency": "300ms"},
            {"at": "30s", "limits": []},
            {"at": "40s", "latency": "4s"},
            {"at": "40s", "latency": 0},
        ],
    )
    found = [changing.latency_at(at) for at in (0.0, 9.9, 10.0, 19.9, 20.0, 35.0, 40.0)]
    assert found == [(0.1, 0.1), (0.1, 0.1), (0.3, 0.3), (0.3, 0.3), (1.0, 2.0), (1.0, 2.0), (0.0, 0.0)]
