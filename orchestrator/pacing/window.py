"""Learn a limit that counts requests in windows of time, and keep to it.

A fixed window admits n requests in each period. A sliding one admits n in any T seconds, so the next request may start
T seconds after the n-th last one. A schedule for a sliding window is safe for a fixed one of the same n and T, too. So
a window counts as sliding until it opens earlier than a sliding one could.

n is counted exactly: it is what was admitted before the window shut. T is known between two bounds: the window was
still shut at the last refused canary, and open at the first one that was served. So the window opens between two
instants, and ``try_at`` decides when to try.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from operator import sub
from typing import TYPE_CHECKING

from orchestrator.value import replace, value

if TYPE_CHECKING:
    from orchestrator.pacing.history import Starts

REFUSAL_S = 1.0
"""The seconds that a 429 is worth: so much longer a request may wait to avoid one."""

CERTAIN_SHARE = 0.04
"""If a window opens within this share of its period, the rest is waited out."""

SAME_SHARE = 0.8
"""A window that admitted at least this share of its requests, and then refused one, is still the same window."""

LONGER_SHARE = 0.25
"""A window may turn out to be longer than its upper bound by this share."""

LEAST_REQUESTS, LEAST_PERIOD_S = 3, 0.3
"""Anything smaller is no window, but a bucket or a number in flight."""

SHRINK, MOST_TRIED = 0.94, 60
"""Numbers of requests that are tried: those that the refusals suggest, and the largest possible one times 0.94, 0.94²,
…"""


@value
class Window:
    """A limit of ``requests`` in a period of ``low_s`` to ``high_s`` seconds.

    ``fixed`` tells that periods follow each other; the present one began between ``since_low`` and ``since_high``.
    ``None`` is for not known. ``cycles`` counts the periods seen, 0 at the start of a run that remembers the window:
    its present period may have begun at any time. ``extra`` requests are tried beyond ``requests``.
    """

    requests: int
    low_s: float
    high_s: float
    since_low: float
    since_high: float
    fixed: bool | None = None
    cycles: int = 1
    extra: int = 0

    @property
    def rate(self) -> float:
        """Return the requests per second that the window sustains."""
        return self.requests / self.high_s


def remembered(requests: int, low_s: float, high_s: float, *, fixed: bool | None) -> Window:
    """Return the window of a run that begins with what an earlier run learned."""
    return Window(requests, low_s, high_s, -math.inf, -math.inf, fixed, cycles=1 if fixed is False else 0, extra=1)


def begun(window: Window, now: float) -> Window:
    """Return the remembered window at the first start of a run."""
    return replace(window, since_low=now - window.high_s, since_high=now)


def advanced(window: Window, now: float) -> Window:
    """Return the window after a start at ``now``: a sliding one may have seen another period."""
    if window.cycles == 0 or window.fixed or now - window.since_high < window.high_s:
        return window
    return replace(
        window,
        requests=window.requests + window.extra,
        extra=_next_extra(window),
        since_low=now,
        since_high=now,
        cycles=window.cycles + 1,
    )


def opens(window: Window, starts: Starts, until: float = math.inf) -> tuple[float, float] | None:
    """Return the earliest and the latest instant at which a full window opens, ``None`` if there is room in it.

    Only starts before ``until`` count.
    """
    first = starts.nth_last(window.requests + window.extra, until)
    if window.fixed:
        is_full = first is not None and first >= window.since_high
        return (window.since_low + window.low_s, window.since_high + window.high_s) if is_full else None
    if first is None:
        return None
    return (first if window.cycles == 0 else first + window.low_s), first + window.high_s


def opens_later(window: Window, starts: Starts, refused_at: float) -> bool:
    """Tell whether the request at ``refused_at`` was the first one after a full window should have opened."""
    earliest, latest = opens(window, starts, refused_at) or (math.inf, math.inf)
    is_first = starts.last_before(refused_at) < earliest <= refused_at
    return is_first and refused_at <= latest + LONGER_SHARE * window.high_s


def reopens(window: Window, starts: Starts, now: float) -> tuple[float, float]:
    """Return the earliest and the latest instant at which a window opens that has just refused a request."""
    latest = window.since_high + window.high_s if window.cycles == 0 else now
    return opens(window, starts) or (now, latest)


def admitted(window: Window, starts: Starts, refused_at: float, until: float) -> int:
    """Return how many requests before ``until`` the period has admitted that refused one at ``refused_at``."""
    is_begun = window.fixed or window.cycles == 0
    since = window.since_high if is_begun else refused_at - window.low_s
    return starts.between(since, until)


def refusal_s(window: Window) -> float:
    """Return the seconds that a 429 is worth. What it teaches is used in as many cycles as have passed, most likely."""
    return REFUSAL_S / max(1, window.cycles)


def is_waited_out(window: Window, opening: tuple[float, float], now: float) -> bool:
    """Tell whether a full window surely opens soon enough to wait for it, instead of trying."""
    earliest, latest = opening
    is_known = not window.fixed and latest - earliest <= max(2 * refusal_s(window), CERTAIN_SHARE * window.high_s)
    return is_known or latest - now <= refusal_s(window)


def try_at(window: Window, opening: tuple[float, float], now: float) -> float:
    """Return when to send the next request to a full window that opens at any moment of ``opening``.

    Waiting for the latest moment costs half of the time to it, and each earlier try costs a 429. With steps of
    ``√(2 · 429 · time)``, both together cost the least.
    """
    earliest, latest = max(now, opening[0]), opening[1]
    if is_waited_out(window, (earliest, latest), now):
        return max(now, latest)
    return min(latest, earliest + math.sqrt(2 * refusal_s(window) * (latest - earliest)))


def search_s(shut_s: float) -> float:
    """Return how long to wait for a limit of unknown period that has been filling and shut for ``shut_s`` seconds.

    It is ``√(2 · 429 · time)`` again: the longer a window has been shut, the longer it may still be.
    """
    return math.sqrt(2 * REFUSAL_S * max(0.0, shut_s))


def refused(window: Window, starts: Starts, at: float) -> Window:
    """Return the window after a canary was refused at ``at``.

    If it should have opened by then, its period is longer. The next upper bound is twice as far from the lower one.
    """
    opening = opens(window, starts, at)
    window = replace(window, extra=0)
    is_late = opening is not None and at >= opening[1]
    if opening is None or (window.cycles == 0 and not is_late):
        return window
    shut_s = at - (window.since_high if window.fixed else opening[1] - window.high_s)
    low_s = max(window.low_s, shut_s)
    if not is_late:
        return replace(window, low_s=min(low_s, window.high_s))
    width_s = max(window.high_s - window.low_s, CERTAIN_SHARE * low_s)
    fixed = True if window.cycles == 1 else window.fixed
    return replace(window, low_s=low_s, high_s=low_s + 2 * width_s, fixed=fixed)


def served(window: Window, starts: Starts, at: float, shut_at: float) -> Window:
    """Return the window after a canary was served at ``at``. The window was still shut at ``shut_at``.

    If it has opened earlier than a sliding window could, it is fixed. If an earlier run had used a part of it, nothing
    is known but that it opens.
    """
    opening = opens(window, starts, at)
    if opening is None and window.cycles == 0:
        return replace(window, since_low=shut_at, since_high=at)
    earliest, latest = opening or (at, at)
    fixed, high_s = window.fixed, window.high_s
    age_s = at - (latest - high_s)
    if window.cycles == 0:
        fixed, earliest = (True if age_s < window.low_s else None), shut_at
    elif fixed:
        high_s = max(window.low_s, min(high_s, at - window.since_low))
    elif age_s < (1 - CERTAIN_SHARE) * window.low_s:
        fixed, earliest = True, shut_at
    else:
        high_s = max(window.low_s, min(high_s, age_s))
    is_new = bool(fixed) or at - window.since_high >= window.low_s / 2
    return replace(
        window,
        requests=window.requests + window.extra,
        extra=_next_extra(window) if is_new else window.extra,
        high_s=high_s,
        since_low=window.since_low if not is_new else min(at, max(shut_at, earliest)) if fixed else at,
        since_high=at if is_new else window.since_high,
        fixed=fixed,
        cycles=window.cycles + is_new,
    )


def _next_extra(window: Window) -> int:
    """Return how many more requests to try in the next period: one in the 2nd, 4th, 8th …, then twice as many."""
    if window.extra:
        return 2 * window.extra
    return int(window.cycles > 1 and window.cycles.bit_count() == 1)


def explaining(starts: list[float], refusals: list[float], blur_s: float, shortest_s: float) -> Window | None:
    """Return the sliding window that explains everything best, ``None`` if none does.

    With n requests in a window, its period is at most the shortest time between an admitted request and the n-th before
    it, and longer than the age of the n-th last admitted request at each refusal. Requests arrive up to ``blur_s``
    seconds earlier or later than their order tells. The period is at least ``shortest_s``.
    """
    counts = [bisect_left(starts, at) for at in refusals]
    most = min(counts, default=0)

    def period(requests: int) -> tuple[float, float]:
        ages = (at - starts[count - requests] for at, count in zip(refusals, counts, strict=True))
        return max(ages), min(map(sub, starts[requests:], starts), default=0.0)

    def margin(requests: int) -> float:
        low_s, high_s = period(requests)
        return (high_s + blur_s - low_s) / (high_s + low_s + LEAST_PERIOD_S)

    suggested = {count - earlier for n, count in enumerate(counts) for earlier in (0, *counts[:n])}
    suggested |= {int(most * SHRINK**power) for power in range(MOST_TRIED)}
    requests = max((each for each in suggested if LEAST_REQUESTS <= each <= most), key=margin, default=0)
    if not requests or margin(requests) <= 0:
        return None
    low_s, high_s = period(requests)
    if low_s <= 0 or high_s < max(LEAST_PERIOD_S, 2 * blur_s, shortest_s):
        return None
    return Window(requests, min(low_s, high_s), high_s, refusals[-1], refusals[-1])
