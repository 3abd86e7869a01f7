"""Values: compared and hashed by their fields, and copied with changes."""

from __future__ import annotations

from dataclasses import field, fields

import pytest

from orchestrator.value import replace, value


@value
class Point:
    x: int
    y: int = 0
    tags: tuple[str, ...] = field(default=(), compare=False)


def test_a_value_is_compared_and_hashed_by_its_fields() -> None:
    assert Point(1, 2, ("a",)) == Point(1, 2)
    assert len({Point(1), Point(1), Point(2)}) == 2
    assert not hasattr(Point(1), "__dict__")
    assert [each.name for each in fields(Point)] == ["x", "y", "tags"]


def test_a_copy_has_the_changes_and_the_original_stays() -> None:
    first = Point(1, 2, ("a",))
    assert (replace(first, y=3), replace(first, x=4).tags) == (Point(1, 3), ("a",))
    assert first == Point(1, 2)
    with pytest.raises(AttributeError):
        replace(first, z=3)  # type: ignore[call-arg]  # on purpose


def test_a_value_with_a_single_field_is_refused() -> None:
    with pytest.raises(TypeError, match="Lone has only one field"):

        @value
        class Lone:
            x: int
