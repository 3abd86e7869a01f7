"""Mutate a valid YAML: it must load, or give an error with a place and without a secret."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.config import load_config, read_yaml
from orchestrator.config.placed_yaml.excerpt import LINE_END
from orchestrator.config.secrets import MASK
from orchestrator.errors import ConfigError
from orchestrator.visible import visible

if TYPE_CHECKING:
    from orchestrator.model import Config

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
SECRET = "pA55w0rdHunter2"
ENVIRONMENT = {
    f"{prefix}WPE_API_{name}": SECRET for prefix in ("", "ACME_", "GLOBEX_") for name in ("USER_ID", "PASSWORD")
}
PIECES = [
    *(
        "\x00",
        "\t",
        "\r",
        "\n",
        " ",
        "  ",
        "- ",
        ": ",
        "? ",
        "#",
        "&a ",
        "*a",
        "!!set ",
        "!x ",
        "<<: ",
        "---\n",
        "...\n",
    ),
    *("{", "}", "[", "]", "'", '"', "|\n", ">\n", "%", "@", "`", "$", "$$", "${", "${X", "${X}", "${X:-y}", "\u2028"),
    *(
        ".nan",
        "-1",
        "012",
        "1:30",
        "no",
        "~",
        "null",
        "true",
        "\ufeff",
        "ä",
        "日",
        "\x85",
        "\x1b[2J",
        "{nmae}",
        "\ud7ff",
    ),
    *("id: x\n", "accounts:\n", "accounts: []\n", "  password: [\n", "installs:\n", "  - \n", "version: 1\n"),
]


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """Return a file of ``configs/``, with the secrets written into it, after a few cuts, insertions and swaps."""
    text = draw(st.sampled_from(CONFIGS)).read_text()
    for name in ENVIRONMENT:
        text = text.replace("${" + name + "}", SECRET)
    for _ in range(draw(st.integers(0, 4))):
        lines = text.splitlines(keepends=True) or [""]
        at, until = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        match draw(st.integers(0, 4)):
            case 0:
                text = text[:at] + draw(st.sampled_from(PIECES)) + text[at:]
            case 1:
                text = text[:at] + text[min(until, at + 12) :]
            case 2:
                text = text[:at] + draw(st.text(max_size=6)) + text[at:]
            case 3:
                index = draw(st.integers(0, len(lines) - 1))
                text = "".join(lines[:index] + lines[index : index + 2] + lines[index:])
            case _:
                index = draw(st.integers(0, len(lines) - 1))
                lines[index] = draw(st.sampled_from(["", " ", "  ", "\t"])) + lines[index]
                text = "".join(lines)
    return text


def fault(raw: bytes, environment: dict[str, str]) -> ConfigError | None:
    try:
        load_config(raw, "f.yaml", environment)
    except ConfigError as error:
        return error
    return None


@settings(max_examples=400)
@given(mutated())
def test_a_mutated_yaml_loads_or_says_where_it_is_wrong(text: str) -> None:
    error = fault(text.encode("utf-8", "surrogatepass"), ENVIRONMENT)
    if error is None:
        return
    lines = LINE_END.split(text.removeprefix("\ufeff"))
    assert error.problems
    assert SECRET not in str(error)
    for problem in error.problems:
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
        assert problem.message
        assert len(problem.excerpt.split("\n")) == (2 if problem.excerpt else 1)
        assert all(visible(line) == line for line in problem.excerpt.split("\n"))


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_a_place(raw: bytes) -> None:
    error = fault(raw, {})
    assert error is not None
    assert all(problem.line >= 1 and problem.column >= 1 for problem in error.problems)


@settings(max_examples=100)
@given(st.sampled_from(CONFIGS), st.text("${}x5", max_size=8))
def test_the_yaml_that_config_show_prints_loads_to_the_same_configuration(path: Path, words: str) -> None:
    escaped = words.replace("$", "$$").replace("{", "{{").replace("}", "}}")
    text = path.read_text().replace("{date}", "{date} " + escaped)
    shown = read_yaml(text.encode(), str(path), ENVIRONMENT).shown()
    assert SECRET not in shown
    filled = shown.replace(f"'{MASK}'", SECRET)
    again = load_config(filled.encode(), str(path), {})
    assert unplaced(again) == unplaced(load_config(text.encode(), str(path), ENVIRONMENT))


def unplaced(config: Config) -> Config:
    """Return ``config`` without the line numbers of its installs and discoveries."""
    return replace(
        config,
        installs=tuple(replace(each, place="") for each in config.installs),
        discoveries=tuple(replace(each, place="") for each in config.discoveries),
    )


WORDS = st.one_of(
    st.sampled_from(
        ["shop1", "Shop", "x y", "a;b", 'say "x"', "two\nlines", "{date}", "{nmae}", "a,b", "${X}", " ", "ä\u2028"]
    ),
    st.text(max_size=5),
)
ENTRIES = st.lists(
    st.fixed_dictionaries(
        {"id": st.uuids().map(str)},
        optional={
            "name": WORDS,
            "tags": st.lists(WORDS, max_size=2),
            "description": WORDS,
            "environment": st.sampled_from(["staging", "staging", "staging", "prod"]),
            "notification_emails": st.lists(st.sampled_from(["a@b", "c@d", "nobody"]), min_size=1, max_size=2),
            "enabled": st.booleans(),
        },
    ),
    max_size=3,
)


def as_csv(entries: list[dict[str, object]]) -> str:
    text = io.StringIO(newline="")
    keys = ["id", "name", "tags", "description", "environment", "notification_emails", "enabled"]
    rows = csv.DictWriter(text, keys, lineterminator="\n")
    rows.writeheader()
    for entry in entries:
        rows.writerow({key: ";".join(value) if isinstance(value, list) else value for key, value in entry.items()})
    return text.getvalue()


def inventory_of(folder: Path, name: str, content: bytes) -> Config | ConfigError:
    """Load an inventory file with ``content``. Check that each problem has a place in the file and shows no secret."""
    (folder / name).write_bytes(content)
    text = f"version: 1\ndefaults: {{notification_emails: []}}\ninventory: [{{files: [{name}]}}]\n"
    try:
        return load_config(text.encode(), str(folder / "f.yaml"), ENVIRONMENT | {"X": SECRET}, is_strict=True)
    except ConfigError as error:
        found = error
    lines = LINE_END.split(content.decode("utf-8-sig", "replace"))
    for problem in found.problems:
        assert problem.file == str(folder / name)
        assert 1 <= problem.line <= len(lines)
        assert all(visible(line) == line for line in problem.excerpt.split("\n"))
    assert found.problems
    assert SECRET not in str(found)
    return found


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ENTRIES)
def test_json_lines_and_csv_give_the_same_installs_as_the_entries(
    tmp_path: Path, entries: list[dict[str, object]]
) -> None:
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    from_lines = inventory_of(tmp_path, "a.jsonl", lines.encode())
    from_csv = inventory_of(tmp_path, "a.csv", as_csv(entries).encode("utf-8", "surrogatepass"))
    if isinstance(from_lines, ConfigError):
        return
    installs = from_lines.installs
    assert [(each.id, each.name, list(each.tags), each.enabled) for each in installs] == [
        (each["id"], each.get("name"), each.get("tags", []), each.get("enabled", True)) for each in entries
    ]
    words = [word for each in installs for word in (each.name or "", each.description, *each.tags)]
    if not isinstance(from_csv, ConfigError) and all(word == word.strip() and ";" not in word for word in words):
        assert unplaced(from_csv).installs == unplaced(from_lines).installs


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.yaml"])
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=ENTRIES, cut=st.integers(0, 400), piece=st.sampled_from(PIECES) | st.binary(max_size=4))
def test_a_mutated_inventory_file_loads_or_says_where_it_is_wrong(
    tmp_path: Path, name: str, entries: list[dict[str, object]], cut: int, piece: str | bytes
) -> None:
    text = as_csv(entries) if name == "a.csv" else "".join(json.dumps(entry) + "\n" for entry in entries)
    raw = (text.replace('{"id', '- {"id') if name == "a.yaml" else text).encode("utf-8", "surrogatepass")
    inventory_of(tmp_path, name, raw[:cut] + (piece.encode() if isinstance(piece, str) else piece) + raw[cut:])
