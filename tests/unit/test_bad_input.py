"""Errors of a YAML: the line with a caret, a hint at the right word, and never a secret."""

from __future__ import annotations

import codecs
import time

import pytest

from orchestrator.config import load_config
from orchestrator.config.placed_yaml.suggest import did_you_mean
from orchestrator.errors import ConfigError
from orchestrator.visible import visible

ID = "294deacc-d8b8-4005-82c4-0727ba8ddde0"
ENVIRONMENT = {"WPE_API_USER_ID": "env-user", "WPE_API_PASSWORD": "env-password"}
HEAD = "version: 1\ndefaults: {notification_emails: []}\n"
GOOD = f"{HEAD}installs: [{ID}]\n"
SECRET = "hunter2"


def fault(text: str | bytes) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        load_config(text if isinstance(text, bytes) else text.encode(), "f.yaml", ENVIRONMENT)
    return raised.value


def shown(text: str | bytes) -> str:
    return str(fault(text))


def test_each_problem_shows_its_line_with_a_caret_below_its_column() -> None:
    assert shown(f"{GOOD}throttle:\n  rate: -1\nretrys: {{}}\n") == (
        "f.yaml:5:9: throttle.rate: must be a number of requests per second from 0.0001 to 100000, or auto\n"
        "    5 |   rate: -1\n"
        "      |         ^\n"
        "f.yaml:6:1: retrys: unknown key; did you mean retry?\n"
        "    6 | retrys: {}\n"
        "      | ^"
    )


@pytest.mark.parametrize(
    ("text", "line", "below"),
    [
        (f"{HEAD}installs: [{{id: {ID}, name: '日本', environment: x}}]\n", 3, "x"),
        (f"{HEAD}installs: [{{id: {ID}, name: 'e\u0301', environment: x}}]\n", 3, "x"),
        (f"{HEAD}installs: [{{id: {ID}, tags: [{', '.join(['tag'] * 90)}], environment: x}}]\n", 3, "x"),
        (f"{HEAD}installs:\t[{{id: {ID}, environment: x}}]\n", 3, "x"),
    ],
)
def test_the_caret_stands_below_wide_marked_and_faraway_characters(text: str, line: int, below: str) -> None:
    excerpt = fault(text).problems[0].excerpt.split("\n")
    assert excerpt[0].startswith(f"    {line} | ")
    assert len(excerpt[0]) <= 120
    cells = "".join(2 * "W" if each in "日本" else "" if each == "\u0301" else each for each in excerpt[0])
    assert cells[excerpt[1].index("^")] == below


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("verson: 1\n", "verson: unknown key; did you mean version?"),
        (f"{GOOD}thrott1e: {{}}\n", "did you mean throttle?"),
        (f"{GOOD}max_attempts: 3\n", "max_attempts: unknown key; it belongs in retry"),
        (f"{GOOD}notification_emails: []\n", "it belongs in defaults or installs"),
        (f"{GOOD}nonsense: 3\n", "nonsense: unknown key\n"),
        (
            f"{GOOD}accounts: {{default: {{base-url: x}}}}\n",
            "accounts.default.base-url: unknown key; did you mean base_url?",
        ),
        (f"{HEAD}installs: [{{id: {ID}, Enviroment: x}}]\n", "Enviroment: unknown key; did you mean environment?"),
        (f"{HEAD}installs: [{{id: {ID}, environment: prodction}}]\n", "; did you mean production?"),
        (f"{HEAD}installs: [{{id: {ID}, account: defualt}}]\n", "no account defualt; did you mean default?"),
        (f"{HEAD}installs: [{{id: {ID}, description: '{{nmae}}'}}]\n", "; did you mean name?"),
        (f"{GOOD}throttle: {{scope: acount}}\n", "must be account or host; did you mean account?"),
    ],
)
def test_a_misspelt_word_gets_the_right_word_as_a_hint(text: str, says: str) -> None:
    assert says in shown(text)


def test_a_misspelt_key_is_not_also_reported_as_missing() -> None:
    assert [problem.path for problem in fault(GOOD.replace("version", "verson")).problems] == ["verson"]


def test_a_long_word_is_not_compared() -> None:
    assert did_you_mean("x" * 1000, ["x" * 1000]) == ""
    assert did_you_mean(None, ["a"]) == ""


