"""Inventory files: the installs of each format, and every problem with its file, line and column."""

from __future__ import annotations

import codecs
import textwrap
from pathlib import Path

import pytest

from orchestrator.config import CheckedYaml, load_config, read_yaml
from orchestrator.config.inventory.files import LARGEST_FILE
from orchestrator.errors import ConfigError
from orchestrator.model import Config, Install

IDS = [f"294deacc-d8b8-4005-82c4-{number:012d}" for number in range(9)]
SECRET = "pA55w0rdHunter2"
ENVIRONMENT = {"WPE_API_USER_ID": "the-user", "WPE_API_PASSWORD": SECRET}
HEAD = "version: 1\ndefaults: {notification_emails: [ops@example.com], description: Nightly}\n"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(**files: str | bytes) -> None:
    for name, text in files.items():
        path = Path(name.replace("__", "/").replace("_", "."))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())


def fleet(*patterns: str, more: str = "") -> bytes:
    return f"{HEAD}inventory: [{{files: [{', '.join(map(repr, patterns))}]}}]\n{more}".encode()


def load(*patterns: str, more: str = "") -> Config:
    return load_config(fleet(*patterns, more=more), "f.yaml", ENVIRONMENT)


def read(*patterns: str, more: str = "") -> CheckedYaml:
    return read_yaml(fleet(*patterns, more=more), "f.yaml", ENVIRONMENT)


def shown(*patterns: str, more: str = "") -> str:
    with pytest.raises(ConfigError) as raised:
        load_config(fleet(*patterns, more=more), "f.yaml", ENVIRONMENT, is_strict=True)
    return str(raised.value)


def problems(*patterns: str, more: str = "") -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load_config(fleet(*patterns, more=more), "f.yaml", ENVIRONMENT, is_strict=True)
    return [str(problem) for problem in raised.value.problems]


def install(number: int | None, place: str, **fields: object) -> Install:
    given: dict[str, object] = {"description": "Nightly", "notification_emails": ("ops@example.com",), "place": place}
    return Install(None if number is None else IDS[number], "default", **(given | fields))  # type: ignore[arg-type]  # as in the file


FULL = {
    "name": "Shop One",
    "environment": "production",
    "tags": ("a", "b c"),
    "description": "Own {name}, then",
    "notification_emails": ("x@y", "z@y"),
    "enabled": False,
    "max_age_s": 3600.0,
}


def test_a_yaml_file_is_a_list_of_installs() -> None:
    write(
        a_yaml=f"""\
        # a comment
        - id: {IDS[0].upper()}
          name: Shop One
          environment: production
          tags: [a, b c]
          description: "Own {{name}}, then"
          notification_emails: [x@y, z@y]
          account: default
          enabled: false
          max_age: 1h
        - torqueshop
        - {IDS[1]}
        """
    )
    assert load("a.yaml").installs == (
        install(0, "a.yaml:2", **FULL),
        install(None, "a.yaml:11", name="torqueshop"),
        install(1, "a.yaml:12"),
    )


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("before", [b"", codecs.BOM_UTF8])
def test_a_csv_file_has_a_header(line_end: str, before: bytes) -> None:
    rows = f"""
        id, name ,environment,tags,description,notification_emails,account,enabled,max_age

        {IDS[0].upper()},Shop One,production,a; b c;,"Own {{name}}, then",x@y;z@y,default,FALSE,1h
        ,torqueshop
        ,,,,,,,,,
        {IDS[1]},,,"",,,,true,
        """
    write(a_csv=before + textwrap.dedent(rows).replace("\n", line_end).encode())
    assert load("a.csv").installs == (
        install(0, "a.csv:4", **FULL),
        install(None, "a.csv:5", name="torqueshop"),
        install(1, "a.csv:7"),
    )


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("before", [b"", codecs.BOM_UTF8])
def test_a_json_lines_file_has_one_object_a_line(line_end: str, before: bytes) -> None:
    lines = f"""\
        {{"id": "{IDS[0].upper()}", "name": "Shop One", "environment": "production", "tags": ["a", "b c"], \
"description": "Own {{name}}, then", "notification_emails": ["x@y", "z@y"], "account": "default", \
"enabled": false, "max_age": "1h"}}

        {{"name": "torqueshop"}}
        {{"id": "{IDS[1]}", "name": null}}"""
    write(a_jsonl=before + textwrap.dedent(lines).replace("\n", line_end).encode())
    assert load("a.jsonl").installs == (
        install(0, "a.jsonl:1", **FULL),
        install(None, "a.jsonl:3", name="torqueshop"),
        install(1, "a.jsonl:4"),
    )


