"""Write the documents that are generated from the code: ``make docs``. A test compares the committed ones with it."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.commands import cli
from orchestrator.cli.parser.grammar import Command, Option, summary
from orchestrator.config import config_schema
from orchestrator.simulator import Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIGURATION = """\
# Configuration reference

Every key of the YAML, with its default and its meaning. `make docs` generates this page from the code.

- [operating.md](operating.md#write-the-yaml) shows a complete file and explains the rules.
- For editors, `wpe-backup config schema` prints the same reference as a JSON Schema
  ([fleet.schema.json](fleet.schema.json)).

A value may contain `${VARIABLE}` or `${VARIABLE:-default}`. Write a `$` as `$$`.

A duration is a number with a unit: `ms`, `s`, `m`, `h` or `d`, for example `1.5h`."""

SCENARIO = """\
# Scenario reference

A scenario is the YAML file that `wpe-backup simulate --scenario FILE` reads. It tells the stand-in for the API how to
behave. `make docs` generates this page from the code.

- `examples/scenarios` contains typical scenarios.
- [scenario.schema.json](scenario.schema.json) is the same reference for editors.

Every key is optional. Limits and faults from options add to those of the scenario; other options override it.

- A duration is a number with a unit: `ms`, `s`, `m`, `h` or `d`, for example `1.5h`.
- A range is one duration, or a list of the shortest and the longest.
- A share is a number from 0 to 1.
- A moment is a duration since the first request."""

COMMAND_LINE = """\
# Command reference

Every command with its options. `make docs` generates this page from the code.
`wpe-backup COMMAND --help` prints a short form.

- Each option can come from an environment variable: `--max-rate` from `WPE_BACKUP_MAX_RATE`.
  The command line overrides it.
- Options with `...` can be repeated. In the variable of such an option, separate the values by commas.
- An option with an empty value is an error. An environment variable that is empty counts as not set.
- A DURATION is a number with a unit: `ms`, `s`, `m`, `h` or `d`.
- RUN is a run id, the beginning of one, or `latest`.
- `python -m orchestrator` is the same as `wpe-backup`.

| command | what it does |
|---|---|"""

_UNWRAPPED = "\b\n"
_NAMES = re.compile(r"(?<![\w`/-])(--[a-z][a-z-]+|WPE_[A-Z_]+|/_admin/[a-z]+|[a-z]+_time|state\.keep)")

TITLES = {
    "AccountSection": "accounts.<name>",
    "InventorySection": "inventory[]",
    "DiscoverSection": "inventory[].discover",
    "InstallSection": "installs[]",
    "Kind": "faults[].kind",
    "Operation": "faults[].operation",
}


def pages() -> dict[str, str]:
    """Return the content of each generated file, by file name."""
    configuration = config_schema()
    scenario = Scenario.json_schema()
    return {
        "cli.md": _command_line(),
        "configuration.md": _reference(CONFIGURATION, configuration),
        "fleet.schema.json": json.dumps(configuration, indent=2) + "\n",
        "scenarios.md": _reference(SCENARIO, scenario),
        "scenario.schema.json": json.dumps(scenario, indent=2) + "\n",
    }


def _command_line() -> str:
    cli.load_parsers()
    context = click.Context(cli, info_name=cli.name)
    found = [*_commands(cli, context)]
    index = [
        f"| [`{each.command_path}`](#{each.command_path.replace(' ', '-')}) | {summary(each.command)} |"
        for each in found
    ]
    return "\n".join([COMMAND_LINE, *index, *(line for each in found for line in _command(each))]) + "\n"


def _commands(group: click.Group, context: click.Context) -> Iterator[click.Context]:
    """Yield a context for each command, those of groups included."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None:
            own = click.Context(command, info_name=name, parent=context)
            if isinstance(command, click.Group):
                yield from _commands(command, own)
            else:
                yield own


def _command(context: click.Context) -> Iterator[str]:
    command = context.command
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    text = "\n\n".join(map(_in_markdown, inspect.cleandoc(command.help or "").split("\n\n")))
    yield f"\n## {context.command_path}\n\n```text\n{usage}\n```\n\n{text}"
    if not isinstance(command, Command):
        return
    for title, options in command.grouped(context):
        own = [each for each in options if isinstance(each, Option)]
        if own:
            yield f"\n**{title}**\n"
        for each in own:
            meaning = f"{each.help}. {each.more}".strip()
            yield _item(f"`{each.head(context)}`: {meaning}")
    if command.exit_codes:
        yield "\n**Exit codes**\n\n```text\n" + "\n".join(command.exit_codes) + "\n```"
    if command.examples:
        yield "\n**Examples**\n\n```console\n" + "\n".join(f"$ {each}" for each in command.examples) + "\n```"


def _in_markdown(paragraph: str) -> str:
    """Return a paragraph of help with names in code style; one that click does not wrap becomes a block."""
    if paragraph.startswith(_UNWRAPPED):
        return f"```text\n{paragraph.removeprefix(_UNWRAPPED)}\n```"
    return textwrap.fill(_NAMES.sub(r"`\1`", " ".join(paragraph.split())), 150)


def _reference(head: str, schema: dict[str, Any]) -> str:
    whole = _section("The whole file", "The top-level keys.", schema)
    sections: dict[str, list[str]] = {}
    for key, name in _sections(schema, schema["$defs"]):
        described = schema["$defs"][name]
        if name not in sections and "properties" in described:
            title = TITLES.get(name, key)
            if "const" in described["properties"].get("kind", {}) or "enum" in described["properties"].get("kind", {}):
                title = f"{key}: {', '.join(_kinds(described['properties']['kind']))}"
            sections[name] = list(_section(f"`{title}`", described.get("description", ""), described))
        elif "enum" in described:
            sections[name] = [f"\n## `{TITLES.get(name, key)}`\n\n{described.get('description', '')}"]
    return "\n".join([head, *whole, *(line for lines in sections.values() for line in lines)]) + "\n"


def _kinds(described: dict[str, Any]) -> list[str]:
    return [described["const"]] if "const" in described else list(described["enum"])


def _sections(described: dict[str, Any], definitions: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each mapping below ``described`` as its key and the name of its definition, outer mappings first."""
    found = [
        (f"{key}[]" if "array" in json.dumps(each) else key, part.partition('"')[0])
        for key, each in described["properties"].items()
        for part in json.dumps(each).split('"#/$defs/')[1:]
    ]
    yield from found
    for _, name in found:
        if "properties" in definitions[name]:
            yield from _sections(definitions[name], definitions)


def _section(title: str, text: str, described: dict[str, Any]) -> Iterator[str]:
    required = set(described.get("required", []))
    yield f"\n## {title}\n\n{text}\n"
    for key, each in described["properties"].items():
        if "description" in each:
            yield _item(f"**`{key}`**{_default(key, each, required)}: {' '.join(each['description'].split())}")


def _default(key: str, described: dict[str, Any], required: set[str]) -> str:
    if key in required:
        return " (required)"
    default = described.get("default")
    if default is None or default == [] or isinstance(default, dict):
        return ""
    return f" (default `{default if isinstance(default, str) else json.dumps(default)}`)"


def _item(text: str) -> str:
    return textwrap.fill(f"- {text}", 150, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)


if __name__ == "__main__":
    for file_name, content in pages().items():
        (Path(__file__).parent / file_name).write_text(content, encoding="utf-8")
