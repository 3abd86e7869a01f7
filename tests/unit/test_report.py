"""The report: its lines, its file, reading it, and its output for people."""

from __future__ import annotations

import asyncio
import io
import json
import os
import select
import tempfile
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fakes import EARLIER_RUN_ID, RUN_ID, SUMMARY, install_id, planned
from rich.console import Console

from orchestrator.errors import StorageError, UsageError
from orchestrator.marker import marker
from orchestrator.model import Backup, ErrorInfo, ErrorKind, FieldError, Learned, Outcome, OutcomeKind, Spent
from orchestrator.report.lines import backup_line, encode, iso, line_of, summary_line
from orchestrator.report.read import Report, find_report, read_reports
from orchestrator.report.text import failures, totals
from orchestrator.report.write import ReportWriter, drop_run, make_folder, rewrite, write_summary
from orchestrator.summary import AccountTotals, Ending, Tally, exit_code

AT = datetime(2026, 11, 23, 1, 0, 0, 123456, tzinfo=UTC)
ACCEPTED = Outcome(
    planned(1), OutcomeKind.ACCEPTED, AT, 0.4101, Backup("b", "requested"), spent=Spent(1, 1, 0, AT), request_id="r"
)
ERROR = ErrorInfo(
    ErrorKind.REJECTED, "n\x1b[31mo", 400, "u", (FieldError("Backup", "emails", "t", "c", "are bad"),), "q"
)
REJECTED = Outcome(planned(2), OutcomeKind.REJECTED, AT, error=ERROR, spent=Spent(1, 1, 0, AT))
UNKNOWN = replace(REJECTED, kind=OutcomeKind.UNCONFIRMED, sought=(RUN_ID, EARLIER_RUN_ID))


def write(target: Path | str, stdout_fd: int | None = None, *extra: Outcome) -> None:
    async def main() -> None:
        async with ReportWriter(str(target), stdout_fd) as report:
            for outcome in (ACCEPTED, REJECTED, *extra):
                await report.write(data_of(outcome))
            await finish(report)

    asyncio.run(main())


def data_of(outcome: Outcome) -> bytes:
    return line_of("R1", outcome).data


async def finish(report: ReportWriter) -> None:
    await report.write(encode(summary_line(SUMMARY)), sync=True)


def shown(thing: object) -> str:
    stream = io.StringIO()
    Console(file=stream, width=200).print(thing)
    return stream.getvalue()


def test_a_line_has_every_field_of_the_contract() -> None:
    assert backup_line("R1", ACCEPTED) == {
        "type": "backup",
        "schema": 1,
        "run_id": "R1",
        "install_id": install_id(1),
        "name": "install1",
        "account": "default",
        "environment": None,
        "tags": [],
        "description": ACCEPTED.planned.request.description,
        "outcome": "accepted",
        "backup": {
            "id": "b",
            "status": "requested",
            "description": None,
            "create_time": None,
            "complete_time": None,
            "wordpress_version": None,
        },
        "error": None,
        "reason": None,
        "earlier_backups": [],
        "attempts": 1,
        "throttled": 0,
        "reconciled": False,
        "settled_by": None,
        "look_for": [],
        "started_at": "2026-11-23T01:00:00.123Z",
        "finished_at": "2026-11-23T01:00:00.123Z",
        "duration_s": 0.41,
        "request_id": "r",
    }
    assert backup_line("R1", REJECTED)["error"] == {
        "kind": "rejected",
        "status": 400,
        "message": "n\x1b[31mo",
        "documentation_url": "u",
        "errors": [{"resource": "Backup", "field": "emails", "type": "t", "code": "c", "message": "are bad"}],
        "request_id": "q",
        "retry_after_s": None,
    }


def test_a_line_has_the_results_of_a_lookup() -> None:
    found = replace(ACCEPTED, reconciled=True, earlier=(Backup("c", "aborted", "x", "t"), Backup("d")))
    line = backup_line("R1", found)
    assert (line["reconciled"], line["look_for"]) == (True, [])
    assert line["earlier_backups"] == [{"id": "c", "status": "aborted"}, {"id": "d", "status": None}]
    assert backup_line("R1", UNKNOWN)["look_for"] == [marker(RUN_ID), marker(EARLIER_RUN_ID)]


