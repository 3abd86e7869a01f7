"""Which connections are used again: none on which the server spoke unasked, and none older than one that broke.

A server may reset a kept-alive connection just as it is used again. The request is then open, though nothing is wrong
with the server: ``Transmission.is_reused`` tells such a fault from others. After one, no connection from before it is
used again; after ``MOST_BROKEN`` of them, none is used twice: a POST whose turn on a connection is always the one that
breaks it would be tried for ever.
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
"""Below the 5 s after which common servers drop an idle connection: a request that races with that is ambiguous."""

DNS_CACHE_S = 60

MOST_BROKEN, FORGOTTEN_AFTER = 3, 100
"""So many times a used connection may break before none is used again; so many answers in a row over used ones, and
it is forgotten."""


@dataclass(slots=True)
class Transmission:
    """How one request is sent.

    ``sent_at`` is the instant of the loop just before its first byte may leave, ``None`` until then. ``is_reused``
    tells that its connection had served before; ``generation`` counts the breaks before that was opened.
    """

    sent_at: float | None = None
    is_reused: bool = False
    generation: int = 0

    @property
    def sent(self) -> bool:
        """Tell whether any byte of the request may have left."""
        return self.sent_at is not None


TRANSMISSION: ContextVar[Transmission] = ContextVar("transmission")
"""The one of the task that sends: aiohttp hands nothing of a request to its connector."""


class Connector(aiohttp.TCPConnector):
    """Drop an idle connection on which the server spoke unasked, which it may do before it closes it (408, say).

    aiohttp would take those words for the answer to the next request.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        """Open connections with ``context``, as many as there are requests."""
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
        """Return a connection on which nothing was said yet; raise ``ClientConnectionError`` if a new one is none."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = cast("ResponseHandler", connection.protocol)  # there is one until the connection is given back
            opened_in = self._generations.get(protocol)
            if not protocol.should_close and (opened_in is None or self._may_be_reused(opened_in)):
                self._generations.setdefault(protocol, self._generation)
                transmission = TRANSMISSION.get()
                transmission.is_reused = opened_in is not None
                transmission.generation = self._generations[protocol]
                return connection
            connection.close()
            if opened_in is None:
                message = "the server spoke before it was asked"
                raise aiohttp.ClientConnectionError(message)

    def _may_be_reused(self, opened_in: int) -> bool:
        return opened_in == self._generation and self._broken < MOST_BROKEN

    def has_served(self, transmission: Transmission) -> None:
        """Hear that a request was answered."""
        self._served_in_a_row += transmission.is_reused
        if self._served_in_a_row >= FORGOTTEN_AFTER:
            self._broken = 0

    def has_broken(self, transmission: Transmission) -> None:
        """Hear that a connection broke when it was used again; of several that were open together, one counts."""
        if transmission.generation == self._generation:
            self._generation += 1
            self._broken += 1
            self._served_in_a_row = 0
