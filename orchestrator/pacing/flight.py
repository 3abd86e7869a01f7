"""How many requests may be in flight: what the server bears, and what it serves without queueing.

Two kinds of servers make the number in flight the limit. One refuses above a number: the number at which it refused,
if none so high was served before, is that bound. One slows down instead: requests queue, answers take longer, and past
the gateway's patience they end in 504s. What is served without queueing is rate times the time of an answer (Little's
law), so the bound is a multiple of that product. The multiple is generous, since answers vary by themselves: with
answers that take a second, the number in flight must not be what limits.

Where answers have become slower for another reason, that bound is too low. So it is tried: a bound half as high again
that brings more answers per second is right, one that only brings slower answers is taken back (BBR probes a path in
the same way: Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM Queue 14(5), 2016).
"""

from __future__ import annotations

import math
from statistics import fmean

from orchestrator.pacing import latency as latencies
from orchestrator.pacing.latency import Latency
from orchestrator.value import replace, value

FIRST_IN_FLIGHT = 24
"""Unanswered requests at the start; each one served allows one more (TCP's slow start, RFC 5681, and its large initial
window, RFC 6928). With answers after a second it decides how soon a fast server is found to be one."""

LATENCY_FACTOR, LATENCY_MARGIN, LEAST_FLIGHT = 1.5, 4, 8
"""The bound is ``max(8, 1.5 · rate · latency + 4)``: half as much again as a server without a queue holds."""

TRIAL_FACTOR, TRIAL_SUCCESS = 1.5, 1.15
TRIAL_COHORTS, JUDGED_COHORTS = 3, 2
"""A trial lasts three cohorts; the first began before it and is not judged."""

FIRST_TRIAL_AFTER_S, LONGEST_TRIAL_AFTER_S = 5.0, 240.0
SOONEST_RAISE_S = 1.0
RAISE_SHARE = 1 / 8

LEAST_BORNE, LEAST_EVIDENCE = 3, 5
"""In flight at a refusal, and served since the last hold, from which a refusal is laid to the number in flight."""


NO_LATENCY = Latency()


@value
class Trial:
    """A higher bound that is being tried: throughput and latency before it, the cohort that it began in."""

    throughput: float
    latency_s: float
    cohort: int


@value
class Borne:
    """The most in flight that a server bears, and when more is tried.

    ``most`` is ``None`` where the number was not seen to limit. It is raised ``after_s`` after ``raised_at``;
    ``before`` is what it was then, ``None`` once a refusal has judged. ``is_to_blame`` tells that the last refusal came
    from raising it, ``is_found`` that it was the first to show the number.
    """

    most: int | None = None
    before: int | None = None
    is_to_blame: bool = False
    is_found: bool = False
    raised_at: float = 0.0
    after_s: float = FIRST_TRIAL_AFTER_S


@value
class Flight:
    """What is known of the number in flight.

    ``allowance`` and the requests served so far bound it at the start. Since the last hold ``served`` requests were
    answered, with ``most_served`` in flight at most. The next ``trial`` comes ``trial_after_s`` after ``tried_at``.
    """

    allowance: int = FIRST_IN_FLIGHT
    borne: Borne = Borne()
    latency: Latency = NO_LATENCY
    most_served: int = 0
    served: int = 0
    trial: Trial | None = None
    tried_at: float = 0.0
    trial_after_s: float = FIRST_TRIAL_AFTER_S


def remembered(borne: int | None, latency_s: float | None, burst: float) -> Flight:
    """Return the flight of a run that begins with what an earlier one learned."""
    latency = Latency(shortest_s=latency_s, recent_s=latency_s or 0.0)
    return Flight(allowance=FIRST_IN_FLIGHT + int(burst), borne=Borne(most=borne), latency=latency)


def bound(flight: Flight, rate: float, served: int, least: int = LEAST_FLIGHT) -> int:
    """Return how many requests may be in flight at ``rate`` after ``served`` answers."""
    bounds = [flight.allowance + served]
    if flight.borne.most is not None:
        bounds.append(flight.borne.most)
    if flight.latency.shortest_s is not None:
        bounds.append(max(least, unqueued(flight.latency.shortest_s, rate)))
    return max(1, min(bounds))


def unqueued(latency_s: float, rate: float) -> int:
    """Return how many requests are in flight, generously, where none of them queues."""
    return max(LEAST_FLIGHT, math.ceil(LATENCY_FACTOR * rate * latency_s) + LATENCY_MARGIN)


def started(flight: Flight) -> Flight:
    """Count a request that starts."""
    latency = latencies.started(flight.latency)
    return flight if latency is flight.latency else replace(flight, latency=latency)


def answered(flight: Flight, cohort: int, seconds: float, in_flight: int, now: float) -> Flight:
    """Count a served request: its cohort, the time it took, with how many in flight it had started."""
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
    """Count a request that was refused, or failed, or was given up."""
    return replace(flight, latency=latencies.unanswered(flight.latency, cohort, now))


def met(flight: Flight, in_flight: int, *, is_new: bool) -> Flight:
    """Return what a refusal with ``in_flight`` under way says of their number.

    It is what was refused if it had just been raised above what was known to be borne, or if none so high was served
    since the last hold and the rate ``is_new``: at a rate that has lasted the number varies, and some number is the
    highest. It is not what was refused if as many were served.
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
    if in_flight < LEAST_BORNE or not is_new:
        return flight
    return replace(flight, borne=replace(borne, most=in_flight - 1, before=None, is_found=borne.most is None))


def acquitted(flight: Flight) -> Flight:
    """Take back that the number in flight is what is refused."""
    return replace(flight, borne=replace(flight.borne, most=None, before=None, is_to_blame=False, is_found=False))


def resumed(flight: Flight, now: float) -> Flight:
    """Begin anew after a hold: nothing queues now, and a trial that it interrupted has shown nothing."""
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
    """Try a higher bound where one of the two has kept requests back for long enough."""
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
    """Try one more in flight, or an eighth more; sooner if the last raise was borne."""
    if now - borne.raised_at < borne.after_s:
        return borne
    after_s = borne.after_s if borne.before is None else max(SOONEST_RAISE_S, borne.after_s / 2)
    return replace(borne, most=most + max(1, int(RAISE_SHARE * most)), before=most, raised_at=now, after_s=after_s)