@pytest.mark.parametrize(
    ("spent", "retries"),
    [
        (Spent(), 0),
        (Spent(1, 1, 0), 0),
        (Spent(0, 0, 1), 0),
        (Spent(1, 1, 2), 2),
        (Spent(2, 0, 0), 1),
        (Spent(2, 1, 3), 4),
    ],
)
def test_a_stored_line_has_the_values_for_the_totals(spent: Spent, retries: int) -> None:
    line = line_of("R1", replace(ACCEPTED, spent=spent, reconciled=True))
    assert (line.position, line.kind, line.retries, line.reconciled) == (1, OutcomeKind.ACCEPTED, retries, True)
    assert (
        line.data == encode(line.fields()) == encode(backup_line("R1", replace(ACCEPTED, spent=spent, reconciled=True)))
    )


def test_the_summary_adds_up_the_accounts() -> None:
    line = summary_line(SUMMARY)
    assert (line["requests"], line["throttled"], line["retries"], line["exit_code"]) == (6, 3, 3, 3)
    assert line["reconciled"] == 1
    assert line["outcomes"]["accepted"] == 1
    assert set(line["outcomes"]) == {kind.value for kind in OutcomeKind}
    nothing_seen: dict[str, object] = {"refused_rates": None, "retry_after": 0, "headers": {}}
    assert line["accounts"] == {
        "default": {
            "requests": 5,
            "throttled": 2,
            "rate": 12.346,
            "outcomes": {},
            "limit": None,
            "evidence": nothing_seen,
        },
        "b": {"requests": 1, "throttled": 1, "rate": 5.0, "outcomes": {}, "limit": None, "evidence": nothing_seen},
    }


LIMITED = AccountTotals(
    5, 2, 12.3, Learned(49.87654, 97.6, 8, 0.25), (50.0, 61.23456), 3, (("x-ratelimit-limit", "50"),)
)


def test_the_summary_has_the_limits_and_their_evidence() -> None:
    account = summary_line(replace(SUMMARY, accounts={"default": LIMITED}))["accounts"]["default"]
    assert account["limit"] == {"rate": 49.877, "burst": 98, "in_flight": 8}
    assert account["evidence"] == {
        "refused_rates": [50.0, 61.235],
        "retry_after": 3,
        "headers": {"x-ratelimit-limit": "50"},
    }


def test_a_line_is_one_line_of_utf8_for_any_text_of_the_server() -> None:
    odd = replace(REJECTED, error=replace(ERROR, message="é\n\r\x00\u2028\ud800"))
    raw = encode(backup_line("R", odd))
    assert raw.count(b"\n") == 1
    assert json.loads(raw)["error"]["message"].startswith("é\n\r\x00\u2028")


def test_instants_are_utc_with_milliseconds() -> None:
    assert iso(AT) == "2026-11-23T01:00:00.123Z"
    assert iso(None) is None


def test_each_line_is_in_the_file_as_soon_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "report.jsonl"

    async def main() -> None:
        async with ReportWriter(str(path), None) as report:
            await report.write(data_of(ACCEPTED))
            assert json.loads(path.read_bytes())["outcome"] == "accepted"
            await finish(report)

    asyncio.run(main())
    assert [json.loads(line)["type"] for line in path.read_bytes().splitlines()] == ["backup", "summary"]
    assert list(tmp_path.iterdir()) == [path]


def test_an_older_report_is_replaced_and_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "report.jsonl"
    path.write_text("old\n" * 1000)
    with path.open() as reader:
        write(path)
        assert reader.readline() == "old\n"
    assert len(path.read_bytes().splitlines()) == 3


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="this system has no /dev/shm")  # noqa: S108 - no temporary file
def test_a_regular_file_in_memory_is_replaced_like_any_other() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "r.jsonl"
        for _ in range(2):
            write(path)
        assert len(path.read_bytes().splitlines()) == 3


def test_a_report_begins_with_the_earlier_lines_of_a_resumed_run(tmp_path: Path) -> None:
    path = tmp_path / "report.jsonl"
    path.write_text("old\n")

    async def main(target: str, stdout_fd: int | None = None) -> None:
        first = data_of(ACCEPTED) + data_of(REJECTED)
        async with ReportWriter(target, stdout_fd, first) as report:
            if target == str(path):
                assert path.read_bytes() == first
            await report.write(data_of(UNKNOWN))

    asyncio.run(main(str(path)))
    whole = data_of(ACCEPTED) + data_of(REJECTED) + data_of(UNKNOWN)
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]
    readable, writable = os.pipe()
    asyncio.run(main("-", writable))
    assert os.read(readable, 100_000) == whole
    os.close(readable)
    os.close(writable)


