"""The marker of a run's second request differs from the first, and fits into the description."""

from __future__ import annotations

import pytest
from fakes import EARLIER_RUN_ID, RUN_ID
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.marker import MAX_DESCRIPTION, describe, described_again, marker, runs_marked, second

FIRST, AGAIN = marker(RUN_ID), marker(second(RUN_ID))


def test_neither_marker_contains_the_other() -> None:
    assert FIRST not in AGAIN
    assert AGAIN not in FIRST
    assert (runs_marked(f"a {FIRST} b"), runs_marked(f"a {AGAIN} b")) == ({RUN_ID}, {second(RUN_ID)})
    assert runs_marked(f"{FIRST}{AGAIN} {marker(EARLIER_RUN_ID)}") == {RUN_ID, second(RUN_ID), EARLIER_RUN_ID}


@pytest.mark.parametrize("text", [f"[wpe-backup {RUN_ID}/3]", f"[wpe-backup {RUN_ID}/]", f"[wpe-backup {RUN_ID}/22]"])
def test_only_the_first_and_the_second_request_have_a_marker(text: str) -> None:
    assert runs_marked(text) == set()


@pytest.mark.parametrize(
    ("description", "again"),
    [
        (f"Nightly {FIRST}", f"Nightly {AGAIN}"),
        (f" {FIRST}", f" {AGAIN}"),
        (f"of {FIRST} {FIRST}", f"of {FIRST} {AGAIN}"),
        ("without one", f"without one {AGAIN}"),
    ],
)
def test_the_second_request_has_the_same_text_with_its_own_marker(description: str, again: str) -> None:
    assert described_again(description, RUN_ID) == again


@settings(max_examples=300)
@given(st.text(min_size=1, max_size=300))
def test_both_descriptions_fit_and_differ_for_any_text(text: str) -> None:
    template = text.replace("{", "{{").replace("}", "}}")
    first, _ = describe(template, {}, RUN_ID)
    again = described_again(first, RUN_ID)
    assert max(len(first), len(again)) <= MAX_DESCRIPTION
    assert first.endswith(f" {FIRST}")
    assert again.endswith(f" {AGAIN}")
    assert again != first
    said, said_again = first.removesuffix(f" {FIRST}"), again.removesuffix(f" {AGAIN}")
    assert said_again == said or (said_again.endswith("…") and said.startswith(said_again[:-1]))
    assert described_again(first, RUN_ID) == again
