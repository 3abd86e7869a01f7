"""The YAML: the configuration that it gives, and every problem with its place."""

from __future__ import annotations

import json
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from orchestrator.config import config_schema, load_config, read_yaml
from orchestrator.errors import ConfigError
from orchestrator.listings import Discovery
from orchestrator.model import Install
from orchestrator.policies import RetryPolicy, ThrottlePolicy, Timeouts, WaitPolicy

ID, OTHER = "294deacc-d8b8-4005-82c4-0727ba8ddde0", "4b7d2f0e-1c1b-4c37-9f39-6a0de3c59f6b"
AUTHORITY = Path(__file__).parents[1] / "certs" / "authority.pem"
ENVIRONMENT = {"WPE_API_USER_ID": "env-user", "WPE_API_PASSWORD": "env-password"}
HEAD = "version: 1\ndefaults: {notification_emails: [ops@example.com]}\n"


def problems(text: str | bytes, environment: dict[str, str] | None = None) -> list[str]:
    raw = text if isinstance(text, bytes) else textwrap.dedent(text).encode()
    with pytest.raises(ConfigError) as raised:
        load_config(raw, "f.yaml", ENVIRONMENT if environment is None else environment)
    return [str(problem) for problem in raised.value.problems]


def test_a_minimal_yaml_gets_all_defaults() -> None:
    config = load_config(f"{HEAD}installs:\n  - {ID}\n".encode(), "f.yaml", ENVIRONMENT)
    (install,) = config.installs
    account = config.accounts["default"]
    assert (install.id, install.account, install.notification_emails) == (ID, "default", ("ops@example.com",))
    assert (install.label, install.enabled, install.environment, install.tags) == (ID, True, None, ())
    assert (account.user_id, account.password) == ("env-user", "env-password")
    assert account.base_url == "https://api.wpengineapi.com/v1"
    assert (config.throttle, config.retry, config.timeouts) == (ThrottlePolicy(), RetryPolicy(), Timeouts())
    assert (config.wait, config.discoveries, config.failed_sources) == (WaitPolicy(), (), ())


def test_a_yaml_with_every_key_is_read_completely() -> None:
    text = f"""
        version: 1
        accounts:
          default: {{user_id: "${{USER_ID}}", password: "$${{x}}", base_url: "http://127.0.0.1:8080/v1/"}}
          other: {{user_id: u2, password: "${{NONE:-p 2}}", ca_file: {AUTHORITY}, proxy_from_environment: true}}
        defaults:
          account: other
          description: "Nightly {{date}} {{{{x}}}}"
          notification_emails: []
          timezone: Europe/Berlin
          max_age: 26h
        throttle: {{rate: 2.5, scope: host, max_requests_per_second: 20, start_requests_per_second: 3,
                   concurrency: 9, max_pause: 1.5m, give_up: 1d}}
        retry: {{max_attempts: 7, deadline: 90s}}
        wait: {{timeout: 1h, poll_interval: 5s, retry_aborted: 1}}
        timeouts: {{connect: 500ms, read: 40s}}
        installs:
          - id: {ID.upper()}
            name: torquemag
            environment: production
            tags: [client-a, shop]
            description: "Own"
            notification_emails: [a@b, c@d]
            account: default
            max_age: 1d
          - {{id: {OTHER}, enabled: false}}
    """
    config = load_config(textwrap.dedent(text).encode(), "f.yaml", {"USER_ID": "from-variable"})
    first, second = config.installs
    assert (first.id, first.name, first.environment, first.tags) == (
        ID,
        "torquemag",
        "production",
        ("client-a", "shop"),
    )
    assert (first.account, first.description, first.notification_emails) == ("default", "Own", ("a@b", "c@d"))
    assert (second.account, second.enabled, second.notification_emails) == ("other", False, ())
    default, other = config.accounts["default"], config.accounts["other"]
    assert (default.user_id, default.password, default.base_url) == (
        "from-variable",
        "${x}",
        "http://127.0.0.1:8080/v1",
    )
    assert (other.password, other.ca_file, other.proxy_from_environment) == ("p 2", str(AUTHORITY), True)
    assert config.throttle == ThrottlePolicy(2.5, 3.0, 20.0, 9, 90.0, 86400.0, per_host=True)
    assert (config.retry, config.timeouts) == (RetryPolicy(7, 90.0), Timeouts(0.5, 40.0))
    assert config.wait == WaitPolicy(3600.0, 5.0, retry_aborted=True)
    assert (first.max_age_s, second.max_age_s) == (86_400.0, 93_600.0)
    assert (first.place, second.place) == ("f.yaml:18", "f.yaml:26")
    assert datetime(2026, 7, 1, tzinfo=UTC).astimezone(config.timezone).hour == 2


