"""Conclude from a meeting with the limit what the limit is: a bucket, a window, or a number in flight.

A meeting begins with a 429 and ends when a canary is served. Then each explanation is tried on everything that the
history has recorded. What explains it is the belief until the next meeting; what does not is dropped.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from orchestrator.pacing import bucket as buckets
from orchestrator.pacing import capacity, share
from orchestrator.pacing import window as windows
from orchestrator.pacing.capacity import Estimate
from orchestrator.pacing.growth import (
    FALLEN_SHARE,
    FIRST_QUIET_S,
    LONGEST_QUIET_S,
    QUIET_AFTER_FALL_S,
    SPREAD,
    settled_rate,
)
from orchestrator.pacing.state import Cause, Pace, Stage
from orchestrator.value import replace

if TYPE_CHECKING:
    from orchestrator.pacing.history import History
    from orchestrator.pacing.state import Ticket
    from orchestrator.pacing.window import Window

INNOCENT_SHARE, INNOCENT_HIGH = 0.9, 2.0
"""The rate and its upper bound as multiples of the refused rate, if the number in flight may be the reason for the 429.
The number is bounded from then on. If the rate was the reason after all, the next 429 comes soon and measures it."""

EXPECTED_SHARE = 0.95
"""A meeting is surprising if the server has let through less than this share of the estimated rate."""

SURPRISES, SHARING_SURPRISES = 2, 3
"""After so many surprising meetings, a window is not believed in any more, or the limit counts as shared."""

EXPLAINED = 4
"""If a bucket explains so many refusals, the limit does not count as shared any more."""

LONGEST_BURST_S = 15.0
"""A bucket that takes longer than this to fill is not believed in: it looks like a window."""

BETTER = 1.3
"""A window that a bucket explains as well is believed in if it sustains this multiple of the bucket's rate. If that is
wrong, the next 429 comes soon."""

LEAST_REFUSALS = 2
"""So many refusals must suggest a window, unless the limit stayed shut."""

LATENCIES = 3.0
"""A window's period is at least this multiple of the latency. A shorter one looks the same as a number in flight."""

LEAST_SHARE, MOST_SHARE = 0.02, 1.05
"""A bucket's rate is sought between these multiples of the refused rate."""

DROPPED_LOW, DROPPED_SHARE, DROPPED_HIGH = 0.5, 0.8, 2.0
"""The rate to go on with when a window is dropped, and its bounds, as multiples of the window's rate."""

WIDER = 1.5
"""After each window that opened as expected, its next requests follow each other faster by this factor."""


def concluded(pace: Pace, ticket: Ticket, now: float) -> Pace:
    """Return the pace after a meeting that the canary of ``ticket`` has ended, with the new belief and its rate.

    ``now`` is the instant of its answer.
    """
    if pace.flight.borne.is_to_blame:
        return _closed(replace(pace, history=pace.history.acquitted(pace.meter.canary_at)), ticket, now)
    if pace.flight.borne.is_found:
        return _of_a_number_in_flight(pace, ticket, now)
    if pace.window is not None and is_confirmed(pace, ticket) and pace.surprises < SURPRISES:
        return reopened(pace, ticket, now)
    return _explained(pace, ticket, now)


def _explained(pace: Pace, ticket: Ticket, now: float) -> Pace:
    """Return the pace that believes in the limit that explains everything."""
    rates = _bucket_rates(pace, blur_s(pace))
    if pace.shared:
        if rates is None or len(pace.history.counted_refusals) < EXPLAINED:
            return _of_a_share(pace, rates, ticket, now)
        pace = replace(pace, shared=False, surprises=0)
    seen = _seen_as_a_window(pace, ticket, rates)
    if seen is not None and seen.window is not None:
        return _windowed(seen, seen.window, ticket, now)
    if pace.window is not None:
        return _dropped(pace, pace.window, ticket, now)
    return _of_a_bucket(replace(pace, surprises=_surprises(pace)), rates, ticket, now)


