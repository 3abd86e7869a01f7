"""Plain words: phrases that riddle are not written again, in documents and in text that the command shows."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/adr/*.md"), *ROOT.glob("examples/*.md")]
)
MODULES = sorted(ROOT.glob("orchestrator/**/*.py"))

RIDDLES = {
    "an inversion": r"\b(so (is|are) (it|they|an?|the)|so (does|do) (it|they)|neither (is|does|do|are)|had it been)\b",
    "a chain of what": r"\bthat which\b|\bwhat (is|was|are|were) (meant|said|asked|left|open)\b|\bwhat it comes\b",
    "an old word": r"\b(whom|whose fate|for ever|shall|hence|thereof|whereof|wherein|thus)\b",
    "no subject": r"\bis said (of|at)\b|\bof (whom|which) only\b",
    "a hidden agent": r"\b(is|are|was|were) to be (said|known|had)\b|\bcannot be had\b",
}
"""Habits of ours that needed a second reading, by what is wrong with them."""

EXAMPLES = "CONTRIBUTING.md"
"""It shows such sentences beside better ones."""


def prose(document: str) -> Iterator[tuple[int, str]]:
    """Yield the lines outside code blocks, without code in them, with their numbers."""
    is_code = False
    for number, line in enumerate(document.split("\n"), 1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code:
            yield number, re.sub(r"`[^`]*`", "code", line)


def texts(module: str) -> Iterator[tuple[int, str]]:
    """Yield the docstrings and the texts of a module, with their lines."""
    for node in ast.walk(ast.parse(module)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def riddles(lines: Iterator[tuple[int, str]]) -> list[str]:
    return [
        f"line {number}: {kind}: {found[0]!r}"
        for number, line in lines
        for kind, pattern in RIDDLES.items()
        for found in re.finditer(pattern, line, re.IGNORECASE)
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_no_document_riddles(path: Path) -> None:
    if path.name != EXAMPLES:
        assert riddles(prose(path.read_text())) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT / "orchestrator")))
def test_no_text_of_the_code_riddles(path: Path) -> None:
    assert riddles(texts(path.read_text())) == []


@pytest.mark.parametrize(
    "sentence", ["So is a file.", "Return what is meant.", "That which failed.", "Whom to mail.", "It cannot be had."]
)
def test_a_riddle_is_found(sentence: str) -> None:
    assert len(riddles(iter([(1, sentence)]))) == 1


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_no_document_repeats_a_word(path: Path) -> None:
    repeated = [
        (number, word)
        for number, line in prose(path.read_text())
        for word, following in pairwise(re.findall(r"[A-Za-z]+|[^\w\s]", line))
        if word.lower() == following.lower() and word.isalpha() and word != "code"
    ]
    assert repeated == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_no_heading_is_a_question(path: Path) -> None:
    headings = [line for _, line in prose(path.read_text()) if line.startswith("#")]
    assert [line for line in headings if re.match(r"#+ (which|what|was|is|whose)\b|.*\?$", line, re.IGNORECASE)] == []


def anchors(document: str) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = (line.lstrip("# ").replace("`", "") for line in document.split("\n") if re.match("#+ ", line))
    return {re.sub(r"[^\w -]", "", heading.lower()).strip(" ").replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_each_link_of_a_document_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]*(?:#[^)]*)?)\)", path.read_text()):
        file, _, anchor = target.partition("#")
        found = path.parent / file if file else path
        assert found.exists(), target
        assert not anchor or anchor in anchors(found.read_text()), target