@pytest.mark.parametrize("entry", ["torqueshop", "{name: torqueshop}", "{id: , name: torqueshop}", "${SHOP}"])
def test_an_entry_needs_only_a_name(entry: str) -> None:
    text = f"{HEAD}installs: [{ID}, '{entry}']\n" if "$" in entry else f"{HEAD}installs: [{ID}, {entry}]\n"
    config = load_config(text.encode(), "f.yaml", ENVIRONMENT | {"SHOP": "torqueshop"})
    assert [(each.id, each.name) for each in config.installs] == [(ID, None), (None, "torqueshop")]


def test_if_an_entry_has_an_id_its_name_is_only_a_label() -> None:
    config = load_config(f"{HEAD}installs: [{{id: {ID}, name: The Shop!}}]\n".encode(), "f.yaml", ENVIRONMENT)
    assert config.installs[0].label == "The Shop!"


def test_installs_may_be_discovered_instead_of_listed() -> None:
    text = f"""
        version: 1
        accounts: {{other: {{user_id: u, password: pppp}}}}
        defaults: {{account: other, description: "Found {{name}}", notification_emails: [a@b], max_age: 2d}}
        inventory:
          - discover:
          - discover: {{wpengine_accounts: [agencyone, {ID}], environments: [production], exclude: ["sandbox*"]}}
    """
    config = load_config(textwrap.dedent(text).encode(), "f.yaml", ENVIRONMENT)
    assert config.installs == ()
    assert config.discoveries == (
        Discovery("other", place="f.yaml:6"),
        Discovery("other", ("agencyone", ID), ("production",), ("sandbox*",), place="f.yaml:7"),
    )
    assert config.discovered == Install(None, "other", "Found {name}", ("a@b",), max_age_s=172_800.0)


@pytest.mark.parametrize(
    ("sources", "first"),
    [
        ("[{}]", "f.yaml:3:13: inventory[0]: must have either files or discover"),
        ("[{files: ['*.none'], discover: {}}]", "f.yaml:3:13: inventory[0]: must have either files or discover"),
        ("[{file: [x.csv]}]", "f.yaml:3:14: inventory[0].file: unknown key; did you mean files?"),
        ("[{files: []}]", "f.yaml:3:21: inventory[0].files: must have at least 1"),
        ("[{files: x.csv}]", "f.yaml:3:21: inventory[0].files: must be a list"),
        ("[x]", "f.yaml:3:13: inventory[0]: must be a mapping"),
        ("x", "f.yaml:3:12: inventory: must be a list"),
        ("[{discover: {acount: x}}]", "f.yaml:3:25: inventory[0].discover.acount: unknown key; did you mean account?"),
        ("[{discover: {account: x}}]", "f.yaml:3:34: inventory[0].discover.account: there is no account x"),
        ("[{discover: {environments: [prod]}}]", "f.yaml:3:40: inventory[0].discover.environments[0]: must be produc"),
        ("[{discover: {exclude: x}}]", "f.yaml:3:34: inventory[0].discover.exclude: must be a list"),
    ],
)
def test_a_wrong_source_is_refused_with_its_place(sources: str, first: str) -> None:
    (found,) = problems(f"{HEAD}inventory: {sources}\n")
    assert found.startswith(first)


