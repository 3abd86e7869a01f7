"""The command in odd surroundings: a locale that lacks characters, a user without a home, streams that are full."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from command import AT_THE_TRUE_TIME, COMMAND, Ended, environment, fleet, install_ids, run_command, stand_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from command import StandIn

pytestmark = pytest.mark.usefixtures("without_coverage")

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""With these variables Python decodes arguments and file names as ASCII, as it uses Latin-1 in a Latin-1 locale."""

ODD_IDS = install_ids(2000)[-2:]
"""The ids of installs that no other test of this file backs up."""

NO_HOME = ("unshare", "--user", "--map-user=4242")


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


def may_have_no_home() -> bool:
    return subprocess.run([*NO_HOME, "true"], capture_output=True, check=False).returncode == 0


def run_anew(*arguments: str | bytes, cwd: Path, by: Sequence[str] = (), **changes: str) -> Ended:
    """Run the command in a new Python process, which takes its encodings from the environment."""
    env = environment(**changes)
    ended = subprocess.run([*by, *COMMAND, *arguments], cwd=cwd, env=env, capture_output=True, check=False)
    return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def named(base_url: str) -> str:
    """Return a YAML whose texts and file names are not ASCII."""
    return f"""\
version: 1
accounts: {{default: {{base_url: "{base_url}", password_file: geheim-ü}}}}
defaults: {{notification_emails: [], description: "${{WHO}} sichert {{name}}"}}
inventory: [{{files: ["kün*.csv"]}}]
installs: [{{id: {ODD_IDS[0]}, name: café, tags: [日本]}}]
"""


@pytest.fixture
def folder(server: StandIn, tmp_path: Path) -> Path:
    (tmp_path / "flotte-é.yaml").write_text(named(server.base_url), encoding="utf-8")
    (tmp_path / "geheim-ü").write_text("a-secret-password")
    (tmp_path / "künde.csv").write_text(f"id,name\n{ODD_IDS[1]},straße\n", encoding="utf-8")
    return tmp_path


def test_a_run_works_in_a_locale_that_lacks_its_characters(server: StandIn, folder: Path) -> None:
    files = ("-c", "flotte-é.yaml", "-o", "bericht-é.jsonl", "--state-dir", "s", "--log-format", "json")
    meant = ("--only", "straß*", "--description", "Vör {name}")
    ended = run_anew("run", *files, *meant, cwd=folder, WHO="Zoë", **ASCII)
    assert ended.code == 0
    assert "flotte-é.yaml" in {json.loads(line).get("config") for line in ended.stderr.splitlines()}
    line, summary = (json.loads(each) for each in (folder / "bericht-é.jsonl").read_text("utf-8").splitlines())
    assert (line["name"], summary["config"]) == ("straße", "flotte-é.yaml")
    assert line["description"].startswith("Vör straße [")
    assert line["description"] in {each["description"] for each in server.backups()}


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (("run", "--dry-run"), r"Zo\xeb sichert caf\xe9"),
        (("audit",), r"caf\xe9"),
        (("config", "validate"), r"flotte-\xe9.yaml: valid"),
        (("config", "show"), "name: straße"),  # data is always UTF-8
        (("run", "--dry-run", "--log-format", "json"), r'"caf\u00e9"'),
        (("audit", "--format", "json"), r'"caf\u00e9"'),
    ],
)
def test_every_output_is_printed_in_a_locale_that_lacks_its_characters(
    command: tuple[str, ...], shown: str, folder: Path
) -> None:
    ended = run_anew(*command, "-c", "flotte-é.yaml", cwd=folder, WHO="Zoë", HOME=str(folder), **ASCII)
    assert shown in ended.stdout
    assert ended.code == (3 if command[0] == "audit" else 0)  # nothing was backed up yet


