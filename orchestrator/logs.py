"""Set up structlog: events to standard error, for people or as JSON lines, secrets taken out, controls made visible.

No global configuration: ``make_log`` returns a logger that carries everything with it.
"""

from __future__ import annotations

import base64
import logging
from typing import TYPE_CHECKING, Any, TextIO, cast

import structlog

from orchestrator.visible import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

LEVELS = {-1: logging.ERROR, 0: logging.INFO}
"""By verbosity, ``-q`` being -1; anything above 0 shows everything."""

SHORTEST_SECRET = 4
"""Characters of a secret worth looking for: a shorter one would take half of every word out."""

REDACTED = "[redacted]"


class SecretFilter:
    """Take known secrets out of every event, wherever they stand in it. A processor of structlog."""

    def __init__(self) -> None:
        """Know no secrets yet."""
        self._secrets: tuple[str, ...] = ()

    def hide(self, user_id: str, password: str) -> None:
        """Hide the two and what Basic auth makes of them."""
        encoded = base64.b64encode(f"{user_id}:{password}".encode()).decode()
        found = {*self._secrets, user_id, password, encoded}
        self._secrets = tuple(sorted((each for each in found if len(each) >= SHORTEST_SECRET), key=len, reverse=True))

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """Return the event without secrets."""
        return _mapped(event, self.clean)

    def clean(self, text: str) -> str:
        """Return ``text`` without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        return text


def make_log(
    stream: TextIO, secrets: SecretFilter, *, as_json: bool, colors: bool, verbosity: int
) -> FilteringBoundLogger:
    """Return a logger that writes to ``stream``: JSON lines, or lines for people. ``verbosity`` is -1, 0 or more."""
    last: Processor
    if as_json:
        last = structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
    else:
        last = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=28)
    log = structlog.wrap_logger(
        structlog.PrintLogger(stream),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json),
            secrets,
            _make_visible,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS.get(verbosity, logging.DEBUG)),
    )
    return cast("FilteringBoundLogger", log)


def _make_visible(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return _mapped(event, visible)


def _mapped(event: EventDict, change: Callable[[str], str]) -> EventDict:
    return {key: _changed(value, change) for key, value in event.items()}


def _changed(value: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401 - an event's fields may be anything
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _changed(each, change) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_changed(each, change) for each in value]
    return value