def test_discovery_needs_email_addresses_and_an_account_in_the_defaults() -> None:
    found = problems("version: 1\ndefaults: {account: x}\ninventory: [{discover: }]\n")
    assert [each.partition(": is")[0].partition(": there")[0] for each in found] == [
        "f.yaml:2:11: defaults.notification_emails",
        "f.yaml:2:21: defaults.account",
    ]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{}", "f.yaml:4:13: installs[1]: must have an id or a name"),
        ("{name: }", "f.yaml:4:20: installs[1].name: must have an id or a name"),
        ("{nme: torqueshop}", "f.yaml:4:14: installs[1].nme: unknown key; did you mean name?"),
        ("{name: Torque Shop}", "f.yaml:4:20: installs[1].name: cannot be an install's name: a name has"),
        (f"{{name: {OTHER}}}", "f.yaml:4:20: installs[1].name: is an id, not a name: write id instead"),
        ("{id: torqueshop}", "f.yaml:4:18: installs[1].id: must be an install's id, a UUID such as"),
        ("a-b", "f.yaml:4:13: installs[1].id: must be an install's id, a UUID such as"),
        ("[a]", "f.yaml:4:13: installs[1]: must be an install's id or name"),
        (ID.upper(), "f.yaml:4:13: installs[1].id: the same install is already listed on line 3"),
    ],
)
def test_an_entry_that_names_no_install_is_refused_with_its_place(entry: str, says: str) -> None:
    (found,) = problems(f"{HEAD}installs: [{ID},\n            {entry}]\n")
    assert found.startswith(says)


def test_the_same_name_twice_is_a_duplicate_only_within_one_account() -> None:
    text = f"{HEAD}accounts: {{default: , b: {{user_id: u, password: pppp}}}}\ninstalls:\n  - torqueshop\n"
    load_config(f"{text}  - {{name: torqueshop, account: b}}\n".encode(), "f.yaml", ENVIRONMENT)
    load_config(f"{text}  - {{name: torqueshop, id: {ID}}}\n".encode(), "f.yaml", ENVIRONMENT)
    (found,) = problems(f"{text}  - {{name: torqueshop, account: default}}\n")
    assert found == "f.yaml:6:12: installs[1].name: the same install is already listed on line 5"


def test_secrets_do_not_show_in_a_repr() -> None:
    config = load_config(f"{HEAD}installs: [{ID}]\n".encode(), "f.yaml", ENVIRONMENT)
    assert "env-password" not in repr(config)
    assert "env-user" not in repr(config)


def test_anchors_and_merge_keys_work() -> None:
    text = f"{HEAD}installs:\n  - &a {{id: {ID}, tags: [x]}}\n  - {{<<: *a, id: {OTHER}}}\n"
    config = load_config(text.encode(), "f.yaml", ENVIRONMENT)
    assert config.installs[1].tags == ("x",)