def test_an_encoding_from_the_environment_is_kept(folder: Path) -> None:
    env = environment(PYTHONIOENCODING="latin-1:strict", WHO="日本", HOME=str(folder)) | ASCII
    arguments = [*COMMAND, "run", "--dry-run", "-c", "flotte-é.yaml"]
    printed = subprocess.run(arguments, cwd=folder, env=env, capture_output=True, check=True).stdout
    assert r"\u65e5\u672c sichert café".encode("latin-1") in printed


@pytest.mark.parametrize("locale", [{}, ASCII], ids=["default", "ASCII"])
def test_arguments_that_are_no_utf8_are_refused_and_named(locale: dict[str, str], folder: Path) -> None:
    for arguments, what in (
        (("run", "--only", b"caf\xe9*"), r"argument 3 is not UTF-8 text: caf\xe9*; "),
        (("report", "summary", b"f\xff"), r"argument 3 is not UTF-8 text: f\xff; "),
        ((b"f\xff",), r"argument 1 is not UTF-8 text: f\xff; "),
    ):
        ended = run_anew(*arguments, cwd=folder, by=("env", *(f"{name}={value}" for name, value in locale.items())))
        assert (ended.code, ended.stdout) == (2, "")
        assert ended.stderr.startswith(f"wpe-backup: {what}")


def test_variables_that_are_no_utf8_are_refused_and_named(folder: Path) -> None:
    odd = "caf\udce9"  # Python's replacement for the invalid byte
    ended = run_anew("run", "-n", "-c", "flotte-é.yaml", cwd=folder, WHO=odd)
    assert (ended.code, "the environment variable WHO is not UTF-8 text" in ended.stderr) == (2, True)
    ended = run_anew("run", "-n", cwd=folder, WPE_BACKUP_ONLY=odd)
    assert (ended.code, r"WPE_BACKUP_ONLY is not UTF-8 text: caf\xe9; " in ended.stderr) == (2, True)
    ended = run_anew("installs", cwd=folder, WPE_API_PASSWORD=odd)
    assert (ended.code, "the secret from WPE_API_PASSWORD must be UTF-8 text" in ended.stderr) == (2, True)


NO_STATE_DIR = "wpe-backup: there is no directory for the state: "


@pytest.mark.skipif(not may_have_no_home(), reason="nobody here may be a user without a home")
def test_a_user_without_a_home_needs_a_state_folder_only_for_commands_that_use_it(
    server: StandIn, tmp_path: Path
) -> None:
    (tmp_path / "f.yaml").write_text(fleet(server.base_url, 2))
    env = environment()
    env.pop("HOME", None)

    def run(*arguments: str) -> Ended:
        command = [*NO_HOME, *COMMAND, *arguments]
        ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    ended = run("run", "-c", "f.yaml", "--state-dir", "s", "-o", "r.jsonl")
    assert (ended.code, "status -c f.yaml --state-dir s" in ended.stderr) == (0, True)
    for arguments in (("run", "-n", "-c", "f.yaml"), ("report", "summary", "r.jsonl"), ("completion", "bash")):
        assert run(*arguments).code == 0
    for command in ("run -c f.yaml", "history", "report summary", "status -c f.yaml"):
        ended = run(*command.split())
        assert (ended.code, ended.stdout, ended.stderr.startswith(NO_STATE_DIR)) == (2, "", True)
        assert ended.stderr.endswith("; name one with --state-dir\n")
    ended = run("doctor", "-c", "f.yaml")
    assert (ended.code, "there is no directory for the state" in ended.stdout) == (3, True)
    ended = run("config", "validate")
    assert (ended.code, "looked for wpe-backup.yaml, /etc/wpe-backup/config.yaml" in ended.stderr) == (2, True)


def history(folder: Path, **changes: str) -> str:
    """Return the directory in which ``history`` looks for runs."""
    ended = run_command("history", cwd=folder, WPE_BACKUP_STATE_DIR="", **changes)
    assert ended.code == 0
    return ended.stdout.split("There are no runs in ")[1].split("; name another")[0]


