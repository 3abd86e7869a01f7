"""Find the rates of a token bucket that explain what was admitted and what was refused.

A bucket of rate r and burst b refuses a request if its meter would exceed b. The meter counts each admitted request and
drains at r, never below zero. So whatever the burst is, the highest reading with an admitted request is at most b, and
the lowest reading with a refused request is above b. A rate explains everything if the first is below the second.

With k requests before the instant t, the reading is ``k - r·t + max over earlier (k', t') of (r·t' - k')``: the arrival
curve of network calculus (Le Boudec and Thiran, "Network Calculus", 2001, section 1.2).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate
from operator import sub
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS, ROUNDS, HALVINGS = 16, 4, 7
"""The search compares 17 rates, then 17 around the best of them, four times in all. Halving finds the bounds."""

ROUNDING = 0.02
"""Requests by which readings may be wrong: clocks and timers are not exact."""

NEARBY = (1.0, 1.01, 0.99, 1.03, 0.97)
"""Multiples of a known rate that are tried first."""

SOONEST_S = 0.5
"""Shorter times say too little about a rate."""


def explaining(
    starts: list[float], refusals: list[float], blur_s: float, bounds: tuple[float, float], near: float | None
) -> tuple[float, float] | None:
    """Return the lowest and the highest rate within ``bounds`` that explain everything, ``None`` if none does.

    ``starts`` are those of the admitted requests, ``refusals`` those of the refused ones. Requests arrive up to
    ``blur_s`` seconds earlier or later than their order tells. Rates around ``near`` are tried first.
    """
    if not refusals or not starts or refusals[0] <= starts[0]:
        return None
    counts = [bisect_left(starts, at) for at in refusals]
    swapped = 0
    if blur_s:
        swapped = max(bisect_left(starts, at + blur_s) - bisect_left(starts, at - blur_s) for at in refusals)

    def surplus(rate: float) -> float:
        drained = [rate * at - count for count, at in enumerate(starts)]
        peaks = list(accumulate(drained, max))
        admitted: float = max(map(sub, peaks, drained))
        refused = min(max(0.0, n - rate * at + peaks[n - 1]) for at, n in zip(refusals, counts, strict=True))
        if not blur_s and refused <= 0.0:
            return -math.inf  # even a burst of one would have admitted it
        return refused - admitted + ROUNDING + rate * blur_s + swapped

    best = _best(surplus, bounds, near)
    if best is None:
        return None
    return _edge(surplus, best, bounds[0]), _edge(surplus, best, bounds[1])


def _best(surplus: Callable[[float], float], bounds: tuple[float, float], near: float | None) -> float | None:
    low, high = bounds
    for nearby in () if near is None else (share * near for share in NEARBY):
        if low < nearby < high and surplus(nearby) >= 0:
            return nearby
    for _ in range(ROUNDS):
        rates = [low * math.exp(part / PARTS * math.log(high / low)) for part in range(PARTS + 1)]
        values = [surplus(rate) for rate in rates]
        best = max(range(PARTS + 1), key=values.__getitem__)
        if values[best] >= 0:
            return rates[best]
        low, high = rates[max(0, best - 1)], rates[min(PARTS, best + 1)]
    return None


def _edge(surplus: Callable[[float], float], inside: float, outside: float) -> float:
    """Return the rate nearest to ``outside`` that still explains everything, as ``inside`` does."""
    if surplus(outside) >= 0:
        return outside
    for _ in range(HALVINGS):
        middle = math.sqrt(inside * outside)
        if surplus(middle) >= 0:
            inside = middle
        else:
            outside = middle
    return inside


def burst(starts: list[float], rate: float) -> float:
    """Return the lowest burst of a bucket of ``rate`` that admits one more request after each of ``starts``."""
    drained = [rate * at - count for count, at in enumerate(starts)]
    return max(map(sub, accumulate(drained, max), drained), default=0.0)


def excess(starts: list[float], until: float, rate: float) -> float:
    """Return the most requests that started in any time up to ``until`` beyond ``rate``."""
    total = bisect_left(starts, until)
    return max([0.0, *(total - count - rate * (until - at) for count, at in enumerate(starts[:total]))])


def least_rate(starts: list[float], until: float, *, burst: float = 0.0, burst_s: float = 0.0) -> float:
    """Return the lowest rate of a bucket that admits the requests at ``starts`` before ``until``.

    Its burst is ``burst`` requests plus ``burst_s`` seconds of its rate.
    """
    total = bisect_left(starts, until)
    rates = (
        (total - count - burst) / (until - at + burst_s)
        for count, at in enumerate(starts[:total])
        if until - at + burst_s >= SOONEST_S
    )
    return max([0.0, *rates])
