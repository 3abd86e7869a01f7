"""The learned limits, in real files."""

from __future__ import annotations

import base64
import hashlib
import sqlite3
from contextlib import closing
from datetime import timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from states import AT, KEY, LEARNED, USER_ID, by_hand, keep, recall, with_store

from orchestrator.journal.rates import FORGOTTEN_AFTER, remember, remembered
from orchestrator.journal.store import FILE_NAME, Store
from orchestrator.model import Learned, LearnedWindow
from orchestrator.value import replace

if TYPE_CHECKING:
    from pathlib import Path

WINDOWED = Learned(40.0, 0.0, 8, 0.25, low=40.0, high=50.0, window=LearnedWindow(100, 2.0, 2.5, fixed=True))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / FILE_NAME


def test_learned_limits_are_remembered(path: Path) -> None:
    keep(path)
    assert recall(path) == LEARNED


def test_limits_that_were_not_found_are_remembered_as_none(path: Path) -> None:
    keep(path, Learned(5.0, 0.0))
    assert recall(path) == Learned(5.0, 0.0, None, None)


@pytest.mark.parametrize("fixed", [True, False, None])
def test_bounds_and_a_window_are_remembered(path: Path, *, fixed: bool | None) -> None:
    learned = Learned(40.0, 0.0, low=30.0, high=50.0, window=LearnedWindow(100, 2.0, 2.5, fixed=fixed))
    keep(path, learned)
    found = recall(path)
    assert found == learned
    assert found is not None
    assert found.window is not None
    assert found.window.fixed is fixed


@pytest.mark.parametrize(("later", "age_s"), [(timedelta(seconds=90), 90.0), (timedelta(0), 0.0), (-timedelta(1), 0.0)])
def test_a_limit_is_as_old_as_the_time_since_it_was_stored_and_never_younger_than_now(
    path: Path, later: timedelta, age_s: float
) -> None:
    keep(path)
    found = recall(path, now=AT + later)
    assert found is not None
    assert found.age_s == age_s


def test_the_age_does_not_make_limits_differ() -> None:
    assert replace(LEARNED, age_s=1.0) == replace(LEARNED, age_s=2.0)


def test_a_budget_that_never_ran_has_no_limits(path: Path) -> None:
    keep(path)
    assert recall(path, (KEY[0], "")) is None
    assert recall(path, ("https://other", USER_ID)) is None


def test_the_last_writer_wins(path: Path) -> None:
    async def two_runs(first: Store) -> Learned | None:
        async with Store(path) as second:
            await remember(second, KEY, Learned(1.0, 1.0), AT)
            await remember(first, KEY, Learned(2.0, 2.0), AT)
            return await remembered(second, KEY, AT)

    assert with_store(path, two_runs) == Learned(2.0, 2.0)


@pytest.mark.parametrize("age", [FORGOTTEN_AFTER + timedelta(seconds=1), -FORGOTTEN_AFTER - timedelta(seconds=1)])
def test_old_or_future_limits_are_forgotten(path: Path, age: timedelta) -> None:
    keep(path)
    assert recall(path, now=AT + FORGOTTEN_AFTER) == LEARNED
    assert recall(path, now=AT - FORGOTTEN_AFTER) == LEARNED
    assert recall(path, now=AT + age) is None


def test_a_write_removes_old_rows(path: Path) -> None:
    keep(path, key=("https://gone", "x"))
    keep(path, at=AT + FORGOTTEN_AFTER + timedelta(seconds=1))
    by_hand(path, "UPDATE learned_rates SET updated_at = '2026-11-23T01:00:00.123+00:00'")
    assert recall(path) == LEARNED
    assert recall(path, ("https://gone", "x")) is None


def test_times_are_kept_in_utc(path: Path) -> None:
    keep(path, at=AT.astimezone(timezone(timedelta(hours=-5))))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT updated_at FROM learned_rates").fetchone() == (
            "2026-11-23T01:00:00.123+00:00",
        )


