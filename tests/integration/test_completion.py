"""Shell completion: the scripts, their protocol with the real command, and the words that are offered."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import click
import pytest
from command import environment, install_ids, run_command
from fakes import planned
from states import AT, by_hand, with_store

from orchestrator.cli.commands import cli
from orchestrator.cli.completers import (
    _LateError,
    _within,
    complete_accounts,
    complete_installs,
    complete_reports,
    complete_runs,
    complete_tags,
)
from orchestrator.cli.parser.grammar import PROGRAM
from orchestrator.journal.runs import RunRecord, begin, end, keep
from orchestrator.journal.store import FILE_NAME, Store
from orchestrator.model import OutcomeKind, Run
from orchestrator.summary import Line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OLDER, NEWER = "01JC0000000000000000000000", "01JD0000000000000000000000"
OF_NEWER, OF_OLDER = "2026-11-23 01:00 UTC: 1 of 2 backed up so far", "2026-11-23 01:00 UTC: 2 of 2 backed up"
SUMMARY = {
    "planned": 2,
    "outcomes": {"accepted": 2},
    "finished_at": AT.isoformat(),
    "duration_s": 1.0,
    "exit_code": 0,
}


async def two_runs(store: Store) -> None:
    for run_id in (OLDER, NEWER):
        await begin(store, RunRecord(Run(run_id, AT), "f", "f.yaml", "-", {}), [planned(0), planned(1)], [])
        await keep(store, run_id, [Line(0, OutcomeKind.ACCEPTED, 0, reconciled=False, data=b"{}\n")])
    await end(store, OLDER, AT, SUMMARY)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return a state directory with two runs; the newer run has not ended."""
    with_store(tmp_path / "state" / FILE_NAME, two_runs)
    return tmp_path / "state"


# -- the scripts -------------------------------------------------------------------------------------------------------


