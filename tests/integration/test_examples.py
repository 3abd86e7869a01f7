"""Run every command of examples/README.md, and each script, against the stand-in."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command import PASSWORD, USER, Ended, StandIn, fleet, run_command, run_program, stand_in
from zygote import command_by_fork

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("without_coverage")

ROOT = Path(__file__).parents[2]
CODE = re.compile(r"#.*exit code (\d+)")
PACE = {"WPE_BACKUP_RATE": "100", "WPE_BACKUP_MAX_RATE": "100"}
NOTHING = {"WPE_API_USER_ID": "", "WPE_API_PASSWORD": ""}
BOTH = {"WPE_API_USER_ID": USER, "WPE_API_PASSWORD": PASSWORD}


@pytest.fixture
def exported(request: pytest.FixtureRequest) -> dict[str, str]:
    """Return the credentials that are exported in both terminals."""
    given: dict[str, str] = getattr(request, "param", BOTH)
    return given


@pytest.fixture
def server(tmp_path: Path, exported: dict[str, str]) -> Iterator[StandIn]:
    """Serve the examples' scenario, faster and without its limit; point the examples in ``tmp_path`` at it."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    scenario = tmp_path / "examples/scenarios/agency.yaml"
    text = scenario.read_text()
    assert text.count("completes_after: [2s, 10s], aborts: 0.05") == text.count("- {kind: bucket, rate: 20, burst: 20}")
    text = text.replace("[2s, 10s], aborts: 0.05", "[200ms, 500ms], aborts: 0").replace("limits:\n", "limits: []\n")
    scenario.write_text(text.replace("  - {kind: bucket, rate: 20, burst: 20}\n", "latency: 1ms\n"))
    with stand_in("--scenario", str(scenario), **exported) as running:
        point_at(running, tmp_path)
        yield running


def point_at(running: StandIn, folder: Path) -> None:
    """Point the examples in ``folder`` at ``running``."""
    for path in (ROOT / "examples").glob("*.yaml"):
        text = path.read_text().replace("http://127.0.0.1:8080/v1", running.base_url)
        (folder / "examples" / path.name).write_text(text)


def commands() -> list[str]:
    lines = (ROOT / "examples/README.md").read_text(encoding="utf-8").splitlines()
    found = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [line for line in found if "wpe-backup simulate" not in line]


@pytest.mark.parametrize(
    "exported",
    [
        NOTHING,
        BOTH,
        NOTHING | {"WPE_API_USER_ID": USER},
        NOTHING | {"WPE_API_PASSWORD": "with $a {b} \"'#:"},
        NOTHING | {"WPE_API_USER_ID_COMMAND": "echo me", "WPE_API_PASSWORD_FILE": __file__},
    ],
)
def test_the_rehearsal_of_the_readme_works_with_any_exported_credentials(
    tmp_path: Path, exported: dict[str, str]
) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (options,) = re.findall(r"^\$ wpe-backup simulate (--.+)$", readme, re.MULTILINE)
    arguments, _ = re.findall(r"^\$ wpe-backup (run -c examples/rehearsal\.yaml)$", readme, re.MULTILINE)
    with stand_in(*shlex.split(options), **exported) as running:
        point_at(running, tmp_path)
        ended = run_command(*shlex.split(arguments), cwd=tmp_path, **exported)
        assert ended.code == 3, ended.stderr
        assert re.search(r"18 of 24 installs backed up, 6 not, in .+ s\n", ended.stderr), ended.stderr
        assert "config=examples/rehearsal.yaml" in ended.stderr, "no made-up secret is a word that is shown elsewhere"
    with stand_in(**exported) as running:
        point_at(running, tmp_path)
        ended = run_command("run", "-c", "examples/inventory.yaml", cwd=tmp_path, **exported, **PACE)
        assert ended.code == 0, ended.stderr