def test_installs_of_files_come_after_the_list_sorted_and_each_file_once() -> None:
    write(c__b_yaml=f"- {IDS[1]}\n", c__a_CSV=f"id\n{IDS[2]}\n", c__d__e__x_ndjson=f'{{"id": "{IDS[3]}"}}\n')
    write(c___hidden_yaml="nonsense", f_yaml="never read: nonsense", c__sub_yml=f"- {IDS[4]}\n")
    Path("c/z.yaml").symlink_to("b.yaml")
    Path("c/d/again").symlink_to(".")
    found = load("./c/b.yaml", "**/*", "c/[b]*.yaml", str(Path("c/b.yaml").absolute()), more=f"installs: [{IDS[0]}]\n")
    assert [each.place for each in found.installs] == [
        "f.yaml:4",
        "c/b.yaml:1",
        "c/a.CSV:2",
        "c/d/e/x.ndjson:1",
        "c/sub.yml:1",
    ]
    assert (found.failed_sources, found.empty_sources) == ((), ())


def test_paths_start_in_the_yamls_folder() -> None:
    write(sub__clients__a_yaml=f"- {IDS[0]}\n")
    config = load_config(fleet("clients/*.yaml"), "sub/f.yaml", ENVIRONMENT)
    assert config.installs[0].place == "sub/clients/a.yaml:1"
    write(clients__b_yaml=f"- {IDS[1]}\n")
    assert load_config(fleet("clients/*.yaml"), "<stdin>", ENVIRONMENT).installs[0].place == "clients/b.yaml:1"


def test_a_pattern_that_matches_nothing_and_a_file_without_installs_are_empty_sources() -> None:
    write(a_yaml="# to come\n", b_csv="id,name\n", c_jsonl="\n", d_csv="", e_yaml="[]\n")
    config = load("?.yaml", "b.csv", "c.jsonl", "d.csv", "*.ndjson", more=f"installs: [{IDS[0]}]\n")
    assert config.failed_sources == ()
    assert [f"{each.source}: {each.reason}" for each in config.empty_sources] == [
        "a.yaml: holds no installs",
        "e.yaml: holds no installs",
        "b.csv: holds no installs",
        "c.jsonl: holds no installs",
        "d.csv: holds no installs",
        "f.yaml:3: files *.ndjson: matches no file",
    ]


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("gone.csv", "gone.csv cannot be read: No such file or directory"),
        ("folder.csv", "folder.csv cannot be read: Is a directory"),
        ("*.txt", "notes.txt has no known suffix: .yaml, .yml, .csv, .jsonl, .ndjson"),
        ("big.jsonl", "big.jsonl is larger than 64 MiB"),
        ("x**y.csv", "cannot be searched for: ** stands for any directories"),
    ],
)
def test_an_unreadable_file_is_a_problem_of_the_place_that_names_it(pattern: str, says: str) -> None:
    Path("folder.csv").mkdir()
    Path("notes.txt").touch()
    with Path("big.jsonl").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)  # a sparse file takes no room
    (found,) = problems(pattern, more=f"installs: [{IDS[0]}]\n")
    assert found.startswith(f"f.yaml:3:22: inventory[0].files[0]: {says}")


YAML_FAULTS = f"""\
- id: {IDS[0]}
  tagz: [a]
- Nope
- yes
- {{name: "A b"}}
-
- {{id: {IDS[0]}, account: acme}}
- {{}}
"""

CSV_FAULTS = f"""\
id,name,enviroment,tags,,tags,enabled,description
{IDS[0]},a,production,x;y,,,maybe,"two
lines"

nope,b,production,,,,true,d,e
,"Bad Name",,,,,,"{{nmae}}"
,,,a
"""

