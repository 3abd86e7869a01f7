"""The command ``wpe-backup``: its groups, and how every failure ends it with one message and an exit code."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import rich_click as click

from orchestrator import __version__
from orchestrator.cli.config import config
from orchestrator.cli.demo import demo
from orchestrator.cli.report import report
from orchestrator.cli.run import run
from orchestrator.cli.simulate import simulate
from orchestrator.errors import ConfigError, OrchestratorError, WriteError

INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="wpe-backup", message="%(prog)s %(version)s")
def cli() -> None:
    """Request backups of a whole fleet of WP Engine installs, under a rate limiter, and report every outcome."""


for command in (run, config, report, simulate, demo):
    cli.add_command(command)


def main() -> None:
    """Run the command line and exit with its code."""
    code = _code()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
    except OSError as error:
        _forget_stdout()
        _say(f"wpe-backup: standard output cannot be written: {error.strerror}")
        code = code or WriteError.exit_code
    sys.exit(code)


def _code() -> int:
    try:
        result = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except ConfigError as error:
        _say(str(error))
        return error.exit_code
    except OrchestratorError as error:
        _say(f"wpe-backup: {error}")
        return error.exit_code
    except OSError as error:
        _say(f"wpe-backup: {error}")
        return WriteError.exit_code
    return result if isinstance(result, int) else 0


def _say(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(text + "\n")


def _forget_stdout() -> None:
    """Point standard output nowhere, so that the interpreter's last flush does not fail on a reader that went away."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
