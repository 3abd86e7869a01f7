"""The command ``wpe-backup``: its sections, and one message and exit code for each failure."""

from __future__ import annotations

import os
import sys
import traceback

import click

from orchestrator.cli.parser.grammar import PROGRAM, Command, Commands, function, uses_color
from orchestrator.cli.streams import say, stdout_failure
from orchestrator.errors import OrchestratorError, StorageError, UsageError
from orchestrator.version import __version__
from orchestrator.visible import is_text, visible

SECTIONS = {
    "Back up": ("run",),
    "Verify": ("status", "audit", "history", "report", "settle", "installs"),
    "Set up": ("init", "config", "doctor", "completion"),
    "Rehearse": ("demo", "simulate"),
}
"""The commands by the title of their section in the help."""

cli = Commands(
    help="Back up every WordPress install that you run on WP Engine.",
    sections=SECTIONS,
    examples=(
        "wpe-backup demo                  # try it without credentials",
        "wpe-backup init --from-api       # write a configuration",
        "wpe-backup run --wait            # back up all installs, and wait",
        "wpe-backup audit --max-age 26h   # check the age of every newest backup",
    ),
)
cli = click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s", help="Show the version")(cli)


def load_all() -> None:
    """Import every command with its work, for a process that serves many commands."""
    cli.load_parsers()
    for command in cli.commands.values():
        for each in command.commands.values() if isinstance(command, click.Group) else (command,):
            if isinstance(each, Command):
                function(each.work)


def run_command_line() -> int:
    """Run the command that the arguments name, and return its exit code."""
    code = _code()
    failure = stdout_failure()
    if failure is None:
        return code
    say(f"{PROGRAM}: standard output cannot be written: {failure}")
    return code if code == OrchestratorError.exit_code else StorageError.exit_code


def _code() -> int:
    try:
        _refuse_what_is_no_text()
        result = cli.main(prog_name=PROGRAM, standalone_mode=False, color=uses_color())
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except OrchestratorError as error:
        prefix = "" if error.has_places else f"{PROGRAM}: "
        say(prefix + "\n".join(visible(line) for line in str(error).split("\n")))
        return error.exit_code
    except OSError as error:
        return _say_failed_call(error)
    except Exception:  # noqa: BLE001 - the last word on a bug
        say(f"{PROGRAM}: internal error, please report it:\n{traceback.format_exc()}")
        return OrchestratorError.exit_code
    return result if isinstance(result, int) else 0


def _refuse_what_is_no_text() -> None:
    """Raise ``UsageError`` for an argument, or a variable of ours, that is not UTF-8."""
    given = [(f"argument {number}", text) for number, text in enumerate(sys.argv[1:], 1)]
    given += [(name, text) for name, text in os.environ.items() if name.startswith("WPE_BACKUP_")]
    for what, text in given:
        if not text.isascii() and not is_text(text):
            shown = os.fsencode(text).decode("utf-8", "backslashreplace")
            message = f"{what} is not UTF-8 text: {shown}; use UTF-8, whatever the locale is"
            raise UsageError(message)


def _say_failed_call(error: OSError) -> int:
    """Print the reason why a system call failed, with its file if there is one; return the exit code."""
    reason = error.strerror or str(error)
    if error.filename is not None:
        say(f"{PROGRAM}: {visible(os.fsdecode(error.filename))} cannot be read or written: {visible(reason)}")
    elif isinstance(error, FileNotFoundError) and not _has_working_directory():
        say(f"{PROGRAM}: the working directory is gone: change to another one, or use absolute paths")
        return UsageError.exit_code
    else:
        say(f"{PROGRAM}: a system call failed: {visible(reason)}")
    return StorageError.exit_code


def _has_working_directory() -> bool:
    try:
        os.getcwd()  # noqa: PTH109 - Path.cwd calls this
    except OSError:
        return False
    return True
