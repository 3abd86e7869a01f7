"""``run`` as a process over real sockets, checked by the server's counts."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shlex
import signal
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest
from command import (
    AT_THE_TRUE_TIME,
    COMMAND,
    PASSWORD,
    PATIENCE_S,
    USER,
    Ended,
    StandIn,
    fleet,
    install_ids,
    run_command,
    run_program,
    stand_in,
    start_command,
    until,
)
from rawserver import answer, raw_server, read_request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PACE = ("--rate", "200", "--max-rate", "200")
GRACE = "reconcile: {grace: 500ms}"
LEFT_OPEN = "on_ambiguous: fail"


def run(folder: Path, base_url: str, count: int, *options: str, more: str = "", **changes: str) -> Ended:
    (folder / "wpe-backup.yaml").write_text(fleet(base_url, count, more))
    return run_command("run", "-o", "-", *options, cwd=folder, **changes)


def outcomes(ended: Ended) -> Counter[str]:
    return Counter(line["outcome"] for line in ended.lines() if line["type"] == "backup")


def assert_true(ended: Ended, server: StandIn, count: int) -> None:
    """Check the report against the server's backups."""
    *backups, summary = ended.lines()
    assert summary["type"] == "summary"
    assert sorted(line["install_id"] for line in backups) == install_ids(count)
    made = server.backups()
    assert len({backup["install_id"] for backup in made}) == len(made), "an install was backed up twice"
    accepted = {line["install_id"]: line["backup"]["id"] for line in backups if line["outcome"] == "accepted"}
    assert accepted.items() <= {backup["install_id"]: backup["id"] for backup in made}.items()
    assert summary["planned"] == count
    assert summary["exit_code"] == ended.code
    assert {kind: n for kind, n in summary["outcomes"].items() if n} == dict(outcomes(ended))
    assert summary["requests"] == server.stats()["requests"]
    assert summary["throttled"] == server.stats()["throttled"]
    assert summary["reconciled"] == sum(line["reconciled"] for line in backups)
    known = {line["install_id"] for line in backups if line["outcome"] in {"accepted", "unconfirmed"}}
    assert {backup["install_id"] for backup in made} <= known, "a backup was lost"


def test_a_batch_of_120_is_accepted_under_a_limit_of_40_a_second(tmp_path: Path) -> None:
    with stand_in("--bucket-rate", "40", "--bucket-burst", "10") as server:
        ended = run(tmp_path, server.base_url, 120)
        assert_true(ended, server, 120)
        stats = server.stats()
    assert ended.code == 0
    assert outcomes(ended) == {"accepted": 120}
    assert stats["throttled"] <= stats["requests"] / 10
    assert all(backup["status"] == "requested" for backup in (line["backup"] for line in ended.lines()[:-1]))


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_all_requests_obey_retry_after(tmp_path: Path, form: str) -> None:
    with stand_in("--bucket-rate", "3", "--bucket-burst", "3", "--retry-after", form) as server:
        ended = run(tmp_path, server.base_url, 12, "--rate", "20")
        assert_true(ended, server, 12)
        requests = server.requests()
    assert ended.code == 0
    first = next(index for index, request in enumerate(requests) if request["status"] == 429)
    at = requests[first]["at"]
    in_flight = [request for request in requests[first + 1 :] if request["at"] < at + 0.2]
    held = [request for request in requests[first + 1 :] if at + 0.2 <= request["at"] < at + 1.0]
    assert len(in_flight) <= 4
    assert not held


def test_permanent_answers_are_reported_completely_and_other_installs_go_on(tmp_path: Path) -> None:
    with stand_in("--invalid", "0.2", "--forbidden", "0.2", "--not-found", "0.2") as server:
        ended = run(tmp_path, server.base_url, 40, *PACE)
        assert_true(ended, server, 40)
    assert ended.code == 3
    errors = {line["error"]["status"]: line for line in ended.lines()[:-1] if line["error"]}
    assert set(errors) == {400, 403, 404}
    assert outcomes(ended)["rejected"] > 10
    assert errors[400]["error"]["kind"] == "rejected"
    assert errors[400]["error"]["errors"][0]["field"] == "notification_emails"
    assert errors[404]["error"]["message"] == "Not Found"
    assert errors[404]["request_id"]