def test_a_report_is_written_again_only_if_it_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "report.jsonl"
    write(path)
    assert rewrite(str(path), data_of(ACCEPTED))
    assert path.read_bytes() == data_of(ACCEPTED)
    assert list(tmp_path.iterdir()) == [path]
    os.mkfifo(tmp_path / "fifo")
    assert not any(rewrite(target, b"x\n") for target in ("-", "/dev/null", "/dev/fd/1", str(tmp_path / "fifo")))
    with pytest.raises(StorageError, match="cannot be written"):
        rewrite(str(tmp_path / "missing" / "r.jsonl"), b"x\n")


def test_dropping_a_run_removes_only_its_own_files(tmp_path: Path) -> None:
    folder = tmp_path / "01A"
    for more in ([], ["notes.txt"]):
        folder.mkdir()
        for name in ("report.jsonl", "summary.json", "lock", *more):
            (folder / name).touch()
        drop_run(folder)
        assert [path.name for path in folder.glob("*")] == more
        assert folder.exists() is bool(more)
    drop_run(tmp_path / "missing")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert len((tmp_path / "real").read_bytes().splitlines()) == 3


def test_a_pipe_is_written_to_after_a_wait_for_its_reader(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))

    async def main() -> None:
        asyncio.get_running_loop().call_soon(reader.start)  # starts after the writer has found no reader and waits
        async with ReportWriter(str(fifo), None) as report:
            await report.write(data_of(ACCEPTED))
            await finish(report)

    asyncio.run(main())
    reader.join()
    assert read[0].count(b"\n") == 2
    assert fifo.is_fifo()


def test_a_path_of_a_descriptor_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    readable, writable = os.pipe()
    write(f"/dev/fd/{writable}")
    assert os.read(readable, 100_000).count(b"\n") == 3
    os.close(readable)
    os.close(writable)
    log = tmp_path / "app.log"
    log.write_text("earlier\n")
    with log.open("ab") as file:
        write(f"/dev/fd/{file.fileno()}")
    assert log.read_bytes().startswith(b"earlier\n")
    assert log.read_bytes().count(b"\n") == 4


def has_room(writable: int) -> bool:
    """Tell whether a pipe has room for more."""
    return bool(select.select([], [writable], [], 0)[1])


def test_a_slow_pipe_gets_every_line_completely() -> None:
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    got = bytearray()

    def reader() -> None:
        while has_room(writable):
            pass
        while chunk := os.read(readable, 1000):
            got.extend(chunk)

    thread = threading.Thread(target=reader)
    thread.start()
    long = replace(REJECTED, error=replace(ERROR, message="x" * 50_000))
    write("-", writable, *[long] * 8)
    os.close(writable)
    thread.join()
    os.close(readable)
    assert [json.loads(line)["type"] for line in got.splitlines()] == ["backup"] * 10 + ["summary"]


def test_standard_output_stays_open() -> None:
    readable, writable = os.pipe()
    write("-", writable)
    assert os.read(readable, 100_000).count(b"\n") == 3
    assert os.fstat(writable)
    os.close(readable)
    os.close(writable)


@pytest.mark.parametrize("target", ["/nonexistent/report.jsonl", "/"])
def test_a_report_that_cannot_be_created_is_an_error(target: str) -> None:
    with pytest.raises(StorageError, match="the report cannot be written to /"):
        write(target)


def test_a_full_disk_is_an_error() -> None:
    with pytest.raises(StorageError, match="No space left on device"):
        write("/dev/full")


def test_a_closed_standard_output_is_an_error() -> None:
    with pytest.raises(StorageError, match="standard output: it is closed"):
        write("-")


def test_after_a_failed_write_no_other_is_tried() -> None:
    async def main() -> None:
        async with ReportWriter("/dev/full", None) as report:
            writes = (report.write(data_of(ACCEPTED)) for _ in range(3))
            failures = await asyncio.gather(*writes, return_exceptions=True)
            assert len(set(failures)) == 1
            with pytest.raises(StorageError):
                await finish(report)

    asyncio.run(main())


