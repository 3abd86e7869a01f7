"""The sources of credentials (the YAML, the environment, the credentials directory) and their forms."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from orchestrator.config import load_config, read_yaml
from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

ID = "294deacc-d8b8-4005-82c4-0727ba8ddde0"
USER = {"WPE_API_USER_ID": "u"}


def text(*lines: str) -> bytes:
    accounts = "accounts:\n  default:\n" + "".join(f"    {line}\n" for line in lines) if lines else ""
    return f"version: 1\n{accounts}defaults: {{notification_emails: []}}\ninstalls: [{ID}]\n".encode()


def password(*lines: str, file: str = "f.yaml", **environment: str) -> str:
    return load_config(text(*lines), file, USER | environment).accounts["default"].password


def fault(*lines: str, **environment: str) -> str:
    with pytest.raises(ConfigError) as raised:
        load_config(text(*lines), "f.yaml", USER | environment)
    return str(raised.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    contents = {
        "yaml": b"from-yaml-file\n",
        "variable": b"from-variable-file\r\n",
        "WPE_API_PASSWORD": b"from-directory",
        "empty": b"\n",
        "two": b"a\nb\n",
        "binary": b"\xc3\x28",
        "utf16": "secret\r\n".encode("utf-16"),
        "long": b"x" * 100_000,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_the_yaml_comes_first_then_the_environment_then_the_credentials_directory(folder: Path) -> None:
    directory = {"CREDENTIALS_DIRECTORY": str(folder)}
    both = {"WPE_API_PASSWORD": "from-variable"} | directory
    assert password(file=str(folder / "f.yaml"), **directory) == "from-directory"
    assert password(**both) == "from-variable"
    assert password("password: from-yaml", **both) == "from-yaml"
    assert password("password_file: yaml", file=str(folder / "f.yaml"), **both) == "from-yaml-file"


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("WPE_API_PASSWORD", "plain", "plain"),
        ("WPE_API_PASSWORD_FILE", "{}/variable", "from-variable-file"),
        ("WPE_API_PASSWORD_COMMAND", "printf '%s\\n' 'two words $HOME'", "two words $HOME"),
    ],
)
def test_each_form_of_the_environment_gives_the_secret(folder: Path, variable: str, value: str, expected: str) -> None:
    assert password(**{variable: value.format(folder)}) == expected


@pytest.mark.parametrize(
    ("lines", "environment"),
    [
        (["password_file: {}/marked"], {}),
        (["password_command: cat {}/marked"], {}),
        (['password: "\\ufeffmarked"'], {}),
        (['password: "${{MARKED}}"'], {"MARKED": "\ufeffmarked"}),
        ([], {"WPE_API_PASSWORD": "\ufeffmarked"}),
        ([], {"WPE_API_PASSWORD_FILE": "{}/marked"}),
        ([], {"WPE_API_PASSWORD_COMMAND": "cat {}/marked"}),
        ([], {"CREDENTIALS_DIRECTORY": "{}/folder"}),
    ],
)
def test_byte_order_mark_and_line_end_are_removed_from_a_secret(
    folder: Path, lines: list[str], environment: dict[str, str]
) -> None:
    (folder / "marked").write_bytes(b"\xef\xbb\xbfmarked\r\n")
    (folder / "folder").mkdir()
    (folder / "folder/WPE_API_PASSWORD").write_bytes(b"\xef\xbb\xbfmarked\r\n")
    named = {name: value.format(folder) for name, value in environment.items()}
    assert password(*(line.format(folder) for line in lines), **named) == "marked"


def test_a_command_runs_without_a_shell_and_only_once_for_several_accounts(tmp_path: Path) -> None:
    script = tmp_path / "count.py"
    script.write_text(f"open({str(tmp_path / 'log')!r}, 'a').write('x')\nprint('printed; echo $HOME')\n")
    command = f"password_command: {sys.executable} {script}"
    more = f"  other: {{user_id: u2, {command}}}\n".encode()
    raw = text(command).replace(b"defaults:", more + b"defaults:")
    accounts = load_config(raw, "f.yaml", USER).accounts
    assert {each.password for each in accounts.values()} == {"printed; echo $HOME"}
    assert (tmp_path / "log").read_text() == "x"


def test_a_command_does_not_run_if_the_yaml_is_wrong(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert "retrys" in fault(f"password_command: touch {log}\nretrys: 1\n#")
    assert not log.exists()


@pytest.mark.parametrize(
    ("lines", "environment", "says"),
    [
        ([], {}, "f.yaml:1:1: accounts.default.password: is required: give it here, or set WPE_API_PASSWORD, WPE_API"),
        (
            ["user_id: x", "password: a", "password_file: b"],
            {},
            "f.yaml:6:20: accounts.default.password_file: give",
        ),
        (["password_command: a", "password_file: b"], {}, "give only one of password_file and password_command"),
        (
            [],
            {"WPE_API_PASSWORD": "a", "WPE_API_PASSWORD_FILE": "b"},
            "set only one of the environment variables",
        ),
        (
            ["password_file: nowhere"],
            {},
            "f.yaml:4:20: accounts.default.password_file: password_file cannot be read",
        ),
        (["password_file: '.'"], {}, "password_file cannot be read: Is a directory; it must be the path"),
        (['password_file: "a\\0b"'], {}, "password_file: must be one line, without control characters"),
        (["password_file: {}/empty"], {}, "the secret from password_file must be text, and not empty"),
        (["password_file: {}/two"], {}, "the secret from password_file must be one line, without control characters"),
        (["password_file: {}/binary"], {}, "is not UTF-8 text"),
        (
            ["password_file: {}/utf16"],
            {},
            "the secret from password_file is UTF-16 text, which PowerShell writes",
        ),
        ([], {"WPE_API_PASSWORD_COMMAND": "cat {}/utf16"}, "the secret from WPE_API_PASSWORD_COMMAND is UTF-16 text"),
        (["password_file: {}/long"], {}, "is too long for a secret"),
        (["password_file: /dev/zero"], {}, "is too long for a secret"),
        (["password_file: [a]"], {}, "f.yaml:4:20: accounts.default.password_file: must be text"),
        (["password_command: '\"'"], {}, "password_command cannot be run: No closing quotation"),
        (["password_command: /nowhere/op read"], {}, "password_command cannot be run: No such file or directory"),
        (
            ["password_command: sh -c 'echo not signed in >&2; exit 7'"],
            {},
            "failed with exit code 7; run the command by hand to see why",
        ),
        (["password_command: 'true'"], {}, "the secret from password_command must be text, and not empty"),
        (
            [],
            {"WPE_API_PASSWORD_COMMAND": "false"},
            "default.password: WPE_API_PASSWORD_COMMAND failed with",
        ),
        ([], {"WPE_API_PASSWORD_FILE": "/nowhere"}, "accounts.default.password: WPE_API_PASSWORD_FILE cannot be read"),
        ([], {"CREDENTIALS_DIRECTORY": "/nowhere"}, "accounts.default.password: is required"),
    ],
)
def test_a_secret_that_cannot_be_read_is_reported_with_the_reason(
    folder: Path, lines: list[str], environment: dict[str, str], says: str
) -> None:
    named = {name: value.format(folder) for name, value in environment.items()}
    assert says in fault(*(line.format(folder) for line in lines), **named)


def test_a_user_id_from_a_file_is_checked_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("a:b\n")
    message = fault(f"user_id_file: {tmp_path}/id", "password: x")
    assert "user_id_file: the secret from user_id_file must not contain a colon" in message


def test_the_secret_itself_given_as_a_file_or_a_command_is_not_repeated() -> None:
    for key in ("password_file", "password_command"):
        assert "hunter2" not in fault(f"{key}: hunter2")
    for variable in ("WPE_API_PASSWORD_FILE", "WPE_API_PASSWORD_COMMAND"):
        assert "hunter2" not in fault(**{variable: "hunter2"})


def test_the_output_of_a_failing_command_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert "hunter2" not in fault("password_command: sh -c 'echo hunter2 >&2; exit 1'")
    assert "hunter2" not in "".join(capfd.readouterr())


def test_no_message_shows_a_secret_that_is_used_in_another_place() -> None:
    secret = {"WPE_API_PASSWORD": "hunter2"}
    for defaults in (b"account: '${WPE_API_PASSWORD}'", b"description: '{${WPE_API_PASSWORD}}'"):
        raw = text().replace(b"{notification", b"{" + defaults + b", notification")
        with pytest.raises(ConfigError) as raised:
            load_config(raw, "f.yaml", USER | secret)
        assert "hunter2" not in str(raised.value)
    raw = text("password: &s hunter2").replace(b"{notification", b"{account: *s, notification")
    with pytest.raises(ConfigError) as raised:
        load_config(raw, "f.yaml", USER)
    assert "hunter2" not in str(raised.value)


def test_no_repr_shows_a_secret() -> None:
    fleet = read_yaml(text("password: hunter2"), "f.yaml", {"WPE_API_USER_ID": "the-user"})
    shown = repr((fleet, fleet.sections, fleet.credentials, fleet.redactor))
    assert "hunter2" not in shown
    assert "the-user" not in shown


def test_an_impossible_credentials_directory_does_not_crash() -> None:
    assert "is required" in fault(CREDENTIALS_DIRECTORY="/x" * 5000)
    assert "is required" in fault(CREDENTIALS_DIRECTORY="/etc/hostname")


def test_a_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "secret").write_text("from-home")
    assert password("password_file: ~/secret") == "from-home"


def test_the_mask_of_config_show_is_refused_as_a_secret() -> None:
    assert "is the mask that config show prints" in fault("password: '********'")


def test_the_message_about_an_unset_variable_says_that_the_line_may_be_left_out() -> None:
    message = fault("password: ${WPE_API_PASSWORD}")
    assert "set it, or leave password out if a _FILE, a _COMMAND or $CREDENTIALS_DIRECTORY gives this secret" in message


def test_another_account_gets_nothing_from_the_environment() -> None:
    raw = text("password: x").replace(b"defaults:", b"  other: {user_id: u}\ndefaults:")
    with pytest.raises(ConfigError) as raised:
        load_config(raw, "f.yaml", USER | {"WPE_API_PASSWORD": "p"})
    assert "accounts.other.password: is required: give it here, or password_file or password_command" in str(
        raised.value
    )


def test_without_secrets_no_secret_is_required_or_read_and_no_command_runs(tmp_path: Path) -> None:
    raw = text("user_id: ${NOT_SET}", f"password_command: touch {tmp_path}/log")
    fleet = read_yaml(raw, "f.yaml", {}, with_secrets=False)
    assert len(fleet.sections.installs) == 1
    assert not (tmp_path / "log").exists()
    read_yaml(text("user_id: ${NOT_SET}", "password_file: /nowhere"), "f.yaml", {}, with_secrets=False)
    read_yaml(text(), "f.yaml", {}, with_secrets=False)


def test_without_secrets_everything_else_is_still_checked() -> None:
    with pytest.raises(ConfigError, match=r"f\.yaml:4:15: accounts\.default\.base_url: the env"):
        read_yaml(text("base_url: ${NOT_SET}", "password: ${NOT_SET}"), "f.yaml", {}, with_secrets=False)
    with pytest.raises(ConfigError, match="give only one of"):
        read_yaml(text("password: a", "password_file: b"), "f.yaml", {}, with_secrets=False)


def test_config_show_prints_every_default_and_no_secret(folder: Path) -> None:
    described = b"[], description: 'from-yaml-file {date}'}"
    raw = text("user_id: prod", "password_file: yaml").replace(b"[]}", described)
    shown = read_yaml(raw, str(folder / "f.yaml"), {}).shown()
    assert "from-yaml-file" not in shown
    assert "password_file" not in shown
    assert "    user_id: '********'\n    password: '********'\n" in shown
    assert "  rate: auto\n" in shown
    assert "  read: 35s\n" in shown
    assert "  description: '[redacted] {date}'\n" in shown


def test_config_show_hides_a_secret_with_dollars_and_keeps_words_that_equal_a_secret() -> None:
    raw = text("user_id: production", "password: auto").replace(b"[]}", b"[], description: 'x ${SECRET}'}")
    raw = raw.replace(ID.encode(), f"{{id: {ID}, environment: production}}".encode())
    environment = {"SECRET": "pa$$ss9$x", "WPE_API_PASSWORD": "pa$$ss9$x"}
    shown = read_yaml(raw, "f.yaml", environment).shown()
    assert "ss9" not in shown
    assert "environment: production\n" in shown
    assert "rate: auto\n" in shown
