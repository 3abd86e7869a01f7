"""Decide which connections are reused: none with unrequested data, and none opened before the last break.

A server may reset a kept-alive connection just when it is reused. The request is then in doubt, although nothing is
wrong with the server. ``Transmission.is_reused`` tells such a fault from others. After one break, no connection opened
before it is reused. After ``MOST_BROKEN`` breaks, no connection is reused at all. Otherwise a POST that meets a break
each time would be retried without end, since such faults do not count as tries.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

import aiohttp

if TYPE_CHECKING:
    import ssl

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

KEEPALIVE_S = 4.0
"""Seconds that an idle connection is kept. Common servers drop it after 5 s; a request just then would be ambiguous."""

DNS_CACHE_S = 60

MOST_BROKEN, FORGOTTEN_AFTER = 3, 100
"""After ``MOST_BROKEN`` breaks of reused connections, none is reused. ``FORGOTTEN_AFTER`` answers in a row over reused
connections set the count of breaks back to 0."""


@dataclass(slots=True)
class Transmission:
    """How one request is sent.

    ``sent_at`` is the loop's instant just before the first byte may leave, ``None`` until then. ``is_reused`` means
    that its connection has carried another request before. ``generation`` counts the breaks before that connection was
    opened.
    """

    sent_at: float | None = None
    is_reused: bool = False
    generation: int = 0

    @property
    def sent(self) -> bool:
        """Tell whether any byte of the request may have left."""
        return self.sent_at is not None


TRANSMISSION: ContextVar[Transmission] = ContextVar("transmission")
"""The transmission of the task that sends: aiohttp cannot pass it to its connector."""


class Connector(aiohttp.TCPConnector):
    """Drop an idle connection on which the server sent unrequested data, for example a 408 before it closes it.

    aiohttp would take that data for the answer to the next request.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        """Open connections with ``context``, without a limit on their number."""
        super().__init__(limit=0, ssl=context, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=DNS_CACHE_S)
        self._generations: WeakKeyDictionary[ResponseHandler, int] = WeakKeyDictionary()
        self._generation = 0
        self._broken = 0
        self._served_in_a_row = 0

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> Connection:
        """Return a connection without unrequested data. Raises ``ClientConnectionError`` if a new one has some."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = cast("ResponseHandler", connection.protocol)  # set until the connection is given back
            opened_in = self._generations.get(protocol)
            if not protocol.should_close and (opened_in is None or self._may_be_reused(opened_in)):
                self._generations.setdefault(protocol, self._generation)
                transmission = TRANSMISSION.get()
                transmission.is_reused = opened_in is not None
                transmission.generation = self._generations[protocol]
                return connection
            connection.close()
            if opened_in is None:
                message = "the server sent data before the request"
                raise aiohttp.ClientConnectionError(message)

    def _may_be_reused(self, opened_in: int) -> bool:
        return opened_in == self._generation and self._broken < MOST_BROKEN

    def has_served(self, transmission: Transmission) -> None:
        """Record that a request was answered."""
        self._served_in_a_row += transmission.is_reused
        if self._served_in_a_row >= FORGOTTEN_AFTER:
            self._broken = 0

    def has_broken(self, transmission: Transmission) -> None:
        """Record that a reused connection broke. Of the connections opened between two breaks, only one counts."""
        if transmission.generation == self._generation:
            self._generation += 1
            self._broken += 1
            self._served_in_a_row = 0