def _let_through(pace: Pace) -> float | None:
    """Return the requests per second that the server let through between the last two refusals."""
    since, until = pace.meter.emptied_at, pace.meter.refused_at
    if since is None or until is None:
        return None
    return pace.history.starts.between(since, until) / max(capacity.SHORTEST_S, until - since)


def _surprises(pace: Pace) -> int:
    """Return by how many the meetings at which the server let too little through outnumber the others."""
    estimate, let_through = pace.estimate, _let_through(pace)
    if estimate is None or let_through is None:
        return 0
    is_surprising = let_through < min(estimate.low, EXPECTED_SHARE * estimate.rate)
    return pace.surprises + 1 if is_surprising else max(0, pace.surprises - 1)


def blur_s(pace: Pace) -> float:
    """Return by how many seconds requests may overtake each other on the way to the limit.

    If a 429 takes about as long as any answer, the way to the limit takes a good part of the latency.
    """
    latency = pace.flight.latency
    return latency.jitter_s if latency.refusal_s > latency.recent_s / 2 else 0.0


def is_confirmed(pace: Pace, ticket: Ticket) -> bool:
    """Tell whether the window has admitted about as many requests as expected when it shut.

    In the first period of a run that remembers the window, an earlier run may have used any part of it.
    """
    window = pace.window
    if window is None or pace.meter.refused_at is None or window.cycles == 0:
        return window is not None
    is_same = _admitted(pace, window, ticket) >= windows.SAME_SHARE * window.requests
    return is_same or windows.opens_later(window, pace.history.starts, pace.meter.refused_at)


def shut(pace: Pace, window: Window, ticket: Ticket) -> Window:
    """Return ``window`` after it refused an ordinary request, if it refused one.

    If that was the first one after the window should have opened, it opens later. Else it has only room for what it
    admitted.
    """
    refused_at, starts = pace.meter.refused_at, pace.history.starts
    if refused_at is None:
        return window
    if window.cycles == 0 and windows.opens(window, starts, refused_at) is None:
        return replace(window, extra=0)
    if windows.opens_later(window, starts, refused_at):
        return windows.refused(window, starts, refused_at)
    most = window.requests + window.extra
    return replace(window, requests=max(1, min(_admitted(pace, window, ticket), most)), extra=0)


def _admitted(pace: Pace, window: Window, ticket: Ticket) -> int:
    refused_at = ticket.started_at if pace.meter.refused_at is None else pace.meter.refused_at
    return windows.admitted(window, pace.history.starts, refused_at, ticket.started_at)


def reopened(pace: Pace, ticket: Ticket, now: float) -> Pace:
    """Return the pace after the window opened again, as expected."""
    window, history, at = pace.window, pace.history, ticket.started_at
    if window is None:
        return pace
    is_surprising = pace.meter.refused_at is not None and window.extra == 0
    shut_at = max(history.starts.last_before(at), history.last_refusal)
    window = windows.served(shut(pace, window, ticket), history.starts, at, shut_at)
    return _windowed(replace(pace, surprises=pace.surprises + 1 if is_surprising else 0), window, ticket, now)


def _closed(pace: Pace, ticket: Ticket, now: float) -> Pace:
    meter = capacity.closed(pace.meter, ticket.started_at, now)
    return replace(pace, meter=meter, growth=replace(pace.growth, probes=0, proven=0.0))


def _windowed(pace: Pace, window: Window, ticket: Ticket, now: float) -> Pace:
    high = window.requests / max(capacity.SHORTEST_S, window.low_s)
    rate = min(window.rate, high)
    return replace(
        _closed(pace, ticket, now),
        window=window,
        stage=Stage.SETTLED,
        estimate=Estimate(rate, rate, high, burst=0.0),
        cause=Cause.MEASURED,
        rate=min(pace.ceiling, max(WIDER * pace.rate, rate)),
    )


