"""Other clients that a user might choose, in virtual time, for the same work on the same servers.

Every rival has as many workers as the limiter may have requests in flight. A worker tries its install until the request
is accepted, so all rivals do the same work. None of them obeys ``Retry-After``.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from servers import limit_per_s
from simulation import THROTTLED

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from servers import Server
    from simulation import Answer, Simulation

    Worker = Generator[float | None, Answer, None]
    """Yields the seconds to sleep, or ``SEND`` to send a request and receive its answer."""

    Rival = Callable[[Simulation, Server], None]

SEND = None

GUESS_PER_S = 5.0
"""The rate that a user might guess to avoid 429s. It is also the limiter's default start."""

BACKOFF_BASE_S, BACKOFF_CAP_S = 0.5, 20.0


@dataclass(slots=True)
class Batch:
    """The number of installs that no worker has taken yet."""

    left: int

    def take(self) -> bool:
        """Take an install, and tell whether there was one."""
        self.left -= 1
        return self.left >= 0


def work_on(simulation: Simulation, worker: Worker, answer: Answer | None = None) -> None:
    """Let ``worker`` continue after its sleep, or with its ``answer``."""
    try:
        sleep_s = next(worker) if answer is None else worker.send(answer)
    except StopIteration:
        return
    if sleep_s is SEND:
        simulation.send(lambda answer: work_on(simulation, worker, answer))
    else:
        simulation.call_at(simulation.now + sleep_s, lambda: work_on(simulation, worker))


def fixed_rate(rate: float) -> Rival:
    """Return a client that spaces its starts evenly at ``rate`` per second, whatever the answers are."""

    def begin(simulation: Simulation, server: Server) -> None:
        next_at = simulation.now

        def worker(batch: Batch) -> Worker:
            nonlocal next_at
            while batch.take():
                throttled = True
                while throttled:
                    start_at = max(simulation.now, next_at)
                    next_at = start_at + 1.0 / rate
                    yield start_at - simulation.now
                    throttled = (yield SEND).status == THROTTLED

        start(simulation, server, worker)

    return begin


def known_rate(simulation: Simulation, server: Server) -> None:
    """Send at the server's own limit, as if it were published. If the limit changes, keep to the first one."""
    fixed_rate(limit_per_s(server.scenario))(simulation, server)


def throttle_alone(simulation: Simulation, server: Server) -> None:
    """Use asyncio-throttle at the ceiling and nothing else: a request that gets a 429 is sent again immediately.

    This models its rule: at most ``rate_limit`` starts in any period of one second. The real one polls every 10 ms; the
    model does not, which is in its favour.
    """
    whole = max(1, int(server.ceiling))
    period_s = whole / server.ceiling
    starts: deque[float] = deque(maxlen=whole)

    def worker(batch: Batch) -> Worker:
        while batch.take():
            throttled = True
            while throttled:
                start_at = max(simulation.now, starts[0] + period_s) if len(starts) == whole else simulation.now
                starts.append(start_at)
                yield start_at - simulation.now
                throttled = (yield SEND).status == THROTTLED

    start(simulation, server, worker)


def backoff(simulation: Simulation, server: Server) -> None:
    """Send without a pause, and after each 429 of a request sleep from 0 to ``min(cap, base · 2^attempt)`` seconds.

    This is exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"), for as many
    attempts as necessary. A worker sleeps and keeps its install. So the more requests are rejected, the fewer are in
    flight.
    """

    def worker(batch: Batch) -> Worker:
        while batch.take():
            attempt = 0
            while (yield SEND).status == THROTTLED:
                yield simulation.chance.uniform(0.0, min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0**attempt))
                attempt += 1

    start(simulation, server, worker)


def start(simulation: Simulation, server: Server, worker: Callable[[Batch], Worker]) -> None:
    """Let ``server.concurrency`` workers share the batch."""
    batch = Batch(server.batch)
    for _ in range(server.concurrency):
        work_on(simulation, worker(batch))
