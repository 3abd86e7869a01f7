"""An unusable part of an inventory file fails alone: each kind of problem, its place, and the installs that remain."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.config import load_config
from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.model import Config

IDS = [f"294deacc-d8b8-4005-82c4-{number:012d}" for number in range(9)]
ENVIRONMENT = {"WPE_API_USER_ID": "the-user", "WPE_API_PASSWORD": "pA55w0rdHunter2"}
NOBODY = 65534
HEAD = "version: 1\ndefaults: {notification_emails: [ops@example.com]}\n"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Make file permissions apply to root too, which may otherwise read everything.

    First load a YAML, so that all imports are done: the user nobody may be unable to read Python's own files.
    """
    load(head=HEAD)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def load(*patterns: str, more: str = f"installs: [{IDS[0]}]\n", head: str = HEAD, is_strict: bool = False) -> Config:
    inventory = f"inventory: [{{files: [{', '.join(map(repr, patterns))}]}}]\n" if patterns else ""
    text = f"{head}{inventory}{more}"
    return load_config(text.encode(), "f.yaml", ENVIRONMENT, is_strict=is_strict)


def write(name: str, content: str | bytes) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def failed(config: Config) -> list[str]:
    return [f"{each.source}: {each.error.message}" for each in config.failed_sources]


def numbers(config: Config) -> list[int]:
    """Return the indexes in ``IDS`` of the installs to back up."""
    return [IDS.index(each.id or "") for each in config.installs]


@pytest.mark.parametrize(
    ("name", "content", "right", "begins"),
    [
        ("a.csv", f"id\n{IDS[1]}\nnot-an-id\n{IDS[2]}\n", [1, 2], ["a.csv:3:1: id: must be an install's id"]),
        ("a.csv", f"id,tags\n{IDS[1]},x,y\n{IDS[2]},x\n", [2], ["a.csv:2:40: this row has 3 cells"]),
        (
            "a.csv",
            f'id,tags,notification_emails\n{IDS[1]},x,a@x\n{IDS[2]},"x,y",a@x\n{IDS[3]},,"a@x,b@y"\n',
            [1],
            ["a.csv:3:38: tags: separate the tags", "a.csv:4:39: notification_emails: separate the addresses"],
        ),
        ("a.csv", f'id,name\n{IDS[1]},x\n{IDS[2]},"y\n', [1], ["a.csv:3:1: not valid CSV: the quote that opens"]),
        ("a.csv", f"id,enabld\n{IDS[1]},false\n", [], ["a.csv:1:4: enabld: unknown column; did you mean enabled?"]),
        ("a.csv", f"id,,name\n{IDS[1]},x,y\n", [], ["a.csv:1:4: this column has no name"]),
        ("a.csv", f"id,id\n{IDS[1]},x\nno\n", [], ["a.csv:1:4: id: duplicate column; and 1 more problem(s)"]),
        ("a.csv", b"id\n\xff\n", [], ["a.csv:2:1: is not UTF-8 text: save it as UTF-8"]),
        ("a.csv", f"id,account\n{IDS[1]},acme\n{IDS[2]},\n", [2], ["a.csv:2:38: account: there is no account acme"]),
        ("a.jsonl", f'{{"id": "{IDS[1]}"}}\n{{"id": "{IDS[2]}', [1], ["a.jsonl:2:8: not valid JSON: Unterminated"]),
        ("a.jsonl", f'["x"]\n{{"id": "{IDS[1]}"}}\n', [1], ["a.jsonl:1:1: must be an object"]),
        ("a.jsonl", "{\n" * 500, [], ["a.jsonl:1:2: not valid JSON: Expecting property name"]),
        (
            "a.yaml",
            f"- {IDS[1]}\n- {{id: {IDS[2]}, tagz: [a], tags: yes}}\n- no\n- {IDS[3]}\n",
            [1, 3],
            [
                "a.yaml:2:46: [1].tagz: unknown key; did you mean tags?",
                "a.yaml:2:63: [1].tags: YAML would read",
                "a.yaml:3:3: [2]: YAML would read",
            ],
        ),
        ("a.yaml", f"- {{id: {IDS[1]}, id: {IDS[2]}}}\n- {IDS[3]}\n", [3], ["a.yaml:1:46: [0].id: duplicate key"]),
        ("a.yaml", f"- {IDS[1]}\n- a: [\n", [], ["a.yaml:3:1: not valid YAML"]),
        ("a.yaml", f"accounts: {{}}\ninstalls: [{IDS[1]}]\n", [], ["a.yaml:1:1: accounts: an inventory file defines"]),
        ("a.yaml", f"- {{id: {IDS[1]}, name: '${{X}}'}}\n- {IDS[2]}\n", [2], ["a.yaml:1:52: [0].name: variables are"]),
        ("a.txt", "", [], ["a.txt: has no known suffix: .yaml"]),
    ],
)
def test_a_problem_excludes_only_the_installs_that_it_affects(
    name: str, content: str | bytes, right: list[int], begins: list[str]
) -> None:
    write(name, content)
    write("b.jsonl", f'{{"id": "{IDS[8]}"}}\n')
    config = load("[a]*", "b.*")
    assert numbers(config) == [0, *right, 8]
    told = failed(config)
    assert len(told) == len(begins), told
    for each, begin in zip(told, begins, strict=True):
        assert each.startswith(begin)
    with pytest.raises(ConfigError) as raised:
        load("[a]*", "b.*", is_strict=True)
    assert len(raised.value.problems) >= len(begins)