def test_all_problems_are_reported_together_in_the_order_of_the_file() -> None:
    found = problems(f"""\
        version: 2
        acounts: {{}}
        defaults:
          notification_emails: [ops@example.com, nope]
          timezone: Mars/Phobos
        throttle: {{rate: -1, concurrency: 012, scope: planet}}
        timeouts: {{connect: 10}}
        installs:
          - {ID}
          - id: {ID.upper()}
            enabled: yes
            enabld: true
            account: x
          - Nope
          -
          - id: ${{UNSET}}
            description: "{{foo}}"
            description: "x"
    """)
    assert [line.split(": ")[0:2] for line in found] == [
        ["f.yaml:1:10", "version"],
        ["f.yaml:2:1", "acounts"],
        ["f.yaml:4:42", "defaults.notification_emails[1]"],
        ["f.yaml:5:13", "defaults.timezone"],
        ["f.yaml:6:18", "throttle.rate"],
        ["f.yaml:6:35", "throttle.concurrency"],
        ["f.yaml:6:47", "throttle.scope"],
        ["f.yaml:7:21", "timeouts.connect"],
        ["f.yaml:10:9", "installs[1].id"],
        ["f.yaml:11:14", "installs[1].enabled"],
        ["f.yaml:12:5", "installs[1].enabld"],
        ["f.yaml:13:14", "installs[1].account"],
        ["f.yaml:14:5", "installs[2].id"],
        ["f.yaml:15:4", "installs[3]"],
        ["f.yaml:16:9", "installs[4].id"],
        ["f.yaml:18:5", "installs[4].description"],
    ]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("", "f.yaml:1:1: must be a mapping"),
        ("# nothing\n", "f.yaml:1:1: must be a mapping"),
        ("- a\n", "f.yaml:1:1: must be a mapping"),
        ("hello\n", "f.yaml:1:1: must be a mapping"),
        ("a: [\n", "f.yaml:2:1: not valid YAML"),
        ("a: b: c\n", "f.yaml:1:5: not valid YAML"),
        ("version: 1\n---\nversion: 1\n", "f.yaml:2:1: holds more than one document"),
        (b"version: \xff\n", "f.yaml:1:10: is not UTF-8 text"),
        (b"version: 1\na: \x00\n", "f.yaml:2:4: the character #x0000 is not allowed"),
        ("a: &a [*a]\n", "f.yaml:1:8: the alias *a stands inside"),
        ("a: " + "[" * 100_000, "f.yaml:1:103: nested deeper than 100"),
        ("a: *b\n", "f.yaml:1:4: not valid YAML"),
        (f"{HEAD}installs: [{ID}]\n1: 2\n", "f.yaml:4:1: 1: unknown key"),
        (f"{HEAD}installs: [{ID}]\n? [a]\n: b\n", "f.yaml:4:3: a key must be plain text"),
        (f"{HEAD}installs: []\n", "f.yaml:3:11: installs: no installs and no inventory"),
        (f"{HEAD}inventory: []\ninstalls:\n", "f.yaml:3:12: inventory: no installs and no inventory"),
        (f"{HEAD}installs: {ID}\n", "f.yaml:3:11: installs: must be a list"),
        (HEAD, "f.yaml:1:1: no installs and no inventory"),
        (f"version: 1\ninstalls: [{ID}]\n", "f.yaml:1:1: defaults.notification_emails: is required"),
        (f"{HEAD}installs: [{{id: {ID}, name: no}}]\n", "f.yaml:3:61: installs[0].name: YAML would read no"),
        (
            f"{HEAD}installs: [{{id: {ID}, name: 12}}]\n",
            "f.yaml:3:61: installs[0].name: must be text: put it in quotes",
        ),
        (f"{HEAD}installs: [{{id: {ID}, name: !!binary aGk=}}]\n", "f.yaml:3:61: installs[0].name: the tag"),
        (f"{HEAD}installs: [{{id: {ID}, tags: !!set {{a}}}}]\n", "f.yaml:3:61: installs[0].tags: the tag"),
        (f"{HEAD}installs: [{{id: {ID}, name: '  '}}]\n", "f.yaml:3:61: installs[0].name: must be text, and not"),
        (f'{HEAD}installs: [{{id: {ID}, name: "a\\eb"}}]\n', "f.yaml:3:61: installs[0].name: must be one line"),
        (f"{HEAD}installs: [{{id: {ID}, name: {'x' * 5000}}}]\n", "f.yaml:3:61: installs[0].name: must not be longer"),
        (
            f"{HEAD}installs: [{{id: {ID}, description: '{{nope}}'}}]\n",
            "f.yaml:3:68: installs[0].description: unknown fi",
        ),
        (f"{HEAD}installs: [{{id: {ID}, environment: prod}}]\n", "f.yaml:3:68: installs[0].environment: must be prod"),
        (f"{HEAD}installs: [{{id: {ID}, name: '${{X'}}]\n", "f.yaml:3:61: installs[0].name: only ${NAME} and"),
        (f"{HEAD}retry: {{max_attempts: 0}}\ninstalls: [{ID}]\n", "f.yaml:3:23: retry.max_attempts: must be a whole"),
        (f"{HEAD}retry: {{deadline: 1:30}}\ninstalls: [{ID}]\n", "f.yaml:3:19: retry.deadline: YAML would read 1:30"),
        (f"{HEAD}retry: {{deadline: 0s}}\ninstalls: [{ID}]\n", "f.yaml:3:19: retry.deadline: must be a duration above"),
        (f"{HEAD}retry: 5\ninstalls: [{ID}]\n", "f.yaml:3:8: retry: must be a mapping"),
        (f"{HEAD}throttle: {{rate: .nan}}\ninstalls: [{ID}]\n", "f.yaml:3:18: throttle.rate: must be a number"),
        (f"version: true\ninstalls: [{ID}]\n", "f.yaml:1:1: defaults"),
        (f"version: 1.0\ndefaults: {{notification_emails: []}}\ninstalls: [{ID}]\n", "f.yaml:1:10: version: must be 1"),
        (
            f"{HEAD}accounts: {{default: {{user_id: 'a:b'}}}}\ninstalls: [{ID}]\n",
            "f.yaml:3:31: accounts.default.user_id: m",
        ),
        (f"{HEAD}throttle: {{rate: '1_0'}}\ninstalls: [{ID}]\n", "f.yaml:3:18: throttle.rate: must be a number"),
        (f"{HEAD}throttle: {{rate: true}}\ninstalls: [{ID}]\n", "f.yaml:3:18: throttle.rate: must be a number"),
        (f"{HEAD}throttle: {{rate: fast}}\ninstalls: [{ID}]\n", "f.yaml:3:18: throttle.rate: must be a number"),
        (
            f"{HEAD}accounts: {{b: {{user_id: u}}}}\ninstalls: [{ID}]\n",
            "f.yaml:2:11: defaults.account: there is no account",
        ),
        (f"{HEAD}accounts: x\ninstalls: [{ID}]\n", "f.yaml:3:11: accounts: must be a mapping"),
        (f"{HEAD}accounts: {{default: x}}\ninstalls: [{ID}]\n", "f.yaml:3:21: accounts.default: must be a mapping"),
        (f"{HEAD}installs: [{{<<: x, id: {ID}}}]\n", "f.yaml:3:17: installs[0]: << takes a mapping"),
    ],
)
def test_each_problem_is_reported_with_its_place(text: str | bytes, first: str) -> None:
    assert problems(text)[0].startswith(first)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://api.example.com/v1", "must be https"),
        ("ftp://127.0.0.1/v1", "must be an https URL"),
        ("https://user:pw@example.com/v1", "must have no user"),
        ("https://example.com/v1?x=1", "must have no user"),
        ("https://example.com/v1#x", "must have no user"),
        ("https://example.com:99999/v1", "is not a URL"),
        ("https:///v1", "must be an https URL"),
    ],
)
def test_a_base_url_that_is_unsafe_for_credentials_is_refused(url: str, why: str) -> None:
    text = f"{HEAD}accounts: {{default: {{base_url: '{url}'}}}}\ninstalls: [{ID}]\n"
    (found,) = problems(text)
    assert found.startswith("f.yaml:3:32: accounts.default.base_url: " + why)