AMBIGUOUS = ("--timed-out", "0.2", "--timed-out-created", "0.2", "--unavailable", "0.2")


def test_without_lookups_an_ambiguous_post_is_unconfirmed_and_never_repeated(tmp_path: Path) -> None:
    with stand_in(*AMBIGUOUS) as server:
        ended = run(tmp_path, server.base_url, 60, *PACE, more=LEFT_OPEN)
        assert_true(ended, server, 60)
        assert server.stats()["posts"] == 60
        assert all(request["path"] == "/v1/user" for request in server.requests() if request["method"] == "GET")
    assert ended.code == 3
    assert outcomes(ended)["unconfirmed"] > 10
    unknown = [line for line in ended.lines()[:-1] if line["outcome"] == "unconfirmed"]
    assert {line["error"]["status"] for line in unknown} == {503, 504}
    assert all(line["look_for"] == [f"[wpe-backup {line['run_id']}]"] for line in unknown)


def test_an_ambiguous_post_is_looked_up_and_its_install_is_backed_up_exactly_once(tmp_path: Path) -> None:
    with stand_in(*AMBIGUOUS, "--seed", "2") as server:
        ended = run(tmp_path, server.base_url, 60, *PACE, more=f"{GRACE}\nretry: {{max_attempts: 30}}")
        assert_true(ended, server, 60)
        made, stats = server.backups(), server.stats()
    assert ended.code == 0
    assert outcomes(ended) == {"accepted": 60}
    assert len(made) == 60
    assert stats["posts"] > 60
    assert ended.lines()[-1]["reconciled"] > 5
    again = [line for line in ended.lines()[:-1] if line["attempts"] > 1]
    assert again
    assert all(line["duration_s"] >= 0.5 for line in again)


def test_refused_credentials_send_no_backup_and_exit_with_12(tmp_path: Path) -> None:
    with stand_in(WPE_API_PASSWORD="another") as server:
        ended = run(tmp_path, server.base_url, 5)
        assert_true(ended, server, 5)
        assert server.stats()["posts"] == 0
    assert ended.code == 12
    assert {line["error"]["kind"] for line in ended.lines()[:-1]} == {"credentials"}
    assert "Bad Credentials (correct the user id and password of this account)" in ended.stderr


def test_a_run_without_o_leaves_its_report_and_summary_in_its_own_folder(tmp_path: Path) -> None:
    with stand_in() as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 3))
        ended = run_command("run", *PACE, cwd=tmp_path)
    assert (ended.code, ended.stdout) == (0, "")
    (folder,) = (tmp_path / "state" / "runs").iterdir()
    lines = [json.loads(line) for line in (folder / "report.jsonl").read_bytes().splitlines()]
    assert lines[-1] == json.loads((folder / "summary.json").read_bytes())
    assert lines[-1]["run_id"] == folder.name
    assert str(folder / "report.jsonl") in ended.stderr
    assert "3 of 3 installs backed up" in ended.stderr
    assert lines[0]["backup"]["description"].endswith(f" [wpe-backup {folder.name}]")
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_options_from_the_environment_work_like_options(tmp_path: Path) -> None:
    with stand_in() as server:
        (tmp_path / "other.yaml").write_text(fleet(server.base_url, 30))
        began = time.monotonic()
        ended = run_command(
            "run",
            cwd=tmp_path,
            WPE_BACKUP_CONFIG="other.yaml",
            WPE_BACKUP_REPORT="-",
            WPE_BACKUP_RATE="100",
            WPE_BACKUP_MAX_RATE="10",
            WPE_BACKUP_CONCURRENCY="1",
            WPE_BACKUP_LOG_FORMAT="json",
        )
        assert_true(ended, server, 30)
    assert time.monotonic() - began > 2.5
    events = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [event["event"] for event in events] == ["plan.warning", "run.started", "run.finished"]


