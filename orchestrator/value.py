"""Values: data classes that nobody changes, by the type checker's word instead of the interpreter's.

``@dataclass(frozen=True)`` sets each field through ``object.__setattr__``, which makes an object of fifteen fields in
1.2 µs instead of 0.24 (CPython 3.11). A request makes some twenty such objects. Imports nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """Make ``cls`` a data class with slots, compared and hashed by its fields, which type checkers take for frozen."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
