"""Check the command's output against the JSON Schemas in ``docs/``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jsonschema.exceptions import ValidationError

DOCS = Path(__file__).parents[1] / "docs"
REPORT_SCHEMA: dict[str, Any] = json.loads((DOCS / "report.schema.json").read_text(encoding="utf-8"))
REPORT_LINE = Draft202012Validator(REPORT_SCHEMA)

_BRANCHES = {"backup": 0, "summary": 1}
"""The index of the schema's ``oneOf`` branch for each ``type`` of a line."""


def report_line_problems(line: Any, validator: Draft202012Validator = REPORT_LINE) -> list[str]:
    """Return the problems of one line of a report as ``path: message``; an empty list if it fits the schema."""
    kind = line.get("type") if isinstance(line, dict) else None
    branch = _BRANCHES.get(kind) if isinstance(kind, str) else None
    errors = (each for error in validator.iter_errors(line) for each in _meant(error, branch))
    return sorted(f"{error.json_path}: {error.message}" for error in errors)


def _meant(error: ValidationError, branch: int | None) -> Iterator[ValidationError]:
    """Yield the errors of the line's own branch, instead of the error that no branch fits."""
    meant = [each for each in error.context or () if each.relative_schema_path[0] == branch]
    yield from meant or [error]
