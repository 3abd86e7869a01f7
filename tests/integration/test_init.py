"""The real ``init``: its YAML is valid as written, for any answers of a server."""

from __future__ import annotations

import json
import re
import stat
from typing import TYPE_CHECKING

import pytest
import yaml
from command import PASSWORD, USER, run_command, stand_in
from jsonschema import Draft202012Validator

from orchestrator.cli.environment import config_of_environment
from orchestrator.config import config_schema, load_config, read_yaml
from orchestrator.config.starter import ListedGroup, starter
from orchestrator.config.values import DEFAULT_BASE_URL
from orchestrator.listings import ListedInstall

if TYPE_CHECKING:
    from pathlib import Path

ID = "00000000-0000-4000-8000-00000000000{}"
SCENARIO = """\
latency: 1ms
accounts:
  - {name: agencyone, installs: 4, environments: [production, staging]}
  - name: agencytwo
    installs: [{name: torquemag}, {name: "true"}, {name: newsite, status: pending}]
pages: {size: 3}
"""
HOSTILE = (
    "evil\n  - id: injected",
    'quote"\\ # {a: b}',
    "${WPE_API_PASSWORD}",
    "$$ $",
    "yes",
    "0x1f",
    "\x1b[31mred\u202e",
    "\ufffe\ud800\u2028\u0085",
    "x" * 5000,
    "größe 🙂",
)


def test_a_starter_is_valid_as_written_and_overwrites_nothing(tmp_path: Path) -> None:
    ended = run_command("init", "--email", "ops@example.com", "--email", "a$b@example.com", cwd=tmp_path)
    assert (ended.code, ended.stdout) == (0, "")
    assert "Wrote wpe-backup.yaml" in ended.stderr
    assert "wpe-backup run --dry-run" in ended.stderr
    file = tmp_path / "wpe-backup.yaml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    assert PASSWORD not in text
    assert USER not in text
    Draft202012Validator(config_schema()).validate(yaml.safe_load(text))
    valid = run_command("config", "validate", "--no-secrets", cwd=tmp_path, WPE_API_PASSWORD="", WPE_API_USER_ID="")
    assert (valid.code, valid.stdout[:45]) == (0, "wpe-backup.yaml: valid; 1 installs, 1 of them")
    config = load_config(text.encode(), "f.yaml", {"WPE_API_USER_ID": "u", "WPE_API_PASSWORD": "p"})
    assert config.discovered.notification_emails == ("ops@example.com", "a$b@example.com")
    again = run_command("init", cwd=tmp_path)
    assert (again.code, "--force replaces it" in again.stderr, file.read_text()) == (2, True, text)
    forced = run_command("init", "--force", "-q", cwd=tmp_path)
    assert (forced.code, forced.stderr, "notification_emails: []" in file.read_text()) == (0, "", True)
    assert [path.name for path in tmp_path.iterdir()] == ["wpe-backup.yaml"]


def test_the_commented_settings_show_the_defaults() -> None:
    text = starter((), None, None)
    bare = read_yaml(text.encode(), "f.yaml", {}, with_secrets=False).sections
    whole, settings = re.subn(r"^( *)# ([a-z_]+: )", r"\1\2", text, flags=re.MULTILINE)
    shown = read_yaml(whole.encode(), "f.yaml", {}, with_secrets=False).sections
    assert settings > 15
    assert shown == bare


def test_every_visible_install_is_listed_under_its_wp_engine_account(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    with stand_in("--scenario", str(tmp_path / "scenario.yaml")) as server:
        url = ("--base-url", server.base_url)
        ended = run_command("init", "-c", "mine.yaml", "--from-api", *url, cwd=tmp_path)
        assert (ended.code, ended.stdout) == (0, "")
        assert "Wrote mine.yaml: 6 installs, and 1 pending that are commented out" in ended.stderr
        text = (tmp_path / "mine.yaml").read_text()
        assert "  # of WP Engine's account agencytwo (" in text
        assert "    # torquemag.wpengine.example\n    name: torquemag\n    environment: production\n" in text
        assert '    name: "true"\n' in text
        assert "  #   name: newsite\n" in text
        plan = run_command("run", "-c", "mine.yaml", "-n", "--log-format", "json", cwd=tmp_path)
        names = [line["name"] for line in plan.lines()]
        assert (plan.code, names) == (0, [*(f"agencyon00000{n}" for n in range(1, 5)), "torquemag", "true"])
        diff = run_command("installs", "--diff", "-c", "mine.yaml", "--format", "json", cwd=tmp_path)
        assert [(row["kind"], row["name"]) for row in json.loads(diff.stdout)] == [("pending", "newsite")]
        printed = run_command("init", "-c", "-", "--from-api", *url, cwd=tmp_path)
        assert (printed.code, printed.stdout) == (0, text)
        assert server.stats()["posts"] == 0
    (tmp_path / "scenario.yaml").write_text(SCENARIO + "credentials: {password: another}\n")
    with stand_in("--scenario", str(tmp_path / "scenario.yaml")) as server:
        refused = run_command("init", "-c", "no.yaml", "--from-api", "--base-url", server.base_url, cwd=tmp_path)
        assert (refused.code, (tmp_path / "no.yaml").exists()) == (12, False)
        assert "nothing was written" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-c", "no/such/folder.yaml"], "make it first"),
        (["-c", "folder", "--force"], "is not a regular file"),
        (["-c", "/dev/null", "--force"], "is not a regular file"),
        (["--base-url", "http://api.example.com/v1"], "must be https"),
        (["--email", "nobody"], "must be an email address"),
        (["--from-api"], "the environment has no usable credentials"),
    ],
)
def test_wrong_arguments_are_exit_2_and_write_nothing(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "folder").mkdir()
    ended = run_command("init", *arguments, cwd=tmp_path, WPE_API_USER_ID="")
    shown = " ".join(ended.stderr.split())
    assert (ended.code, said in shown, "Traceback" in shown) == (2, True, False), shown
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_text_of_a_server_becomes_a_name_or_a_comment_and_nothing_else() -> None:
    listed = [
        ListedInstall(ID.format(n), name, environment=name, status=name, primary_domain=name)
        for n, name in enumerate(HOSTILE)
    ]
    text = starter((), None, [ListedGroup(name, (each,)) for name, each in zip(HOSTILE, listed, strict=True)])
    sections = read_yaml(text.encode(), "f.yaml", {}, with_secrets=False).sections
    assert [each.id for each in sections.installs] == [each.id for each in listed]
    kept = dict(zip(HOSTILE, (each.name for each in sections.installs), strict=True))
    lost = {name for name, found in kept.items() if found is None}
    assert lost == {HOSTILE[0], HOSTILE[6], HOSTILE[7], HOSTILE[8]}
    assert all(found == name for name, found in kept.items() if name not in lost)
    assert {each.environment for each in sections.installs} == {None}
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) < 400


