"""The library as a type checker sees it. Mypy reads this file; nothing runs it.

Some lines are wrong on purpose and ignore mypy's error. If such a line has no error, mypy reports the unused ignore.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, assert_type

import structlog

from orchestrator import (
    Backup,
    Config,
    ConfigError,
    ErrorInfo,
    ExitCode,
    FailureLimit,
    Outcome,
    OutcomeKind,
    Problem,
    RunOptions,
    RunResult,
    Selection,
    back_up,
    load_config,
)


def seen(outcome: Outcome) -> None:
    assert_type(outcome.install_id, str | None)
    assert_type(outcome.name, str | None)
    assert_type(outcome.account, str)
    assert_type(outcome.kind, OutcomeKind)
    assert_type(outcome.backup, Backup | None)
    assert_type(outcome.error, ErrorInfo | None)


async def all_of_it() -> None:
    config = load_config("fleet.yaml")
    assert_type(config, Config)
    assert_type(load_config(Path("fleet.yaml"), {"WPE_API_USER_ID": "u"}), Config)
    options = RunOptions(
        state_dir=Path("state"), selection=Selection(tags=("a",)), failure_limit=FailureLimit(percent=5.0)
    )
    result = await back_up(config, options, on_outcome=seen, log=logging.getLogger("backups"))
    assert_type(result, RunResult)
    assert_type(result.run_id, str)
    assert_type(result.exit_code, int)
    assert_type(result.summary, dict[str, Any])
    assert_type(result.error, Exception | None)
    assert_type(ExitCode.of_signal(15), int)
    await back_up(config, RunOptions("state"), log=structlog.get_logger())


def problems(error: ConfigError) -> None:
    assert_type(error.problems, tuple[Problem, ...])
    for problem in error.problems:
        assert_type((problem.file, problem.line, problem.column), tuple[str, int, int])
        assert_type((problem.path, problem.message), tuple[str, str])


async def wrong(config: Config) -> None:
    RunOptions()  # type: ignore[call-arg]  # the state's directory is required
    RunOptions("state", waits="yes")  # type: ignore[arg-type]  # a word is no truth value
    await back_up("fleet.yaml", RunOptions("state"))  # type: ignore[arg-type]  # a path is no configuration
    await back_up(config, RunOptions("state"), on_outcome=problems)  # type: ignore[arg-type]  # the callback takes a ConfigError
    await back_up(config, RunOptions("state"), seen)  # type: ignore[call-arg]  # `on_outcome` is a keyword