def test_a_report_whose_reader_does_not_read_can_be_abandoned() -> None:
    readable, writable = os.pipe()
    long = replace(REJECTED, error=replace(ERROR, message="x" * 1_000_000))

    async def main() -> None:
        async with ReportWriter("-", writable) as report:
            writes = [asyncio.create_task(report.write(data_of(long))) for _ in range(3)]
            while has_room(writable):  # noqa: ASYNC110 - a pipe has no event
                await asyncio.sleep(0)
            report.abandon()
            failures = await asyncio.gather(*writes, return_exceptions=True)
            assert all(isinstance(failure, StorageError) for failure in failures)
            with pytest.raises(StorageError, match="its reader does not read"):
                await finish(report)

    asyncio.run(main())
    os.close(readable)


def test_writing_to_a_report_before_it_is_opened_raises() -> None:
    with pytest.raises(RuntimeError, match="before it is opened"):
        asyncio.run(ReportWriter("x", None).write(data_of(ACCEPTED)))


def test_the_summary_has_its_own_file(tmp_path: Path) -> None:
    write_summary(tmp_path, summary_line(SUMMARY))
    assert json.loads((tmp_path / "summary.json").read_bytes()) == summary_line(SUMMARY)
    with pytest.raises(StorageError, match=r"summary\.json cannot be written"):
        write_summary(tmp_path / "missing", summary_line(SUMMARY))


def test_folders_are_accessible_by_their_owner_only(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a").stat().st_mode & 0o777 == (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="--state-dir"):
        make_folder(tmp_path / "file" / "x")


def test_the_printed_totals_show_the_limits_that_were_found() -> None:
    line = summary_line(replace(SUMMARY, accounts={"default": LIMITED, "b": AccountTotals(1, 0, 5.0)}))
    text = shown(totals(Report("f", summary=line, run_id="R1")))
    assert "rate limit of account default: about 49.9 requests a second, a burst of 98 beyond that, 8 at a time" in text
    assert "limit of b" not in text


@pytest.mark.parametrize("limit", [None, 1, "x", {}, {"rate": "fast"}, {"rate": True}, {"rate": 1e400}, {"rate": -1}])
def test_limits_that_make_no_sense_are_not_shown(limit: object) -> None:
    line = summary_line(SUMMARY) | {"accounts": {"a\x1b[31m": {"limit": limit}, "b": 3}}
    assert "limit" not in shown(totals(Report("f", summary=line, run_id="R1")))


def test_a_report_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    write(path)
    report = read_reports(path).newest
    assert (report.run_id, report.outcomes, report.succeeded) == ("R1", {"accepted": 1, "rejected": 1}, 1)
    assert [line["install_id"] for line in report.failures] == [install_id(2)]
    assert report.summary == summary_line(SUMMARY)
    assert shown(totals(report)).splitlines()[:1] == ["Run R1: 1 of 2 installs backed up, 1 not, in 1 min 15 s"]


def test_an_unfinished_and_damaged_report_is_read_as_far_as_possible(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    write(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\n[1]\n{}\n" + lines[1] + lines[2][:30])
    found = read_reports(path)
    report = found.newest
    damage = ["line 3 is not a JSON object", "line 6 is cut off"]
    assert (report.outcomes.total(), report.summary, report.damage, found.foreign) == (2, None, damage, 1)
    text = shown(totals(report))
    assert "the run has not ended" in text
    assert "finish it with wpe-backup run --resume R1" in text
    assert "The report is damaged: line 3 is not a JSON object; line 6 is cut off" in text


@pytest.mark.parametrize("content", [b"", b"hello\n", b'{"a": 1}\n', b"\x00\xff"])
def test_a_file_that_is_not_a_report_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is not a report"):
        read_reports(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_reports(tmp_path)


def test_a_failure_is_shown_with_its_fields_and_without_terminal_codes() -> None:
    odd: list[dict[str, Any]] = [
        {"error": 7},
        {"error": {"errors": 5, "status": []}},
        {"name": ["x"]},
        {"name": "n" * 100},
    ]
    text = "\n".join(row.plain for row in failures([backup_line("R1", REJECTED), *odd]))
    assert r"n\x1b[31mo; emails are bad" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (5.04, " in 5.0 s"),
        (125, " in 2 min 5 s"),
        (7260, " in 2 h 1 min"),
        (None, ""),
        ("5", ""),
        ([], ""),
        (1e300, ""),
        (-1, ""),
    ],
)
def test_durations_are_shown_in_readable_units(seconds: object, words: str) -> None:
    report = Report("r", summary=summary_line(SUMMARY) | {"duration_s": seconds}, run_id="R1")
    assert shown(totals(report)).splitlines()[0] == f"Run R1: 0 of 0 installs backed up{words}"
    report.outcomes["rejected"] = 1
    assert shown(totals(report)).splitlines()[0] == f"Run R1: 0 of 1 installs backed up, 1 not{words and ','}{words}"


def test_a_nonsense_summary_is_shown_without_terminal_codes(tmp_path: Path) -> None:
    line = {"type": "summary", "run_id": 7, "requests": "\x1b[31m", "throttled": 1e99, "retries": None}
    path = tmp_path / "r.jsonl"
    lines = [line, {"type": "backup", "outcome": "of\x1bthe future"}, {"type": "backup", "outcome": None}]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines) + '{"type": "summary", "duration_s": NaN}\n')
    text = shown(totals(read_reports(path).newest))
    assert "\x1b" not in text
    assert r"of\x1bthe future" in text
    assert "? requests to the API, answered 429: ?, retries: ?" in text


