"""Check a tree against a pydantic model. Every fault becomes a problem with its place and a readable message."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from orchestrator.config.placed_yaml.suggest import MEANT, did_you_mean
from orchestrator.config.placed_yaml.tree import read_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic_core import ErrorDetails

    from orchestrator.config.placed_yaml.tree import Tree

Model = TypeVar("Model", bound=BaseModel)

Location = tuple[str | int, ...]

NO_INSTALL = "must be an install's id or name, or a mapping with one of them"

_MESSAGES = {
    "missing": "is required",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "tuple_type": "must be a list",
    "bool_type": "must be true or false",
    "string_type": "must be text: put it in quotes",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a number",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must not be less than {ge:g}",
    "less_than_equal": "must not be more than {le:g}",
    "too_short": "must have at least {min_length}",
    "too_long": "must have at most {max_length}",
    "string_pattern_mismatch": "must look like {pattern}",
    "union_tag_not_found": "must have a {discriminator}",
}

_CHOICES = {"literal_error": "expected", "enum": "expected", "union_tag_invalid": "expected_tags"}
"""pydantic's types of faults for a value that must be one of a few, and the context key that lists these."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of the value at ``loc``. ``is_of_key``: the key is wrong. ``is_lack``: the key is missing."""

    loc: Location
    message: str
    is_of_key: bool = False
    is_lack: bool = False


def read_checked(text: bytes, file: str, environment: Mapping[str, str], model: type[Model]) -> Model:
    """Return ``text`` of ``file`` as an instance of ``model``. Raises ``ConfigError`` with every problem at once."""
    tree = read_tree(text, file, environment, keys_of(model))
    checked = validated(tree, model) if is_mapping(tree, model) else None
    if checked is None or tree.problems:
        raise tree.error()
    return checked


def is_mapping(tree: Tree, model: type[BaseModel]) -> bool:
    """Tell whether the document is a mapping, and note a problem if it is not."""
    if not tree.problems and not isinstance(tree.data, dict):
        tree.problem((), f"must be a mapping of keys to values: {', '.join(list(model.model_fields)[:5])} …")
    return isinstance(tree.data, dict)


def validated(tree: Tree, model: type[Model]) -> Model | None:
    """Return the data of ``tree`` as an instance of ``model``, or note its faults and return ``None``.

    A place that already has a problem gets no second one. A key that is only misspelt is not also reported as missing.
    """
    try:
        return model.model_validate(tree.data)
    except ValidationError as error:
        details = error.errors(include_url=False)
    # outside the handler: the traceback of a bug here must not show pydantic's error, which repeats the input
    noted = tree.noted()
    for fault in faults(details, tree.data, model):
        tree.problem(fault.loc, fault.message, at_key=fault.is_of_key, noted=frozenset() if fault.is_lack else noted)
    return None


def faults(details: list[ErrorDetails], data: object, model: type[BaseModel]) -> Iterator[Fault]:
    """Yield the faults in pydantic's ``details`` of ``data``. A misspelt key is not also reported as missing."""
    found = _by_place(details, data, model)
    meant = {(loc[:-1], text.partition(MEANT)[2].rstrip("?")) for (loc, _), text in found.items() if MEANT in text}
    for (loc, kind), message in found.items():
        if kind != "missing" or (loc[:-1], loc[-1]) not in meant:
            yield Fault(loc, message, is_of_key=kind == "extra_forbidden", is_lack=kind == "missing")


def _by_place(details: list[ErrorDetails], data: object, model: type[BaseModel]) -> dict[tuple[Location, str], str]:
    """Return the messages by location and kind.

    The messages of a union's members about one value are joined. A message about a value that contains another fault is
    left out.
    """
    found: dict[tuple[Location, str], str] = {}
    for detail in details:
        kind = detail["type"] if detail["type"] in {"missing", "extra_forbidden"} else "value"
        loc = _location(detail, data)
        message = _message(detail, loc, model)
        said = found.get((loc, kind), message)
        found[loc, kind] = message if said == message else f"{said}, or {message.removeprefix('must be ')}"
    around = {loc[:length] for loc, _ in found for length in range(len(loc))}
    return {key: message for key, message in found.items() if key[1] != "value" or key[0] not in around}


def _location(detail: ErrorDetails, data: Any) -> Location:  # noqa: ANN401 - YAML may hold anything
    """Return the location of a fault, without the steps that pydantic adds for a key or a member of a union."""
    loc: list[str | int] = []
    steps = detail["loc"]
    for step in steps:
        if (isinstance(data, dict) and step in data) or (isinstance(data, list) and step in range(len(data))):
            data = data[step]  # type: ignore[index]  # the step has the right type, since the data contain it
            loc.append(step)
    if detail["type"] == "missing":
        loc.append(steps[-1])
    return tuple(loc)


def _message(detail: ErrorDetails, loc: Location, model: type[BaseModel]) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key{_meant_by(str(loc[-1]), _model_at(model, loc[:-1]), model)}"
    if kind in _CHOICES:
        choices = [each.strip("'") for each in re.split(", | or ", str(context[_CHOICES[kind]]))]
        subject = f"{context['discriminator']} ".replace("'", "") if "discriminator" in context else ""
        return f"{subject}must be one of {', '.join(choices)}{did_you_mean(detail['input'], choices)}"
    if kind == "tuple_type" and loc[-1:] == ("notification_emails",):
        return "must be a list, for example [ops@example.com]"
    if kind == "model_type" and loc[:1] == ("installs",):
        return NO_INSTALL
    return _MESSAGES[kind].format_map(context) if kind in _MESSAGES else detail["msg"]


@lru_cache(maxsize=1000)
def _meant_by(key: str, here: type[BaseModel] | None, model: type[BaseModel]) -> str:
    near = did_you_mean(key, _keys(here)) if here else ""
    homes = [name for name, each in _sections(model).items() if each is not here and key in _keys(each)]
    if near or not homes:
        return near
    return f"; it belongs in {' or '.join(homes)}"


def keys_of(model: type[BaseModel]) -> set[str]:
    """Return every key that a document of ``model`` may have, at any depth."""
    return {*_keys(model)}.union(*(keys_of(each) for each in _sections(model).values()))


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _sections(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    found = {name: _model_of(field.annotation) for name, field in model.model_fields.items()}
    return {name: each for name, each in found.items() if each}


def _model_at(model: type[BaseModel], loc: Location) -> type[BaseModel] | None:
    """Return the model of the mapping at ``loc``. Steps through a list, or through a mapping of names, are skipped."""
    here: type[BaseModel] | None = model
    for step in loc:
        if here and step in here.model_fields:
            here = _model_of(here.model_fields[str(step)].annotation)
    return here


def _model_of(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - an annotation may be anything
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _model_of(each))), None)
