"""Reports that are truncated, foreign, or of several runs: the readable part is retried, the rest is reported."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from command import StandIn, fleet, install_ids, run_command, stand_in
from schemas import report_line_problems
from test_resume import PACE, QUICK, scenario

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StandIn]:
    """Serve an API that refuses the first requests of the second and the fourth of four installs."""
    ids = install_ids(4)
    bad = {"kind": "bad_request", "installs": [ids[1], ids[3]], "first_tries": 1}
    with stand_in(*scenario(tmp_path, faults=[bad])) as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 4, QUICK))
        yield server


def retry(folder: Path, name: str, *more: str) -> Any:
    return run_command("run", "-q", "--retry-failed", name, "-o", "retry.jsonl", *PACE, *more, cwd=folder)


def test_a_truncated_report_is_retried_as_far_as_it_can_be_read(tmp_path: Path, server: StandIn) -> None:
    assert run_command("run", "-o", "r.jsonl", "--concurrency", "1", cwd=tmp_path).code == 3
    whole = (tmp_path / "r.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    failed = [number for number, line in enumerate(lines, 1) if b'"outcome":"rejected"' in line]
    cut = b"".join(lines[: failed[1] - 1]) + lines[failed[1] - 1][:50]
    (tmp_path / "b.jsonl").write_bytes(cut)
    posts = server.stats()["posts"]
    strict = retry(tmp_path, "b.jsonl", "--strict")
    assert (strict.code, "b.jsonl: line 4 is cut off; there is no summary" in strict.stderr) == (2, True), strict.stderr
    assert server.stats()["posts"] == posts
    ended = retry(tmp_path, "b.jsonl")
    assert (ended.code, "report.damaged" in ended.stderr) == (3, True)
    assert "line 4 is cut off; there is no summary line" in ended.stderr
    assert server.stats()["posts"] == posts + 1
    line, summary = map(json.loads, (tmp_path / "retry.jsonl").read_text().splitlines())
    assert (line["outcome"], summary["exit_code"], summary["planned"]) == ("accepted", 3, 1)
    assert summary["failed_sources"][0]["source"] == "b.jsonl"
    assert [report_line_problems(each) for each in (line, summary)] == [[], []]
    assert (
        "not read: b.jsonl: line 4 is cut off" in run_command("report", "summary", "retry.jsonl", cwd=tmp_path).stdout
    )
    shown = run_command("report", "summary", "b.jsonl", "--format", "json", cwd=tmp_path)
    assert (shown.code, "line 4 is cut off" in shown.stderr) == (3, True)


@pytest.mark.parametrize("bytes_left", [0, 100])
def test_a_file_that_is_no_report_is_refused_before_anything_is_sent(
    tmp_path: Path, server: StandIn, bytes_left: int
) -> None:
    assert run_command("run", "-o", "r.jsonl", cwd=tmp_path).code == 3
    posts = server.stats()["posts"]
    (tmp_path / "b.jsonl").write_bytes((tmp_path / "r.jsonl").read_bytes()[:bytes_left])
    for name in ("/etc/passwd", "b.jsonl"):
        ended = retry(tmp_path, name)
        assert (ended.code, f"{name} is not a report" in ended.stderr) == (2, True)
        assert run_command("report", "failures", name, cwd=tmp_path).code == 2
    assert server.stats()["posts"] == posts


def test_a_file_with_several_runs_shows_each_run_and_retries_the_newest(tmp_path: Path, server: StandIn) -> None:
    with (tmp_path / "app.jsonl").open("a") as log:
        for _ in range(2):
            ended = run_command("run", "-q", "-o", "-", *PACE, cwd=tmp_path)
            log.write('{"level":"info","msg":"nightly"}\n' + ended.stdout)
    shown = run_command("report", "summary", "app.jsonl", cwd=tmp_path)
    assert shown.code == 0
    totals = [line.split(": ")[1][:6] for line in shown.stdout.splitlines() if line.startswith("Run ")]
    assert totals == ["2 of 4", "4 of 4"]
    assert "lines=2" in shown.stderr
    as_json = run_command("report", "summary", "app.jsonl", "--format", "json", cwd=tmp_path).lines()
    assert [each["exit_code"] for each in as_json] == [3, 0]
    failed = run_command("report", "failures", "app.jsonl", "--format", "json", cwd=tmp_path)
    assert [len(json.loads(line)) for line in failed.stdout.splitlines()] == [2, 0]
    table = run_command("report", "failures", "app.jsonl", cwd=tmp_path).stdout
    assert table.index(as_json[0]["run_id"]) < table.index("rejected") < table.index(as_json[1]["run_id"])
    posts = server.stats()["posts"]
    nothing = retry(tmp_path, "app.jsonl")
    assert (nothing.code, nothing.stderr, server.stats()["posts"]) == (0, "", posts)
