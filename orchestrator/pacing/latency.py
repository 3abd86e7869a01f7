"""How long answers take: means over cohorts of requests, and how many answers come per second.

A cohort is ten requests in a row, and its mean waits for all ten: of many requests under way the fast ones are
answered first, so that a mean over answers as they come is too low whenever the rate has just changed.
"""

from __future__ import annotations

from orchestrator.value import replace, value

COHORT = 10
LEAST_ANSWERS = 3
"""Answers of the first cohort from which its mean so far is worth anything."""

SLOW_FACTOR, SLOW_MARGIN_S = 1.5, 0.02
"""Answers are slow whose mean is above 1.5 times the shortest mean and 20 ms."""

PROMPT_FACTOR = 2.0
"""An answer above this multiple of the usual time does not count as served in time."""

LATE_FACTOR, LATE_IN_A_ROW = 2.5, 3
"""So many answers in a row above this multiple of the shortest mean are slow, before any cohort is complete."""

KEPT_THROUGHPUTS = 4


@value
class Cohort:
    """The requests of one mean: its number, how many started, are still under way, were answered, in ``total_s``."""

    number: int = 1
    started: int = 0
    left: int = 0
    answered: int = 0
    total_s: float = 0.0


@value
class Latency:
    """What is known of the time that answers take, in seconds, and of the answers per second.

    ``shortest_s`` is the shortest mean of a cohort, ``None`` before there was one, ``recent_s`` the last. ``late`` are
    the late answers in a row. ``answers`` since ``since`` make the next of the ``throughputs``.
    """

    shortest_s: float | None = None
    recent_s: float = 0.0
    late: int = 0
    cohort: Cohort = Cohort()
    answers: int = 0
    since: float | None = None
    throughputs: tuple[float, ...] = ()

    @property
    def usual_s(self) -> float | None:
        """Return the shortest mean, or the first one so far, ``None`` while that is of too few."""
        cohort = self.cohort
        if self.shortest_s is None and cohort.answered >= LEAST_ANSWERS:
            return cohort.total_s / cohort.answered
        return self.shortest_s

    @property
    def throughput(self) -> float | None:
        """Return the most answers per second of the last few cohorts."""
        return max(self.throughputs, default=None)

    @property
    def is_slow(self) -> bool:
        """Tell whether answers take much longer than they did."""
        return self.shortest_s is not None and self.recent_s > SLOW_FACTOR * self.shortest_s + SLOW_MARGIN_S

    @property
    def next_cohort(self) -> int:
        """Return the number of the cohort that the next request belongs to, 0 for none."""
        return self.cohort.number if self.cohort.started < COHORT else 0


def is_prompt(latency: Latency, seconds: float) -> bool:
    """Tell whether an answer that took ``seconds`` shows no queue."""
    usual_s = latency.usual_s
    return usual_s is None or seconds <= PROMPT_FACTOR * usual_s + SLOW_MARGIN_S


def started(latency: Latency) -> Latency:
    """Count a request that starts."""
    cohort = latency.cohort
    if cohort.started >= COHORT:
        return latency
    return replace(latency, cohort=replace(cohort, started=cohort.started + 1, left=cohort.left + 1))


def answered(latency: Latency, number: int, seconds: float, now: float) -> Latency:
    """Count an answer that took ``seconds``, of the cohort ``number``."""
    shortest_s = latency.shortest_s
    is_late = shortest_s is not None and seconds > LATE_FACTOR * shortest_s + SLOW_MARGIN_S
    late = latency.late + 1 if is_late else 0
    latency = replace(
        latency,
        recent_s=seconds if late >= LATE_IN_A_ROW else latency.recent_s,
        late=late,
        answers=latency.answers + 1,
        since=now - seconds if latency.since is None else latency.since,
    )
    cohort = latency.cohort
    if number != cohort.number:
        return latency
    left, total_s = cohort.left - 1, cohort.total_s + seconds
    return _counted(latency, replace(cohort, left=left, answered=cohort.answered + 1, total_s=total_s), now)


def unanswered(latency: Latency, number: int, now: float) -> Latency:
    """Count a request of the cohort ``number`` that was refused, or failed, or was given up."""
    cohort = latency.cohort
    return _counted(latency, replace(cohort, left=cohort.left - 1), now) if number == cohort.number else latency


def begun_anew(latency: Latency) -> Latency:
    """Forget what is under way: what came around a hold tells nothing of the rate."""
    return replace(latency, cohort=Cohort(latency.cohort.number + 1), answers=0, since=None)


def _counted(latency: Latency, cohort: Cohort, now: float) -> Latency:
    """Put ``cohort``, of which one request is no longer under way, in the place of the present one, or close it."""
    if cohort.started < COHORT or cohort.left > 0:
        return replace(latency, cohort=cohort)
    following = Cohort(cohort.number + 1)
    if cohort.answered < COHORT // 2 or latency.since is None:
        return replace(latency, cohort=following)
    mean_s = cohort.total_s / cohort.answered
    seconds = max(now - latency.since, mean_s)
    return replace(
        latency,
        shortest_s=mean_s if latency.shortest_s is None else min(mean_s, latency.shortest_s),
        recent_s=mean_s,
        cohort=following,
        answers=0,
        since=now,
        throughputs=(*latency.throughputs[1 - KEPT_THROUGHPUTS :], latency.answers / max(seconds, 1e-6)),
    )