def test_the_commands_of_the_readmes_first_day_work_without_other_preparation(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    day = readme.partition("\nIn the second terminal")[2].partition("\n```\n")[0]
    lines = re.findall(r"^\$ wpe-backup (.+)$", day, re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["init", "doctor", "run", "status", "audit"]
    with stand_in(**NOTHING) as running:
        for line in lines:
            arguments = shlex.split(line.replace("http://127.0.0.1:8080/v1", running.base_url), comments=True)
            ended = run_command(*arguments, cwd=tmp_path, **NOTHING, WPE_BACKUP_RATE="50")
            assert ended.code == 0, f"{line}\n{ended.stdout}{ended.stderr}"
        assert {backup["status"] for backup in running.backups()} == {"completed"}
        assert (running.stats()["backups_made"], running.stats()["most_per_install"]) == (24, 1)


def test_every_command_of_the_examples_readme_ends_as_documented(server: StandIn, tmp_path: Path) -> None:
    assert len(commands()) >= 20
    for line in commands():
        program, *arguments = shlex.split(line.replace("http://127.0.0.1:8080/v1", server.base_url), comments=True)
        slow = ["--rate", "5"] if "--deadline" in arguments else []
        ended = run_command(*arguments, *slow, cwd=tmp_path, **({} if slow else PACE))
        expected = CODE.search(line)
        codes = {0, 3} if "status" in arguments else {int(expected[1]) if expected else 0}
        said = f"{line}\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}"
        assert (program, ended.code in codes) == ("wpe-backup", True), said
        assert not {"Traceback", "[redacted]"} & set(re.split(r"[^\w\[\]]+", ended.stdout + ended.stderr)), said
    assert server.stats()["most_per_install"] <= 4


THE_COMMAND = f'exec {shlex.join(command_by_fork())} "$@"'


def script(folder: Path, name: str, *arguments: str, command: str = THE_COMMAND) -> Ended:
    """Run a script of the examples; the shell command ``command`` replaces ``wpe-backup``."""
    program = folder / "bin" / "wpe-backup"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{command}\n")
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    words = [str(folder / "examples" / name), *arguments]
    return run_program(*words, cwd=folder, PATH=path, WPE_BACKUP_CONFIG="examples/agency.yaml", **PACE)


def test_the_gate_deploys_only_with_completed_backups(server: StandIn, tmp_path: Path) -> None:
    ended = script(tmp_path, "maintenance-gate.sh", "torquemag", "torqueshop")
    assert (ended.code, "deploying" in ended.stdout) == (0, True), ended.stderr
    assert {backup["status"] for backup in server.backups()} == {"completed"}
    assert len(server.backups()) == 2


def test_the_gate_stays_closed_for_a_missing_install(server: StandIn, tmp_path: Path) -> None:
    text = (tmp_path / "examples/agency.yaml").read_text()
    (tmp_path / "examples/agency.yaml").write_text(text + "  - {name: vanished, account: clients}\n")
    ended = script(tmp_path, "maintenance-gate.sh", "torquemag", "vanished")
    assert (ended.code, "deploying" in ended.stdout, "Not deploying" in ended.stderr) == (3, False, True)
    assert len(server.backups()) == 1


CALLED = """\
echo "$*" >>calls
exit "$(sed -n "$(wc -l <calls)p" codes)"
"""
"""A replacement for ``wpe-backup`` that logs its arguments and ends with the next code of a list."""

RUN, RESUME, RETRY = "run --wait --deadline", "run --resume latest", "run --retry-failed latest"
LOOKS = ["audit", "installs --diff"]
GATE = "run --wait --skip-if-recent"


@pytest.mark.parametrize(
    ("words", "codes", "calls", "expected"),
    [
        (["nightly.sh"], [0, 0, 0], [RUN, *LOOKS], 0),
        (["nightly.sh"], [3, 0, 0, 0], [RUN, RESUME, *LOOKS], 0),
        (["nightly.sh"], [3, 3, 0, 0, 0], [RUN, RESUME, RETRY, *LOOKS], 0),
        (["nightly.sh"], [3, 3, 3, 0, 0], [RUN, RESUME, RETRY, *LOOKS], 3),
        (["nightly.sh"], [10, 10, 10, 3, 3], [RUN, RESUME, RETRY, *LOOKS], 10),
        (["nightly.sh"], [10, 3, 3, 12, 3], [RUN, RESUME, RETRY, *LOOKS], 3),
        (["nightly.sh"], [0, 3, 0], [RUN, *LOOKS], 3),
        (["nightly.sh"], [0, 12, 3], [RUN, *LOOKS], 12),
        (["nightly.sh"], [0, 0, 3], [RUN, *LOOKS], 3),
        *((["nightly.sh"], [code], [RUN], code) for code in (1, 2, 4, 11, 12, 129, 130, 143)),
        (["nightly.sh"], [3, 12], [RUN, RESUME], 12),
        (["nightly.sh"], [3, 3, 130], [RUN, RESUME, RETRY], 130),
        (["shards.sh"], [0, 0, 0, 0], [f"run --shard {part}/4" for part in (1, 2, 3, 4)], 0),
        (["shards.sh"], [0, 12, 3, 0], [f"run --shard {part}/4" for part in (1, 2, 3, 4)], 12),
        (["shards.sh"], [0, 143], [f"run --shard {part}/4" for part in (1, 2)], 143),
        (["shards.sh"], [3, 130], [f"run --shard {part}/4" for part in (1, 2)], 3),
        (["maintenance-gate.sh"], [], [], 2),
        (["maintenance-gate.sh", "a", "b"], [0], [GATE], 0),
        *((["maintenance-gate.sh", "a"], [code], [GATE], code) for code in (1, 2, 3, 4, 10, 11, 12, 130, 143)),
    ],
)
def test_each_script_ends_with_the_right_exit_code(
    tmp_path: Path, words: list[str], codes: list[int], calls: list[str], expected: int
) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
    (tmp_path / "calls").touch()
    ended = script(tmp_path, *words, command=CALLED)
    made = (tmp_path / "calls").read_text().splitlines()
    assert (ended.code, len(made)) == (expected, len(calls)), ended.stderr
    assert all(call.startswith(begin) for call, begin in zip(made, calls, strict=True)), made
    assert ("deploying." in ended.stdout) == (words[0] == "maintenance-gate.sh" and expected == 0)


def test_the_gate_treats_every_argument_as_an_install(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "examples" / "agency.yaml").write_text(fleet("http://127.0.0.1:9/v1", 1))
    ended = script(tmp_path, "maintenance-gate.sh", "--help")
    assert (ended.code, "deploying." in ended.stdout) == (2, False), "help ends with 0, and nothing is backed up"
    assert "--help" in ended.stderr


def test_a_night_whose_listing_failed_once_backs_up_every_install(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    ended, backups = _night(tmp_path, 1)
    assert ended.code == 0, ended.stderr
    assert len(backups) == 4


def test_a_night_whose_listing_always_fails_ends_with_exit_code_3(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    ended, backups = _night(tmp_path, 3)
    assert ended.code == 3, ended.stderr
    assert len(backups) == 1


def _night(folder: Path, failed_tries: int) -> tuple[Ended, set[str]]:
    """Run a night of four installs, one given by id; the listing fails ``failed_tries`` times. Return the ids made."""
    scenario = folder / "scenario.yaml"
    scenario.write_text("latency: 1ms\nbackups: {completes_after: 100ms}\naccounts: [{name: agencyone, installs: 4}]\n")
    with stand_in("--scenario", str(scenario), WPE_API_USER_ID="", WPE_API_PASSWORD="") as server:
        listed = json.loads(
            run_command("installs", "--format", "json", "-c", str(_fleet(folder, server)), cwd=folder).stdout
        )
    scenario.write_text(
        scenario.read_text() + f"faults: [{{kind: unavailable, operation: installs, first_tries: {failed_tries}}}]\n"
    )
    with stand_in("--scenario", str(scenario), WPE_API_USER_ID="", WPE_API_PASSWORD="") as server:
        _fleet(folder, server, listed[0]["install_id"])
        ended = script(folder, "nightly.sh")
        backups = server.backups()
    assert len(backups) == len({backup["install_id"] for backup in backups})
    return ended, {backup["install_id"] for backup in backups}


def _fleet(folder: Path, server: StandIn, *ids: str) -> Path:
    path = folder / "examples/agency.yaml"
    path.write_text(
        "version: 1\n"
        f"accounts: {{default: {{base_url: '{server.base_url}', user_id: u, password: pppp}}}}\n"
        "defaults: {notification_emails: []}\n"
        "retry: {max_attempts: 1}\n"
        "wait: {poll_interval: 100ms}\n"
        "inventory: [{discover: {}}]\n"
        f"installs: [{', '.join(ids)}]\n"
    )
    return path


def test_a_night_ends_with_an_audit_and_reports_drift(server: StandIn, tmp_path: Path) -> None:
    ended = script(tmp_path, "nightly.sh")
    assert ended.code == 3, ended.stderr
    assert "pending" in ended.stdout, "the audit is well, and one install is in no list"
    assert server.stats()["most_per_install"] == 1


def test_the_four_parts_are_the_whole_fleet(server: StandIn, tmp_path: Path) -> None:
    planned = run_command("run", "-c", "examples/agency.yaml", "-n", "--log-format", "json", cwd=tmp_path).lines()
    ended = script(tmp_path, "shards.sh")
    assert ended.code == 0, ended.stderr
    assert {backup["install_id"] for backup in server.backups()} == {line["install_id"] for line in planned}
    assert server.stats()["most_per_install"] == 1