@pytest.mark.parametrize(
    "nonsense",
    [
        "rate = 0",
        "rate = -1",
        "rate = 9e999",
        "rate = 1e-300",
        "rate = 1e300",
        "rate = 'fast'",
        "rate = x'00'",
        "rate = CAST(x'ff' AS TEXT)",
        "burst = -0.5",
        "burst = 9e999",
        "burst = ''",
        "in_flight = 0",
        "in_flight = -8",
        "in_flight = 2.5",
        "in_flight = 'many'",
        "in_flight = 9223372036854775807",
        "latency_s = 0",
        "latency_s = -9e999",
        "latency_s = 'soon'",
        "low = 0",
        "low = -1",
        "low = 41",
        "low = 'few'",
        "high = 39",
        "high = 9e999",
        "high = 1e300",
        "high = x'00'",
        "updated_at = ''",
        "updated_at = 'yesterday'",
        "updated_at = 12",
        "updated_at = '2026-11-23T01:00:00'",
        "updated_at = '0001-01-01T00:00:00+14:00'",
        "updated_at = '9999-12-31T23:59:59-14:00'",
        "updated_at = CAST(x'ff' AS TEXT)",
    ],
)
def test_nonsense_in_the_file_is_ignored(path: Path, nonsense: str) -> None:
    keep(path, WINDOWED)
    by_hand(path, f"UPDATE learned_rates SET {nonsense}")  # noqa: S608 - the nonsense is the test's own
    assert recall(path) is None


@pytest.mark.parametrize(
    "nonsense",
    [
        "window_requests = NULL",
        "window_requests = 0",
        "window_requests = -5",
        "window_requests = 2.5",
        "window_requests = 'many'",
        "window_requests = 9223372036854775807",
        "window_low_s = NULL",
        "window_low_s = 0",
        "window_low_s = -1",
        "window_low_s = 'x'",
        "window_low_s = 2.6",
        "window_high_s = NULL",
        "window_high_s = 1.9",
        "window_high_s = 9e999",
        "window_high_s = 86401",
        "window_high_s = x'00'",
    ],
)
def test_a_window_that_makes_no_sense_is_ignored_and_the_rest_of_the_limit_counts(path: Path, nonsense: str) -> None:
    keep(path, WINDOWED)
    by_hand(path, f"UPDATE learned_rates SET {nonsense}")  # noqa: S608 - the nonsense is the test's own
    assert recall(path) == replace(WINDOWED, window=None)


@pytest.mark.parametrize(
    "learned",
    [
        Learned(float("nan"), 1.0),
        Learned(1.0, float("inf")),
        Learned(1.0, 1.0, 0),
        Learned(1.0, 1.0, low=float("nan")),
        Learned(1.0, 1.0, low=1.1),
        Learned(1.0, 1.0, high=0.9),
        Learned(1.0, 1.0, high=float("inf")),
    ],
)
def test_nonsense_is_not_stored_and_the_old_limits_stay(path: Path, learned: Learned) -> None:
    keep(path)
    keep(path, learned)
    assert recall(path) == LEARNED


@pytest.fixture(scope="session")
def one_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rates") / FILE_NAME


@settings(max_examples=50)
@given(
    st.floats() | st.floats(0.005, 200_000.0),
    st.floats() | st.floats(0.0, 200_000.0),
    st.none() | st.integers(),
    st.none() | st.floats(),
)
def test_every_float_is_read_back_unchanged_or_not_stored(
    one_path: Path, rate: float, burst: float, in_flight: int | None, latency_s: float | None
) -> None:
    learned = Learned(rate, burst, in_flight, latency_s)

    async def round_trip(store: Store) -> Learned | None:
        await store.write(lambda connection: connection.execute("DELETE FROM learned_rates").rowcount)
        await remember(store, KEY, learned, AT)
        return await remembered(store, KEY, AT)

    sane = 0.01 <= rate <= 1e5 and 0 <= burst <= 1e5
    sane = sane and (in_flight is None or 1 <= in_flight <= 1e5) and (latency_s is None or 1e-6 <= latency_s <= 600)
    assert with_store(one_path, round_trip) == (learned if sane else None)


def test_no_form_of_the_user_id_is_in_the_files(path: Path) -> None:
    async def bytes_of_all(store: Store) -> bytes:
        await remember(store, KEY, LEARNED, AT)
        return b"".join(each.read_bytes() for each in path.parent.iterdir())

    raw = with_store(path, bytes_of_all) + path.read_bytes()
    assert KEY[0].encode() in raw
    plain = USER_ID.encode()
    for secret in (
        plain,
        plain.replace(b"-", b""),
        bytes.fromhex(USER_ID.replace("-", "")),
        base64.b64encode(plain).rstrip(b"="),
        hashlib.sha256(plain).hexdigest().encode(),
        hashlib.sha256(plain).digest(),
    ):
        assert secret not in raw
