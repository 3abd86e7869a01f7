"""A run begins with the limits that the run before it learned: the command as a process against the stand-in."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from command import PASSWORD, USER, fleet, run_command, stand_in

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("without_coverage")

LIMITED = ("--bucket-rate", "12", "--bucket-burst", "5")
"""A limit that even a busy machine reaches."""


def summary(folder: Path) -> dict[str, Any]:
    newest = max((folder / "state" / "runs").iterdir())
    found: dict[str, Any] = json.loads((newest / "summary.json").read_text())
    return found


def test_the_second_run_begins_with_the_limits_that_the_first_one_learned(tmp_path: Path) -> None:
    with stand_in(*LIMITED) as api:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(api.base_url, 60))
        first = run_command("run", "--log-format", "json", cwd=tmp_path)
        learned = summary(tmp_path)["accounts"]["default"]
        throttled = api.stats()["throttled"]
        second = run_command("run", "--log-format", "json", cwd=tmp_path)
        assert (first.code, second.code) == (0, 0)
        assert 8 < learned["limit"]["rate"] < 18
        assert learned["evidence"]["refused_rates"]
        assert throttled > 0
        (event,) = (
            line for line in map(json.loads, second.stderr.splitlines()) if line["event"] == "throttle.remembered"
        )
        assert event["rate"] == pytest.approx(learned["limit"]["rate"], abs=0.01)
        assert api.stats()["throttled"] - throttled <= 2
    database = tmp_path / "state" / "state.db"
    assert database.stat().st_mode & 0o777 == 0o600
    assert not {secret for secret in (USER, PASSWORD) if secret.encode() in database.read_bytes()}


def test_a_fixed_rate_neither_uses_nor_changes_the_remembered_limits(tmp_path: Path) -> None:
    with stand_in(*LIMITED) as api:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(api.base_url, 40))
        run_command("run", cwd=tmp_path)
        before = _rows(tmp_path)
        assert before
        fixed = run_command("run", "--rate", "20", "--log-format", "json", cwd=tmp_path)
        assert fixed.code == 0
        assert "throttle.remembered" not in fixed.stderr
        assert _rows(tmp_path) == before
        assert summary(tmp_path)["accounts"]["default"]["rate"] == 20.0


def _rows(folder: Path) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(folder / "state" / "state.db")
    try:
        return connection.execute("SELECT * FROM learned_rates").fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize("kind", ["damaged", "a directory", "of a newer version"])
def test_an_unusable_state_stops_the_run_before_anything_is_sent(tmp_path: Path, kind: str) -> None:
    state = tmp_path / "state"
    state.mkdir()
    if kind == "damaged":
        (state / "state.db").write_bytes(b"this is no database, and long enough to be sure of it" * 100)
    elif kind == "a directory":
        (state / "state.db").mkdir()
    else:
        connection = sqlite3.connect(state / "state.db")
        connection.execute("PRAGMA user_version = 999")
        connection.close()
    with stand_in() as api:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(api.base_url, 3))
        ended = run_command("run", cwd=tmp_path)
        assert ended.code == 4
        assert "state.db" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert api.stats()["requests"] == 0
    assert {each.name for each in state.iterdir()} == {"state.db"}