def test_if_no_install_is_active_yet_the_starter_discovers_them_later() -> None:
    pending = ListedInstall(ID.format(1), "newsite", status="pending")
    text = starter((), None, [ListedGroup("one", (pending,))])
    fleet = read_yaml(text.encode(), "f.yaml", {}, with_secrets=False)
    assert (len(fleet.sections.installs), len(fleet.sections.inventory)) == (0, 1)


@pytest.mark.parametrize(
    ("scenario", "seen"),
    [
        ("accounts: []", "shows no account and no install,"),
        (
            "accounts: [{name: clientshop, installs: []}, {name: other}]",
            "no install of the account(s) clientshop, other",
        ),
        ("accounts: []\nfaults: [{kind: forbidden, operation: accounts, of: requests}]", "shows no install,"),
    ],
)
def test_credentials_that_see_no_install_get_possible_reasons(tmp_path: Path, scenario: str, seen: str) -> None:
    (tmp_path / "scenario.yaml").write_text(f"latency: 1ms\n{scenario}\n")
    (tmp_path / "mine.yaml").write_text("mine")
    with stand_in("--scenario", str(tmp_path / "scenario.yaml")) as server:
        for arguments in (("-c", "new.yaml"), ("-c", "mine.yaml", "--force"), ("-c", "-"), ("-c", "new.yaml", "-q")):
            ended = run_command("init", *arguments, "--from-api", "--base-url", server.base_url, cwd=tmp_path)
            assert (ended.code, ended.stdout) == (3, ""), ended.stderr
            for words in (f"{server.base_url} accepts", seen, "nothing was written", "API Access", "--base-url"):
                assert words in ended.stderr
    assert (tmp_path / "mine.yaml").read_text() == "mine"
    assert not (tmp_path / "new.yaml").exists()


@pytest.mark.parametrize(
    ("given", "made_up"),
    [
        ({}, {"user_id", "password"}),
        ({"WPE_API_USER_ID": USER}, {"password"}),
        ({"WPE_API_USER_ID_COMMAND": "echo me", "WPE_API_PASSWORD_FILE": "secret"}, set()),
        ({"CREDENTIALS_DIRECTORY": "folder"}, {"user_id"}),
    ],
)
def test_init_from_a_stand_in_makes_up_credentials_that_the_environment_lacks(
    tmp_path: Path, given: dict[str, str], made_up: set[str]
) -> None:
    (tmp_path / "secret").write_text("from-a-file\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/WPE_API_PASSWORD").write_text("from-a-folder\n")
    variables = {"WPE_API_USER_ID": "", "WPE_API_PASSWORD": ""} | given
    with stand_in(**variables) as server:
        url = ("--base-url", server.base_url)
        ended = run_command("init", "--from-api", *url, cwd=tmp_path, **variables)
        assert (ended.code, "24 installs" in ended.stderr) == (0, True), ended.stderr
        account = yaml.safe_load((tmp_path / "wpe-backup.yaml").read_text())["accounts"]["default"]
        assert set(account) == made_up | {"base_url"}
        assert run_command("installs", "--diff", cwd=tmp_path, **variables).code == 0
    assert run_command("init", "--force", cwd=tmp_path, **variables).code == 0
    assert "will-do" not in (tmp_path / "wpe-backup.yaml").read_text()


def test_the_environment_alone_gives_a_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-a-file\n")
    monkeypatch.setenv("WPE_API_USER_ID", "u")
    monkeypatch.delenv("WPE_API_PASSWORD", raising=False)
    monkeypatch.setenv("WPE_API_PASSWORD_FILE", str(tmp_path / "secret"))
    account = config_of_environment().accounts["default"]
    assert (account.user_id, account.password, account.base_url) == ("u", "from-a-file", DEFAULT_BASE_URL)
    assert config_of_environment("http://127.0.0.1:1/v1").accounts["default"].base_url == "http://127.0.0.1:1/v1"