@pytest.mark.parametrize("url", ["http://localhost:1/v1", "http://127.9.9.9/v1", "http://[::1]:8080/v1", "https://x.y"])
def test_a_safe_base_url_is_accepted(url: str) -> None:
    text = f"{HEAD}accounts: {{default: {{base_url: '{url}'}}}}\ninstalls: [{ID}]\n"
    assert load_config(text.encode(), "f.yaml", ENVIRONMENT).accounts["default"].base_url == url


def test_a_ca_file_is_found_from_the_yamls_folder_and_loaded_as_a_check(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.read_bytes())
    (tmp_path / "junk.pem").write_text("junk")

    def load(name: str) -> str | None:
        text = f"{HEAD}accounts: {{default: {{ca_file: {name}}}}}\ninstalls: [{ID}]\n"
        return load_config(text.encode(), str(tmp_path / "f.yaml"), ENVIRONMENT).accounts["default"].ca_file

    assert load("ca.pem") == str(tmp_path / "ca.pem")
    for name in ("gone.pem", "junk.pem"):
        with pytest.raises(ConfigError, match=r"f\.yaml:3:31: accounts\.default\.ca_file: cannot be used: "):
            load(name)


def test_a_section_with_only_comments_counts_as_missing() -> None:
    empty = "accounts:\nthrottle:\nretry:\ntimeouts:\n"
    text = f"version: 1\n{empty}defaults: {{notification_emails: []}}\ninstalls: [{ID}]\n"
    assert load_config(text.encode(), "f.yaml", ENVIRONMENT).throttle == ThrottlePolicy()
    (found,) = problems(f"version: 1\ndefaults:\ninstalls: [{ID}]\n")
    assert "defaults.notification_emails: is required" in found