def test_if_an_install_is_in_two_files_the_first_valid_entry_counts() -> None:
    write("a.csv", f"id,enabled\n{IDS[0]},\n{IDS[1]},maybe\n{IDS[2]},false\n")
    write("b.csv", f"id,name\n{IDS[1]},x\n{IDS[2]},y\n")
    write("c.csv", f"id\n{IDS[1]}\n")
    config = load("*.csv")
    assert [(each.id, each.place) for each in config.installs] == [
        (IDS[0], "f.yaml:4"),
        (IDS[2], "a.csv:4"),
        (IDS[1], "b.csv:2"),
    ]
    assert failed(config) == [
        "a.csv:2:1: id: the same install is already listed at f.yaml:4",
        "a.csv:3:1: id: the same install is also listed at b.csv:2",
        "a.csv:3:38: enabled: must be true or false",
        "b.csv:3:1: id: the same install is already listed at a.csv:4, and disabled there",
        "c.csv:2:1: id: the same install is already listed at b.csv:2",
    ]


def test_an_unusable_file_does_not_make_later_entries_duplicates() -> None:
    write("a.csv", f"id,nmae\n{IDS[1]},x\n")
    write("b.csv", f"id\n{IDS[1]}\n")
    config = load("*.csv")
    assert [each.place for each in config.installs] == ["f.yaml:4", "b.csv:2"]
    assert len(config.failed_sources) == 1


def test_a_missing_default_that_only_a_file_needs_is_a_problem_of_its_rows() -> None:
    head = "version: 1\naccounts: {x: {user_id: u, password: pppp}}\n"
    own = f"installs: [{{id: {IDS[0]}, account: x, notification_emails: []}}]\n"
    write("a.csv", f"id,account,notification_emails\n{IDS[1]},x,a@b.example\n{IDS[2]},x,\n{IDS[3]},,a@b.example\n")
    config = load("a.csv", more=own, head=head)
    assert numbers(config) == [0, 1]
    assert failed(config) == [
        "a.csv:3:1: has no notification_emails, and defaults has none either; add it here or in defaults",
        "a.csv:4:1: has no account, and defaults has none either; add it here or in defaults",
    ]
    with pytest.raises(ConfigError, match=r"defaults.account: there is no account y"):
        load("a.csv", more=own, head=head + "defaults: {account: y}\n")
    with pytest.raises(ConfigError, match=r"defaults.notification_emails: is required"):
        load("a.csv", more=f"installs: [{{id: {IDS[0]}, account: x}}]\n", head=head)


def test_a_wrong_yaml_is_refused_and_problems_of_files_are_reported_too() -> None:
    write("a.csv", "id\nnot-an-id\n")
    with pytest.raises(ConfigError) as raised:
        load("a.csv", "gone/*.csv", more=f"installs: [{IDS[0]}, Nope]\n")
    assert [str(each).split(": ")[0] for each in raised.value.problems] == ["a.csv:2:1", "f.yaml:3:31", "f.yaml:4:50"]