def test_the_state_folder_comes_from_systemd_then_xdg_then_the_home(tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    assert history(tmp_path, HOME=home) == f"{home}/.local/state/wpe-backup"
    assert history(tmp_path, HOME=home, XDG_STATE_HOME="/x") == "/x/wpe-backup"
    assert history(tmp_path, HOME=home, XDG_STATE_HOME="/x", STATE_DIRECTORY="/s/one:/s/two") == "/s/one"
    assert history(tmp_path, HOME=home, XDG_STATE_HOME="x", STATE_DIRECTORY="s") == f"{home}/.local/state/wpe-backup"
    assert history(tmp_path, HOME="").endswith("/.local/state/wpe-backup")
    assert history(tmp_path, HOME="") == history(tmp_path, HOME="relative") != "/.local/state/wpe-backup"


def test_a_hint_names_the_state_folder_that_systemd_set(server: StandIn, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(fleet(server.base_url, 1))
    state = str(tmp_path / "lib")
    ended = run_command("run", "-c", "f.yaml", cwd=tmp_path, WPE_BACKUP_STATE_DIR="", STATE_DIRECTORY=state)
    assert (ended.code, f"status -c f.yaml --state-dir {state}" in ended.stderr) == (0, True)


def test_a_home_that_is_no_folder_is_reported_before_anything_is_sent(server: StandIn, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(fleet(server.base_url, 1))
    before = server.stats()["requests"]
    home = str(tmp_path / "f.yaml")
    ended = run_command("run", "-c", "f.yaml", cwd=tmp_path, WPE_BACKUP_STATE_DIR="", HOME=home)
    assert (ended.code, server.stats()["requests"]) == (4, before)
    said = f"{home}/.local/state/wpe-backup cannot be made: Not a directory; name another directory with --state-dir"
    assert ended.stderr == f"wpe-backup: {said}\n"


def test_a_missing_working_directory_is_reported_only_if_it_is_needed(server: StandIn, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(fleet(server.base_url, 1))
    (tmp_path / "gone").mkdir()
    go = ("sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh")
    ended = run_anew("run", "-c", f"{tmp_path}/f.yaml", "--state-dir", "s", cwd=tmp_path / "gone", by=go)
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("wpe-backup: the working directory is gone: ")
    (tmp_path / "gone").mkdir()
    state = ("--state-dir", f"{tmp_path}/s")
    assert run_anew("run", "-q", "-c", f"{tmp_path}/f.yaml", *state, cwd=tmp_path / "gone", by=go) == Ended(0, "", "")


@pytest.mark.parametrize("command", ["--help", "--version", "config schema", "run -n -c f.yaml", "completion zsh"])
def test_a_full_standard_output_is_reported(command: str, server: StandIn, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(fleet(server.base_url, 1000))
    for taken, reason in ((">/dev/full", "No space left on device"), (">&-", "it is closed")):
        by = ("sh", "-c", f'exec "$@" {taken}', "sh")
        ended = run_anew(*command.split(), cwd=tmp_path, by=by, **AT_THE_TRUE_TIME)
        assert ended == Ended(4, "", f"wpe-backup: standard output cannot be written: {reason}\n")


def test_a_full_standard_error_changes_nothing(server: StandIn, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(fleet(server.base_url, 1))
    by = ("sh", "-c", 'exec "$@" 2>/dev/full', "sh")
    ended = run_anew("run", "-v", "-c", "f.yaml", "--state-dir", "s", "-o", "-", cwd=tmp_path, by=by)
    assert (ended.code, len(ended.lines())) == (0, 2)


def test_a_report_that_cannot_be_written_is_named_with_a_remedy(server: StandIn, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(fleet(server.base_url, 1))
    ended = run_command("run", "-c", "f.yaml", "-o", "/dev/full", cwd=tmp_path)
    assert ended.code == 4
    said = "the report cannot be written to /dev/full: No space left on device; make room there, or name another file"
    assert f"wpe-backup: {said} with -o\n" in ended.stderr