JSONL_FAULTS = f"""\
{{"id": "{IDS[0]}", "id": "{IDS[1]}"}}

{{"name": "shop1", "tags": ["a", 5], "enabled": "true", "enviroment": "staging"}}
{{"name": "shop1",}}
["a"]
{{"name": "shop1"}} x
{{"name": "\\ud83d\\ude00"}}
{{"name": NaN, "account": "defualt"}}
"""


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "a.yaml",
            YAML_FAULTS,
            [
                "2:3: [0].tagz: unknown key; did you mean tags?",
                "3:3: [1].id: must be an install's id, a UUID",
                "4:3: [2]: YAML would read yes as true or false",
                "5:10: [3].name: cannot be an install's name",
                "6:2: [4]: must be an install's id or name, or a mapping",
                "7:8: [5].id: the same install is already listed on line 1",
                "7:55: [5].account: there is no account acme among accounts: default",
                "8:3: [6]: must have an id or a name",
            ],
        ),
        (
            "a.csv",
            CSV_FAULTS,
            [
                "1:9: enviroment: unknown column; did you mean environment?",
                "1:25: this column has no name",
                "1:26: tags: duplicate column",
                "2:57: enabled: must be true or false",
                "2:63: description: must be one line",
                "5:29: this row has 9 cells, the header 8",
                "6:2: name: cannot be an install's name",
                "6:18: description: unknown field {nmae}",
                "7:1: must have an id or a name",
            ],
        ),
        (
            "a.jsonl",
            JSONL_FAULTS,
            [
                "1:48: id: duplicate key",
                "3:33: tags[1]: must be text",
                "3:48: enabled: must be true or false",
                "3:56: enviroment: unknown key; did you mean environment?",
                "4:18: not valid JSON: Expecting property name",
                '5:1: must be an object, such as {"id": …}',
                "6:19: not valid JSON: Extra data",
                "7:1: name: cannot be an install's name",
                "8:10: name: must be text",
                "8:26: account: there is no account defualt; did you mean default?",
            ],
        ),
    ],
)
def test_all_problems_are_reported_together_with_their_places(name: str, text: str, expected: list[str]) -> None:
    Path(name).write_text(text)
    found = problems(name)
    assert len(found) == len(expected)
    for problem, begins in zip(found, expected, strict=True):
        assert problem.startswith(f"{name}:{begins}")


def test_a_problem_shows_its_line_with_a_caret() -> None:
    write(a_yaml="- {name: shop1, enabled: 1}\n", b_csv='tags,name\n"a\n;b",sho\n,Shop\n', c_jsonl='\n{"tags": "x"}\n')
    assert shown("*") == (
        "a.yaml:1:26: [0].enabled: must be true or false\n"
        "    1 | - {name: shop1, enabled: 1}\n"
        "      |                          ^\n"
        "b.csv:4:2: name: cannot be an install's name: a name has 3 to 14 small letters and digits, a letter first;"
        " correct it or add the id; did you mean shop?\n"
        "    4 | ,Shop\n"
        "      |  ^\n"
        "c.jsonl:2:1: must have an id or a name\n"
        '    2 | {"tags": "x"}\n'
        "      | ^\n"
        "c.jsonl:2:10: tags: must be a list\n"
        '    2 | {"tags": "x"}\n'
        "      |          ^"
    )