def test_a_command_for_a_secret_runs_even_if_a_file_is_wrong() -> None:
    write("a.csv", "id\nnot-an-id\n")
    more = f"accounts: {{default: {{user_id: u, password_command: echo pppp}}}}\ninstalls: [{IDS[0]}]\n"
    assert load("a.csv", more=more).accounts["default"].password == "pppp"


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("gone/*.csv", "the directory gone cannot be read: No such file or directory; mount it, or correct the path"),
        (
            "gone/**/*.csv",
            "the directory gone cannot be read: No such file or directory; mount it, or correct the path",
        ),
        ("gone/sub/*/x.csv", "the directory gone/sub cannot be read: No such file or directory; mount it"),
        ("file/*.csv", "the directory file cannot be read: Not a directory; mount it, or correct the path"),
        ("file/sub/*.csv", "the directory file/sub cannot be read: Not a directory; mount it, or correct the path"),
        ("loop/*.csv", "the directory loop cannot be read: Too many levels of symbolic links"),
        ("dangling/*.csv", "the directory dangling cannot be read: No such file or directory"),
        (
            "locked/*.csv",
            "the directory locked cannot be read: Permission denied; allow the user who runs wpe-backup to read it",
        ),
        (
            "lock*/*.csv",
            "the directory locked cannot be read: Permission denied; allow the user who runs wpe-backup to read it",
        ),
        (
            "*/x.csv",
            "the directory locked cannot be read: Permission denied; allow the user who runs wpe-backup to read it",
        ),
        (
            "**/*.csv",
            "the directory locked cannot be read: Permission denied; allow the user who runs wpe-backup to read it",
        ),
        ("locked/sub/*.csv", "the directory locked/sub cannot be read: Permission denied; allow the user who runs"),
    ],
)
def test_an_unreadable_folder_is_a_failed_source_with_the_true_reason(
    tmp_path: Path, pattern: str, reason: str
) -> None:
    write("file", "")
    write("locked/sub/x.csv", f"id\n{IDS[1]}\n")
    write("open/x.csv", f"id\n{IDS[2]}\n")
    write("lost+found/x.csv", "never looked at")
    Path("dangling").symlink_to("nowhere")
    if pattern.startswith("loop"):
        Path("loop").symlink_to("loop")
    tmp_path.chmod(0o755)
    Path("locked").chmod(0)
    try:
        with as_nobody():
            config = load(pattern)
    finally:
        Path("locked").chmod(0o755)
    (said,) = failed(config)
    assert said.startswith(f"f.yaml:3: files {pattern}: {reason}")
    assert config.empty_sources == ()
    assert numbers(config) == ([0, 2] if "open/x.csv" in map(str, Path().glob(pattern)) else [0])


def test_a_file_without_read_permission_fails_alone(tmp_path: Path) -> None:
    write("a.csv", f"id\n{IDS[1]}\n")
    write("b.csv", f"id\n{IDS[2]}\n")
    tmp_path.chmod(0o755)
    Path("a.csv").chmod(0)
    with as_nobody():
        configs = [load("*.csv"), load("a.csv", "b.csv")]
    for config in configs:
        assert failed(config) == ["a.csv: cannot be read: Permission denied"]
        assert numbers(config) == [0, 2]


def test_a_dangling_link_is_a_failed_source() -> None:
    Path("clients/acme").mkdir(parents=True)
    Path("clients/acme/nightly.csv").symlink_to("/nowhere/acme.csv")
    Path("clients/initech").mkdir()
    write("clients/README", "")
    config = load("clients/*/nightly.csv")
    assert failed(config) == ["clients/acme/nightly.csv: cannot be read: No such file or directory"]
    assert config.empty_sources == ()


@pytest.mark.parametrize("name", ["gone.csv", "gone/a.csv", "file/a.csv", "folder.csv", "notes.txt"])
def test_a_missing_or_wrong_file_named_by_the_yaml_is_an_error_of_the_yaml(name: str) -> None:
    write("file", "")
    write("notes.txt", "")
    Path("folder.csv").mkdir()
    with pytest.raises(ConfigError) as raised:
        load(name)
    assert str(raised.value).startswith(f"f.yaml:3:22: inventory[0].files[0]: {name} ")


def test_a_pattern_searches_each_folder_only_once() -> None:
    Path("/".join(["a"] * 40)).mkdir(parents=True)
    write("a/a/x.csv", f"id\n{IDS[1]}\n")
    assert numbers(load("/".join(["**", "a"] * 8) + "/**/*.csv")) == [0]
    assert numbers(load("**/a/**/a/**/*.csv")) == [0, 1]
