"""What a text that is not YAML is told, whichever of PyYAML's two parsers read it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from orchestrator.config.placed_yaml.syntax import Fault, composed

LOADERS = [yaml.SafeLoader, *([yaml.CSafeLoader] if hasattr(yaml, "CSafeLoader") else [])]


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: Backup: today\n", "a value that contains a colon and a space must be in quotes"),
        ("a: {b: ${C}}\n", "the { before this is not closed, or a value in it must be in quotes"),
        ("a: [b, c\nd: e\n", "the [ before this is not closed, or a value in it must be in quotes"),
        ("a: [}\n", "the [ or { before this is not closed, or a value in it must be in quotes"),
        ("a:\n  - b\n c: d\n", "this line does not fit the indentation above it"),
        ("a: 'b\n", "the quote that opens here is never closed"),
        ("a:\n\tb\n", "there is a tab here; indent with spaces"),
    ],
)
def test_a_mistake_is_explained_alike_by_both_parsers(text: str, words: str, loader: Any) -> None:
    found = composed(text, loader)
    assert isinstance(found, Fault)
    assert found.message == f"not valid YAML: {words}"


@pytest.mark.parametrize("loader", LOADERS)
def test_a_text_without_a_value_has_no_node_and_no_fault(loader: Any) -> None:
    assert composed("# nothing\n", loader) is None
