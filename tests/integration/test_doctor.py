"""The real ``doctor``: each check has a verdict, and a remedy if something is wrong."""

from __future__ import annotations

import asyncio
import json
import resource
import sqlite3
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from command import PASSWORD, USER, Ended, install_ids, run_command, stand_in
from rawserver import raw_server

from orchestrator.commands.machine import (
    FULL_DISK,
    LOW_DISK,
    THIS_MACHINE,
    Grade,
    Machine,
    config_file_check,
    machine_checks,
)

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from command import StandIn

CERTS = Path(__file__).parents[1] / "certs"
IDS = install_ids(2)
LISTED = f"accounts: [{{name: agency, installs: [{{name: one, id: {IDS[0]}}}, {{name: two, id: {IDS[1]}}}]}}]\n"
ORDER = [
    "configuration",
    "config_file",
    *("api", "credentials", "installs", "backups", "clock"),
    *("state_dir", "disk", "state_db", "time_zone", "open_files"),
]


def serve(folder: Path, more: str = "") -> AbstractContextManager[StandIn]:
    (folder / "scenario.yaml").write_text("latency: 1ms\n" + more)
    return stand_in("--scenario", str(folder / "scenario.yaml"))


def configure(folder: Path, url: str, more: str = f"installs: [{IDS[0]}]\n", account: str = "") -> None:
    head = f'version: 1\naccounts: {{default: {{base_url: "{url}"{account}}}}}\ndefaults: {{notification_emails: []}}\n'
    (folder / "wpe-backup.yaml").write_text(head + more)


def doctor(folder: Path, *arguments: str, **changes: str) -> tuple[Ended, dict[str, tuple[str, str, str | None]]]:
    """Run ``doctor``. Return its end, and the verdict, finding and remedy of each check."""
    ended = run_command("doctor", "--format", "json", *arguments, cwd=folder, **changes)
    rows: list[dict[str, Any]] = json.loads(ended.stdout)
    assert all(bool(row["remedy"]) == (row["verdict"] in {"warn", "fail"}) for row in rows)
    return ended, {row["check"]: (row["verdict"], row["found"], row["remedy"]) for row in rows}


def bad(found: dict[str, tuple[str, str, str | None]]) -> dict[str, str]:
    return {name: grade for name, (grade, _, _) in found.items() if grade in {"warn", "fail"}}


def test_a_healthy_setup_passes_every_check_and_nothing_is_requested(tmp_path: Path) -> None:
    with serve(tmp_path, LISTED + "listing: {nightly: 1}\n") as server:
        configure(tmp_path, server.base_url, f"installs: [{IDS[1]}, nameless]\n")
        ended, found = doctor(tmp_path)
        assert (ended.code, bad(found), list(found)) == (0, {}, ORDER)
        assert found["installs"][1] == "installs that the credentials see: 2"
        assert found["backups"][1] == f"the backups of {IDS[1]} are listed; wpe-backup has requested none of them yet"
        assert found["clock"][1] == "this machine's clock agrees with the server's"
        assert server.stats()["requests"] == 3
        assert not (tmp_path / "state").exists()
        quiet = run_command("doctor", "-q", cwd=tmp_path)
        assert (quiet.code, quiet.stdout, quiet.stderr) == (0, "", "")
        assert run_command("run", IDS[1], "-q", cwd=tmp_path).code == 0
        table = run_command("doctor", cwd=tmp_path)
        assert table.stdout.splitlines()[-1] == "12 checks: 12 ok"
        assert f"the backups of {IDS[1]} are listed, with markers of wpe-backup" in table.stdout
        assert "it can be read, and this program knows its version" in table.stdout
        assert "only its owner may access it" in table.stdout


