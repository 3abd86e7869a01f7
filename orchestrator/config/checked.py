"""Check a tree against a pydantic model: every fault becomes a problem with its place, in words for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from orchestrator.config.suggest import MEANT, did_you_mean
from orchestrator.config.tree import read_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

    from orchestrator.config.tree import Tree

Model = TypeVar("Model", bound=BaseModel)

_MESSAGES = {
    "missing": "is required",
    "model_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "tuple_type": "must be a list",
    "bool_type": "must be true or false",
}


def read_checked(text: bytes, file: str, environment: Mapping[str, str], model: type[Model]) -> Model:
    """Return ``text`` of ``file`` as a ``model``. Raises ``ConfigError`` with every problem at once."""
    tree = read_tree(text, file, environment)
    checked = validated(tree, model) if is_mapping(tree, model) else None
    if checked is None or tree.problems:
        raise tree.error()
    return checked


def is_mapping(tree: Tree, model: type[BaseModel]) -> bool:
    """Tell whether the document is a mapping at all, and note it where it is not."""
    if not tree.problems and not isinstance(tree.data, dict):
        tree.problem((), f"must be a mapping of keys to values: {', '.join(list(model.model_fields)[:5])} …")
    return isinstance(tree.data, dict)


def validated(tree: Tree, model: type[Model]) -> Model | None:
    """Return the data of ``tree`` as a ``model``, or note what is wrong with it and return ``None``.

    What was noted at the same place before is not noted again.
    """
    try:
        return model.model_validate(tree.data)
    except ValidationError as error:
        noted = {(problem.line, problem.column) for problem in tree.problems}
        messages = [(detail["type"], *_fault(detail, model)) for detail in error.errors(include_url=False)]
        meant = {(loc[:-1], text.partition(MEANT)[2].rstrip("?")) for _, loc, text in messages if MEANT in text}
        for kind, loc, message in messages:
            if kind == "missing" and (loc[:-1], loc[-1]) in meant:
                continue
            before = len(tree.problems)
            tree.problem(loc, message, at_key=kind == "extra_forbidden")
            mended = tree.problems[before]
            if (mended.line, mended.column) in noted and kind != "missing":
                tree.problems.pop()
        return None


def _fault(detail: ErrorDetails, model: type[BaseModel]) -> tuple[tuple[str | int, ...], str]:
    loc = tuple(step for step in detail["loc"] if step != "[key]")
    return loc, _message(detail, loc, model)


def _message(detail: ErrorDetails, loc: tuple[str | int, ...], model: type[BaseModel]) -> str:
    kind = detail["type"]
    if kind == "extra_forbidden":
        return f"unknown key{_meant_by(loc, model)}"
    if kind == "literal_error":
        return f"must be {detail['ctx']['expected']}"
    if kind == "model_type" and loc[:1] == ("installs",):
        return "must be an install's id, or a mapping with an id"
    return _MESSAGES.get(kind, detail["msg"])


def _meant_by(loc: tuple[str | int, ...], model: type[BaseModel]) -> str:
    key = str(loc[-1])
    here = _model_at(model, loc[:-1])
    near = did_you_mean(key, here.model_fields) if here else ""
    homes = [name for name, each in _sections(model).items() if each is not here and key in each.model_fields]
    if near or not homes:
        return near
    return f"; it belongs in {' or '.join(homes)}"


def _sections(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    found = {name: _model_of(field.annotation) for name, field in model.model_fields.items()}
    return {name: each for name, each in found.items() if each}


def _model_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> type[BaseModel] | None:
    """Return the model of the mapping at ``loc``; steps through a list or a mapping of names lead to its values."""
    here: type[BaseModel] | None = model
    for step in loc:
        if here and step in here.model_fields:
            here = _model_of(here.model_fields[str(step)].annotation)
    return here


def _model_of(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - an annotation may be anything
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _model_of(each))), None)