def test_csv_files_of_spreadsheets_are_accepted() -> None:
    rows = ",,\nID, Name ,TAGS,,\n{0},Shop One,a;b,,,,\n,,,,,\n{1},,, ,\n,torqueshop\n"
    write(a_csv=rows.format(*IDS).replace("\n", "\r\n"))
    assert [(each.id, each.name, each.tags, each.place) for each in load("a.csv").installs] == [
        (IDS[0], "Shop One", ("a", "b"), "a.csv:3"),
        (IDS[1], None, (), "a.csv:5"),
        (None, "torqueshop", (), "a.csv:6"),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id;name;tags\nx;y;\n", "; this file has a semicolon between them: save it as CSV with commas"),
        ("Id\tName\nx\ty\n", "; this file has a tab between them: save it as CSV with commas"),
        ('"id";"name"\n"x";"y"\n', "a.csv:1:1: must begin with the names of columns"),
        ('"id";"name"\n"x";"y"\n', "; this file has a semicolon between them: save it as CSV with commas"),
        ("sep=;\nid;name\nx;y\n", "a.csv:1:1: remove this line, which only Excel reads"),
        ("\nSEP=,\nid,name\nx,y\n", "a.csv:2:1: remove this line, which only Excel reads"),
        ("id\n'x;y'\n", "a.csv:2:1: id: must be an install's id"),
        ("name\nshop1;shop2\n", "or add the id; write each install as a separate entry"),
        ("name,notification_emails\nshop1,a@x,b@y\n", "put ; between tags or addresses, or add a column to the header"),
        ("name,NAME\nshop1,shop1\n", "a.csv:1:6: NAME: duplicate column"),
        ("id,Notification Emails\n", "1:4: Notification Emails: unknown column; did you mean notification_emails?"),
        (
            "name,tags,\nshop1,a,b,\n",
            "a.csv:2:9: this row has 3 cells, the header 2: quote a cell with a comma in it, put ;",
        ),
        ('name,tags\nshop1,"a;b,c"\n', "a.csv:2:7: tags: separate the tags in a cell with ;, not with commas"),
        ('name,notification_emails\nshop1,"a@x,b@y"\n', "a.csv:2:7: notification_emails: separate the addresses in a"),
        ("name,notification_emails\nshop1,a@x;Ops<o@x>\n", "a.csv:2:7: notification_emails[1]: must be the bare"),
    ],
)
def test_csv_in_another_form_is_refused_with_a_remedy(text: str, says: str) -> None:
    write(a_csv=text)
    (found,) = problems("a.csv")
    assert says in found


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "id\0", "a.csv:1:3: the character #x0000 is not allowed"),
        ("a.jsonl", "\n\x1b", "a.jsonl:2:1: the character #x001b is not allowed"),
        ("a.yaml", "- \0", "a.yaml:1:3: the character #x0000 is not allowed"),
        ("a.csv", codecs.BOM_UTF16_LE + b"i\0", "a.csv:1:1: is UTF-16 text: save it as UTF-8"),
        ("a.jsonl", b'{"name": "\xff"}', "a.jsonl:1:11: is not UTF-8 text: save it as UTF-8"),
        ("a.yaml", "installs: [x]", "a.yaml:1:1: must be a list of installs: write a dash before each install"),
        ("a.yaml", "nonsense", "a.yaml:1:1: must be a list of installs"),
        ("a.yml", "x: 1\naccounts: {a: {}}", "a.yml:2:1: accounts: an inventory file defines no accounts"),
        ("a.yaml", "- a: [\n", "a.yaml:2:1: not valid YAML"),
        (
            "a.csv",
            "id;name\na;b",
            "a.csv:1:1: must begin with the names of columns, separated by commas: id, name, acc",
        ),
        ("a.csv", 'name\nshop1\n"shop2', "a.csv:3:1: not valid CSV: the quote that opens in this row is never closed"),
        ("a.csv", 'name\n"shop1"x\n', "a.csv:2:1: not valid CSV: ',' expected after '\"'"),
        ("a.jsonl", '{"id":' * 100_000, "a.jsonl:1:1: not valid JSON: nested too deeply"),
        (
            "a.jsonl",
            '{"id":' + "9" * 5000 + "}",
            "a.jsonl:1:1: not valid JSON: nested too deeply, or with a number",
        ),
        ("a.jsonl", '{"tags": ["\u2028"], "name": "shop1"}', "a.jsonl:1:1: tags[0]: must be text, and not empty"),
        ("a.jsonl", "9" * 200_000, "a.jsonl:1:1: not valid JSON"),
    ],
)
def test_a_file_that_is_no_inventory_is_refused_with_its_place(name: str, content: str | bytes, says: str) -> None:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (found,) = problems(name)
    assert found.startswith(says)


def test_a_duplicate_install_is_reported_with_both_places() -> None:
    write(a_yaml=f"- {IDS[0]}\n- torqueshop\n", b_csv=f"id,name\n{IDS[1]},x\n,shop1\n,torqueshop\n")
    write(c_jsonl=f'{{"id": "{IDS[1].upper()}"}}\n{{"name": "shop1", "account": "default"}}\n')
    assert problems("*", more=f"installs:\n  - id: {IDS[0]}\n") == [
        "a.yaml:1:3: [0].id: the same install is already listed at f.yaml:5",
        "b.csv:4:2: name: the same install is already listed at a.yaml:2",
        "c.jsonl:1:8: id: the same install is already listed at b.csv:2",
        "c.jsonl:2:10: name: the same install is already listed at b.csv:3",
    ]


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("a.yaml", "- {name: shop1, description: 'x ${WPE_API_PASSWORD}'}", "a.yaml:1:30: [0].description"),
        ("a.yaml", "- {name: shop1, tags: [a, '$${X}']}", "a.yaml:1:27: [0].tags[1]"),
        ("a.yaml", "- ${WPE_API_USER_ID}", "a.yaml:1:3: [0].id"),
        ("a.csv", "name,description\nshop1,${WPE_API_PASSWORD:-x}\n", "a.csv:2:7: description"),
        ("a.jsonl", '{"name": "shop1", "tags": ["${WPE_API_PASSWORD}"]}', "a.jsonl:1:28: tags[0]"),
    ],
)
def test_variables_are_not_replaced_in_inventory_files(name: str, text: str, place: str) -> None:
    Path(name).write_text(text)
    (found,) = problems(name)
    assert found == f"{place}: variables are not replaced in inventory files: write the value itself"