def _bucket_rates(pace: Pace, blur: float) -> tuple[float, float] | None:
    """Return between which rates a bucket explains everything, ``None`` if none does."""
    refused_rate, taken = pace.evidence.last_refused_rate, pace.history.taken
    near = pace.estimate.rate if pace.estimate and pace.stage is Stage.SETTLED else None
    bounds = (
        max(capacity.LEAST_RATE, LEAST_SHARE * refused_rate),
        max(2 * capacity.LEAST_RATE, MOST_SHARE * refused_rate),
    )
    rates = buckets.explaining(taken, pace.history.counted_refusals, blur, bounds, near)
    return None if rates is None or buckets.burst(taken, rates[1]) > LONGEST_BURST_S * rates[1] else rates


def _stayed_shut(pace: Pace, ticket: Ticket) -> bool:
    """Tell whether the limit looks like a window: it stayed shut for so long that a bucket would have opened."""
    meter, at = pace.meter, ticket.started_at
    since = _present_since(pace)
    admitted = pace.history.starts.between(since, at)
    if meter.refused_at is None or not meter.canaries or admitted <= capacity.FEW:
        return False
    return (meter.last_at - meter.refused_at) * admitted >= at - since


def _seen_as_a_window(pace: Pace, ticket: Ticket, rates: tuple[float, float] | None) -> Pace | None:
    """Return the pace that believes in a window from now on, ``None`` for another belief.

    ``rates`` are those of a bucket that explains everything.
    """
    stayed_shut = _stayed_shut(pace, ticket)
    if _was_away(pace, ticket) or (pace.window is not None and pace.surprises >= SURPRISES):
        return None
    if not stayed_shut and rates is not None and _bucket_rates(pace, 0.0) is not None:
        return None
    for history in _histories(pace, stayed_shut=stayed_shut):
        shortest_s = LATENCIES * pace.flight.latency.recent_s
        window = windows.explaining(history.counted_starts, history.counted_refusals, blur_s(pace), shortest_s)
        if window is not None:
            break
    else:
        return None
    if not stayed_shut:
        least = max(_estimated(pace).rate, rates[0] if rates else 0.0)
        if (
            len(pace.history.refusals) < LEAST_REFUSALS
            or pace.history.since > -math.inf
            or window.rate < BETTER * least
        ):
            return None
    return replace(pace, history=history, window=replace(window, since_high=ticket.started_at))


def _histories(pace: Pace, *, stayed_shut: bool) -> list[History]:
    """Return what a window must explain: everything, or else less and less of it, if it surely looks like a window."""
    since, history = _present_since(pace), pace.history
    recent = tuple(each for each in history.refusals if each > since)
    less = [replace(history, refusals=recent), history.forgotten(since, 0)] if stayed_shut else []
    return [history, *less]


def _present_since(pace: Pace) -> float:
    """Return since when the present period, or the time since the last meeting, has lasted."""
    return pace.meter.canary_at if pace.window is None else pace.window.since_high


def _was_away(pace: Pace, ticket: Ticket) -> bool:
    if pace.estimate is None or pace.window is not None or pace.surprises >= SURPRISES:
        return False
    return capacity.was_away(pace.estimate, pace.history, pace.meter, ticket.started_at)


def _dropped(pace: Pace, window: Window, ticket: Ticket, now: float) -> Pace:
    """Return the pace that no longer believes in ``window``, but goes on at about its rate."""
    history = pace.history.forgotten(window.since_high, window.requests)
    low, rate, high = (share * window.rate for share in (DROPPED_LOW, DROPPED_SHARE, DROPPED_HIGH))
    pace = replace(pace, window=None, surprises=0, stage=Stage.MEASURING, history=history)
    return _taught(pace, Estimate(low, rate, high, burst=0.0), ticket, now)


def _of_a_number_in_flight(pace: Pace, ticket: Ticket, now: float) -> Pace:
    """Return the pace after a refusal for which the number in flight may be the reason."""
    refused_rate = pace.evidence.last_refused_rate
    estimate = _estimated(pace)
    rate = max(estimate.rate, INNOCENT_SHARE * refused_rate)
    bounded = replace(
        estimate, low=min(estimate.low, rate), rate=rate, high=max(rate, INNOCENT_HIGH * refused_rate), agrees=False
    )
    history = pace.history.acquitted(pace.meter.canary_at)
    return _taught(replace(pace, history=history, window=None), bounded, ticket, now)


