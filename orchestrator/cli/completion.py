"""``wpe-backup completion``: what a shell needs to complete our commands, options, runs and installs."""

from __future__ import annotations

import sys

from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from orchestrator.cli.commands import cli
from orchestrator.cli.parser.grammar import PROGRAM

_SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}

_VARIABLE = "_WPE_BACKUP_COMPLETE"
"""By this variable the shell's function asks ``wpe-backup`` itself; click takes the name from the program's."""

_SCRIPT_OF_BASH = f"""\
if (( BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404 )); then
    echo '{PROGRAM}: completion needs bash 4.4 or newer; this one is older' >&2
else
%s
fi
"""
"""Asks the bash that reads the script; click would ask the one in the path, which need not be there."""


def completion(shell: str) -> None:
    """Print the completion script of a shell."""
    script = ShellComplete.source(_SHELLS[shell](cli, {}, PROGRAM, _VARIABLE))
    sys.stdout.write(_SCRIPT_OF_BASH % script if shell == "bash" else script)
