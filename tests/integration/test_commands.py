"""The other commands as processes: config, report, simulate, demo, and the behaviour that all commands share."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from command import (
    COMMAND,
    PASSWORD,
    PATIENCE_S,
    USER,
    environment,
    fleet,
    install_ids,
    run_command,
    stand_in,
    start_command,
)

from orchestrator import __version__

if TYPE_CHECKING:
    from pathlib import Path


def test_version_and_help_are_printed(tmp_path: Path) -> None:
    assert run_command("--version", cwd=tmp_path).stdout == f"wpe-backup {__version__}\n"
    shown = run_command("--help", cwd=tmp_path).stdout
    assert all(command in shown for command in ("run", "config", "report", "simulate", "demo"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["nope"],
        ["run", "--nope"],
        ["run", "--rate", "fast"],
        ["run", "--max-rate", "0"],
        ["run", "-v", "-q"],
    ],
)
def test_bad_usage_is_exit_2_without_a_traceback(tmp_path: Path, arguments: list[str]) -> None:
    ended = run_command(*arguments, cwd=tmp_path)
    assert ended.code == 2
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_a_missing_configuration_names_the_places_that_were_searched(tmp_path: Path) -> None:
    ended = run_command("config", "validate", cwd=tmp_path)
    assert ended.code == 2
    assert "wpe-backup.yaml" in ended.stderr
    assert str(tmp_path / ".config" / "wpe-backup" / "config.yaml") in ended.stderr
    named = run_command("config", "validate", "-c", "gone.yaml", cwd=tmp_path)
    assert (named.code, named.stderr) == (2, "gone.yaml:1:1: cannot be read: No such file or directory\n")
    folder = run_command("config", "validate", "-c", str(tmp_path), cwd=tmp_path)
    assert (folder.code, folder.stderr) == (2, f"{tmp_path}:1:1: cannot be read: Is a directory\n")


def test_the_configuration_is_found_in_the_usual_places_and_on_standard_input(tmp_path: Path) -> None:
    text = fleet("http://127.0.0.1:9/v1", 3)
    place = tmp_path / ".config" / "wpe-backup"
    place.mkdir(parents=True)
    (place / "config.yaml").write_text(text)
    found = run_command("config", "validate", cwd=tmp_path)
    assert found.code == 0
    assert found.stdout == f"{place / 'config.yaml'}: valid; 3 installs, 3 of them enabled, 1 account(s)\n"
    assert run_command("config", "validate", "-q", cwd=tmp_path).stdout == ""
    piped = run_command("config", "validate", "-c", "-", cwd=tmp_path, stdin=text)
    assert piped.stdout.startswith("<stdin>: valid")
    assert run_command("config", "validate", "-c", "-", cwd=tmp_path, stdin="a: 1").code == 2


def test_a_configuration_that_is_too_large_is_refused_from_any_source(tmp_path: Path) -> None:
    text = fleet("http://127.0.0.1:9/v1", 1) + "#" * (64 * 1024 * 1024)
    (tmp_path / "large.yaml").write_text(text)
    for name, stdin in (("large.yaml", ""), ("-", text)):
        ended = run_command("config", "validate", "-c", name, cwd=tmp_path, stdin=stdin)
        assert ended.code == 2
        assert ended.stderr.endswith(":1:1: is larger than 64 MiB\n")


def test_a_report_is_read_by_run_and_by_file(tmp_path: Path) -> None:
    with stand_in("--not-found", "0.4") as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 10))
        run_command("run", "--rate", "200", cwd=tmp_path)
        run_command("run", "-o", "own.jsonl", "--rate", "200", cwd=tmp_path)
    (first, second) = sorted(folder.name for folder in (tmp_path / "state" / "runs").iterdir())
    by_run = run_command("report", "summary", first, cwd=tmp_path)
    assert by_run.code == 0
    assert f"Run {first}: " in by_run.stdout
    assert by_run.stderr == ""
    latest = run_command("report", "summary", cwd=tmp_path)
    assert f"Run {second}: " in latest.stdout
    assert latest.stdout == run_command("report", "summary", "own.jsonl", cwd=tmp_path).stdout
    summary = json.loads(run_command("report", "summary", "--format", "json", cwd=tmp_path).stdout)
    assert summary["run_id"] == second
    failed = json.loads(run_command("report", "failures", "--format", "json", cwd=tmp_path).stdout)
    assert len(failed) == summary["outcomes"]["rejected"] > 0
    table = run_command("report", "failures", cwd=tmp_path).stdout
    assert all(line["name"] in table and line["request_id"] in table for line in failed)


def test_the_report_of_a_killed_run_can_be_read(tmp_path: Path) -> None:
    line = {"type": "backup", "run_id": "R", "name": "shop0", "outcome": "accepted"}
    (tmp_path / "r.jsonl").write_text(json.dumps(line) + "\n" + json.dumps(line)[:20])
    shown = run_command("report", "summary", "r.jsonl", cwd=tmp_path).stdout
    assert "the run has not ended" in shown
    as_json = json.loads(run_command("report", "summary", "r.jsonl", "--format", "json", cwd=tmp_path).stdout)
    assert as_json["outcomes"] == {"accepted": 1}
    failures = run_command("report", "failures", "r.jsonl", cwd=tmp_path)
    assert "No failures among 1 installs" in failures.stdout
    assert "The report is damaged: line 2 is cut off" in failures.stdout
    assert failures.code == 3


def test_a_missing_report_is_exit_2(tmp_path: Path) -> None:
    for name in ("gone.jsonl", "latest"):
        ended = run_command("report", "failures", name, cwd=tmp_path)
        assert ended.code == 2
        assert ended.stderr.startswith("wpe-backup: ")


def test_a_closed_pipe_is_no_error_for_report_failures(tmp_path: Path) -> None:
    line = {"type": "backup", "run_id": "R", "outcome": "rejected", "error": {"message": "x" * 200}}
    (tmp_path / "r.jsonl").write_text((json.dumps(line) + "\n") * 5000)
    process = start_command("report", "failures", "r.jsonl", cwd=tmp_path)
    process.stdout.readline()
    process.stdout.close()
    assert process.ended().stderr == ""


def test_a_full_disk_behind_standard_output_is_reported(tmp_path: Path) -> None:
    (tmp_path / "wpe-backup.yaml").write_text(fleet("http://127.0.0.1:9/v1", 1))
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        process = subprocess.Popen(
            [*COMMAND, "config", "validate"],
            cwd=tmp_path,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert "No space left on device" in process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 4


def test_the_stand_in_prints_its_address_and_its_counts(tmp_path: Path) -> None:
    process = start_command("simulate", "--port", "0", cwd=tmp_path)
    url = process.stdout.readline().strip()
    (tmp_path / "wpe-backup.yaml").write_text(fleet(url, 2))
    assert run_command("run", cwd=tmp_path).code == 0
    process.send_signal(signal.SIGINT)
    ended = process.ended()
    assert (ended.code, ended.stdout) == (0, "")
    assert "Counted 3 requests, 0 of them answered 429; made 2 backups of 2 installs, at most 1 of one." in ended.stderr


def test_a_port_that_is_taken_is_exit_2(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = run_command("simulate", "--port", str(taken.getsockname()[1]), cwd=tmp_path)
    assert ended.code == 2
    assert "choose another --port" in ended.stderr


def test_the_demo_checks_its_own_report(tmp_path: Path) -> None:
    ended = run_command("demo", cwd=tmp_path, TMPDIR=str(tmp_path))
    assert ended.code == 0, ended.stderr
    (folder,) = tmp_path.glob("wpe-backup-demo-*")
    (report,) = folder.glob("runs/*/report.jsonl")
    *backups, summary = map(json.loads, report.read_bytes().splitlines())
    assert len(backups) == 200
    assert summary["throttled"] > 0
    assert 0 < summary["outcomes"]["rejected"] < 20
    assert str(report) in ended.stderr
    assert "The report agrees with it, line by line." in ended.stderr


def test_ctrl_c_in_the_demo_is_exit_130(tmp_path: Path) -> None:
    process = start_command("demo", cwd=tmp_path, TMPDIR=str(tmp_path))
    process.stderr.readline()
    process.stderr.readline()
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.ended().code == 130


def test_logs_on_a_terminal_are_coloured_text(tmp_path: Path) -> None:
    with stand_in() as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 2))
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [*COMMAND, "run"],
            cwd=tmp_path,
            env=environment(WPE_BACKUP_STATE_DIR=str(tmp_path / "state"), TERM="xterm"),
            stdout=subprocess.DEVNULL,
            stderr=theirs,
        )
        assert process.wait(PATIENCE_S) == 0
        os.close(theirs)
        shown = os.read(ours, 100_000).decode()
        os.close(ours)
    assert "\x1b[" in shown
    assert "run.started" in shown
    assert '"event"' not in shown


def test_the_credentials_of_the_stand_in_come_from_the_environment(tmp_path: Path) -> None:
    with stand_in(WPE_API_USER_ID="", WPE_API_PASSWORD="") as anyone, stand_in() as exactly:
        for server in (anyone, exactly):
            (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 1))
            assert run_command("run", cwd=tmp_path, WPE_API_USER_ID=USER, WPE_API_PASSWORD=PASSWORD).code == 0
        (tmp_path / "wpe-backup.yaml").write_text(fleet(exactly.base_url, 1))
        assert run_command("run", cwd=tmp_path, WPE_API_USER_ID="other").code == 12


def test_the_stand_ins_admin_page_shows_the_backups(tmp_path: Path) -> None:
    with stand_in() as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 2))
        run_command("run", cwd=tmp_path)
        assert sorted(backup["install_id"] for backup in server.backups()) == install_ids(2)


# -- config -----------------------------------------------------------------------------------------------------------

BAD = "version: 1\ndefaults: {notification_emails: [" + ", ".join(["ops@example.com"] * 30) + "]}\ninstals: []\n"


def test_a_mistake_is_shown_with_its_place_and_never_wrapped(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(BAD)
    for command in (("config", "validate"), ("config", "show"), ("run",)):
        ended = run_command(*command, "-c", "f.yaml", cwd=tmp_path)
        assert (ended.code, ended.stdout) == (2, "")
        assert ended.stderr == (
            "f.yaml:3:1: instals: unknown key; did you mean installs?\n    3 | instals: []\n      | ^\n"
        )
        assert not (tmp_path / "state").exists()


def test_a_yaml_comes_from_standard_input_too(tmp_path: Path) -> None:
    ended = run_command("config", "validate", "-c", "-", cwd=tmp_path, stdin=BAD)
    assert (ended.code, ended.stderr.split("\n")[0]) == (2, "<stdin>:3:1: instals: unknown key; did you mean installs?")
    ended = run_command("config", "validate", "-c", "-", cwd=tmp_path, stdin=fleet("http://127.0.0.1:1/v1", 3))
    assert (ended.code, ended.stdout) == (0, "<stdin>: valid; 3 installs, 3 of them enabled, 1 account(s)\n")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (".", "Is a directory"),
        ("nowhere.yaml", "No such file or directory"),
        ("nowhere/f.yaml", "No such file or directory"),
        ("/proc/self/mem", "Input/output error"),
    ],
)
def test_an_unreadable_file_gives_one_clear_message(tmp_path: Path, name: str, why: str) -> None:
    ended = run_command("config", "validate", "-c", name, cwd=tmp_path)
    assert (ended.code, ended.stdout, ended.stderr) == (2, "", f"{name}:1:1: cannot be read: {why}\n")


def test_a_yaml_can_be_validated_without_secrets(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(
        fleet("http://127.0.0.1:1/v1", 2).replace("default: {", 'default: {user_id: "${NO_SUCH}", ')
    )
    nothing = {"WPE_API_USER_ID": "", "WPE_API_PASSWORD": ""}
    assert run_command("config", "validate", "-c", "f.yaml", cwd=tmp_path, **nothing).code == 2
    ended = run_command("config", "validate", "-c", "f.yaml", "--no-secrets", cwd=tmp_path, **nothing)
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.stdout.endswith("1 account(s), credentials not checked\n")


def test_the_output_of_config_show_can_be_run_and_holds_no_secret(tmp_path: Path) -> None:
    with stand_in(WPE_API_USER_ID="", WPE_API_PASSWORD="") as server:
        (tmp_path / "f.yaml").write_text(fleet(server.base_url, 2))
        shown = run_command("config", "show", "-c", "f.yaml", cwd=tmp_path)
        assert shown.code == 0
        assert not any(secret in shown.stdout for secret in (USER, PASSWORD))
        (tmp_path / "shown.yaml").write_text(shown.stdout.replace("'********'", "anything"))
        assert run_command("run", "-c", "shown.yaml", cwd=tmp_path).code == 0


def test_the_schema_is_printed(tmp_path: Path) -> None:
    ended = run_command("config", "schema", cwd=tmp_path)
    assert json.loads(ended.stdout)["properties"]["installs"]
    assert ended.code == 0


def test_credentials_of_files_and_commands_reach_the_api(tmp_path: Path) -> None:
    (tmp_path / "WPE_API_USER_ID").write_text(USER + "\n")
    nothing = {"WPE_API_USER_ID": "", "WPE_API_PASSWORD": ""}
    sources = {"CREDENTIALS_DIRECTORY": str(tmp_path), "WPE_API_PASSWORD_COMMAND": f"echo {PASSWORD}"}
    with stand_in() as server:
        (tmp_path / "f.yaml").write_text(fleet(server.base_url, 1))
        assert run_command("run", "-c", "f.yaml", cwd=tmp_path, **nothing, **sources).code == 0


# -- scenarios --------------------------------------------------------------------------------------------------------


def test_a_wrong_scenario_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("seed: 1\nfaults:\n  - {kind: unavailable, shre: 1}\n  - {kind: nope}\n")
    ended = run_command("simulate", "--port", "0", "--scenario", "s.yaml", cwd=tmp_path)
    assert (ended.code, ended.stdout) == (2, "")
    assert "s.yaml:3:25: faults[0].shre: unknown key; did you mean share?\n" in ended.stderr
    assert "s.yaml:4:12: faults[1].kind: must be one of bad_request, " in ended.stderr
    ended = run_command("simulate", "--scenario", "nowhere.yaml", cwd=tmp_path)
    assert (ended.code, ended.stderr) == (2, "nowhere.yaml:1:1: cannot be read: No such file or directory\n")


def test_shares_that_add_up_to_more_than_1_are_refused(tmp_path: Path) -> None:
    ended = run_command("simulate", "--port", "0", "--timed-out", "0.6", "--unavailable", "0.6", cwd=tmp_path)
    assert ended.code == 2
    assert "must add up to at most 1" in ended.stderr


def test_options_are_added_to_a_scenario(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("seed: 1\nlatency: 1ms\nfaults: [{kind: not_found, share: 0.5}]\n")
    with stand_in("--scenario", str(tmp_path / "s.yaml"), "--forbidden", "0.5", "--completes-after", "5ms") as server:
        (tmp_path / "f.yaml").write_text(fleet(server.base_url, 20))
        ended = run_command("run", "-c", "f.yaml", "-o", "-", cwd=tmp_path)
        statuses = [line["error"]["status"] for line in ended.lines()[:-1]]
    assert set(statuses) == {403, 404}
