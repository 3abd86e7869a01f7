"""Several clients on one limit: the curve of the rate, when it is followed, and whether the shares become even."""

from __future__ import annotations

import crowd
import pytest

from orchestrator.model import Learned
from orchestrator.pacing import (
    Cause,
    Effect,
    Feedback,
    Observation,
    Pace,
    learned,
    next_pace,
    opening,
    ready_at,
    share,
    started,
)
from orchestrator.pacing.meeting import SHARING_SURPRISES
from orchestrator.pacing.share import KEPT_SHARE, RECOVERY_S, RISE_S
from orchestrator.policies import ThrottlePolicy

LATENCY_S = 0.05


def test_the_rate_begins_below_the_peak_comes_back_and_then_rises_above_it() -> None:
    assert share.rate(10.0, 0.0) == pytest.approx(KEPT_SHARE * 10.0)
    assert share.rate(10.0, RECOVERY_S) == pytest.approx(10.0)
    assert share.rate(10.0, RECOVERY_S + RISE_S) == pytest.approx((2.0 - KEPT_SHARE) * 10.0)


def test_the_rate_never_falls_with_time() -> None:
    rates = [share.rate(3.0, second / 2) for second in range(120)]
    assert rates == sorted(rates)


def test_a_falling_peak_falls_further_to_leave_room_for_others() -> None:
    assert share.peak(8.0, None) == share.peak(8.0, 7.0) == share.peak(8.0, 8.0) == 8.0
    assert share.peak(8.0, 9.0) == pytest.approx(8.0 * (1.0 + KEPT_SHARE) / 2.0)


class _Among:
    """A client whose requests a bucket without a burst refuses, at a rate that ``left`` gives for each second."""

    def __init__(self, pace: Pace) -> None:
        self.pace, self.now, self.level_at = pace, 1000.0, 1000.0
        self.causes: list[Cause] = []

    def run(self, until: float, left: float) -> None:
        while self.now < until:
            self.now = max(self.now, ready_at(self.pace) or self.now)
            self.pace, ticket = started(self.pace, self.now)
            is_served = self.now >= self.level_at
            if is_served:
                self.level_at = max(self.level_at, self.now - 1.0 / left) + 1.0 / left
            self.now += LATENCY_S
            feedback = Feedback(Effect.SERVED, accepted=True) if is_served else Feedback(Effect.THROTTLED)
            self.pace = next_pace(self.pace, Observation(ticket, feedback, self.now))
            self.causes.append(self.pace.cause)


def client_among_others() -> _Among:
    """Return a client that remembers 12 requests per second, of which others leave less and less."""
    policy = ThrottlePolicy(ceiling=50.0, start_rate=5.0, concurrency=1)
    client = _Among(opening(policy, Learned(12.0, 0.0, None, LATENCY_S, 11.9, 12.1)))
    for step, left in enumerate((10.0, 7.5, 5.5, 4.0, 3.0)):
        client.run(1000.0 + 15.0 * (step + 1), left)
    return client


def test_a_limit_that_lets_less_and_less_through_counts_as_shared() -> None:
    subject = client_among_others()
    assert Cause.SHARED in subject.causes
    assert subject.pace.shared
    assert subject.pace.surprises >= SHARING_SURPRISES


def test_the_next_run_begins_with_the_rate_that_was_let_through() -> None:
    subject = client_among_others()
    found, estimate = learned(subject.pace), subject.pace.estimate
    assert found is not None
    assert estimate is not None
    assert found.rate == estimate.low <= estimate.rate


def test_a_shared_limit_that_a_bucket_explains_again_is_the_clients_own() -> None:
    subject = client_among_others()
    subject.run(1300.0, 3.0)
    assert not subject.pace.shared
    assert subject.pace.limit == pytest.approx(3.0, rel=0.1)


def test_a_fixed_rate_is_never_shared() -> None:
    subject = _Among(opening(ThrottlePolicy(ceiling=50.0, fixed_rate=5.0, concurrency=1)))
    for step, left in enumerate((4.0, 3.0, 2.0, 1.0)):
        subject.run(1000.0 + 15.0 * (step + 1), left)
    assert subject.pace.rate == 5.0
    assert not subject.pace.shared


@pytest.mark.parametrize("runs", [2, 10])
def test_runs_on_one_bucket_share_it_and_use_it(runs: int) -> None:
    found = crowd.measure(runs, 0, 10.0, 10, late_refusals=True)
    assert found.fairness >= 0.9
    assert found.used >= 0.9
    assert found.rejected_share <= 0.09
