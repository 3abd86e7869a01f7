"""Share a limit with other clients, whose number and rates are unknown.

Nothing that one client sees explains a shared limit, because the part that the others leave changes all the time. So
the rate follows the curve of TCP CUBIC (RFC 9438). After each 429, it begins at ``KEPT_SHARE`` of the peak, the rate
that was refused. It is back at the peak after ``RECOVERY_S`` seconds, lingers there, and then grows faster and faster,
since others may have ended:

    rate(t) = peak · (1 + (1 - KEPT_SHARE) · ((t - RECOVERY_S) / time)³)

``time`` is ``RECOVERY_S`` before the peak and ``RISE_S`` after it. It is the same at any rate, and a client with a
higher rate meets the limit more often. So the shares become equal.
"""

from __future__ import annotations

KEPT_SHARE, RECOVERY_S, RISE_S = 0.8, 15.0, 8.0


def peak(refused_rate: float, last_peak: float | None) -> float:
    """Return the rate to come back to. If it falls, it falls further, to leave room for clients that began later."""
    if last_peak is None or refused_rate >= last_peak:
        return refused_rate
    return refused_rate * (1.0 + KEPT_SHARE) / 2.0


def rate(peak_rate: float, since_s: float) -> float:
    """Return the rate in requests per second, ``since_s`` seconds after a 429."""
    later_s = since_s - RECOVERY_S
    part = later_s / (RISE_S if later_s > 0.0 else RECOVERY_S)
    return peak_rate * (1.0 + (1.0 - KEPT_SHARE) * part**3)
