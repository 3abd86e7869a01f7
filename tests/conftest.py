"""Fixtures for every test."""

from __future__ import annotations

import pytest


@pytest.fixture
def without_coverage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure no coverage in the processes that a test starts: it makes them a third slower, and others cover it."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