@pytest.mark.parametrize(
    ("raw", "first"),
    [
        (codecs.BOM_UTF16_LE + GOOD.encode("utf-16-le"), "f.yaml:1:1: is UTF-16 text: save it as UTF-8"),
        (codecs.BOM_UTF16_BE + GOOD.encode("utf-16-be"), "f.yaml:1:1: is UTF-16 text: save it as UTF-8"),
        (GOOD.encode("utf-16-le"), "f.yaml:1:2: the character #x0000 is not allowed in YAML"),
        (GOOD.encode() + b"\xc3\x28", "f.yaml:4:1: is not UTF-8 text"),
        ("# ä\nnameé: \xe9".encode("latin-1"), "f.yaml:1:3: is not UTF-8 text"),
        (bytes(range(256)), "f.yaml:3:115: is not UTF-8 text"),
        (b"\x7fELF\x01\x01\x00\x00", "f.yaml:1:1: the character #x007f is not allowed"),
        (GOOD.encode() + b"a: \x1b[2J\n", "f.yaml:4:4: the character #x001b is not allowed"),
        (b"version: 1\r\n\r\ninstalls: [\x07]", "f.yaml:3:12: the character #x0007 is not allowed"),
        (b"version:\n\t1\n", "f.yaml:2:1: not valid YAML: there is a tab here; indent with spaces"),
        (b"a: 'b\nc: d\n", "f.yaml:1:4: not valid YAML: the quote that opens here is never closed"),
        (b"a: Backup: today\n", "f.yaml:1:10: not valid YAML: a value that contains a colon"),
        (b"a: {b: [c}\n", "f.yaml:1:10: not valid YAML"),
        (b"\xef\xbb\xbf- a\n", "f.yaml:1:1: must be a mapping"),
        (
            b"a: !!python/object/apply:os.system [ls]\n",
            "f.yaml:1:4: a: the tag python/object/apply:o",
        ),
        (b"a: !!timestamp 2026-01-01\n", "f.yaml:1:1: version: is required"),
        (b"!!map [a]\n", "f.yaml:1:1: the tag map is not allowed"),
        (b"? {a: b}\n: c\n", "f.yaml:1:3: a key must be plain text"),
        (b"%YAML 9.9\n---\na: b\n", "f.yaml:1:1: not valid YAML"),
    ],
)
def test_a_file_that_is_no_valid_yaml_is_refused_with_its_place(raw: bytes, first: str) -> None:
    assert [line for line in shown(raw).split("\n") if line.startswith(first)]


@pytest.mark.parametrize("more", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_byte_order_marks_and_all_line_ends_are_accepted_and_shift_no_place(more: bytes, line_end: str) -> None:
    load_config(more + GOOD.replace("\n", line_end).encode(), "f.yaml", ENVIRONMENT)
    bad = GOOD.replace("installs: [", "installs: [x, ").replace("\n", line_end)
    assert shown(more + bad.encode()).startswith("f.yaml:3:12: installs[0].id: must be")


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("throttle", "rate"),
        ("throttle", "max_requests_per_second"),
        ("throttle", "start_requests_per_second"),
        ("throttle", "concurrency"),
        ("throttle", "max_pause"),
        ("retry", "max_attempts"),
        ("timeouts", "read"),
        ("wait", "poll_interval"),
        ("wait", "retry_aborted"),
    ],
)
@pytest.mark.parametrize(
    "value", [".nan", "-.inf", ".inf", "-1", "-0.5", "1e999", "'1e999'", "99999999999", "true", "[]", "''"]
)
def test_an_impossible_number_is_refused_with_its_place(section: str, key: str, value: str) -> None:
    column = len(section) + len(key) + 6
    assert shown(f"{GOOD}{section}: {{{key}: {value}}}\n").startswith(f"f.yaml:4:{column}: {section}.{key}: ")


def test_hostile_documents_are_refused_quickly() -> None:
    began = time.process_time()
    bomb = (
        "a: &a0 ["
        + "x, " * 300_000
        + "x]\n"
        + "".join(f"b{n}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]\n" for n in range(30))
    )
    assert "aliases make more than" in shown(bomb)
    for brackets in ("[", "{", "- ", "? ", "{a: [", "&a [", "!x ["):
        assert "nested deeper than 100 levels" in shown(brackets * 100_000)
    assert time.process_time() - began < 60