@pytest.fixture
def script(capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    def printed(shell: str) -> str:
        cli.main(["completion", shell], prog_name=PROGRAM, standalone_mode=False)
        return capsys.readouterr().out

    return printed


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_script_fits_its_shell_and_calls_the_command(script: Callable[[str], str], shell: str) -> None:
    text = script(shell)
    assert f"_WPE_BACKUP_COMPLETE={shell}_complete" in text
    assert "wpe-backup" in text
    found = shutil.which(shell)
    if found is not None:
        checked = subprocess.run([found, "-n"], input=text, capture_output=True, text=True, timeout=10, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")


def test_an_old_bash_gets_a_message_and_no_completion(script: Callable[[str], str]) -> None:
    old = "BASH_IS=(3 2)\n" + script("bash").replace("BASH_VERSINFO", "BASH_IS") + "\ncomplete -p wpe-backup"
    ended = subprocess.run(["bash", "-c", old], capture_output=True, text=True, timeout=10, check=False)  # noqa: S607 - the PATH's
    first, second = ended.stderr.splitlines()
    assert first == "wpe-backup: completion needs bash 4.4 or newer; this one is older"
    assert "no completion specification" in second


def test_bash_itself_completes_runs_and_options(state: Path, script: Callable[[str], str]) -> None:
    command = state.parent / "bin" / "wpe-backup"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m orchestrator "$@"\n')
    command.chmod(0o700)
    lines = f"""\
{script("bash")}
offered() {{
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    _wpe_backup_completion wpe-backup
    echo "${{COMPREPLY[*]}}"
}}
offered wpe-backup settle --state-dir '{state}' 01
offered wpe-backup history --form
"""
    changed = environment(PATH=f"{command.parent}:/usr/bin:/bin")
    ended = subprocess.run(
        ["bash", "-c", lines],  # noqa: S607 - the PATH's
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=changed,
    )
    assert (ended.stdout, ended.stderr) == (f"{NEWER} {OLDER}\n--format\n", "")


# -- the protocol ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shell", "at", "expected"),
    [
        ("bash", "3", ["plain,latest", f"plain,{NEWER}", f"plain,{OLDER}"]),
        ("zsh", "3", ["plain", "latest", OF_NEWER, "plain", NEWER, OF_NEWER, "plain", OLDER, OF_OLDER]),
        ("fish", "", [f"plain,latest\t{OF_NEWER}", f"plain,{NEWER}\t{OF_NEWER}", f"plain,{OLDER}\t{OF_OLDER}"]),
    ],
)
def test_the_command_answers_each_shell(state: Path, shell: str, at: str, expected: list[str]) -> None:
    ended = run_command(
        cwd=state.parent,
        _WPE_BACKUP_COMPLETE=f"{shell}_complete",
        COMP_WORDS="wpe-backup report summary ",
        COMP_CWORD=at,
        WPE_BACKUP_STATE_DIR=str(state),
    )
    assert (ended.code, ended.stdout.splitlines(), ended.stderr) == (0, expected, "")
    assert [each.name for each in state.iterdir()] == [FILE_NAME]


# -- the offered words -------------------------------------------------------------------------------------------------


def offered(complete: Callable[..., Any], incomplete: str = "", **given: object) -> list[str]:
    context = click.Context(cli, resilient_parsing=True)
    context.params = given
    return [item.value for item in complete(context, click.Option(["--x"]), incomplete)]


def test_runs_are_offered_by_the_start_of_their_id_and_a_report_may_be_a_file(state: Path) -> None:
    assert offered(complete_runs, "01jd", state_dir=state) == [NEWER]
    assert offered(complete_runs, "la", state_dir=state) == ["latest"]
    assert offered(complete_runs, "./", state_dir=state) == []
    context = click.Context(cli)
    context.params = {"state_dir": state}
    (file,) = complete_reports(context, click.Option(["--x"]), "~/r")
    assert (file.type, file.value) == ("file", "~/r")


def test_if_the_state_cannot_be_read_the_folders_of_runs_are_offered(state: Path) -> None:
    by_hand(state / FILE_NAME, "DROP TABLE outcomes")
    assert offered(complete_runs, state_dir=state) == []
    for run_id in (OLDER, NEWER, "$(touch x)"):
        (state / "runs" / run_id).mkdir(parents=True)
    assert offered(complete_runs, state_dir=state) == ["latest", NEWER, OLDER]
    assert offered(complete_runs, state_dir=state / "gone") == []
    assert offered(complete_reports, "x", state_dir=state / "gone") == ["x"]
    assert not (state / "gone").exists()


IDS = install_ids(3)
YAML = f"""\
version: 1
accounts:
  default: {{user_id: a, password_command: "touch HERE/ran"}}
  other: {{user_id: "${{NOT_SET}}", password_file: "HERE/gone"}}
defaults: {{notification_emails: []}}
installs:
  - {{id: {IDS[0]}, name: shop, tags: [woo, "$(touch ran)", "two words", "a,b"]}}
  - {{id: {IDS[1]}, name: "-shop", tags: [woo, blog]}}
  - {IDS[2]}
"""


def test_accounts_tags_and_installs_are_offered_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wpe-backup.yaml"
    path.write_text(YAML.replace("HERE", str(tmp_path)))
    assert offered(complete_accounts, config_file=str(path)) == ["default", "other"]
    monkeypatch.setenv("WPE_BACKUP_CONFIG", str(path))
    assert offered(complete_tags) == ["blog", "woo"]
    monkeypatch.delenv("WPE_BACKUP_CONFIG")
    monkeypatch.chdir(tmp_path)
    assert offered(complete_installs) == ["shop", IDS[2]]
    assert offered(complete_installs, IDS[0][:-1]) == [IDS[2], IDS[0], IDS[1]]
    assert offered(complete_accounts, "o") == ["other"]
    assert [each.name for each in tmp_path.iterdir()] == ["wpe-backup.yaml"]


@pytest.mark.parametrize("text", ["installs: [", "", "version: 1\n"])
def test_an_unusable_yaml_offers_nothing_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "f.yaml").write_text(text)
    for name in ("f.yaml", "gone.yaml", ".", "-"):
        named = "-" if name == "-" else str(tmp_path / name)
        assert offered(complete_tags, config_file=named) == []
    assert capfd.readouterr() == ("", "")


def test_completion_stops_if_it_takes_too_long(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGALRM)
    os.mkfifo(tmp_path / "f.yaml")
    with pytest.raises(_LateError), _within(0.05):
        (tmp_path / "f.yaml").read_bytes()
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
