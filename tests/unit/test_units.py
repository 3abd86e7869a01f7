"""Durations, ages and instants in the forms of people and of the API."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.units import age_text, duration_s, duration_text, seconds_of


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.4, "0s"),
        (0.6, "1s"),
        (40, "40s"),
        (59.6, "1m"),
        (60, "1m"),
        (61, "1m 1s"),
        (3599.9, "1h"),
        (3600, "1h"),
        (3605, "1h"),
        (3660, "1h 1m"),
        (86_399, "23h 59m"),
        (86_400, "1d"),
        (86_460, "1d"),
        (187_200, "2d 4h"),
        (-90, "-1m 30s"),
        (3.2e10, "370370d 8h"),
    ],
)
def test_an_age_has_two_units_at_most(seconds: float, text: str) -> None:
    assert age_text(seconds) == text


@pytest.mark.parametrize(
    "time",
    [None, "", "yesterday", "2026-11-23", "2026-11-23T12:00:00", "2026-13-01T00:00:00Z", "2026-11-23T12:00:00+99:00"],
)
def test_text_that_is_no_instant_with_a_zone_gives_none(time: str | None) -> None:
    assert seconds_of(time) is None


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("1970-01-01T02:00:00+02:00", 0.0),
        ("1970-01-01T00:00:00.250000Z", 0.25),
        ("1969-12-31T23:59:59Z", -1.0),
        ("0001-01-01T00:00:00+14:00", -62_135_647_200.0),
        ("9999-12-31T23:59:59-14:00", 253_402_351_199.0),
    ],
)
def test_an_instant_is_seconds_since_1970(time: str, seconds: float) -> None:
    assert seconds_of(time) == seconds


@settings(max_examples=300)
@given(
    st.text(max_size=40) | st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?", fullmatch=True)
)
def test_any_text_of_a_server_gives_an_instant_in_range_or_none(text: str) -> None:
    at = seconds_of(text)
    assert at is None or -7e10 < at < 3e11


@settings(max_examples=300)
@given(st.floats(0.001, 9e8))
@example(1_000_000.5)
@example(12_345_678.9)
def test_a_written_duration_is_read_back_as_the_same(seconds: float) -> None:
    assert duration_s(duration_text(seconds)) == pytest.approx(seconds, rel=1e-6)


@settings(max_examples=300)
@given(st.floats(0, 1e10))
def test_an_age_is_off_by_less_than_its_second_unit(seconds: float) -> None:
    parts = age_text(seconds).split()
    told = sum(duration_s(part) or 0.0 for part in parts)
    unit = duration_s("1" + parts[0][-1]) or 0.0
    assert len(parts) <= 2
    assert abs(seconds - told) <= max(1.0, unit / 24 if unit == 86_400 else unit / 60)
