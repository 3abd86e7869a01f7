"""Set up structlog: write events as text or JSON lines, remove secrets, and make control characters visible.

There is no global configuration: each logger carries its own.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TextIO, cast

import structlog

from orchestrator.visible import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

    from orchestrator.redaction import Redactor

LEVELS = {-1: logging.ERROR, 0: logging.INFO}
"""The level of each verbosity. ``-q`` is -1; above 0, everything is shown."""


def make_log(
    stream: TextIO, redactor: Redactor, *, as_json: bool, colors: bool, verbosity: int
) -> FilteringBoundLogger:
    """Return a logger that writes to ``stream``: JSON lines, or lines for people. ``verbosity`` is -1, 0 or more."""
    log = structlog.wrap_logger(
        structlog.PrintLogger(stream),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json),
            _Mapped(redactor.clean),
            _Mapped(visible),
            *([_json_for(stream)] if as_json else _for_people(colors)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS.get(verbosity, logging.DEBUG)),
    )
    return cast("FilteringBoundLogger", log)


def make_silent_log() -> FilteringBoundLogger:
    """Return a logger that says nothing."""
    wrapper = structlog.make_filtering_bound_logger(logging.CRITICAL)
    return cast("FilteringBoundLogger", structlog.wrap_logger(structlog.PrintLogger(), wrapper_class=wrapper))


def make_log_to(logger: logging.Logger | Any, redactor: Redactor) -> FilteringBoundLogger:  # noqa: ANN401 - structlog's loggers share no class
    """Return a logger that removes secrets and passes events on to ``logger``.

    A logger of the standard library gets one line of text, ``event key=value``. A logger of structlog gets the event
    and its fields.
    """
    hand_over = _as_text if isinstance(logger, logging.Logger) else _as_event
    log = structlog.wrap_logger(
        logger,
        processors=[_Mapped(redactor.clean), _Mapped(visible), hand_over],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
    )
    return cast("FilteringBoundLogger", log)


def _as_text(_logger: WrappedLogger, _method: str, event: EventDict) -> tuple[tuple[str, str], dict[str, Any]]:
    name = event.pop("event")
    return ("%s", " ".join([name, *(f"{key}={value!r}" for key, value in event.items())])), {}


def _as_event(_logger: WrappedLogger, _method: str, event: EventDict) -> tuple[tuple[str], EventDict]:
    return (event.pop("event"),), event


def _json_for(stream: TextIO) -> Processor:
    """Return the processor that writes JSON. It writes pure ASCII unless the stream is UTF-8, as JSON must be UTF-8."""
    is_utf8 = (stream.encoding or "utf-8").lower() in {"utf-8", "utf8"}
    return structlog.processors.JSONRenderer(ensure_ascii=not is_utf8, default=str)


def _for_people(colors: bool) -> list[Processor]:  # noqa: FBT001 - it is the only argument
    return [_without_run_id, structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=24)]


def _without_run_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Remove the run id: on a terminal that shows one run, every line would repeat it."""
    event.pop("run_id", None)
    return event


class _Mapped:
    """Change every string of an event; a processor of structlog."""

    def __init__(self, change: Callable[[str], str]) -> None:
        self._change = change

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {key: _changed(value, self._change) for key, value in event.items()}


def _changed(value: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401 - an event's fields may be anything
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _changed(each, change) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_changed(each, change) for each in value]
    return value