def test_quiet_prints_only_failures(tmp_path: Path) -> None:
    with stand_in() as server:
        assert run(tmp_path, server.base_url, 3, "-q", *PACE).stderr == ""
    with stand_in("--not-found", "1") as server:
        stderr = run(tmp_path, server.base_url, 3, "-q", *PACE).stderr
    assert re.search(r"0 of 3 installs backed up, 3 not, in .+ s\n", stderr), stderr
    assert "shop2" in stderr


def test_verbose_logs_every_attempt_in_the_console_form_without_colours(tmp_path: Path) -> None:
    with stand_in() as server:
        ended = run(tmp_path, server.base_url, 3, "-v", "--log-format", "console", *PACE)
    assert ended.stderr.count("attempt.answered") == 3
    assert "\x1b" not in ended.stderr


def test_colours_can_be_forced_and_forbidden(tmp_path: Path) -> None:
    with stand_in() as server:
        options = ("--log-format", "console", *PACE)
        assert "\x1b[" in run(tmp_path, server.base_url, 1, *options, FORCE_COLOR="1").stderr
        assert "\x1b[" not in run(tmp_path, server.base_url, 1, *options, "--no-color", FORCE_COLOR="1").stderr
        assert "\x1b[" not in run(tmp_path, server.base_url, 1, *options, FORCE_COLOR="1", NO_COLOR="1").stderr


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_after_the_first_signal_requests_in_flight_finish_and_everything_is_reported(
    tmp_path: Path, signum: int
) -> None:
    with stand_in("--latency-min", "300ms", "--latency-max", "600ms") as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 100))
        process = start_command("run", "-o", "-", "--rate", "20", cwd=tmp_path)
        first = process.stdout.readline()
        process.send_signal(signum)
        ended = process.ended()
        ended = replace(ended, stdout=first + ended.stdout)
        assert_true(ended, server, 100)
        accepted = outcomes(ended)["accepted"]
        assert accepted == server.stats()["posts"] < 100
    assert ended.code == 128 + signum
    assert outcomes(ended) == {"accepted": accepted, "cancelled": 100 - accepted}
    assert {line["error"]["kind"] for line in ended.lines()[:-1] if line["error"]} == {"interrupted"}


def test_a_plan_without_enabled_installs_is_an_error_and_sends_nothing(tmp_path: Path) -> None:
    (tmp_path / "wpe-backup.yaml").write_text(
        fleet("http://127.0.0.1:9/v1", 1).replace("name: shop0", "name: shop0, enabled: false")
    )
    ended = run_command("run", cwd=tmp_path)
    assert ended.code == 2
    assert "there is no install to back up" in ended.stderr


def test_a_bad_configuration_is_reported_with_places_and_sends_nothing(tmp_path: Path) -> None:
    with stand_in() as server:
        (tmp_path / "f.yaml").write_text(fleet(server.base_url, 2) + "  - {id: nope}\nextra: 1\n")
        ended = run_command("run", "-c", "f.yaml", cwd=tmp_path)
        assert server.stats()["requests"] == 0
    assert ended.code == 2
    assert ended.stderr.splitlines()[0].startswith("f.yaml:8:10: installs[2].id: must be an install's id")
    assert ended.stderr.splitlines()[3] == "f.yaml:9:1: extra: unknown key"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "/nonexistent/r.jsonl"], "the report cannot be written to /nonexistent/r.jsonl"),
        (["-o", "."], ": Is a directory"),
        (["--state-dir", "/dev/null/x"], "name another directory with --state-dir"),
    ],
)
def test_a_report_or_state_that_cannot_be_created_is_exit_4_and_sends_nothing(
    tmp_path: Path, options: list[str], message: str
) -> None:
    with stand_in() as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 2))
        ended = run_command("run", *options, cwd=tmp_path)
        assert server.stats()["requests"] == 0
    assert ended.code == 4
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_disk_that_fills_up_is_exit_4_and_prints_the_ids_that_were_not_stored(tmp_path: Path) -> None:
    with stand_in() as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 30))
        ended = run_command("run", "-o", "/dev/full", *PACE, cwd=tmp_path)
        made = server.backups()
    assert ended.code == 4
    assert "No space left on device" in ended.stderr
    assert made
    assert all(f"backup {backup['id']}" in ended.stderr for backup in made)
    (summary,) = (tmp_path / "state").rglob("summary.json")
    assert sum(json.loads(summary.read_bytes())["outcomes"].values()) == 30