@pytest.mark.parametrize(
    ("scenario", "code", "expected", "remedy"),
    [
        ("clock_skew: 30s", 0, {"clock": "warn"}, "let NTP set"),
        ("clock_skew: -1h", 3, {"clock": "fail"}, "let NTP set"),
        ("listing: {available: false}", 0, {"backups": "warn"}, "without this listing a lost answer"),
        ("listing: {nightly: 1, descriptions: missing}", 0, {"backups": "warn"}, "may end in unconfirmed"),
        ("credentials: {password: another}", 3, {"credentials": "fail"}, "User Portal's page on API access"),
        ("faults: [{kind: forbidden, operation: installs, of: requests}]", 0, {"installs": "warn"}, "give ids"),
        ("faults: [{kind: redirect, operation: user}]", 3, {"api": "fail"}, "the address that it leads to"),
        ("faults: [{kind: blocked, operation: user}]", 3, {"api": "fail"}, "firewall"),
        ("faults: [{kind: unavailable, operation: user}]", 3, {"api": "fail"}, "status page"),
        ("faults: [{kind: broken_json, operation: user}]", 3, {"api": "fail"}, "is not the API"),
        ("faults: [{kind: quota, operation: user}]", 3, {"api": "fail"}, "who else uses"),
        ("limits: [{kind: fixed_window, requests: 1, per: 300ms}]", 0, {"api": "warn"}, "who else uses"),
    ],
)
def test_each_problem_of_the_server_has_a_verdict_and_a_remedy(
    tmp_path: Path, scenario: str, code: int, expected: dict[str, str], remedy: str
) -> None:
    with serve(tmp_path, f"{LISTED}{scenario}\n") as server:
        configure(tmp_path, server.base_url)
        ended, found = doctor(tmp_path)
        assert (ended.code, bad(found), ended.stderr) == (code, expected, "")
        assert all(remedy in str(found[name][2]) for name in expected)
        assert PASSWORD not in ended.stdout


def test_a_missing_install_has_its_own_remedy(tmp_path: Path) -> None:
    more = "accounts: [{name: agency}]\nfaults: [{kind: forbidden, operation: installs, of: requests}]\n"
    with serve(tmp_path, more) as server:
        configure(tmp_path, server.base_url, f"installs: [{IDS[0]}, nameless]\n")
        ended, found = doctor(tmp_path)
        assert (ended.code, bad(found)) == (3, {"installs": "fail", "backups": "warn"})
        assert "if this install is gone, take it out" in str(found["backups"][2])


@pytest.mark.parametrize(
    ("url", "certificate", "remedy"),
    [
        ("http://127.0.0.1:1/v1", None, "the firewall"),
        ("https://api.invalid/v1", None, "DNS"),
        ("https://127.0.0.1:{}/v1", "expired.pem", "this machine's clock"),
        ("http://127.0.0.1:{}/v1", "good.pem", "check the scheme and the port"),
        ("https://127.0.0.1:{}/v1", None, "does not speak TLS: check the scheme and the port"),
        ("http://127.0.0.1:{}/v1", None, "does not speak plain HTTP"),
    ],
)
def test_an_unreachable_server_has_a_remedy_for_its_cause(
    tmp_path: Path, url: str, certificate: str | None, remedy: str
) -> None:
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"\x15\x03\x01\x00\x02\x02\x28" * 10 + b"\r\n\r\n")

    async def main() -> tuple[Ended, dict[str, tuple[str, str, str | None]]]:
        context = None
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTS / certificate)
        async with raw_server(garbage, tls=context) as port:
            configure(tmp_path, url.format(port), account=f", ca_file: {CERTS / 'authority.pem'}")
            return await asyncio.to_thread(doctor, tmp_path)

    ended, found = asyncio.run(main())
    assert (ended.code, bad(found), ended.stderr) == (3, {"api": "fail"}, "")
    assert remedy in str(found["api"][2])
    assert {found[name][0] for name in ("credentials", "installs", "backups", "clock")} == {"skipped"}


def test_a_bad_configuration_fails_one_check_and_the_machine_is_still_checked(tmp_path: Path) -> None:
    ended, found = doctor(tmp_path)
    assert (ended.code, bad(found)) == (3, {"configuration": "fail"})
    assert "wpe-backup init" in str(found["configuration"][2])
    configure(tmp_path, "http://127.0.0.1:1/v1", "instals: [x]\n")
    ended, found = doctor(tmp_path)
    assert (ended.code, bad(found)) == (3, {"configuration": "fail"})
    assert "did you mean installs" in found["configuration"][1]
    assert (found["api"][0], found["open_files"][0], found["disk"][0]) == ("skipped", "skipped", "ok")
    configure(tmp_path, "http://127.0.0.1:1/v1")
    ended, found = doctor(tmp_path, WPE_API_PASSWORD="")
    assert (ended.code, bad(found), found["api"][0]) == (3, {"credentials": "fail"}, "skipped")
    assert "set WPE_API_PASSWORD" in found["credentials"][1]
    configure(tmp_path, "http://127.0.0.1:1/v1", "inventory: [files: ['*.csv']]\ninstalls: [one]\n")
    ended, found = doctor(tmp_path)
    assert bad(found) == {"inventory": "warn", "api": "fail"}
    assert found["inventory"][1] == "wpe-backup.yaml:4: files *.csv: matches no file"
    valid = run_command("config", "validate", "-q", cwd=tmp_path)
    assert (valid.code, valid.stdout) == (0, "")
    assert valid.stderr == "warning: wpe-backup.yaml:4: files *.csv: matches no file\n"
    configure(tmp_path, "http://127.0.0.1:1/v1", "inventory: [files: ['none/*.csv']]\ninstalls: [one]\n")
    ended, found = doctor(tmp_path)
    assert bad(found) == {"inventory": "fail", "api": "fail"}
    assert run_command("config", "validate", "-q", cwd=tmp_path).code == 2


