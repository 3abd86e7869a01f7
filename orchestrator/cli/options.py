"""The options that several commands share, and what they come to."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import rich_click as click
from click import get_current_context
from click.core import ParameterSource
from pydantic_core import PydanticCustomError
from rich.console import Console

from orchestrator.cli.places import config_places, default_state_dir
from orchestrator.config import load_config
from orchestrator.config.source import yaml_text
from orchestrator.config.values import SEVERAL_EMAILS, parse_email, parse_rate, parse_rate_or_auto
from orchestrator.errors import UsageError
from orchestrator.logs import make_log

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from orchestrator.model import Config
    from orchestrator.policies import ThrottlePolicy
    from orchestrator.redaction import Redactor

WIDE = 1000
"""Columns where there is no terminal: wide enough that a line is never wrapped."""


class _Option(click.RichOption):
    """An option whose value, where it has one, is not empty: a shell's variable that is not set leaves nothing."""

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:  # noqa: ANN401 - as click's own
        """Return the value as its type has it. Raises ``click.BadParameter`` for an empty one."""
        given = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(each, str) and not each.strip() for each in given):
            message = "nothing is given: leave the option out, or see whether a variable in it is not set"
            raise click.BadParameter(message, ctx, self)
        return super().type_cast_value(ctx, value)


class _Repeatable(_Option):
    """An option that may be repeated; its environment variable separates the values by commas."""

    def value_from_envvar(self, ctx: click.Context) -> list[str] | None:
        """Return the variable's values, ``None`` if there are none."""
        values = (self.resolve_envvar_value(ctx) or "").split(",")
        return [value.strip() for value in values if value.strip()] or None


def option(*names: str, **settings: Any) -> Callable[[Any], Any]:  # noqa: ANN401 - click's own settings
    """Return a click option that is also read from ``WPE_BACKUP_<OPTION>``; with commas if it is ``multiple``."""
    name = next(name for name in names if name.startswith("--"))
    variable = "WPE_BACKUP_" + name.removeprefix("--").replace("-", "_").upper()
    settings.setdefault("cls", _Repeatable if settings.get("multiple") else _Option)
    return click.option(*names, envvar=variable, show_envvar=True, **settings)