def _of_a_share(pace: Pace, rates: tuple[float, float] | None, ticket: Ticket, now: float) -> Pace:
    """Return the pace that goes on with a limit that other clients use, too."""
    known, history, let_through = pace.estimate, pace.history, _let_through(pace)
    if rates is None:
        history = history.forgotten(ticket.started_at, 0)
    peak = share.peak(pace.evidence.last_refused_rate, None if known is None else known.rate)
    low = peak if let_through is None else min(peak, let_through)
    shared = _taught(replace(pace, history=history), Estimate(low, peak, peak, burst=0.0), ticket, now)
    return replace(shared, stage=Stage.SETTLED, cause=Cause.SHARED, rate=min(shared.ceiling, share.rate(peak, 0.0)))


def _of_a_bucket(pace: Pace, rates: tuple[float, float] | None, ticket: Ticket, now: float) -> Pace:
    """Return the pace that believes in a bucket, with one of ``rates`` if any explain everything."""
    known, refused_rate, emptied_at = pace.estimate, pace.evidence.last_refused_rate, pace.meter.emptied_at
    if known is not None and _was_away(pace, ticket):
        return _taught(pace, replace(known, agrees=False), ticket, now)
    if pace.surprises >= SHARING_SURPRISES:
        return _of_a_share(replace(pace, shared=True), None, ticket, now)
    estimate = _estimated(pace)
    if known is not None and rates is not None:
        is_probed = pace.stage is Stage.SETTLED and pace.growth.probes > 0
        bounds = capacity.narrowed(Estimate(rates[0], rates[0], rates[1]), known)
        middle = min(max(known.rate if is_probed else estimate.rate, bounds.low), bounds.high)
        rate = min(middle, capacity.RETREAT_SHARE * refused_rate)
        high = max(rate, min(bounds.high, refused_rate))
        burst = buckets.burst(pace.history.taken, bounds.high)
        estimate = Estimate(min(bounds.low, rate), rate, high, burst, agrees=bounds.agrees)
    elif emptied_at is not None:
        pace = replace(pace, history=pace.history.forgotten(emptied_at, int(estimate.burst or 0.0)))
    return _taught(pace, capacity.in_order(estimate), ticket, now)


def _estimated(pace: Pace) -> Estimate:
    """Return the estimate from the last two refusals only."""
    known, meter, refused_rate = pace.estimate, pace.meter, pace.evidence.last_refused_rate
    if known is None or meter.refused_at is None:
        return capacity.guessed(
            pace.history, meter.canary_at if meter.refused_at is None else meter.refused_at, refused_rate
        )
    if meter.emptied_at is None:
        return capacity.of_a_remembered_one(known, pace.history, meter, refused_rate)
    return capacity.measured(known, pace.history, meter, refused_rate)


def _taught(pace: Pace, estimate: Estimate, ticket: Ticket, now: float) -> Pace:
    """Return the pace that goes on with ``estimate``."""
    known, growth = pace.estimate, pace.growth
    is_figure = estimate.high < SPREAD * estimate.low
    quiet_s = FIRST_QUIET_S if estimate.rate >= FALLEN_SHARE * growth.peak else QUIET_AFTER_FALL_S
    if estimate.agrees and pace.stage is Stage.SETTLED and growth.probes:
        quiet_s = min(LONGEST_QUIET_S, 2.0 * growth.quiet_s)
    closed = _closed(pace, ticket, now)
    taught = replace(
        closed,
        stage=Stage.SETTLED if is_figure else Stage.MEASURING,
        cause=Cause.FIRST_REFUSAL if known is None else Cause.MEASURED,
        estimate=estimate,
        growth=replace(
            closed.growth, quiet_s=quiet_s, peak=max(growth.peak, estimate.rate) if is_figure else growth.peak
        ),
    )
    return replace(taught, rate=settled_rate(taught))