def test_a_report_whose_reader_goes_away_is_exit_4(tmp_path: Path) -> None:
    with stand_in() as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 30))
        process = start_command("run", "-o", "-", "--rate", "30", cwd=tmp_path)
        process.stdout.readline()
        process.stdout.close()
        ended = process.ended()
    assert ended.code == 4
    assert "standard output: Broken pipe" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_closed_standard_error_fails_no_install(tmp_path: Path) -> None:
    with stand_in("--not-found", "0.3") as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 30))
        process = start_command("run", "-v", "-o", "-", "--rate", "30", cwd=tmp_path)
        process.stderr.readline()
        process.stderr.close()
        ended = process.ended()
        assert ended.code == 3
        assert_true(ended, server, 30)


def test_closed_standard_streams_fail_no_install(tmp_path: Path) -> None:
    with stand_in() as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 3))
        shell = f"exec {shlex.join(COMMAND)} run -o r.jsonl <&- >&- 2>&-"
        assert run_program("/bin/sh", "-c", shell, cwd=tmp_path, **AT_THE_TRUE_TIME).code == 0
        assert len((tmp_path / "r.jsonl").read_bytes().splitlines()) == 4
        shell = f"exec {shlex.join(COMMAND)} run -o - >&-"
        ended = run_program("/bin/sh", "-c", shell, cwd=tmp_path, **AT_THE_TRUE_TIME)
    assert ended.code == 4
    assert ended.stderr == "wpe-backup: the report cannot be written to standard output: it is closed\n"


def test_ctrl_c_ends_the_wait_for_a_pipes_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "wpe-backup.yaml").write_text(fleet("http://127.0.0.1:9/v1", 3))
    process = start_command("run", "-o", "fifo", cwd=tmp_path)
    until(lambda: list(tmp_path.glob("state/runs/*")) != [])
    process.send_signal(signal.SIGINT)
    assert process.ended() == Ended(130, "", "wpe-backup: stopped before anything was sent\n")
    assert not list((tmp_path / "state" / "runs").iterdir())


def test_a_signal_after_the_summary_changes_nothing(tmp_path: Path) -> None:
    with stand_in() as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 2))
        process = start_command("run", "-o", "r.jsonl", "--rate", "100", cwd=tmp_path)
        until(lambda: (tmp_path / "r.jsonl").exists() and b'"summary"' in (tmp_path / "r.jsonl").read_bytes())
        process.send_signal(signal.SIGTERM)
        ended = process.ended()
    assert (ended.code, "Report: " in ended.stderr) == (0, True)


def test_the_report_never_overwrites_the_configuration(tmp_path: Path) -> None:
    text = fleet("http://127.0.0.1:9/v1", 3)
    (tmp_path / "f.yaml").write_text(text)
    ended = run_command("run", "-c", "f.yaml", "-o", "./f.yaml", cwd=tmp_path)
    assert ended.code == 2
    assert (tmp_path / "f.yaml").read_text() == text


def test_a_report_with_a_relative_path_is_found_from_another_folder(tmp_path: Path) -> None:
    with stand_in() as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 2))
        assert run_command("run", "-o", "r.jsonl", cwd=tmp_path).code == 0
    (tmp_path / "elsewhere").mkdir()
    found = run_command("report", "summary", "--state-dir", "../state", cwd=tmp_path / "elsewhere")
    assert "2 of 2 installs backed up" in found.stdout


