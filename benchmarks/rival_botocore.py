"""Botocore's adaptive retry mode in virtual time: its own classes, with the simulation's clock.

The objects are those that ``botocore.client`` creates for ``retries={"mode": "adaptive"}``: the client's rate limiter
(``adaptive.ClientRateLimiter`` with ``CubicCalculator``, ``TokenBucket``, ``RateClocker``) and the standard retry
handler with its three attempts, its backoff and its quota of retries. They are called in the order of
``botocore.endpoint``. The differences:

- In botocore, a thread blocks in ``TokenBucket.acquire`` and is notified when the rate changes. Here, a worker asks
  without blocking, sleeps until the bucket has a token, at most ``LOOK_AGAIN_S``, and asks again.
- If botocore gives up a call (after three attempts, or with the quota used up), the call is made again. The script that
  uses botocore would have to do the same.
- A 504 counts as done. Botocore would send the request again, and so make a second backup.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from botocore.awsrequest import AWSResponse  # type: ignore[import-untyped,import-not-found,unused-ignore]  # no types
from botocore.exceptions import (  # type: ignore[import-untyped,import-not-found,unused-ignore]  # no types
    CapacityNotAvailableError,
)
from botocore.model import ServiceModel  # type: ignore[import-untyped,import-not-found,unused-ignore]  # no types
from botocore.retries import (  # type: ignore[import-untyped,import-not-found,unused-ignore]  # no types
    adaptive as own,
)
from botocore.retries import bucket, quota, standard, throttling
from rivals import SEND, start
from simulation import GATEWAY_TIMEOUT, THROTTLED

if TYPE_CHECKING:
    from collections.abc import Generator

    from rivals import Batch, Worker
    from servers import Server
    from simulation import Answer, Simulation

LOOK_AGAIN_S = 0.05
TICK_S = 1e-6
"""The shortest wait. Without it, a rounding error in the last fraction of a token could make a worker wait for ever."""

SERVICE = "backups"
OPERATION = ServiceModel(
    {"metadata": {"serviceId": SERVICE}, "operations": {"Create": {"name": "Create"}}, "shapes": {}}, SERVICE
).operation_model("Create")
"""One operation without modelled errors, so that botocore recognises a 429 by its status."""


class VirtualClock:
    """The simulation's clock, in the form that botocore needs."""

    def __init__(self, simulation: Simulation) -> None:
        """Use the time of ``simulation``."""
        self._simulation = simulation

    def current_time(self) -> float:
        """Return the virtual time in seconds."""
        return self._simulation.now


class Adaptive:
    """The objects that the threads of one botocore client in adaptive mode share."""

    def __init__(self, simulation: Simulation) -> None:
        """Create botocore's objects in the way of its ``register_retry_handler`` functions."""
        clock = VirtualClock(simulation)
        adapter = standard.RetryEventAdapter()
        detector = standard.ThrottlingErrorDetector(retry_event_adapter=adapter)
        self.bucket = bucket.TokenBucket(max_rate=1, clock=clock)
        self.limiter = own.ClientRateLimiter(
            rate_adjustor=throttling.CubicCalculator(starting_max_rate=0, start_time=clock.current_time()),
            rate_clocker=own.RateClocker(clock),
            token_bucket=self.bucket,
            throttling_detector=detector,
            clock=clock,
        )
        self.quota = standard.RetryQuotaChecker(quota.RetryQuota(), detector)
        backoff = standard.ExponentialBackoff(
            random=simulation.chance.random, service_name=SERVICE, throttling_detector=detector
        )
        self.handler = standard.RetryHandler(
            retry_policy=standard.RetryPolicy(standard.StandardRetryConditions(), backoff),
            retry_event_adapter=adapter,
            retry_quota=self.quota,
            service_name=SERVICE,
        )

    def wait_s(self) -> float:
        """Take a token for a request and return 0, or return the seconds until there is a token."""
        if not self.limiter._enabled:  # noqa: SLF001 - on_sending_request checks it too, but would block
            return 0.0
        try:
            self.bucket.acquire(block=False)
        except CapacityNotAvailableError:
            missing = 1 - self.bucket.available_capacity
            return max(TICK_S, float(missing / self.bucket.max_rate))
        return 0.0

    def heard(self, answer: Answer, attempt: int, context: dict[str, Any]) -> float | None:
        """Pass the answer of an attempt to botocore. Return the seconds until the next attempt, ``None`` for none."""
        response = AWSResponse("", answer.status, {}, None)
        event = {
            "response": (response, {"Error": {"Code": str(answer.status)}} if answer.status == THROTTLED else {}),
            "operation": OPERATION,
            "attempts": attempt,
            "caught_exception": None,
            "request_dict": {"context": context},
        }
        delay_s = None if answer.status == GATEWAY_TIMEOUT else self.handler.needs_retry(**event)
        self.limiter.on_receiving_response(**event)
        if delay_s is None:
            self.quota.release_retry_quota(context, response)
        return delay_s


def adaptive(simulation: Simulation, server: Server) -> None:
    """Request the batch with one thread per worker. The threads share one client in adaptive mode."""
    client = Adaptive(simulation)

    def worker(batch: Batch) -> Worker:
        while batch.take():
            status = THROTTLED
            while status == THROTTLED:
                status = yield from _call(client)

    start(simulation, server, worker)


def _call(client: Adaptive) -> Generator[float | None, Answer, int]:
    """Make one call of the API in botocore's way, with its retries, and return the last status."""
    context: dict[str, Any] = {}
    for attempt in count(1):
        while (wait_s := client.wait_s()) > 0:
            yield min(wait_s, LOOK_AGAIN_S)
        answer = yield SEND
        delay_s = client.heard(answer, attempt, context)
        if delay_s is None:
            break
        yield delay_s
    return answer.status
