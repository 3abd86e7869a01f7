"""Reading reports: truncated ones, several in one file, and lines of other programs between them."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest
from fakes import install_id

from orchestrator.errors import UsageError
from orchestrator.report.read import LONGEST_LINE, read_reports, reports_meant

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.report.read import ReportFile

OLD, NEW = "01JD0000000000000000000001", "01JD0000000000000000000002"


def backup(number: int, outcome: str = "accepted", run_id: str = NEW, **fields: Any) -> bytes:
    line = {"type": "backup", "schema": 1, "run_id": run_id, "install_id": install_id(number), "name": f"shop{number}"}
    return encoded(line | {"account": "default", "outcome": outcome} | fields)


def summary(planned: int, run_id: str = NEW) -> bytes:
    return encoded({"type": "summary", "schema": 1, "run_id": run_id, "planned": planned, "exit_code": 0})


def encoded(line: dict[str, Any]) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


NEWER = "line 1 has schema 2, but this program knows only schema 1: upgrade this program"
ONE_OF_TWO = "the summary counts 2 installs, but the report has lines for only 1"
WHOLE = backup(1) + backup(2, "rejected") + summary(2)
EARLIER = backup(1, "rejected", OLD) + summary(1, OLD)


def read(folder: Path, content: bytes) -> ReportFile:
    path = folder / "r.jsonl"
    path.write_bytes(content)
    return read_reports(path)


@pytest.mark.parametrize(
    ("content", "damage"),
    [
        (WHOLE, []),
        (WHOLE[:-1], []),
        (b"\n" + WHOLE.replace(b"\n", b"\r\n\r\n"), []),
        (b"\xef\xbb\xbf" + WHOLE, []),
        (WHOLE[:-20], ["line 3 is cut off"]),
        (backup(1) + backup(2)[:100] + b"\n" + summary(2), ["line 2 is not JSON", ONE_OF_TWO]),
        (backup(1) + summary(2), [ONE_OF_TWO]),
        (summary(2), ["the summary counts 2 installs, but the report has lines for only 0"]),
        (summary(0), []),
        (backup(1)[50:] + backup(2) + summary(2), ["line 1 is not JSON", ONE_OF_TWO]),
        (backup(1) + b"\0" * 4096, ["line 2 is cut off"]),
        (WHOLE + b"\xff\xfe binary \x00\n", ["line 4 is not JSON"]),
        (WHOLE + b"7\n", ["line 4 is not a JSON object"]),
        (backup(1, schema=2) + WHOLE, [NEWER]),
        (backup(1, "vanished") + summary(1), ["line 1 has an outcome that this program does not know"]),
        (backup(1, install_id=None, name=None) + summary(1), ["line 1 has no run_id, or no install_id and no name"]),
        (WHOLE + b"x" * (LONGEST_LINE + 9) + b"\n", ["line 4 is longer than 4 MiB"]),
        (WHOLE + b"[" * 100_000, ["line 4 is cut off"]),
        (b"x" * (3 * LONGEST_LINE) + b"\n" + WHOLE, ["line 1 is longer than 4 MiB"]),
    ],
)  # fmt: skip
def test_damage_is_reported_with_its_line(tmp_path: Path, content: bytes, damage: list[str]) -> None:
    found = read(tmp_path, content)
    (report,) = found.reports
    assert (report.run_id, report.damage, found.is_damaged) == (NEW, damage, bool(damage))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"\n\n", ""),
        (b"root:x:0:0:root:/root:/bin/sh\n", "line 1 is not JSON"),
        (gzip.compress(WHOLE), "it is compressed"),
        (WHOLE.decode().encode("utf-16"), "line 1 is not JSON"),
        (WHOLE[:100], "line 1 is cut off"),
        (b'{"level": "info", "type": "backup-started"}\n', ""),
        (WHOLE.replace(b'"schema":1', b'"schema":2'), NEWER),
    ],
)
def test_a_file_without_our_lines_is_no_report(tmp_path: Path, content: bytes, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, content)
    message = f"{tmp_path / 'r.jsonl'} is not a report: it has no backup line and no summary line"
    assert str(caught.value) == (f"{message} ({why})" if why else message)


def test_lines_of_other_programs_are_counted_but_are_no_damage(tmp_path: Path) -> None:
    found = read(tmp_path, b'{"level":"info"}\n' + backup(1) + b'{"type":"request","msg":"x"}\n{}\n' + summary(1))
    assert (found.foreign, found.is_damaged, len(found.reports)) == (3, False, 1)


def test_each_run_in_a_file_has_its_own_report_and_the_newest_is_found_by_its_id(tmp_path: Path) -> None:
    for content in (EARLIER + WHOLE, WHOLE + EARLIER, backup(1) + EARLIER + backup(2, "rejected") + summary(2)):
        found = read(tmp_path, content)
        assert {each.run_id: dict(each.outcomes) for each in found.reports} == {
            OLD: {"rejected": 1},
            NEW: {"accepted": 1, "rejected": 1},
        }
        assert (found.newest.run_id, found.is_damaged) == (NEW, False)


def test_a_line_cut_off_before_another_run_damages_only_the_first_run(tmp_path: Path) -> None:
    found = read(tmp_path, EARLIER[:-30] + WHOLE)
    old, new = found.reports
    assert old.damage == ["line 2 begins with a line that was cut off"]
    assert (new.damage, new.outcomes.total(), found.newest) == ([], 2, new)
    assert read(tmp_path, b"INFO starting" + WHOLE).newest.outcomes.total() == 2


def test_a_report_that_a_resumed_run_wrote_again_counts_once(tmp_path: Path) -> None:
    begun = backup(1) + backup(2, "cancelled") + backup(3, "cancelled", install_id=None)
    again = backup(1) + backup(2, "accepted") + backup(3, "rejected") + summary(3)
    for content in (begun + again, begun + summary(3) + again, again + again, begun[:-10] + again):
        (report,) = read(tmp_path, content).reports
        assert (report.outcomes, len(report.failures)) == ({"accepted": 2, "rejected": 1}, 1)
        assert report.summary is not None


def test_a_run_whose_report_another_run_replaced_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_bytes(WHOLE)
    for run_id in (OLD, NEW):
        (tmp_path / "runs" / run_id).mkdir(parents=True)
        (tmp_path / "runs" / run_id / "summary.json").write_text(json.dumps({"report": str(tmp_path / "r.jsonl")}))
    assert reports_meant(tmp_path, "latest").newest.run_id == NEW
    with pytest.raises(UsageError, match=f"holds the report of another run, {NEW}: write the report of {OLD} again"):
        reports_meant(tmp_path, OLD)
    (tmp_path / "r.jsonl").write_bytes(EARLIER + WHOLE)
    assert [each.run_id for each in reports_meant(tmp_path, OLD).reports] == [OLD]
    assert len(reports_meant(tmp_path, str(tmp_path / "r.jsonl")).reports) == 2