LEAKS = [
    f"accounts: {{default: {{user_id: a:b, password: {SECRET}}}}}",
    f"accounts:\n  default:\n    user_id: 'x:y'   # {SECRET}\n",
    f"accounts:\n  default:\n    pasword: {SECRET}\n",
    f"accounts:\n  default:\n    password: !{SECRET}\n",
    f"accounts:\n  default:\n    password: !!{SECRET}\n",
    f"accounts:\n  default:\n    password: &{SECRET}\n",
    f"accounts:\n  default:\n    password: *{SECRET}\n",
    f"accounts:\n  default:\n    password: @{SECRET}\n",
    f"accounts:\n  default:\n    password: '{SECRET}\n",
    f"accounts:\n  default:\n    password: |\n      {SECRET}\n      {SECRET}\n    base_url: nope\n",
    f"accounts:\n  default:\n    password: [{SECRET}]\n    base_url: nope\n",
    f"accounts:\n  default:\n    password: {{a: {SECRET}}}\n",
    f"accounts:\n  default: {SECRET}\n",
    f"accounts:\n  default:\n    base_url: https://me:{SECRET}@example.com/v1\n",
    f"accounts:\n  default:\n    password: {SECRET}\n   base_url: x\n",
    f"user_id: u\npassword: {SECRET}\n",
    f"x: {{y: &p {SECRET}}}\naccounts: {{default: {{password: *p}}}}\n",
    f"notify: {{healthchecks: {{ping_url: 'https://x/{SECRET}'}}}}\n",
    f"api_token: {SECRET}\n",
    f"acounts: {{default: {{user_id: u, key: {SECRET}}}}}\n",
    f"Accounts:\n  default:\n    pw: {SECRET}\n    pw: {SECRET}\n",
    f"accounts:\n  - {{name: x, pw: {SECRET}, pw: {SECRET}}}\n",
    f"accounts: {SECRET}\n",
    f"pw: {SECRET}\nuser: {SECRET}\nauth: {SECRET}\n",
    f"acounts: {{default: {{password: !{SECRET}}}}}\n",
    f"acounts: {{default: {{password: 0{SECRET[-1]}}}}}  # {SECRET}\n",
    f"accounts:\n  default:\n    base_url: https://h/v1?key={SECRET}\n",
    f"accounts:\n  default:\n    base_url: https://h/v1#{SECRET}\n",
    f"accounts:\n  default:\n    proxy_from_environment: x # was {SECRET}\n",
    f"accounts:\n  default: {{proxy_from_environment: x}} # was {SECRET}\n",
    f"accounts:\n  default:\n    ? [{SECRET}]\n    : x\n",
    f"accounts:\n  default:\n    ? {{pw: {SECRET}}}\n    : x\n",
    f"retry: {{api_key: {SECRET}}}\n",
    f'{{"version":1,"accounts":{{"default":{{"user_id":"u","pw":"{SECRET}" "x":1}}}}}}\n',
    f'{{\n"accounts":{{\n"default":{{\n"pw":"{SECRET}" "x":1}}}}}}\n',
    f"notify:\n  apprise:\n    services:\n      - slack://{SECRET}\n     - slack://{SECRET}\n",
    f"p\rassword: {SECRET}\n",
    f"accounts:\n  default:\n    p\rassword: {SECRET}\nx: y: z\n",
    f"accnts:\n  default:\n    pw: {SECRET}: x\n",
    f"{{version: 1, accnts: {{x: {{pw: {SECRET}: x}}}}}}\n",
    f'{{"accounts": {{"default": {{"password": "{SECRET}",\n',
]


@pytest.mark.parametrize("text", LEAKS)
@pytest.mark.parametrize("before", [True, False])
def test_no_message_and_no_excerpt_shows_a_possible_secret(text: str, *, before: bool) -> None:
    assert SECRET not in shown(f"{text}\nzzz: 1\n{GOOD}" if before else f"{GOOD}zzz: 1\n{text}\n")


def test_a_yaml_that_cannot_be_parsed_still_shows_the_line() -> None:
    assert shown(f"{GOOD}throttle:\n  rate: [1}}\n").endswith("\n    5 |   rate: [1}\n      |           ^")


def test_a_file_that_is_only_a_secret_is_not_shown() -> None:
    assert SECRET not in shown(SECRET)
    assert SECRET not in shown(f"- {SECRET}")


def test_the_text_around_a_secret_is_still_shown() -> None:
    text = f"{GOOD}accounts: {{default: {{password: {SECRET}, base_url: 'http://x', user_id: u}}}}\n"
    assert "accounts: {default: {password: ***, base_url: 'http://x', user_id: ***}}" in shown(text)


