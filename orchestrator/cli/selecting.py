"""The values of the options that select installs."""

from __future__ import annotations

import re
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from orchestrator.config.placed_yaml.suggest import did_you_mean
from orchestrator.config.placed_yaml.tree import Tree
from orchestrator.config.source import is_one_stream, is_standard_input, yaml_text
from orchestrator.config.values import LONGEST_TEXT
from orchestrator.errors import ConfigError, Problem, UsageError
from orchestrator.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

MOST_SHARDS = 10_000
MOST_PROBLEMS = 10
"""Most wrong lines in a message: in a file that is no list, every line is wrong."""

_SHARD = re.compile(r"(\d{1,5})/(\d{1,5})", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def parse_shard(text: str, _option: click.Parameter | None = None) -> tuple[int, int]:
    """Return I and N of ``I/N``. Raises ``click.BadParameter``."""
    match = _SHARD.fullmatch(text)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count <= MOST_SHARDS:
        message = f"{text!r} is not I/N, such as 1/4: I goes from 1 to N, and N is at most {MOST_SHARDS}"
        raise click.BadParameter(message)
    return number, count


def _refuse_one_stream_for_both(config_file: str | None, installs_from: str | None) -> None:
    if is_one_stream(config_file, installs_from):
        what = "standard input" if is_standard_input(installs_from) else "the same pipe"
        message = (
            f"-c {config_file} and --installs-from {installs_from} would both read {what}, which can be read only"
            " once: name a file for one of them"
        )
        raise UsageError(message)


WORDS = {
    "listed": "--installs-from",
    "only": "--only",
    "exclude": "--exclude",
    "tags": "--tag",
    "environments": "--environment",
    "accounts": "--account",
    "see the plan": "wpe-backup run --dry-run shows the plan",
}
"""The names of the fields of a selection on the command line."""


def with_selection(work: Callable[..., Any]) -> Any:  # noqa: ANN401 - as click's own decorators
    """Give ``work`` the values of the options that select installs as one ``selection``.

    Its ``names`` are left empty: ``work`` puts in the arguments INSTALL.
    """

    @wraps(work)
    def told(*, installs_from: str | None, limit: int | None, **rest: Any) -> Any:  # noqa: ANN401 - the work's
        _refuse_one_stream_for_both(rest.get("config_file"), installs_from)
        said = {name: rest.pop(name) for name in ("only", "exclude", "tags", "environments", "accounts", "shard")}
        listed = None if installs_from is None else read_list(installs_from)
        return work(selection=Selection(listed=listed, limit=limit, words=WORDS, **said), **rest)

    return told


def check_accounts(selection: Selection, known: Collection[str]) -> None:
    """Raise ``UsageError`` if the configuration does not have an account of ``selection`` (``known``)."""
    unknown = [name for name in dict.fromkeys(selection.accounts) if name not in known]
    if unknown:
        names = ", ".join(f"{name!r}{did_you_mean(name, known)}" for name in unknown)
        several = "; repeat --account for several" if any("," in name for name in unknown) else ""
        message = f"there is no such account: {names}; the configuration has {', '.join(known)}{several}"
        raise UsageError(message)


def read_list(file: str) -> tuple[tuple[str, str], ...]:
    """Return the names and ids in ``file``, each with its place as ``file:line``; ``-`` is standard input.

    Empty lines and lines that begin with ``#`` are ignored. Raises ``ConfigError`` if there is no name and no id, and
    if the file cannot be read, is not text or is larger than 64 MiB.
    """
    name, content = yaml_text(file)
    lines = Tree.decoded(content, name).text.split("\n")
    stripped = ((number, line.strip()) for number, line in enumerate(lines, 1))
    entries = [(number, entry) for number, entry in stripped if entry and not entry.startswith("#")]
    if not entries:
        raise ConfigError([Problem(name, 1, 1, "", "has no name and no id: write one on each line")])
    problems = [Problem(name, number, 1, "", fault) for number, entry in entries if (fault := _fault(entry))]
    if problems:
        raise ConfigError(problems[:MOST_PROBLEMS])
    return tuple((entry, f"{name}:{number}") for number, entry in entries)


def _fault(entry: str) -> str | None:
    """Return the reason why ``entry`` cannot be a name or id, ``None`` if it can."""
    if len(entry) > LONGEST_TEXT:
        return f"is longer than the {LONGEST_TEXT} characters of a name"
    return "has a control character; names and ids have none" if _CONTROL.search(entry) else None
