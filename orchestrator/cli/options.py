"""The values of the options that several commands share: texts converted, output, rates, the configuration."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click
from click.core import ParameterSource
from pydantic_core import PydanticCustomError
from rich.console import Console

from orchestrator.cli.places import config_places
from orchestrator.config import load_config
from orchestrator.config.source import yaml_text
from orchestrator.config.values import (
    SEVERAL_EMAILS,
    parse_base_url,
    parse_duration,
    parse_email,
    parse_rate,
    parse_rate_or_auto,
    parse_template,
)
from orchestrator.errors import UsageError
from orchestrator.logs import make_log

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from orchestrator.model import Config
    from orchestrator.policies import ThrottlePolicy
    from orchestrator.redaction import Redactor

WIDE = 1000
"""Columns without a terminal: wide enough that no line is wrapped."""


def _as_in_yaml(parse: Callable[[object], Any]) -> Callable[[str, click.Parameter | None], Any]:
    """Return a conversion of an option's text by the rules of the YAML. It raises ``click.BadParameter``."""

    def convert(text: str, _option: click.Parameter | None) -> Any:  # noqa: ANN401 - parse's
        try:
            return parse(text)
        except PydanticCustomError as error:
            raise click.BadParameter(error.message()) from None

    return convert


def _fixed_rate(value: object) -> tuple[float | None]:
    """Wrap the rate, so that ``auto`` (no fixed rate) differs from an option that is not given."""
    return (parse_rate_or_auto(value),)


duration = _as_in_yaml(parse_duration)
rate = _as_in_yaml(parse_rate)
rate_or_auto = _as_in_yaml(_fixed_rate)
template = _as_in_yaml(parse_template)
base_url = _as_in_yaml(parse_base_url)


def email(text: str, option: click.Parameter | None) -> str:
    """Return the one address in ``text``. Raises ``click.BadParameter``."""
    try:
        return parse_email(text)
    except PydanticCustomError as error:
        message = error.message()
        if option is not None:
            remedy = f"repeat {option.opts[0]} for several, or put commas between them in {option.envvar}"
            message = message.replace(SEVERAL_EMAILS, remedy)
        raise click.BadParameter(message) from None


def folder(text: str, _option: click.Parameter | None) -> Path:
    """Return the path of a folder, which need not exist. Raises ``click.BadParameter`` for the path of a file."""
    path = Path(text)
    if os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises without permission
        message = f"{text!r} is a file, not a directory"
        raise click.BadParameter(message)
    return path


@dataclass(frozen=True, slots=True)
class Output:
    """The form of output for people and machines."""

    verbosity: int = 0
    log_format: str = "auto"
    no_color: bool = False

    @property
    def is_quiet(self) -> bool:
        """Tell whether to print nothing when all is well."""
        return self.verbosity < 0

    @property
    def is_json(self) -> bool:
        """Tell whether standard error is for machines: on request, and in Kubernetes."""
        if self.log_format == "auto":
            return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and not sys.stderr.isatty()
        return self.log_format == "json"

    def console(self, stream: TextIO) -> Console:
        """Return a console for totals and lists on ``stream``."""
        return Console(
            file=stream,
            width=None if stream.isatty() else WIDE,
            color_system="auto" if self._has_colors(stream) else None,
            highlight=False,
            markup=False,
        )

    def log(self, redactor: Redactor) -> FilteringBoundLogger:
        """Return the logger, on standard error."""
        colors = self._has_colors(sys.stderr)
        return make_log(sys.stderr, redactor, as_json=self.is_json, colors=colors, verbosity=self.verbosity)

    def _has_colors(self, stream: TextIO) -> bool:
        if self.no_color or os.environ.get("NO_COLOR"):
            return False
        if os.environ.get("FORCE_COLOR", "0") not in {"", "0"}:
            return True
        return stream.isatty() and not os.environ.get("CI")


def with_output(work: Callable[..., Any]) -> Any:  # noqa: ANN401 - as click's own decorators
    """Give ``work`` the values of the options on output as one ``output``."""

    @wraps(work)
    def told(*, verbose: bool, quiet: bool, log_format: str, no_color: bool, **rest: Any) -> Any:  # noqa: ANN401 - the work's
        return work(output=Output(_verbosity(verbose=verbose, quiet=quiet), log_format, no_color), **rest)

    return told


def _verbosity(*, verbose: bool, quiet: bool) -> int:
    """Return 1, 0 or -1. An option on the command line overrides the other one's environment variable."""
    if verbose and quiet:
        source_of = click.get_current_context().get_parameter_source
        typed = {name: source_of(name) is ParameterSource.COMMANDLINE for name in ("verbose", "quiet")}
        if typed["verbose"] == typed["quiet"]:
            message = "-v and -q contradict each other"
            raise click.UsageError(message)
        verbose, quiet = typed["verbose"], typed["quiet"]
    return verbose - quiet


def throttled(policy: ThrottlePolicy, given: dict[str, Any]) -> ThrottlePolicy:
    """Return ``policy`` with the ``given`` options instead of the values of the configuration."""
    rate, ceiling, concurrency = given["rate"], given["max_rate"], given["concurrency"]
    if rate is not None:
        policy = replace(policy, fixed_rate=rate[0])
    if ceiling is not None:
        policy = replace(policy, ceiling=ceiling)
    if concurrency is not None:
        policy = replace(policy, concurrency=concurrency)
    return policy


def read_config(config_file: str | None, *, is_strict: bool = False) -> Config:
    """Return the checked configuration from ``config_file`` or the usual places.

    If ``is_strict``, a mistake in an inventory file is an error. Raises ``UsageError`` if there is no configuration,
    ``ConfigError`` if it cannot be read or used.
    """
    name, text = config_text(config_file)
    return load_config(text, name, os.environ, is_strict=is_strict)


def config_text(config_file: str | None) -> tuple[str, bytes]:
    """Return the name and content of ``config_file``, or of the first file in the usual places."""
    return yaml_text(config_file or _found())


def _found() -> str:
    places = config_places()
    for place in places:
        if os.path.exists(place):  # noqa: PTH110 - Path.exists raises without permission
            return str(place)
    looked = ", ".join(map(str, places))
    message = f"there is no configuration: name one with -c FILE (looked for {looked})"
    raise UsageError(message)
