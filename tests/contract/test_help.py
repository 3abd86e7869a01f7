"""Help has groups and one line for each option, names only options that exist, and starts fast."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from command import run_program

from orchestrator.cli import completers, completion
from orchestrator.cli.commands import SECTIONS, cli
from orchestrator.cli.parser.grammar import PROGRAM, Command, Converted, Option, function
from orchestrator.cli.parser.rehearse import RETRY_AFTER
from orchestrator.cli.parser.set_up import SHELLS
from orchestrator.config.values import DEFAULT_BASE_URL
from orchestrator.simulator import RetryAfter

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")])
HEAVY = {"aiohttp", "asyncio", "orchestrator.config", "pydantic", "rich", "sqlite3", "structlog", "yaml"}

FOREIGN = {
    *(
        "--check",
        "--installs",
        "--no-late-refusals",
        "--list",
        "--no-rivals",
        "--markdown",
        "--profile",
        "--rounds",
        "--seeds",
    ),
    *("--hypothesis-profile", "--init", "--no-deps", "--require-hashes"),
}
"""Options of the benchmarks, pytest, docker and pip."""

cli.load_parsers()


def contexts(command: click.Command = cli, parent: click.Context | None = None) -> Iterator[click.Context]:
    """Yield a context for each command and group, as wide as a terminal of 80 columns."""
    name = command.name if parent else PROGRAM
    own = click.Context(command, info_name=name, parent=parent, terminal_width=80, **command.context_settings)
    yield own
    if isinstance(command, click.Group):
        for each in command.commands.values():
            yield from contexts(each, own)


PAGES = {context.command_path: context for context in contexts()}
COMMANDS = {path: context.command for path, context in PAGES.items() if isinstance(context.command, Command)}


@pytest.mark.parametrize("path", PAGES)
def test_each_page_of_help_fits_80_columns_and_each_option_has_one_line(path: str) -> None:
    context = PAGES[path]
    lines = click.unstyle(context.command.get_help(context)).split("\n")
    assert [line for line in lines if len(line) > 80] == []
    for parameter in context.command.params:
        if isinstance(parameter, click.Option):
            shown = [line for line in lines if re.match(rf"  (-\w, )?{max(parameter.opts, key=len)} ", line)]
            assert [parameter.help in line for line in shown if parameter.help][:1] == [True], parameter.opts


def test_the_help_shows_the_commands_in_sections_and_the_options_of_run_in_groups() -> None:
    shown = click.unstyle(PAGES[PROGRAM].command.get_help(PAGES[PROGRAM]))
    for title, names in SECTIONS.items():
        section = shown.partition(f"{title}:\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in section.split("\n")] == list(names)
    run = COMMANDS["wpe-backup run"]
    assert isinstance(run, Command)
    assert {"Select installs", "Set the speed", "Stop early", "Write the report", "Output"} <= set(run.groups)
    assert [each for group in run.groups.values() for each in group] == [
        each for each in run.params if isinstance(each, Option)
    ]


@pytest.mark.parametrize("path", COMMANDS)
def test_every_late_import_of_a_command_exists(path: str) -> None:
    command = COMMANDS[path]
    assert isinstance(command, Command)
    assert callable(function(command.work))
    for parameter in command.params:
        if isinstance(parameter.type, Converted):
            assert callable(function(parameter.type.reference))


def test_the_parser_and_the_code_have_the_same_choices() -> None:
    assert tuple(form.value for form in RetryAfter) == RETRY_AFTER
    assert [*completion._SHELLS] == [*SHELLS]
    assert f"`{DEFAULT_BASE_URL}`" in (ROOT / "docs/cli.md").read_text()


@pytest.mark.parametrize("name", ["installs", "runs", "reports", "accounts", "tags"])
def test_each_completer_that_the_parser_names_exists(name: str) -> None:
    parser = "".join(path.read_text() for path in (ROOT / "orchestrator/cli/parser").glob("*.py"))
    assert f'"complete_{name}"' in parser
    assert callable(getattr(completers, f"complete_{name}"))


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["report", "failures", "-h"], ["--version"], ["run", "--nonsense"], []]
)
def test_help_and_usage_errors_import_no_heavy_module(arguments: list[str], tmp_path: Path) -> None:
    assert _imported(arguments, tmp_path) == []


def test_completion_of_commands_and_options_imports_no_heavy_module(tmp_path: Path) -> None:
    for words in ("wpe-backup ", "wpe-backup run --m"):
        asking = {
            "WPE_BACKUP_RATE": "5",
            "_WPE_BACKUP_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        assert _imported([], tmp_path, **asking) == []


def _imported(arguments: list[str], folder: Path, **environment: str) -> list[str]:
    """Run a command, and return the heavy modules that it imported."""
    script = (
        "import sys\n"
        "before = set(sys.modules)\n"  # coverage has imported some
        f"sys.argv = {['wpe-backup', *arguments]!r}\n"
        "from orchestrator.cli import main\n"
        "try:\n    main()\n"
        f"finally:\n    print('imported', *sorted((set(sys.modules) - before) & {HEAVY!r}))\n"
    )
    ended = run_program(sys.executable, "-c", script, cwd=folder, **environment)
    said = [line for line in ended.stdout.split("\n") if line.startswith("imported")]
    assert len(said) == 1, ended
    return said[0].split()[1:]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_show_only_options_that_exist(path: Path) -> None:
    known = {name for context in PAGES.values() for parameter in context.command.params for name in parameter.opts}
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", path.read_text()))
    assert shown - known - FOREIGN - {"--help", "--version"} == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_no_line_of_a_document_is_longer_than_160_characters(path: Path) -> None:
    """A row of a table cannot be wrapped, so it may have 200."""
    lines = path.read_text().split("\n")
    assert [line for line in lines if len(line) > (200 if line.startswith("|") else 160)] == []
