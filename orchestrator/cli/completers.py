"""Complete runs, accounts, tags and installs for the shell.

The shell calls these at each press of the Tab key. They read the state and the YAML. They write nothing, run no
command, read no secret, and offer nothing if a file cannot be read. The shell inserts a completion unquoted, and names
may come from files of other people. So a completion that is not a plain word is left out.
"""

from __future__ import annotations

import os
import re
import signal
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

from orchestrator.cli.options import config_text
from orchestrator.cli.places import default_state_dir, needed_state_dir
from orchestrator.config import read_yaml
from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.journal.history import past_runs
from orchestrator.journal.store import FILE_NAME
from orchestrator.run_names import LATEST
from orchestrator.visible import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import click

    from orchestrator.config import CheckedYaml
    from orchestrator.journal.history import PastRun

    Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]

MOST_RUNS = 50
LONGEST_S = 2.0
"""Longest time that the shell waits. After that, a large inventory or a dead disk offers nothing."""

_WORD = re.compile(r"[\w/.][\w/.@%+:-]*")


class _LateError(BaseException):
    """A completion takes too long. This is no ``Exception``, so no ``except Exception`` catches it."""


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Interrupt the block after this time. Call it in the main thread only."""

    def break_off(_signum: int, _frame: object) -> None:
        raise _LateError

    before = signal.signal(signal.SIGALRM, break_off)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _or_nothing(complete: Completer) -> Completer:
    @wraps(complete)
    def quietly(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        try:
            with _within(LONGEST_S):
                found = complete(ctx, param, incomplete)
        except (Exception, _LateError):  # noqa: BLE001 - a completion cannot show messages
            return []
        return [item for item in found if item.type != "plain" or _WORD.fullmatch(item.value)]

    return quietly


@_or_nothing
def complete_runs(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Offer ``latest`` and the runs of the state directory, the newest first."""
    return _runs_beginning(ctx, incomplete)


@_or_nothing
def complete_reports(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Offer the runs, or files if no run begins with the text."""
    return _runs_beginning(ctx, incomplete) or [CompletionItem(incomplete, type="file")]


@_or_nothing
def complete_accounts(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Offer the accounts of the YAML."""
    return _beginning(incomplete, _fleet(ctx).sections.accounts)


@_or_nothing
def complete_tags(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Offer the tags of the YAML's installs."""
    return _beginning(incomplete, sorted({tag for each in _fleet(ctx).sections.installs for tag in each.tags}))


@_or_nothing
def complete_installs(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Offer the names of the YAML's installs, ids of unnamed ones, and any id once a letter is typed."""
    installs = _fleet(ctx).sections.installs
    labels = [each.name or each.id or "" for each in installs]
    ids = [each.id or "" for each in installs] if incomplete else []
    return _beginning(incomplete, dict.fromkeys(labels + ids))


def _beginning(incomplete: str, words: Iterable[str]) -> list[CompletionItem[str]]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def _runs_beginning(ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
    state_dir = needed_state_dir(ctx.params.get("state_dir") or default_state_dir())
    found = _runs(Path(state_dir).expanduser())
    if found:
        found = {LATEST: next(iter(found.values())), **found}
    beginnings = (incomplete, incomplete.upper())
    return [CompletionItem(run, help=text) for run, text in found.items() if run.startswith(beginnings)]


def _runs(state_dir: Path) -> dict[str, str]:
    """Return the newest runs with a description of each; without a state, the runs that left a folder."""
    with suppress(OrchestratorError):
        runs = past_runs(state_dir / FILE_NAME, MOST_RUNS)
        if runs:
            return {run.id: _said(run) for run in runs}
    folders = state_dir / "runs"
    names = sorted((folder.name for folder in folders.iterdir()), reverse=True) if folders.is_dir() else []
    return dict.fromkeys(names[:MOST_RUNS], "")


def _said(run: PastRun) -> str:
    """Describe the result of a run, without a comma: fish would cut the text there."""
    end = " so far" if run.exit_code is None else ""
    return visible(f"{run.started_at:%Y-%m-%d %H:%M} UTC: {run.succeeded} of {run.planned} backed up{end}")


def _fleet(ctx: click.Context) -> CheckedYaml:
    """Return the YAML that the command line names, or the default one."""
    named = ctx.params.get("config_file") or os.environ.get("WPE_BACKUP_CONFIG")
    path = named and Path(named).expanduser()
    if path and not path.is_file():
        message = "a completion cannot read standard input or a pipe"
        raise UsageError(message)
    name, text = config_text(str(path) if path else None)
    return read_yaml(text, name, os.environ, with_secrets=False)