def test_a_file_with_a_literal_password_must_be_readable_by_its_owner_only(tmp_path: Path) -> None:
    configure(tmp_path, "http://127.0.0.1:1/v1", account=f", user_id: {USER}, password: {PASSWORD}")
    file = tmp_path / "wpe-backup.yaml"
    verdicts = {}
    for mode in (0o644, 0o640, 0o600):
        file.chmod(mode)
        verdicts[mode] = config_file_check(file, holds_password=True).grade
    assert verdicts == {0o644: Grade.WARN, 0o640: Grade.WARN, 0o600: Grade.OK}
    file.chmod(0o644)
    ended, found = doctor(tmp_path)
    assert (found["config_file"][0], PASSWORD in ended.stdout) == ("warn", False)
    assert "everybody may read it" in found["config_file"][1]
    assert "chmod 600 wpe-backup.yaml" in str(found["config_file"][2])
    configure(tmp_path, "http://127.0.0.1:1/v1", account=f", user_id: {USER}, password: '${{WPE_API_PASSWORD}}'")
    assert doctor(tmp_path)[1]["config_file"][0] == "ok"
    given = run_command("doctor", "-c", "-", cwd=tmp_path, stdin=file.read_text())
    assert (given.code, "skipped  config_file" in given.stdout) == (3, True)


def of_machine(state_dir: Path, machine: Machine = THIS_MACHINE) -> dict[str, Grade]:
    return {each.name: each.grade for each in machine_checks(state_dir, None, machine)}


def test_the_state_directory_and_its_content_are_checked(tmp_path: Path) -> None:
    state = tmp_path / "deep" / "state"
    assert set(of_machine(state).values()) == {Grade.OK}
    assert not state.parent.exists()
    state.mkdir(parents=True)
    state.chmod(0o750)
    assert of_machine(state)["state_dir"] is Grade.WARN
    state.chmod(0o700)
    database = state / "state.db"
    database.write_text("no database " * 1000)
    assert of_machine(state)["state_db"] is Grade.FAIL
    database.unlink()
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    (told,) = (each for each in machine_checks(state, None) if each.name == "state_db")
    assert (told.grade, "has schema version 99" in told.found) == (Grade.FAIL, True)
    assert [path.name for path in state.iterdir()] == ["state.db"]
    (tmp_path / "file").write_text("")
    assert of_machine(tmp_path / "file" / "state")["state_dir"] is Grade.FAIL


def test_missing_permissions_and_a_full_disk_are_found(tmp_path: Path) -> None:
    """Root may write despite the file mode, so the test makes up the system's answers."""
    (tmp_path / "state.db").touch()
    forbidden = Machine(may_use=lambda *_: False)
    for place in (tmp_path, tmp_path / "new"):
        assert of_machine(place, forbidden)["state_dir"] is Grade.FAIL
    assert of_machine(tmp_path, forbidden)["state_db"] is Grade.FAIL
    machines = [Machine(free_bytes=lambda _: LOW_DISK), Machine(free_bytes=lambda _: LOW_DISK - 1)]
    machines.append(Machine(free_bytes=lambda _: FULL_DISK - 1))
    verdicts = [of_machine(tmp_path, machine)["disk"] for machine in machines]
    assert verdicts == [Grade.OK, Grade.WARN, Grade.FAIL]


def test_fewer_open_files_than_requests_in_flight_are_a_warning(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = 10_000
    configure(tmp_path, "http://127.0.0.1:1/v1", f"throttle: {{concurrency: {wanted}}}\ninstalls: [one]\n")
    _, found = doctor(tmp_path)
    assert (found["open_files"][0] == "ok") == (hard == resource.RLIM_INFINITY or hard >= wanted + 64)
