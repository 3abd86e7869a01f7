"""The command ``wpe-backup``: its groups, and how every failure ends it with one message and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from importlib import import_module

import rich_click as click

from orchestrator import __version__
from orchestrator.cli import INTERRUPTED
from orchestrator.errors import OrchestratorError, WriteError
from orchestrator.logs import forgiving
from orchestrator.visible import visible

PROGRAM = "wpe-backup"

COMMANDS = (
    "run",
    "settle",
    "status",
    "audit",
    "history",
    "installs",
    "init",
    "config",
    "report",
    "doctor",
    "simulate",
    "demo",
    "completion",
)
"""Each is the module of ``cli`` of that name, and in it the command of that name."""


class CommandsOnDemand(click.RichGroup):
    """Import a command when it is used: ``run`` needs no web server, ``report`` no client."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of the commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Return the command of that name, ``None`` if there is none."""
        if cmd_name not in COMMANDS:
            self.load_all()  # click looks among them for what was meant
        elif cmd_name not in self.commands:
            self.add_command(getattr(import_module(f"orchestrator.cli.{cmd_name}"), cmd_name))
        return self.commands.get(cmd_name)

    def load_all(self) -> None:
        """Import every command."""
        for name in COMMANDS:
            self.get_command(click.Context(self), name)


@click.group(cls=CommandsOnDemand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def cli() -> None:
    """Request backups of a whole fleet of WP Engine installs, under a rate limiter, and report every outcome."""


def run_command_line() -> int:
    """Run the command that the arguments name, and return its exit code."""
    code = _code()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
    except OSError as error:
        _forget_stdout()
        _say(f"{PROGRAM}: standard output cannot be written: {error.strerror}")
        code = code or WriteError.exit_code
    return code


def _code() -> int:
    try:
        result = cli.main(prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except OrchestratorError as error:
        prefix = "" if error.has_places else f"{PROGRAM}: "
        _say(prefix + "\n".join(visible(line) for line in str(error).split("\n")))
        return error.exit_code
    except OSError as error:
        _say(f"{PROGRAM}: {visible(str(error))}")
        return WriteError.exit_code
    except Exception:  # noqa: BLE001 - the last word on a bug
        _say(f"{PROGRAM}: internal error, please report it:\n{traceback.format_exc()}")
        return OrchestratorError.exit_code
    return result if isinstance(result, int) else 0


def _say(text: str) -> None:
    forgiving(sys.stderr).write(text + "\n")


def _forget_stdout() -> None:
    """Point standard output nowhere, so that the interpreter's last flush does not fail on a reader that went away."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
