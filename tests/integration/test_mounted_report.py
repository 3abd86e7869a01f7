"""A report that is a mount point, like a file bound into a container: it cannot be replaced."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from command import COMMAND, Ended, fleet, run_command, run_program, stand_in

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("without_coverage")

UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]


def mounted(folder: Path, mount: str, *commands: str) -> list[Ended]:
    """Run each of ``commands`` after ``mount`` in a mount namespace. Skip the test if that is not allowed."""
    ended = []
    for command in commands:
        script = f'{mount} || exit 77; exec "$@" {command}'
        try:
            done = run_program(*UNSHARE, "sh", "-c", script, "sh", *COMMAND, cwd=folder)
        except FileNotFoundError:
            pytest.skip("there is no unshare here")
        if done.code == 77 or "unshare:" in done.stderr:
            pytest.skip("mounts are not allowed here")
        ended.append(done)
    return ended


BOUND = "mount --bind real.jsonl out/r.jsonl"
READ_ONLY = f"{BOUND} && mount --bind out out && mount --bind real.jsonl out/r.jsonl && mount -o remount,bind,ro out"


@pytest.mark.parametrize("mount", [BOUND, READ_ONLY])
def test_every_command_writes_a_mounted_report_in_place(tmp_path: Path, mount: str) -> None:
    real, behind = tmp_path / "real.jsonl", tmp_path / "out" / "r.jsonl"
    behind.parent.mkdir()
    behind.touch()
    real.write_text("old\n" * 1000)
    real.chmod(0o640)
    inode = real.stat().st_ino
    with stand_in("--completes-after", "10ms") as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 3))
        wrong, cut = mounted(tmp_path, mount, "run --tag x -o out/r.jsonl", "run --deadline 1ms -o out/r.jsonl")
        assert (wrong.code, cut.code) == (2, 10), wrong.stderr + cut.stderr
        assert kinds(real) == ["cancelled"] * 3
        done, status = mounted(tmp_path, mount, "run --resume latest", "status")
        assert (done.code, status.code) == (0, 0), done.stderr + status.stderr
    assert kinds(real) == ["completed"] * 3
    assert (real.stat().st_ino, real.stat().st_mode & 0o777) == (inode, 0o640)
    assert list(behind.parent.iterdir()) == [behind]
    assert behind.read_bytes() == b""


def kinds(report: Path) -> list[str]:
    """Return the outcomes of a complete report."""
    *lines, summary = map(json.loads, report.read_text().splitlines())
    assert summary["planned"] == len(lines)
    return [line["outcome"] for line in lines]


def test_a_disk_that_fills_up_loses_only_the_report_file(tmp_path: Path) -> None:
    """The journal has every line, so a resumed run writes the complete report where there is room."""
    (tmp_path / "out").mkdir()
    small = "mount -t tmpfs -o size=64k tmpfs out && touch out/real out/r.jsonl && mount --bind out/real out/r.jsonl"
    full = f"{small} && {{ head -c 61440 /dev/zero > out/filler; true; }}"
    with stand_in() as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 30))
        (ended,) = mounted(tmp_path, full, "run -o out/r.jsonl")
        assert ended.code == 4, ended.stderr
        assert "r.jsonl: No space left on device" in ended.stderr
        done = run_command("run", "--resume", "latest", "-o", "whole.jsonl", cwd=tmp_path)
        assert (done.code, server.stats()["posts"]) == (0, 30), done.stderr
    assert kinds(tmp_path / "whole.jsonl") == ["accepted"] * 30