def test_every_line_of_a_message_can_be_shown_on_a_terminal() -> None:
    message = shown(f'{HEAD}installs: [{{id: {ID}, name: "a\\u202e\\e[2Jb\u202ec", environment: "x"}}]\n')
    assert all(visible(line) == line for line in message.split("\n"))


def test_many_problems_are_all_reported_quickly() -> None:
    began = time.process_time()
    many = {
        "unknown": GOOD + "".join(f"key{n}: 1\n" for n in range(10_000)),
        "ids": HEAD + "installs:\n" + "".join(f"  - X{n}\n" for n in range(10_000)),
        "accounts": GOOD + "accounts:\n  default: {}\n" + "".join(f"  a{n}: {{}}\n" for n in range(5_000)),
    }
    for text in many.values():
        assert len(fault(text).problems) >= 10_000
    variables = f"{GOOD}x: '{'${A:-' * 40_000}'\ny: '{'${' * 100_000}'\n"
    assert len(shown(variables)) < 5_000
    assert time.process_time() - began < 60


def test_variables_that_make_the_document_too_large_are_refused() -> None:
    text = HEAD + "installs:\n" + f"  - {{id: {ID}, name: '{'${BIG}' * 10}'}}\n" * 2000
    with pytest.raises(ConfigError, match="variables make the document too large"):
        load_config(text.encode(), "f.yaml", ENVIRONMENT | {"BIG": "x" * 100_000})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{GOOD}x: ${{HO-ME}}\n", "x: only ${NAME} and ${NAME:-a default} are known"),
        (
            f"version: 1\ndefaults: {{notification_emails: ops@example.com}}\ninstalls: [{ID}]\n",
            "a list, for example [ops@example",
        ),
        (
            f"{HEAD}installs: [{{id: {ID}, description: {{date}}}}]\n",
            "put a value that begins with { or [ in quotes",
        ),
        (f"{HEAD}installs: [{{id: {ID}, environment: prod}}]\n", "; did you mean production?"),
        (f"{HEAD}installs: [{{<<: {{name: a}}, <<: {{name: b}}, id: {ID}}}]\n", "<< stands here twice"),
        (f"{HEAD}installs: [{{id: torquemag}}]\n", "for a name, write name: torquemag"),
        (f"{HEAD}installs: [Shop02]\n", "for a name, write name: torqueshop; did you mean shop02?"),
        (f"{HEAD}installs: [shop02.wpengine.com]\n", "; the install's name is shop02"),
        (f"{HEAD}installs: ['https://Shop02.wpenginepowered.com/wp-admin/']\n", "; the install's name is shop02"),
        (f"{HEAD}installs: ['https://my.wpengine.com/installs/shop02']\n", "; the install's name is shop02"),
        (f"{HEAD}installs: ['shop02.wpengine.com?x=1#y']\n", "; the install's name is shop02"),
        (f"{HEAD}installs:\n  - shop01, {ID}\n", "; write each install as a separate entry"),
        (f"{HEAD}inventory: [{{discover: {{exclude: ['a*,b*']}}}}]\n", "].discover.exclude[0]: must be one glob"),
        (f"{HEAD}inventory: [{{discover: {{exclude: [x, 'a b']}}}}]\n", "exclude[1]: must be one glob, without spaces"),
        (
            f'{HEAD}installs: [{{id: {ID}, notification_emails: ["a@x\\u200b"]}}]\n',
            "must have no invisible characters",
        ),
        (f"{HEAD}installs: [{{name: Shop02}}]\n", "or add the id; did you mean shop02?"),
        (f"{HEAD}installs: [{{name: shop02.wpengine.com/}}]\n", "or add the id; the install's name is shop02"),
        (
            f"{HEAD}installs: [{{id: {ID}, notification_emails: ['a@x;b@y']}}]\n",
            "].notification_emails[0]: must be one",
        ),
        (
            f"{HEAD}installs: [{{id: {ID}, notification_emails: ['a@x,b@y']}}]\n",
            "write several as a list, one in each",
        ),
    ],
)
def test_a_message_names_the_remedy(text: str, says: str) -> None:
    assert says in shown(text)


def test_a_long_line_that_cannot_be_parsed_is_refused_quickly() -> None:
    began = time.process_time()
    assert "not valid YAML" in shown(f"{GOOD}x: [{'9' * 1_000_000}\ny: z: 1\n")
    assert time.process_time() - began < 60
