"""Bound the number of requests in flight: by what the server accepts, and by what it serves without a queue.

Two kinds of servers limit the number in flight. The first kind refuses requests above a number. If it refuses a request
with more in flight than were served before, the bound is just below that number. The second kind slows down: requests
queue, answers take longer, and beyond the gateway's timeout they end in 504s. Without a queue, rate times latency
requests are in flight (Little's law), so the bound is a multiple of that product. The multiple is generous because
latency varies by itself: with answers that take a second, the number in flight must not be the limit.

If answers have become slower for another reason, that bound is too low. So a trial raises it by half. If it brings more
answers per second, it is kept. If it only brings slower answers, it is undone (BBR probes a path in the same way:
Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM Queue 14(5), 2016).
"""

from __future__ import annotations

import math
from statistics import fmean

from orchestrator.pacing import latency as latencies
from orchestrator.pacing.latency import Latency
from orchestrator.value import replace, value

FIRST_IN_FLIGHT = 24
"""Unanswered requests at the start. Each served request allows one more (TCP's slow start, RFC 5681, and its large
initial window, RFC 6928). If answers take a second, this number decides how soon a fast server is recognised."""

LATENCY_FACTOR, LATENCY_MARGIN, LEAST_FLIGHT = 1.5, 4, 8
"""The bound is ``max(8, 1.5 · rate · latency + 4)``: half more than are in flight at a server without a queue."""

TRIAL_FACTOR, TRIAL_SUCCESS = 1.5, 1.15
TRIAL_COHORTS, JUDGED_COHORTS = 3, 2
"""A trial lasts three cohorts. The first began before the trial, so only the other two are judged."""

FIRST_TRIAL_AFTER_S, LONGEST_TRIAL_AFTER_S = 5.0, 240.0
SOONEST_RAISE_S = 1.0
RAISE_SHARE = 1 / 8

LEAST_BORNE, LEAST_EVIDENCE = 3, 5
"""The number in flight can be the reason for a refusal only if it was at least 3, and if at least 5 requests were
served since the last hold."""


MOST_ACQUITTALS = 2
"""If the number in flight was suspected so often and was not the reason, it is suspected no more."""

NO_LATENCY = Latency()


@value
class Trial:
    """A trial of a higher bound: the answers per second and the latency before it, and the cohort in which it began."""

    throughput: float
    latency_s: float
    cohort: int


@value
class Borne:
    """The most requests in flight that a server accepts, and when more are tried.

    ``most`` is ``None`` while the number in flight has not been a limit. The next raise comes ``after_s`` after
    ``raised_at``. ``before`` is the number before the last raise, ``None`` once a refusal has judged that raise.
    ``is_to_blame`` tells that the raise caused the last refusal. ``is_found`` tells that the last refusal was the first
    to show the number.
    """

    most: int | None = None
    before: int | None = None
    is_to_blame: bool = False
    is_found: bool = False
    raised_at: float = 0.0
    after_s: float = FIRST_TRIAL_AFTER_S


@value
class Flight:
    """What is known about the number in flight.

    At the start, the bound is ``allowance`` plus the requests served so far. Since the last hold, ``served`` requests
    were served, with at most ``most_served`` in flight. The next ``trial`` comes ``trial_after_s`` after ``tried_at``.
    ``acquittals`` counts how often a bound was removed again.
    """

    allowance: int = FIRST_IN_FLIGHT
    borne: Borne = Borne()
    latency: Latency = NO_LATENCY
    most_served: int = 0
    served: int = 0
    trial: Trial | None = None
    tried_at: float = 0.0
    trial_after_s: float = FIRST_TRIAL_AFTER_S
    acquittals: int = 0


def remembered(borne: int | None, latency_s: float | None, burst: float) -> Flight:
    """Return the flight of a run that begins with what an earlier run learned."""
    latency = Latency(shortest_s=latency_s, recent_s=latency_s or 0.0)
    return Flight(allowance=FIRST_IN_FLIGHT + int(burst), borne=Borne(most=borne), latency=latency)


def bound(flight: Flight, rate: float, served: int, least: int = LEAST_FLIGHT) -> int:
    """Return how many requests may be in flight at ``rate`` after ``served`` answers.

    The bound by latency is at least ``least``.
    """
    bounds = [flight.allowance + int(1 * served)]
    if flight.borne.most is not None:
        bounds.append(flight.borne.most)
    if flight.latency.shortest_s is not None:
        bounds.append(max(least, unqueued(flight.latency.shortest_s, rate)))
    return max(1, min(bounds))


def unqueued(latency_s: float, rate: float) -> int:
    """Return a generous number of requests in flight at which none queues."""
    return max(LEAST_FLIGHT, math.ceil(LATENCY_FACTOR * rate * latency_s) + LATENCY_MARGIN)


def started(flight: Flight) -> Flight:
    """Count a request that starts."""
    latency = latencies.started(flight.latency)
    return flight if latency is flight.latency else replace(flight, latency=latency)


