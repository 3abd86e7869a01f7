"""The types of values in a scenario: how each is read, written, and described; and the base of its mappings."""

from __future__ import annotations

from typing import Annotated, NoReturn

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from orchestrator.units import DURATION_PATTERN, duration_s, duration_text

UUID = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"


def refuse(message: str) -> NoReturn:
    """Raise pydantic's error with ``message``, unchanged."""
    kind, template = "wrong", "{message}"
    raise PydanticCustomError(kind, template, {"message": message})


def _seconds(value: object) -> float:
    seconds = value if isinstance(value, float) else 0.0 if value == 0 else duration_s(value)
    if seconds is None or not 0 <= seconds <= 1e9:  # noqa: PLR2004 - three decades
        refuse("must be a duration: a number and ms, s, m, h or d, such as 30s")
    return seconds


def _signed_seconds(value: object) -> float:
    if isinstance(value, str) and value.startswith("-"):
        return -_seconds(value[1:])
    return value if isinstance(value, float) else _seconds(value)


def _text(seconds: float) -> object:
    sign = "-" if seconds < 0 else ""
    return sign + duration_text(abs(seconds)) if seconds else 0


def _range(value: object) -> object:
    """Turn a single duration into a range whose ends are equal."""
    return value if isinstance(value, list | tuple) else [value, value]


def _in_order(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        refuse("must be the shortest and the longest, in this order")
    return value


_DURATION = {"anyOf": [{"type": "string", "pattern": f"^{DURATION_PATTERN}$"}, {"const": 0}]}
_SIGNED = {"anyOf": [{"type": "string", "pattern": f"^-?{DURATION_PATTERN}$"}, {"const": 0}]}

_WRITTEN = PlainSerializer(_text, when_used="json")

Seconds = Annotated[float, BeforeValidator(_seconds), _WRITTEN, WithJsonSchema(_DURATION)]
SignedSeconds = Annotated[float, BeforeValidator(_signed_seconds), _WRITTEN, WithJsonSchema(_SIGNED)]
Range = Annotated[
    tuple[Seconds, Seconds],
    BeforeValidator(_range),
    AfterValidator(_in_order),
    WithJsonSchema({"anyOf": [_DURATION, {"type": "array", "items": _DURATION, "minItems": 2, "maxItems": 2}]}),
]
Share = Annotated[float, Field(ge=0, le=1)]
Whole = Annotated[int, Field(ge=1)]


class Part(BaseModel):
    """The base of every mapping in a scenario. It refuses unknown keys; docstrings are the keys' descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=True)
