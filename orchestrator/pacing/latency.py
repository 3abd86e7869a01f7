"""Measure the latency of answers, as means over cohorts of requests, and the answers per second.

A cohort is ten requests in a row, and its mean waits for all ten. Of many requests under way, the fast ones are
answered first. So a mean over answers as they come would be too low whenever the rate has just changed.
"""

from __future__ import annotations

from orchestrator.value import replace, value

COHORT = 10
LEAST_ANSWERS = 3
"""With this many answers, the mean of the first cohort is used before it is complete."""

SLOW_FACTOR, SLOW_MARGIN_S = 1.5, 0.02
"""Answers are slow if their mean is above 1.5 times the shortest mean plus 20 ms."""

PROMPT_FACTOR = 2.0
"""An answer that takes more than this multiple of the usual time, plus 20 ms, was not served in time."""

LATE_FACTOR, LATE_IN_A_ROW = 2.5, 3
"""Three answers in a row that take more than 2.5 times the shortest mean, plus 20 ms, are slow, even if their cohorts
are not complete."""

KEPT_THROUGHPUTS = 4

JITTER_GAIN = 0.1
"""Weight of the newest answer in the mean deviation (RFC 6298 uses 1/4)."""


@value
class Cohort:
    """One cohort: its number, and how many of its requests have started, are under way (``left``) and were answered.

    ``total_s`` is the sum of their latencies.
    """

    number: int = 1
    started: int = 0
    left: int = 0
    answered: int = 0
    total_s: float = 0.0


@value
class Latency:
    """What is known about latency, in seconds, and about the answers per second (``throughputs``).

    ``shortest_s`` is the shortest mean of a cohort, ``None`` before the first one. ``recent_s`` is the latest mean, or
    the latest of several late answers in a row. ``late`` counts these. The ``answers`` since ``since`` give the next
    entry of ``throughputs``. ``jitter_s`` is the mean deviation of answers from ``recent_s``. ``refusal_s`` is how long
    the latest 429 took.
    """

    shortest_s: float | None = None
    recent_s: float = 0.0
    late: int = 0
    cohort: Cohort = Cohort()
    answers: int = 0
    since: float | None = None
    throughputs: tuple[float, ...] = ()
    jitter_s: float = 0.0
    refusal_s: float = 0.0

    @property
    def usual_s(self) -> float | None:
        """Return the shortest mean, else the mean of the first cohort so far, ``None`` for too few answers."""
        cohort = self.cohort
        if self.shortest_s is None and cohort.answered >= LEAST_ANSWERS:
            return cohort.total_s / cohort.answered
        return self.shortest_s

    @property
    def throughput(self) -> float | None:
        """Return the highest number of answers per second in the last few cohorts, ``None`` before the first one."""
        return max(self.throughputs, default=None)

    @property
    def is_slow(self) -> bool:
        """Tell whether answers now take much longer than the shortest mean."""
        return self.shortest_s is not None and self.recent_s > SLOW_FACTOR * self.shortest_s + SLOW_MARGIN_S

    @property
    def next_cohort(self) -> int:
        """Return the number of the next request's cohort, 0 if the present cohort is full."""
        return self.cohort.number if self.cohort.started < COHORT else 0


def is_prompt(latency: Latency, seconds: float) -> bool:
    """Tell whether an answer that took ``seconds`` came in time, without a queue."""
    usual_s = latency.usual_s
    return usual_s is None or seconds <= PROMPT_FACTOR * usual_s + SLOW_MARGIN_S


def started(latency: Latency) -> Latency:
    """Count a request that starts."""
    cohort = latency.cohort
    if cohort.started >= COHORT:
        return latency
    return replace(latency, cohort=replace(cohort, started=cohort.started + 1, left=cohort.left + 1))


def answered(latency: Latency, number: int, seconds: float, now: float) -> Latency:
    """Count an answer of the cohort ``number`` that took ``seconds``."""
    shortest_s = latency.shortest_s
    jitter_s = latency.jitter_s + JITTER_GAIN * (abs(seconds - (latency.recent_s or seconds)) - latency.jitter_s)
    is_late = shortest_s is not None and seconds > LATE_FACTOR * shortest_s + SLOW_MARGIN_S
    late = latency.late + 1 if is_late else 0
    latency = replace(
        latency,
        recent_s=seconds if late >= LATE_IN_A_ROW else latency.recent_s,
        late=late,
        jitter_s=jitter_s,
        answers=latency.answers + 1,
        since=now - seconds if latency.since is None else latency.since,
    )
    cohort = latency.cohort
    if number != cohort.number:
        return latency
    left, total_s = cohort.left - 1, cohort.total_s + seconds
    return _counted(latency, replace(cohort, left=left, answered=cohort.answered + 1, total_s=total_s), now)


def unanswered(latency: Latency, number: int, now: float) -> Latency:
    """Count a request of the cohort ``number`` that was refused, failed or was given up."""
    cohort = latency.cohort
    return _counted(latency, replace(cohort, left=cohort.left - 1), now) if number == cohort.number else latency


def begun_anew(latency: Latency) -> Latency:
    """Start a new cohort after a hold. Answers around a hold say nothing about the rate."""
    return replace(latency, cohort=Cohort(latency.cohort.number + 1), answers=0, since=None)


def _counted(latency: Latency, cohort: Cohort, now: float) -> Latency:
    """Store ``cohort`` after one of its requests has ended. If it is complete, take its mean and start the next one."""
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