def answered(flight: Flight, cohort: int, seconds: float, in_flight: int, now: float) -> Flight:
    """Count a served request: its cohort, its latency in ``seconds``, and the number in flight when it started.

    A trial that is complete is judged.
    """
    flight = replace(
        flight,
        latency=latencies.answered(flight.latency, cohort, seconds, now),
        most_served=max(flight.most_served, in_flight),
        served=flight.served + 1,
    )
    trial = flight.trial
    if trial is None or flight.latency.cohort.number < trial.cohort + TRIAL_COHORTS:
        return flight
    if fmean(flight.latency.throughputs[-JUDGED_COHORTS:]) >= TRIAL_SUCCESS * trial.throughput:
        return replace(flight, trial=None, tried_at=now, trial_after_s=0.0)
    after_s = min(LONGEST_TRIAL_AFTER_S, max(FIRST_TRIAL_AFTER_S, 2.0 * flight.trial_after_s))
    latency = replace(flight.latency, shortest_s=min(trial.latency_s, flight.latency.recent_s))
    return replace(flight, latency=latency, trial=None, tried_at=now, trial_after_s=after_s)


def unanswered(flight: Flight, cohort: int, now: float) -> Flight:
    """Count a request that was refused, failed or was given up."""
    return replace(flight, latency=latencies.unanswered(flight.latency, cohort, now))


def refused(flight: Flight, cohort: int, seconds: float, now: float) -> Flight:
    """Count a refused request, whose 429 took ``seconds``."""
    flight = unanswered(flight, cohort, now)
    return replace(flight, latency=replace(flight.latency, refusal_s=seconds))


def met(flight: Flight, in_flight: int, *, is_new: bool) -> Flight:
    """Decide whether a refusal came from the number in flight, which was ``in_flight``.

    It did if the bound had just been raised above the number that the server accepted. It also did if the rate
    ``is_new`` and no request was served with so many in flight since the last hold. At an older rate the number varies
    by itself, and some number is always the highest. It did not if a request was served with as many in flight.
    """
    borne = flight.borne
    if borne.before is not None and in_flight > borne.before:
        after_s = min(LONGEST_TRIAL_AFTER_S, 2.0 * borne.after_s)
        lowered = replace(borne, most=borne.before, before=None, after_s=after_s, is_to_blame=True)
        return replace(flight, borne=lowered)
    if flight.served < LEAST_EVIDENCE:
        return flight
    if in_flight <= flight.most_served:
        return acquitted(flight)
    if in_flight < LEAST_BORNE or not is_new or flight.acquittals >= MOST_ACQUITTALS:
        return flight
    return replace(flight, borne=replace(borne, most=in_flight - 1, before=None, is_found=borne.most is None))


def acquitted(flight: Flight) -> Flight:
    """Remove the bound: the number in flight is not the reason for refusals."""
    acquittals = flight.acquittals + (flight.borne.most is not None)
    return replace(
        flight,
        borne=replace(flight.borne, most=None, before=None, is_to_blame=False, is_found=False),
        acquittals=acquittals,
    )


def resumed(flight: Flight, now: float) -> Flight:
    """Start new counts after a hold. Nothing queues now. A trial that the hold interrupted has shown nothing."""
    latency = flight.latency
    if flight.trial is not None:
        latency = replace(latency, shortest_s=flight.trial.latency_s)
    return replace(
        flight,
        borne=replace(flight.borne, raised_at=now, is_to_blame=False, is_found=False),
        latency=latencies.begun_anew(latency),
        most_served=0,
        served=0,
        trial=None,
    )


def pressed(flight: Flight, rate: float, in_flight: int, now: float) -> Flight:
    """Try a higher bound if the present one has kept requests back for long enough."""
    borne, latency = flight.borne, flight.latency
    if borne.most is not None and in_flight >= borne.most - 1:
        return replace(flight, borne=_raised(borne, borne.most, now))
    shortest_s = latency.shortest_s
    if shortest_s is None or flight.trial is not None or not (latency.is_slow and latency.throughputs):
        return flight
    if in_flight < unqueued(shortest_s, rate) - 1 or now - flight.tried_at < flight.trial_after_s:
        return flight
    trial = Trial(fmean(latency.throughputs), shortest_s, latency.cohort.number)
    return replace(flight, trial=trial, latency=replace(latency, shortest_s=shortest_s * TRIAL_FACTOR))


def _raised(borne: Borne, most: int, now: float) -> Borne:
    """Allow one more in flight, or an eighth more, when it is due: sooner if the last raise met no refusal."""
    if now - borne.raised_at < borne.after_s:
        return borne
    after_s = borne.after_s if borne.before is None else max(SOONEST_RAISE_S, borne.after_s / 2)
    return replace(borne, most=most + max(1, int(RAISE_SHARE * most)), before=most, raised_at=now, after_s=after_s)
