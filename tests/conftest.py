"""Provide fixtures for every test, and set how Hypothesis draws its examples.

The examples are the same in every run. They have no deadline, because a busy machine may miss one.
``pytest --hypothesis-profile explore`` draws new ones.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from surroundings import is_foreign

if TYPE_CHECKING:
    from collections.abc import Iterator

settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", settings.get_profile("explore"), derandomize=True, database=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def _nothing_foreign_in_the_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in filter(is_foreign, list(os.environ)):
            monkeypatch.delenv(name)
        yield


@pytest.fixture
def without_coverage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure no coverage in processes that a test starts: it makes them a third slower, and other tests measure it."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