@pytest.mark.parametrize("more", [[], ["-v", "--log-format", "json"]])
def test_no_output_or_file_shows_a_secret(tmp_path: Path, more: list[str]) -> None:
    echo = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    def script(request: bytes, nth: int) -> bytes:
        if nth % 3 == 0:
            return accepted(request)
        text = request.decode() + f" {USER} {PASSWORD}"
        return said("400 B" if nth % 3 == 1 else "503 S", text, f"x-amzn-RequestId: {PASSWORD}")

    ended = asyncio.run(_against(script, tmp_path, 9, LEFT_OPEN, *more))
    assert outcomes(ended) == {"accepted": 3, "rejected": 3, "unconfirmed": 3}
    everything = ended.stdout + ended.stderr
    for file in (tmp_path / "state").rglob("*"):
        everything += file.read_text("latin-1") if file.is_file() else ""  # state.db is no text
    assert "[redacted]" in ended.stdout
    for secret in (USER, PASSWORD, echo):
        assert secret not in everything


@pytest.mark.parametrize("more", [[], ["-v", "--log-format", "json"]])
def test_no_output_or_file_shows_a_secret_from_a_listing(tmp_path: Path, more: list[str]) -> None:
    asked: list[bytes] = []

    def script(request: bytes, _nth: int) -> bytes:
        asked.append(request)
        return said("503 S", f"{USER} {PASSWORD}")

    def listing(request: bytes) -> bytes:
        install = request.split(b"/")[3].decode()
        if install == install_ids(2)[1]:
            return said("404 N", f"{USER} {PASSWORD}", f"x-amzn-RequestId: {PASSWORD}")
        sent = next(each for each in asked if install.encode() in each)
        description = json.loads(sent.partition(b"\r\n\r\n")[2])["description"]
        shown = {"id": "b-1", "status": f"of {USER}", "description": f"{USER} {PASSWORD} {description}"}
        page = {"previous": None, "next": None, "count": 1, "results": [shown]}
        return answer("200 OK", json.dumps(page).encode(), "Connection: close", f"x-amzn-RequestId: {PASSWORD}")

    ended = asyncio.run(_against(script, tmp_path, 2, GRACE, *more, listing=listing))
    found, unknown = sorted(ended.lines()[:-1], key=lambda line: str(line["install_id"]))
    assert (found["outcome"], found["reconciled"], unknown["outcome"]) == ("accepted", True, "unconfirmed")
    assert "its listing cannot be read" in unknown["error"]["message"]
    everything = ended.stdout + ended.stderr
    for file in (tmp_path / "state").rglob("*"):
        everything += file.read_text("latin-1") if file.is_file() else ""  # state.db is no text
    for secret in (USER, PASSWORD):
        assert secret not in everything


# -- servers that no stand-in would be: scripted answers over raw sockets ----------------------------------------------

GOOD_USER = answer("200 OK", b"{}", "Connection: close")


async def _against(
    script: Callable[[bytes, int], bytes],
    folder: Path,
    count: int,
    more: str = "",
    *options: str,
    listing: Callable[[bytes], bytes] | None = None,
) -> Ended:
    """Run the command against a server that accepts the credentials and answers POSTs with ``script(request, nth)``.

    It answers each read of a listing with ``listing(request)``, or with 404 if that is ``None``.
    """
    posts = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal posts
        request = await read_request(reader)
        if request.startswith(b"GET /v1/user"):
            writer.write(GOOD_USER)
            return
        if request.startswith(b"GET"):
            writer.write(listing(request) if listing else said("404 N", "Not Found"))
            return
        posts += 1
        writer.write(script(request, posts))

    async with raw_server(handler) as port:
        (folder / "wpe-backup.yaml").write_text(fleet(f"http://127.0.0.1:{port}/v1", count, more))
        return await asyncio.to_thread(run_command, "run", "-o", "-", *options, cwd=folder)


