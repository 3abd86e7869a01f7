"""Which runs belong to one YAML, even if a link is swapped or the YAML comes from a stream."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections import Counter
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from command import (
    COMMAND,
    Ended,
    StandIn,
    environment,
    fleet,
    install_ids,
    run_command,
    run_program,
    stand_in,
    start_command,
    until,
)
from test_resume import PACE, QUICK, SLOWLY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from command import Live

pytestmark = pytest.mark.usefixtures("without_coverage")

RELEASED = Path(__file__).parent / "released" / "state-cab67d9.sql"
RELEASED_RUN = "01M8GAJ06SHVSS4M5DA8SE5KK2"


def config_map(folder: Path, text: str, version: int = 1) -> Path:
    """Create what Kubernetes mounts for a ConfigMap, or swap in a new version. Return the path that users give."""
    folder.mkdir(exist_ok=True)
    (folder / f"..{version}").mkdir()
    (folder / f"..{version}" / "fleet.yaml").write_text(text)
    (folder / "..new").symlink_to(f"..{version}")
    (folder / "..new").replace(folder / "..data")
    link = folder / "fleet.yaml"
    if not link.is_symlink():
        link.symlink_to("..data/fleet.yaml")
    return link


@contextmanager
def going_on(folder: Path, server: StandIn, *arguments: str, **changes: str) -> Iterator[Live]:
    """Begin a slow run, yield it after its first backup, and stop it at the end."""
    live = start_command("run", *SLOWLY, *arguments, cwd=folder, **changes)
    try:
        until(server.backups)
        yield live
    finally:
        live.send_signal(signal.SIGINT)
        assert live.ended().code == 130


def refused(command: Ended, code: int, *words: str) -> None:
    assert command.code == code, command.stderr
    assert [word for word in words if word not in command.stderr] == []


def test_a_swapped_config_map_keeps_its_lock_and_its_runs(tmp_path: Path) -> None:
    with stand_in() as server:
        link = config_map(tmp_path / "etc", fleet(server.base_url, 60, QUICK))
        with going_on(tmp_path, server, "-c", str(link)):
            config_map(tmp_path / "etc", fleet(server.base_url, 60, QUICK), version=2)
            refused(run_command("run", "-c", str(link), cwd=tmp_path), 11, f"a run of {link} is going on, run 01")
        assert run_command("status", "-c", str(link), cwd=tmp_path).code == 3
        done = run_command("run", "-c", str(link), "--resume", "latest", *PACE, cwd=tmp_path)
        assert done.code == 0, done.stderr
        retried = run_command("run", "-c", str(link), "--retry-failed", "latest", cwd=tmp_path)
        assert retried.code == 0, retried.stderr
        assert Counter(each["install_id"] for each in server.backups()) == dict.fromkeys(install_ids(60), 1)


def test_every_path_through_a_swapped_folder_means_the_same_configuration(tmp_path: Path) -> None:
    with stand_in() as server:
        for version in ("7", "8"):
            (tmp_path / "releases" / version).mkdir(parents=True)
            (tmp_path / "releases" / version / "wpe-backup.yaml").write_text(fleet(server.base_url, 60, QUICK))
        current, state = tmp_path / "current", str(tmp_path / "state")
        current.symlink_to("releases/7")
        by_path = ("-c", str(current / "wpe-backup.yaml"))
        with going_on(tmp_path, server, *by_path):
            current.unlink()
            current.symlink_to("releases/8")
            refused(run_command("run", "-c", "current//./wpe-backup.yaml", cwd=tmp_path), 11)
            there: dict[str, Any] = {"cwd": current, "PWD": str(current), "WPE_BACKUP_STATE_DIR": state}
            refused(run_command("run", **there), 11, "a run of wpe-backup.yaml is going on")
            refused(run_command("run", "-c", "wpe-backup.yaml", **there), 11)
            refused(run_command("run", "-c", "../../current/wpe-backup.yaml", **there | {"PWD": "/"}), 11)
        done = run_command("run", "--resume", "latest", *PACE, **there)
        assert done.code == 0, done.stderr


@pytest.mark.parametrize("version", [1, 2])
def test_runs_that_release_0_1_stored_under_a_link_are_found(tmp_path: Path, version: int) -> None:
    with stand_in() as server:
        text = fleet(server.base_url, 2, QUICK)
        link = config_map(tmp_path / "etc", text)
        (tmp_path / "state").mkdir(mode=0o700)
        yesterday = str((datetime.now(UTC) - timedelta(days=1)).date())  # older runs would be removed
        dump = RELEASED.read_text().replace("2026-11-28", yesterday)
        dump = dump.replace("@FOLDER@", str(tmp_path)).replace("@BASE_URL@", server.base_url)
        with closing(sqlite3.connect(tmp_path / "state" / "state.db")) as connection:
            connection.executescript(dump)
        if version == 2:
            config_map(tmp_path / "etc", text, version)
        again = run_command("run", "-c", str(link), "--retry-failed", "latest", "--deadline", "1ms", cwd=tmp_path)
        assert (again.code, f"retries={RELEASED_RUN}" in again.stderr) == (10, True), again.stderr
        assert RELEASED_RUN not in run_command("status", "-c", str(link), cwd=tmp_path).stdout  # the retry is newer
        with closing(sqlite3.connect(tmp_path / "state" / "state.db")) as connection, connection:
            (scopes,) = connection.execute("SELECT json_group_array(scope) FROM runs WHERE id <> ?", (RELEASED_RUN,))
            assert str(link) in scopes[0]
            connection.execute("DELETE FROM runs WHERE id <> ?", (RELEASED_RUN,))
        assert f"Run {RELEASED_RUN}: no backup" in run_command("status", "-c", str(link), cwd=tmp_path).stdout
        done = run_command("run", "-c", str(link), "--resume", "latest", *PACE, cwd=tmp_path)
        assert (done.code, f"Run {RELEASED_RUN}: 2 of 2" in done.stderr) == (0, True), done.stderr


def test_a_run_that_is_resumed_with_another_configuration_warns_of_it(tmp_path: Path) -> None:
    with stand_in() as server:
        for name in ("one.yaml", "two.yaml"):
            (tmp_path / name).write_text(fleet(server.base_url, 2, QUICK))
        assert run_command("run", "-c", "one.yaml", "--deadline", "1ms", cwd=tmp_path).code == 10
        same = run_command("run", "-c", "one.yaml", "--resume", "01", "--deadline", "1ms", cwd=tmp_path)
        assert "the run was made with" not in same.stderr
        other = run_command("run", "-c", "two.yaml", "--resume", "01", *PACE, cwd=tmp_path)
        assert "the run was made with one.yaml, not with two.yaml: check -c" in other.stderr


def test_a_name_identifies_a_configuration_at_any_path(tmp_path: Path) -> None:
    with stand_in() as server:
        text = fleet(server.base_url, 60, QUICK)
        before, moved = tmp_path / "wpe-backup.yaml", tmp_path / "moved.yaml"
        before.write_text(text)
        assert run_command("run", "--deadline", "1ms", cwd=tmp_path).code == 10
        before.write_text(f"name: nightly\n{text}")
        moved.write_text(f"name: nightly\n{text}")
        found = run_command("run", "--retry-failed", "latest", "--deadline", "1ms", cwd=tmp_path)
        assert found.code == 10, found.stderr  # a run from before the YAML had a name is found
        with going_on(tmp_path, server):
            named = ("a run of nightly is going on, run 01", " UTC, in process ", "or use --lock-wait")
            refused(run_command("run", "-c", "moved.yaml", cwd=tmp_path), 11, *named)
            refused(run_command("run", "-c", "-", cwd=tmp_path, stdin=moved.read_text()), 11, *named)
        other = tmp_path / "other.yaml"
        other.write_text(f"name: weekly\n{text}")
        nothing = run_command("run", "-c", "other.yaml", "--resume", "latest", cwd=tmp_path)
        others = ('there are no runs of "weekly" in', 'there are runs of "nightly" (the newest is 01', "give the id")
        refused(nothing, 2, *others)
        done = run_command("run", "-c", "moved.yaml", "--resume", "latest", *PACE, cwd=tmp_path)
        assert done.code == 0, done.stderr


def test_the_same_installs_over_any_stream_are_one_configuration(tmp_path: Path) -> None:
    with stand_in() as server:
        text = fleet(server.base_url, 60, QUICK)
        (tmp_path / "fleet.yaml").write_text(text)
        env = environment(WPE_BACKUP_STATE_DIR=str(tmp_path / "state"), HOME=str(tmp_path))

        def over_descriptor(number: int) -> list[str]:
            script = f'exec {number}< <(cat fleet.yaml); exec "$@" -c /dev/fd/{number}'
            return ["bash", "-c", script, "bash", *COMMAND, "run"]

        with subprocess.Popen([*over_descriptor(20), "-q", *SLOWLY], cwd=tmp_path, env=env) as live:
            until(server.backups)
            refused(run_program(*over_descriptor(21), cwd=tmp_path), 11, "a run of <pipe> is going on, run 01")
            refused(run_command("run", "-c", "-", cwd=tmp_path, stdin=text), 11, "a run of <stdin> is going on")
            refused(run_command("run", "-c", "/dev/stdin", cwd=tmp_path, stdin=text), 11)
            live.send_signal(signal.SIGINT)
        assert live.returncode == 130
        done = run_command("run", "-c", "-", "--resume", "latest", *PACE, cwd=tmp_path, stdin=text)
        assert done.code == 0, done.stderr


def test_a_yaml_with_two_paths_has_one_run_at_a_time(tmp_path: Path) -> None:
    with stand_in() as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 60, QUICK))
        (tmp_path / "link.yaml").symlink_to("wpe-backup.yaml")
        with going_on(tmp_path, server, "-c", "link.yaml"):
            refused(run_command("run", cwd=tmp_path), 11)
            refused(run_command("run", "--shard", "1/1", "--deadline", "1ms", cwd=tmp_path), 10)
        assert os.listdir(tmp_path / "state" / "locks")  # noqa: PTH208 - they stay, empty
        assert not any(path.read_bytes() for path in (tmp_path / "state" / "locks").iterdir())
