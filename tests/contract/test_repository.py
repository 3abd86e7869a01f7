"""Check the repository: its files load, its documents agree with the command, and an exit code has one meaning."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import generate
import pytest
import yaml
from jsonschema import Draft202012Validator

from orchestrator import errors
from orchestrator.cli.commands import cli
from orchestrator.config import config_schema, load_config, read_checked, read_yaml
from orchestrator.plan import make_plan
from orchestrator.session.clock import new_run
from orchestrator.simulator import Scenario

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    f"{client}WPE_API_{secret}": "x" for client in ("", "ACME_", "GLOBEX_") for secret in ("USER_ID", "PASSWORD")
}
EXAMPLES = sorted([*ROOT.glob("configs/*.yaml"), *ROOT.glob("examples/*.yaml")])
SCENARIOS = sorted(ROOT.glob("examples/scenarios/*.yaml"))


cli.load_parsers()


def commands(group: click.Command = cli, path: str = "wpe-backup") -> dict[str, click.Command]:
    if not isinstance(group, click.Group):
        return {path: group}
    return {
        name: found for each in group.commands.values() for name, found in commands(each, f"{path} {each.name}").items()
    }


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_each_example_loads_and_can_be_planned(path: Path) -> None:
    config = load_config(path.read_bytes(), str(path), ENVIRONMENT)
    plan = make_plan(config, new_run())
    assert plan.backups
    assert plan.warnings == ()


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.name)
def test_each_scenario_loads(path: Path) -> None:
    scenario = read_checked(path.read_bytes(), str(path), {}, Scenario)
    assert scenario != Scenario()
    assert Scenario.model_validate(scenario.model_dump(mode="json", by_alias=True)) == scenario


@pytest.mark.parametrize("path", [*EXAMPLES, *SCENARIOS], ids=lambda path: path.name)
def test_each_example_has_comments_and_fits_the_schema_that_it_names(path: Path) -> None:
    text = path.read_text()
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert named is not None
    schema = json.loads((path.parent / named[1]).read_text())
    Draft202012Validator(schema).validate(yaml.safe_load(text))
    assert len(re.findall(r"^ *[^#\s].*# \w|^# ", text, re.MULTILINE)) >= 2


def test_the_readme_names_every_configuration() -> None:
    names = {path.name for path in ROOT.glob("configs/*.yaml")}
    assert names == {"minimal.yaml", "nightly.yaml", "pre-maintenance.yaml", "agency.yaml"}
    assert all(f"configs/{name}" in (ROOT / "README.md").read_text() for name in names)
    before_maintenance = read_yaml((ROOT / "configs/pre-maintenance.yaml").read_bytes(), "f.yaml", ENVIRONMENT)
    assert before_maintenance.sections.wait.retry_aborted == 1
    agency = read_yaml((ROOT / "configs/agency.yaml").read_bytes(), "f.yaml", ENVIRONMENT)
    assert len(agency.sections.accounts) > 1


@pytest.mark.parametrize(
    "bad", [{"installs": [{"id": "x"}]}, {"instals": []}, {"throttle": {"rate": "fast"}}, {"wait": 1}, {"installs": []}]
)
def test_the_schema_and_the_command_refuse_the_same_documents(bad: dict[str, object]) -> None:
    good = {"version": 1, "defaults": {"notification_emails": []}, "installs": ["294deacc-d8b8-4005-82c4-0727ba8ddde0"]}
    validator = Draft202012Validator(config_schema())
    assert validator.is_valid(good)
    assert not validator.is_valid(good | bad)
    read_yaml(yaml.safe_dump(good).encode(), "f.yaml", ENVIRONMENT)
    with pytest.raises(errors.ConfigError):
        read_yaml(yaml.safe_dump(good | bad).encode(), "f.yaml", ENVIRONMENT)


@pytest.mark.parametrize(
    ("address", "is_one"),
    [
        ("ops@example.com", True),
        ("o'b.c+d@[10.0.0.1]", True),
        *(
            (text, False)
            for text in ("a@x,b@y", "a@x;b@y", "Ops<o@x>", "<o@x>", "mailto:o@x", "a@b@c", "a b@x", "a@x b@y")
        ),
        *((text, False) for text in ("a@x ", "a@", "@x", "a", "a@x\t", "a@x:25", "a@\u00a0x")),
    ],
)
def test_the_schema_and_the_command_accept_the_same_email_addresses(address: str, is_one: bool) -> None:  # noqa: FBT001 - a table
    document = {"version": 1, "defaults": {"notification_emails": [address]}, "installs": ["torqueshop"]}
    assert Draft202012Validator(config_schema()).is_valid(document) is is_one
    if is_one:
        read_yaml(yaml.safe_dump(document).encode(), "f.yaml", ENVIRONMENT)
        return
    with pytest.raises(errors.ConfigError) as raised:
        read_yaml(yaml.safe_dump(document).encode(), "f.yaml", ENVIRONMENT)
    assert [each.path for each in raised.value.problems] == ["defaults.notification_emails[0]"]


@pytest.mark.parametrize(("name", "text"), generate.pages().items())
def test_the_generated_documents_are_current(name: str, text: str) -> None:
    assert (ROOT / "docs" / name).read_text() == text, "run make docs"


@pytest.mark.parametrize(("path", "command"), commands().items())
def test_each_option_has_its_environment_variable(path: str, command: click.Command) -> None:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            name = next(each for each in parameter.opts if each.startswith("--"))
            assert parameter.envvar == "WPE_BACKUP_" + name[2:].replace("-", "_").upper(), f"{path} {name}"


def test_run_ids_sort_by_time_and_none_is_the_prefix_of_another() -> None:
    ids = [new_run().id for _ in range(200)]
    assert {len(each) for each in ids} == {26}
    assert len(set(ids)) == 200
    assert [each[:10] for each in ids] == sorted(each[:10] for each in ids)


def test_each_error_has_the_exit_code_in_the_docstrings_tree() -> None:
    found = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.OrchestratorError)
    }
    drawn = dict(re.findall(r"(\w+Error) +(\d+) ", errors.__doc__ or ""))
    assert {name: int(code) for name, code in drawn.items()} == found | {"StoppedError": 128}
    assert errors.StoppedError(2).exit_code == 130


def test_no_committed_file_names_a_package_host() -> None:
    for lock in ROOT.glob("requirements/*.txt"):
        text = lock.read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text