def accepted(request: bytes, _nth: int = 0) -> bytes:
    install = request.split(b"/")[3]
    return answer("202 Accepted", b'{"id": "b-%s", "status": "requested"}' % install, "Connection: close")


def said(status: str, message: str, *headers: str) -> bytes:
    return answer(status, json.dumps({"message": message}).encode(), "Connection: close", *headers)


def test_a_quota_stops_the_account(tmp_path: Path) -> None:
    def script(request: bytes, nth: int) -> bytes:
        return accepted(request) if nth <= 3 else said("429 T", "Limit Exceeded")

    ended = asyncio.run(_against(script, tmp_path, 20, "", "--rate", "20"))
    assert ended.code == 3
    assert outcomes(ended) == {"accepted": 3, "cancelled": 17}
    assert {line["error"]["kind"] for line in ended.lines()[:-1] if line["error"]} == {"quota"}


def test_a_retry_after_longer_than_max_pause_stops_the_account(tmp_path: Path) -> None:
    def script(_request: bytes, _nth: int) -> bytes:
        return said("429 T", "Too Many Requests", "Retry-After: 9999")

    ended = asyncio.run(_against(script, tmp_path, 3, "throttle: {max_pause: 1m}"))
    assert ended.code == 3
    assert {line["error"]["kind"] for line in ended.lines()[:-1]} == {"throttled"}
    assert {line["outcome"] for line in ended.lines()[:-1]} == {"cancelled"}


def test_a_server_that_throttles_for_ever_is_given_up(tmp_path: Path) -> None:
    def script(_request: bytes, _nth: int) -> bytes:
        return said("429 T", "Too Many Requests")

    ended = asyncio.run(_against(script, tmp_path, 3, "throttle: {give_up: 3s}"))
    assert ended.code == 3
    assert outcomes(ended) == {"cancelled": 3}
    assert sum(line["attempts"] for line in ended.lines()[:-1]) == 0
    assert sum(line["throttled"] for line in ended.lines()[:-1]) >= 2


def test_a_retry_after_date_is_judged_by_the_servers_own_clock(tmp_path: Path) -> None:
    at: list[float] = []

    def script(request: bytes, nth: int) -> bytes:
        at.append(time.monotonic())
        if nth > 1:
            return accepted(request)
        server_now = datetime(2001, 1, 1, tzinfo=UTC)
        return said(
            "429 T",
            "Too Many Requests",
            f"Date: {format_datetime(server_now, usegmt=True)}",
            f"Retry-After: {format_datetime(server_now + timedelta(seconds=2), usegmt=True)}",
        )

    ended = asyncio.run(_against(script, tmp_path, 2, "", "--rate", "1"))
    assert ended.code == 0
    assert at[1] - at[0] >= 2.0