@pytest.mark.parametrize("secret", ["0123", "98765432109876543210", "yes", "1_000"])
def test_a_password_is_not_repeated_by_the_message_about_it(secret: str) -> None:
    found = problems(f"{HEAD}accounts: {{default: {{password: {secret}}}}}\ninstalls: [{ID}]\n")
    assert found
    assert secret not in "".join(found)


def test_the_message_about_missing_credentials_names_their_possible_sources() -> None:
    found = problems(f"{HEAD}installs: [{ID}]\n", {})
    assert [line for line in found if "WPE_API_PASSWORD" in line]
    assert [line for line in found if "WPE_API_USER_ID" in line]
    found = problems(f"{HEAD}accounts: {{default: }}\ninstalls: [{ID}]\n", {"WPE_API_USER_ID": "u"})
    assert len(found) == 1


def test_exploding_aliases_are_refused_before_they_are_expanded() -> None:
    levels = ["a: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (found,) = problems("\n".join(levels))
    assert "aliases make more than" in found


@pytest.mark.parametrize(
    ("installs", "is_good"),
    [
        ({"installs": [ID, "torqueshop", {"name": "torquemag"}, {"id": OTHER, "name": "The Shop"}]}, True),
        ({"inventory": [{"discover": {}}, {"discover": None}]}, True),
        ({"inventory": [{"files": ["none/*.csv"]}], "installs": []}, True),
        ({"installs": ["Torque Shop"]}, False),
        ({"installs": [{"name": "Torque Shop"}]}, False),
        ({"installs": [{"tags": ["a"]}]}, False),
        ({"installs": [], "inventory": []}, False),
        ({}, False),
        ({"inventory": [{}]}, False),
        ({"inventory": [{"files": ["none/*.csv"], "discover": {}}]}, False),
        ({"inventory": [{"files": []}]}, False),
        ({"inventory": [{"discover": {"environments": ["prod"]}}]}, False),
    ],
)
def test_the_schema_and_the_command_accept_the_same_installs(installs: dict[str, object], *, is_good: bool) -> None:
    document = {"version": 1, "defaults": {"notification_emails": []}} | installs
    assert Draft202012Validator(config_schema()).is_valid(document) is is_good
    if is_good:
        load_config(json.dumps(document).encode(), "f.yaml", ENVIRONMENT)
    else:
        problems(json.dumps(document))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ('""', "must be text, and not empty"),
        ("", "must be text, and not empty"),
        ("2026", "must be text: put it in quotes"),
        ('" nightly"', "must be printable, with no spaces at its ends"),
        ('"a\\u200bb"', "must be printable, with no spaces at its ends"),
        ('"a\\tb"', "must be one line, without control characters"),
        ("x" * 101, "must not be longer than 100 characters"),
    ],
)
def test_a_configuration_name_that_cannot_be_shown_or_typed_is_refused(name: str, why: str) -> None:
    (problem,) = problems(f"{HEAD}name: {name}\ninstalls: [{ID}]\n")
    assert problem.endswith(f"name: {why}")


def test_a_configuration_may_have_a_name_and_a_path() -> None:
    text = f'{HEAD}name: "${{WHO}} nächtlich $$"\ninstalls: [{ID}]\n'.encode()
    config = load_config(text, "/etc/f.yaml", ENVIRONMENT | {"WHO": "agency"})
    assert (config.name, config.path) == ("agency nächtlich $", "/etc/f.yaml")
    fleet = read_yaml(text, "f.yaml", ENVIRONMENT | {"WHO": "$${x}"})
    shown = fleet.shown().replace("********", "x")
    assert read_yaml(shown.encode(), "f.yaml", {}).sections.name == fleet.sections.name == "$${x} nächtlich $"
    nameless = load_config(f"{HEAD}installs: [{ID}]\n".encode(), "<stdin>", ENVIRONMENT)
    assert (nameless.name, nameless.path) == (None, None)
    assert Draft202012Validator(config_schema()).is_valid({"version": 1, "name": "x", "defaults": {}, "installs": [ID]})