def parsed_by(parse: Callable[[object], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """Return an option's callback that reads its text as the YAML does."""

    def callback(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Any:  # noqa: ANN401 - parse's
        try:
            return None if value is None else parse(value)
        except PydanticCustomError as error:
            raise click.BadParameter(error.message()) from None

    return callback


def parsed_emails(_context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the addresses of a repeatable option, one a value. Raises ``click.BadParameter``."""

    def parse(value: object) -> str:
        try:
            return parse_email(value)
        except PydanticCustomError as error:
            remedy = f"repeat {parameter.opts[0]} for several, or put commas between them in {parameter.envvar}"
            message = error.message().replace(SEVERAL_EMAILS, remedy)
            raise click.BadParameter(message) from None

    return tuple(map(parse, values))


config_option = option(
    "-c",
    "--config",
    "config_file",
    metavar="FILE",
    help="The YAML file; - reads standard input. Default: ./wpe-backup.yaml, then "
    "$XDG_CONFIG_HOME/wpe-backup/config.yaml, then /etc/wpe-backup/config.yaml.",
)


state_dir_option = option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_state_dir,
    show_default="$STATE_DIRECTORY, else $XDG_STATE_HOME/wpe-backup",
    help="Where runs keep what they need to remember.",
)


format_option = option(
    "--format",
    "output_format",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="For people, or for programs.",
)


@dataclass(frozen=True, slots=True)
class Output:
    """How a command speaks to people and machines, on standard error."""

    verbosity: int = 0
    log_format: str = "auto"
    no_color: bool = False

    @property
    def is_quiet(self) -> bool:
        """Tell whether to print nothing when all is well."""
        return self.verbosity < 0

    @property
    def is_json(self) -> bool:
        """Tell whether standard error is for machines: where that was asked for, and in Kubernetes."""
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


def output_options(command: Callable[..., Any]) -> Any:  # noqa: ANN401 - as click's own decorators
    """Give ``command`` the options on output; it gets them as one ``output``."""

    @option("-v", "--verbose", is_flag=True, help="Say every attempt and every change of rate.")
    @option("-q", "--quiet", is_flag=True, help="Print nothing when all is well.")
    @option(
        "--log-format",
        type=click.Choice(["auto", "console", "json"]),
        default="auto",
        show_default=True,
        help="auto: JSON lines in Kubernetes, where a machine reads them, else the console form.",
    )
    @option("--no-color", is_flag=True, help="No colours, also by NO_COLOR.")
    @wraps(command)
    def with_output(*, verbose: bool, quiet: bool, log_format: str, no_color: bool, **rest: Any) -> Any:  # noqa: ANN401 - the command's
        return command(output=Output(_verbosity(verbose=verbose, quiet=quiet), log_format, no_color), **rest)

    return with_output


def _verbosity(*, verbose: bool, quiet: bool) -> int:
    """Return 1, 0 or -1. An option on the command line overrides the other one's environment variable."""
    if verbose and quiet:
        source_of = get_current_context().get_parameter_source
        typed = {name: source_of(name) is ParameterSource.COMMANDLINE for name in ("verbose", "quiet")}
        if typed["verbose"] == typed["quiet"]:
            message = "-v and -q contradict each other"
            raise click.UsageError(message)
        verbose, quiet = typed["verbose"], typed["quiet"]
    return verbose - quiet


def _rate(value: object) -> tuple[float | None]:
    """Wrap the rate, so that ``auto`` (no fixed rate) is not taken for an option that was not given."""
    return (parse_rate_or_auto(value),)


def throttle_options(command: Callable[..., Any]) -> Any:  # noqa: ANN401 - as click's own decorators
    """Give ``command`` the options about the rate, which ``throttled`` applies."""
    for decorate in (
        option("--concurrency", type=click.IntRange(1, 10_000), metavar="N", help="At most N requests in flight."),
        option("--max-rate", metavar="N", callback=parsed_by(parse_rate), help="Never exceed N requests per second."),
        option(
            "--rate",
            metavar="auto|N",
            callback=parsed_by(_rate),
            help="Learn the rate, or keep to N requests per second.",
        ),
    ):
        command = decorate(command)
    return command


def throttled(policy: ThrottlePolicy, given: dict[str, Any]) -> ThrottlePolicy:
    """Return the configuration's policy with the options that were ``given`` in its place."""
    rate, ceiling, concurrency = given["rate"], given["max_rate"], given["concurrency"]
    if rate is not None:
        policy = replace(policy, fixed_rate=rate[0])
    if ceiling is not None:
        policy = replace(policy, ceiling=ceiling)
    if concurrency is not None:
        policy = replace(policy, concurrency=concurrency)
    return policy


def read_config(config_file: str | None, *, is_strict: bool = False) -> Config:
    """Return the checked configuration from ``config_file`` or the usual places, and all of its inventory if strict.

    Raises ``UsageError`` if there is none, ``ConfigError`` if it cannot be read or used.
    """
    name, text = config_text(config_file)
    return load_config(text, name, os.environ, is_strict=is_strict)


def config_text(config_file: str | None) -> tuple[str, bytes]:
    """Return the name and the content of ``config_file``, or of the first that is in the usual places."""
    return yaml_text(config_file or _found())


def _found() -> str:
    places = config_places()
    for place in places:
        if os.path.exists(place):  # noqa: PTH110 - Path's raises where it may not look
            return str(place)
    looked = ", ".join(map(str, places))
    message = f"there is no configuration: name one with -c FILE (looked for {looked})"
    raise UsageError(message)
