"""Hold what the command writes to the JSON Schemas that are published in ``docs/``."""

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
"""Which of the schema's ``oneOf`` a line is meant to be, by its ``type``."""


def report_line_problems(line: Any, validator: Draft202012Validator = REPORT_LINE) -> list[str]:
    """Say what is wrong with one line of a report, each as ``path: what``; nothing if it is as the schema wants it."""
    kind = line.get("type") if isinstance(line, dict) else None
    branch = _BRANCHES.get(kind) if isinstance(kind, str) else None
    errors = (each for error in validator.iter_errors(line) for each in _meant(error, branch))
    return sorted(f"{error.json_path}: {error.message}" for error in errors)


def _meant(error: ValidationError, branch: int | None) -> Iterator[ValidationError]:
    """Yield what is wrong with the branch that the line is meant to be, instead of that no branch fits."""
    meant = [each for each in error.context or () if each.relative_schema_path[0] == branch]
    yield from meant or [error]
