"""The log of a run's pace, and the conclusions from budgets that are refused at the same time."""

from __future__ import annotations

from fakes import ListLog

from orchestrator.pacing import Effect, Feedback, Observation, Pace, next_pace, opening, ready_at, started
from orchestrator.policies import ThrottlePolicy
from orchestrator.session.narration import COINCIDENCE_S, COINCIDENCES, Neighbours, PaceNarrator

URL = "https://api.example/v1"


class Told:
    """Keep a pace, and pass each step to the narrator as the gate does."""

    def __init__(self) -> None:
        self.log, self.held = ListLog(), list[tuple[str, float]]()
        self.say = PaceNarrator("default", self.log, lambda budget, at: self.held.append((budget, at)))
        self.pace = opening(ThrottlePolicy(ceiling=200.0))
        self.now = 100.0

    def become(self, pace: Pace, observation: Observation | None = None) -> None:
        before, self.pace = self.pace, pace
        self.say(before, pace, observation)

    def request(self, effect: Effect, retry_after_s: float | None = None) -> None:
        self.now = max(self.now, ready_at(self.pace) or 0.0)
        pace, ticket = started(self.pace, self.now)
        self.become(pace)
        self.now += 0.05
        feedback = Feedback(effect, effect is Effect.SERVED, retry_after_s)
        observation = Observation(ticket, feedback, self.now, 0.0)
        self.become(next_pace(self.pace, observation), observation)


def test_each_change_of_the_rate_is_logged_with_its_reason() -> None:
    told = Told()
    for _ in range(30):
        told.request(Effect.SERVED)
    changes = [fields for name, fields in told.log.events if name == "throttle.rate"]
    assert [fields["rate"] for fields in changes[:2]] == [10.0, 20.0]
    assert {fields["why"] for fields in changes} == {"not refused so far"}


def test_a_hold_is_logged_with_reason_and_length_and_the_recovery_with_the_limit() -> None:
    told = Told()
    for _ in range(12):
        told.request(Effect.SERVED)
    told.request(Effect.THROTTLED, retry_after_s=7.0)
    name, fields = told.log.events[-1]
    assert (name, fields["why"], fields["for_s"], fields["retry_after_s"]) == ("throttle.held", "429", 7.0, 7.0)
    assert told.held == [("default", told.now)]
    told.request(Effect.SERVED)
    name, fields = told.log.events[-1]
    assert (name, fields["why"]) == ("throttle.resumed", "first 429")
    assert isinstance(fields["limit"], float)


def test_a_hold_after_failures_is_not_logged_as_a_429() -> None:
    told = Told()
    while told.pace.epoch == 0:
        told.request(Effect.FAILED)
    assert told.log.events[-1][1]["why"] == "failures in a row"
    assert told.held == []


def test_budgets_that_are_refused_together_suggest_a_limit_per_address_once() -> None:
    log = ListLog()
    held = Neighbours(log).of(URL)
    for number in range(3 * COINCIDENCES):
        held("acme", 100.0 * number)
        held("zenith", 100.0 * number + COINCIDENCE_S / 2)
    assert log.names == ["throttle.refused_together"]
    assert "scope: host" in str(log.events[0][1]["hint"])
    assert log.events[0][1]["budgets"] == ["acme", "zenith"]


def test_refusals_of_one_budget_or_at_other_times_or_hosts_suggest_no_limit_per_address() -> None:
    log = ListLog()
    neighbours = Neighbours(log)
    here, elsewhere = neighbours.of(URL), neighbours.of("https://other.example/v1")
    for number in range(3 * COINCIDENCES):
        here("acme", 100.0 * number)
        here("acme", 100.0 * number + COINCIDENCE_S / 2)
        elsewhere("zenith", 100.0 * number)
        here("zenith", 100.0 * number + 50.0)
    assert log.events == []
