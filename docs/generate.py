"""Write the documents that come from the code: ``make docs``. A test holds the committed ones to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.config import config_schema
from orchestrator.config.schema import FleetFile

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = """\
# Configuration reference

Every key of the YAML, its default and what it means. Made from the code by `make docs`; `wpe-backup config schema`
prints the same for editors ([fleet.schema.json](fleet.schema.json)), and [operating.md](operating.md#the-yaml) has a
whole file and the rules.

A value may contain `${VARIABLE}` or `${VARIABLE:-default}`; `$$` is a `$`. A duration is a number and `ms`, `s`, `m`,
`h` or `d`."""


def pages() -> dict[str, str]:
    """Return the content of each generated file by its name."""
    return {
        "configuration.md": "\n".join(_reference()) + "\n",
        "fleet.schema.json": json.dumps(config_schema(), indent=2) + "\n",
    }


def _reference() -> Iterator[str]:
    schema = config_schema()
    yield HEAD
    yield from _section(
        "The whole file", "The keys that begin in the first column.", schema["properties"], {"version", "installs"}
    )
    for name, field in FleetFile.model_fields.items():
        reference = json.dumps(schema["properties"][name]).partition("#/$defs/")[2].partition('"')[0]
        if reference:
            described = schema["$defs"][reference]
            title = {"accounts": "accounts.<name>", "installs": "installs[]"}.get(name, name)
            text = str(described.get("description") or field.description)
            yield from _section(f"`{title}`", text, described["properties"], set(described.get("required", [])))


def _section(title: str, text: str, properties: dict[str, Any], required: set[str]) -> Iterator[str]:
    yield f"\n## {title}\n\n{text}\n\n| key | default | meaning |\n|---|---|---|"
    yield from (
        f"| `{key}` | {_default(key, each, required)} | {each['description']} |" for key, each in properties.items()
    )


def _default(key: str, described: dict[str, Any], required: set[str]) -> str:
    if key in required:
        return "required"
    default = described.get("default")
    return (
        "" if default is None or default == [] else f"`{default if isinstance(default, str) else json.dumps(default)}`"
    )


if __name__ == "__main__":
    for file_name, content in pages().items():
        (Path(__file__).parent / file_name).write_text(content, encoding="utf-8")
