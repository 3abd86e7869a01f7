"""Arguments of the command line: a YAML without a directory, empty values, and two values in one option."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner
from command import PASSWORD, Ended, fleet, run_command, run_program, stand_in

from orchestrator.cli.commands import cli

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.mark.parametrize(
    "name", ["<(cat {0})", "/dev/stdin < {0}", "/dev/fd/7 7< {0}", "/proc/self/fd/7 7< {0}", "fifo"]
)
def test_relative_paths_in_a_yaml_without_a_folder_start_in_the_current_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/a.csv").write_text("name\nshop01\n")
    (tmp_path / "secret").write_text(PASSWORD)
    with stand_in("--not-found", "1") as server:
        (tmp_path / "elsewhere/f.yaml").write_text(
            f"version: 1\naccounts: {{default: {{base_url: '{server.base_url}', password_file: secret}}}}\n"
            "defaults: {notification_emails: []}\ninventory: [{files: [lists/*.csv]}]\n"
        )
        file = str(tmp_path / "elsewhere/f.yaml")
        given = name.format(file)
        program = f"{sys.executable} -m orchestrator"
        if name == "fifo":
            os.mkfifo(tmp_path / "elsewhere/fifo")
            given, program = "elsewhere/fifo", f"cat {file} > elsewhere/fifo & {program}"
        ended = run_program("bash", "-c", f"{program} run -c {given}", cwd=tmp_path, WPE_API_PASSWORD="")
        said = "-" if "stdin" in name else "<(…)"
        assert (ended.code, f"-c {said} --state-dir" in ended.stderr) == (3, True), ended.stderr
        assert "/fd/" not in ended.stderr
        history = run_command("history", cwd=tmp_path).stdout
        assert ("<stdin>" if "stdin" in name else "<pipe>") in history
        again = run_command("run", "-c", file, cwd=tmp_path)
        assert (again.code, "matches no file" in again.stderr) == (2, False)
        assert "password_file cannot be read" in again.stderr


def test_two_pipes_are_one_configuration_only_if_they_list_the_same_installs(tmp_path: Path) -> None:
    with stand_in() as server:
        for count, file in ((1, "one.yaml"), (2, "two.yaml")):
            (tmp_path / file).write_text(fleet(server.base_url, count))
        first = piped("run", "one.yaml", tmp_path)
        assert first.code == 0, first.stderr
        for arguments in ("run --resume latest", "status latest", "run --retry-failed latest"):
            other = piped(arguments, "two.yaml", tmp_path)
            assert (other.code, "there are no runs of a YAML from a stream" in other.stderr) == (2, True), other
            assert piped(arguments, "one.yaml", tmp_path).code in {0, 3}
        assert len(server.backups()) == 1


def test_an_empty_pipe_is_refused_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").touch()
    ended = piped("run", "empty.yaml", tmp_path)
    assert ended == Ended(2, "", "<pipe>:1:1: no data came: check whether the command that writes this input failed\n")


def piped(arguments: str, file: str, folder: Path) -> Ended:
    """Run a command; a shell pipes the YAML to it."""
    command, *rest = arguments.split()
    line = f"{sys.executable} -m orchestrator {command} -c <(cat {file}) {' '.join(rest)}"
    return run_program("bash", "-c", line, cwd=folder)


def _options(group: click.Command = cli, *path: str) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from _options(command, *path, name)
        return
    for each in group.params:
        if isinstance(each, click.Option) and not each.is_flag:
            yield path, each.opts[-1]


def test_every_option_refuses_an_empty_value(tmp_path: Path) -> None:
    cli.load_parsers()
    options = [*_options()]
    assert len(options) > 80
    for path, option in options:
        for nothing in ("", " "):
            ended = CliRunner().invoke(cli, [*path, option, nothing])
            shown = " ".join(ended.output.replace("│", " ").split())
            assert (ended.exit_code, option in shown) == (2, True), (path, option, shown)
            assert "the value is empty: leave the option out" in shown, (path, option, shown)
    from_variable = run_command("history", cwd=tmp_path, WPE_BACKUP_FORMAT="")
    assert from_variable.code == 0, "a variable that is empty is one that is not set"


@pytest.mark.parametrize("address", ["a@x.example,b@y.example", "a@x.example;b@y.example", "a@x.example b@y.example"])
def test_two_email_addresses_in_one_option_are_refused(tmp_path: Path, address: str) -> None:
    (tmp_path / "f.yaml").write_text(fleet("http://127.0.0.1:9/v1", 2))
    ended = run_command("run", "-c", "f.yaml", "-n", "--email", address, cwd=tmp_path)
    shown = " ".join(ended.stderr.replace("│", " ").split())
    assert ended.code == 2
    assert (
        "must be one email address: repeat --email for several, or put commas between them in WPE_BACKUP_EMAIL" in shown
    )
    separated = run_command("run", "-c", "f.yaml", "-n", cwd=tmp_path, WPE_BACKUP_EMAIL=address)
    assert separated.code == (0 if "," in address else 2)
    assert ("would send 4 mails" in separated.stdout) is ("," in address)
    init = run_command("init", "--email", address, cwd=tmp_path)
    assert (init.code, (tmp_path / "wpe-backup.yaml").exists()) == (2, False)


@pytest.mark.parametrize(
    ("report", "says"),
    [
        ("gone/r.jsonl", "No such file or directory; create its directory, or name another file with -o"),
        (".", "Is a directory; name another file with -o"),
    ],
)
def test_a_report_that_cannot_be_written_has_a_remedy_that_fits(tmp_path: Path, report: str, says: str) -> None:
    (tmp_path / "f.yaml").write_text(fleet("http://127.0.0.1:9/v1", 1))
    ended = run_command("run", "-c", "f.yaml", "-o", report, cwd=tmp_path)
    assert (ended.code, says in ended.stderr) == (4, True), ended.stderr