def test_runs_are_found_by_id_prefix_latest_and_path(tmp_path: Path) -> None:
    for run_id in ("01AAA", "01AAB", "01B"):
        (tmp_path / "runs" / run_id).mkdir(parents=True)
        write(tmp_path / "runs" / run_id / "report.jsonl")
    runs = tmp_path / "runs"
    assert find_report(tmp_path, "latest") == runs / "01B" / "report.jsonl"
    assert find_report(tmp_path, "01AAB") == find_report(tmp_path, str(runs / "01AAB" / "report.jsonl"))
    assert find_report(tmp_path, "01aab") == runs / "01AAB" / "report.jsonl"
    with pytest.raises(UsageError, match="beginning of several run ids"):
        find_report(tmp_path, "01A")
    with pytest.raises(UsageError, match=r"there is no run or file x; the newest runs in .* are 01B, 01AAB, 01AAA"):
        find_report(tmp_path, "x")
    with pytest.raises(UsageError, match="there are no runs"):
        find_report(tmp_path / "elsewhere", "latest")
    (runs / "zzz").mkdir()
    (runs / "yyy").touch()
    assert find_report(tmp_path, "latest") == runs / "01B" / "report.jsonl"


def test_a_report_in_another_place_is_found_through_the_summary(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "01C"
    folder.mkdir(parents=True)
    write_summary(folder, summary_line(replace(SUMMARY, report=str(tmp_path / "x.jsonl"))))
    with pytest.raises(UsageError, match=r"x\.jsonl is gone: write it again with run --resume 01C"):
        find_report(tmp_path, "latest")
    (tmp_path / "x.jsonl").touch()
    assert find_report(tmp_path, "latest") == tmp_path / "x.jsonl"
    write_summary(folder, summary_line(replace(SUMMARY, report="-")))
    with pytest.raises(UsageError, match="wrote its report elsewhere"):
        find_report(tmp_path, "latest")


def test_a_tally_counts_outcomes_and_keeps_the_first_failures() -> None:
    tally = Tally()
    found = replace(ACCEPTED, spent=Spent(2, 2, 3, AT), reconciled=True)
    for outcome in [ACCEPTED, found, *[REJECTED] * 7]:
        tally.add(line_of("R1", outcome))
    assert (tally.outcomes[OutcomeKind.ACCEPTED], tally.failed, tally.retries, tally.reconciled) == (2, 7, 4, 1)
    assert tally.first_failures() == (backup_line("R1", REJECTED),) * 5


def test_failures_are_shown_first_and_then_one_cancellation_for_each_reason() -> None:
    tally = Tally()
    cancelled = replace(REJECTED, kind=OutcomeKind.CANCELLED)
    other = replace(cancelled, error=replace(ERROR, message="another reason"))
    for outcome in [cancelled, cancelled, other, REJECTED]:
        tally.add(line_of("R1", outcome))
    assert tally.first_failures() == tuple(backup_line("R1", each) for each in (REJECTED, cancelled, other))


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (Ending(), 0),
        (Ending(failed=1), 3),
        (Ending(failed=1, deadline_passed=True), 10),
        (Ending(failed=1, deadline_passed=True, credentials_refused=True), 12),
        (Ending(failed=1, credentials_refused=True, signum=2), 130),
        (Ending(failed=1, signum=15), 143),
        (Ending(signum=15, unwritten=True), 4),
        (Ending(unwritten=True, crashed=True, signum=2), 1),
    ],
)
def test_the_exit_code_of_highest_precedence_applies(ending: Ending, code: int) -> None:
    assert exit_code(ending) == code