@pytest.mark.parametrize("value", ["Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "-1", "soon", "1.5x", ""])
def test_a_retry_after_that_makes_no_sense_is_ignored(tmp_path: Path, value: str) -> None:
    def script(request: bytes, nth: int) -> bytes:
        if nth > 1:
            return accepted(request)
        return said("429 T", "Too Many Requests", f"Retry-After: {value}", "Date: never")

    ended = asyncio.run(_against(script, tmp_path, 2))
    assert ended.code == 0
    assert outcomes(ended) == {"accepted": 2}


def test_an_outage_leaves_fewer_than_100_of_500_installs_unconfirmed(tmp_path: Path) -> None:
    def script(_request: bytes, _nth: int) -> bytes:
        return said("503 S", "Service Unavailable")

    def listing(request: bytes) -> bytes:
        return script(request, 0)

    ended = asyncio.run(_against(script, tmp_path, 500, "throttle: {give_up: 4s}", *PACE, listing=listing))
    assert ended.code == 3
    assert outcomes(ended)["unconfirmed"] + outcomes(ended)["cancelled"] == 500
    assert outcomes(ended)["unconfirmed"] < 100
    assert {line["error"]["kind"] for line in ended.lines()[:-1] if line["outcome"] == "cancelled"} == {"unavailable"}


def test_a_redirect_is_never_followed(tmp_path: Path) -> None:
    reached: list[bytes] = []

    async def main() -> Ended:
        async def elsewhere(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
            reached.append(await read_request(reader))

        async with raw_server(elsewhere) as port:

            def script(_request: bytes, _nth: int) -> bytes:
                return said("307 T", "", f"Location: http://127.0.0.1:{port}/")

            return await _against(script, tmp_path, 2)

    ended = asyncio.run(main())
    assert not reached
    assert {(line["outcome"], line["error"]["kind"]) for line in ended.lines()[:-1]} == {("rejected", "protocol")}


def test_hostile_text_is_unchanged_in_the_report_and_escaped_on_the_terminal(tmp_path: Path) -> None:
    message = "a\x1b[2J\x07\n[bold]b\u202e"

    def script(_request: bytes, _nth: int) -> bytes:
        return said("400 B", message)

    ended = asyncio.run(_against(script, tmp_path, 1, "", "--log-format", "console"))
    assert ended.lines()[0]["error"]["message"] == message
    assert "\x1b" not in ended.stderr
    assert "\u202e" not in ended.stderr
    assert r"a\x1b[2J\x07\x0a[bold]b\u202e" in ended.stderr


def test_the_second_signal_stops_immediately_and_leaves_open_requests_unconfirmed(tmp_path: Path) -> None:
    async def main() -> Ended:
        posts = asyncio.Semaphore(0)

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if (await read_request(reader)).startswith(b"GET"):
                writer.write(GOOD_USER)
                return
            posts.release()
            await asyncio.sleep(2 * PATIENCE_S)

        async with raw_server(handler) as port:
            (tmp_path / "wpe-backup.yaml").write_text(fleet(f"http://127.0.0.1:{port}/v1", 20))
            process = start_command("run", "-o", "-", "--rate", "50", "--concurrency", "5", cwd=tmp_path)
            async with asyncio.timeout(PATIENCE_S):
                for _ in range(5):
                    await posts.acquire()
            process.send_signal(signal.SIGINT)
            await asyncio.sleep(0.5)
            process.send_signal(signal.SIGINT)
            return await asyncio.to_thread(process.ended)  # the requests take longer than the longest wait

    ended = asyncio.run(main())
    assert ended.code == 130
    assert outcomes(ended) == {"unconfirmed": 5, "cancelled": 15}
    assert {line["error"]["kind"] for line in ended.lines()[:-1]} == {"interrupted"}


def test_the_second_signal_ends_a_run_whose_report_is_not_read(tmp_path: Path) -> None:
    with stand_in() as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 400))
        process = start_command("run", "-o", "-", "--rate", "400", "--max-rate", "400", cwd=tmp_path)
        until(lambda: server.stats()["backups_made"] > 150)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)
        assert process.wait() == 4
        ended = process.ended()
        assert "its reader does not read" in ended.stderr
        assert all(backup["id"] in ended.stdout + ended.stderr for backup in server.backups())


def test_each_account_fails_alone(tmp_path: Path) -> None:
    with stand_in() as good, stand_in(WPE_API_PASSWORD="another") as bad:
        first, second, third, fourth = install_ids(4)
        (tmp_path / "wpe-backup.yaml").write_text(f"""\
version: 1
accounts:
  good: {{user_id: {USER}, password: {PASSWORD}, base_url: "{good.base_url}"}}
  bad: {{user_id: {USER}, password: {PASSWORD}, base_url: "{bad.base_url}"}}
defaults: {{notification_emails: [], account: good}}
installs: [{first}, {second}, {{id: {third}, account: bad}}, {{id: {fourth}, account: bad}}]
""")
        ended = run_command("run", "-o", "-", cwd=tmp_path)
    assert {(line["account"], line["outcome"]) for line in ended.lines()[:-1]} == {
        ("good", "accepted"),
        ("bad", "cancelled"),
    }
    assert ended.code == 12
    assert ended.lines()[-1]["accounts"]["bad"]["requests"] == 1