def test_a_dollar_in_an_inventory_file_stays_a_dollar() -> None:
    write(a_yaml="- {name: shop1, description: 'a $$ b $X'}\n", b_csv="name,tags\nshop2,a$$b\n")
    fleet_read = read("*")
    assert load("*").installs[0].description == "a $$ b $X"
    again = load_config(fleet_read.shown().replace("'********'", SECRET).encode(), "f.yaml", {})
    assert [(each.description, each.tags) for each in again.installs] == [("a $$ b $X", ()), ("Nightly", ("a$$b",))]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", f"name,password\nA,{SECRET}x\n"),
        ("a.csv", f"name,tags\nA,{SECRET}\n"),
        ("a.csv", SECRET),
        ("a.jsonl", f'{{"name": "A", "password": "{SECRET}x"}}'),
        ("a.jsonl", f'{{"token": "{SECRET}x"'),
        ("a.jsonl", f'"{SECRET}x"'),
        ("a.yaml", f"- {{name: A, password: {SECRET}x}}"),
        ("a.yaml", f"accounts: {{default: {{password: {SECRET}x}}}}"),
        ("a.yaml", f"{SECRET}x"),
    ],
)
def test_no_message_about_a_file_shows_a_possible_secret(name: str, text: str) -> None:
    Path(name).write_text(text)
    assert SECRET not in shown(name)


def test_a_command_for_a_secret_does_not_run_if_a_file_is_wrong() -> None:
    write(a_yaml="- Nope\n")
    text = fleet("a.yaml") + b"accounts: {default: {user_id: u, password_command: touch ran}}\n"
    with pytest.raises(ConfigError):
        load_config(text, "f.yaml", {}, is_strict=True)
    assert not Path("ran").exists()


def test_installs_in_files_require_default_addresses_and_a_default_account() -> None:
    write(a_csv="name,notification_emails\nshop1,a@b\n", b_csv="name\nshop2\n")
    text = "version: 1\naccounts: {x: {user_id: u, password: pppp}}\ninventory: [{files: [FILE]}]\n"
    for file, lacking in (("a.csv", ["account"]), ("b.csv", ["account", "notification_emails"])):
        with pytest.raises(ConfigError) as raised:
            load_config(text.replace("FILE", file).encode(), "f.yaml", {})
        assert [each.path for each in raised.value.problems] == [f"defaults.{key}" for key in lacking]


def test_config_show_lists_the_installs_instead_of_the_files() -> None:
    write(a_csv="name,tags\nshop1,a;b\n")
    found = read(
        "*.csv", more=f"  - discover: {{environments: [staging]}}\ninstalls: [{IDS[0]}]\n".replace("  - ", "#")
    )
    assert "files" not in found.shown()
    assert [each.name for each in found.sections.installs] == [None, "shop1"]
    again = load_config(found.shown().replace("'********'", SECRET).encode(), "f.yaml", {})
    assert [(each.id, each.name, each.tags) for each in again.installs] == [
        (IDS[0], None, ()),
        (None, "shop1", ("a", "b")),
    ]


def test_the_output_of_config_show_is_valid_even_without_installs() -> None:
    for text in (fleet("*.csv"), f"{HEAD}inventory: [{{discover: {{environments: [staging]}}}}]\n".encode()):
        found = read_yaml(text, "f.yaml", ENVIRONMENT)
        again = load_config(found.shown().replace("'********'", SECRET).encode(), "f.yaml", {})
        assert again.installs == ()
        assert len(again.empty_sources) == len(found.empty)
        assert [each.environments for each in again.discoveries] == [("staging",)] * (not found.empty)


def test_many_problems_of_files_are_all_reported_quickly() -> None:
    Path("a.csv").write_text("id,enabled\n" + "x,maybe\n" * 2_000)
    Path("b.jsonl").write_text('{"id": "x", "enabld": 1}\n' * 2_000)
    assert len(problems("*")) == 8_000
