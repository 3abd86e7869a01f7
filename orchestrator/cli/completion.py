"""``wpe-backup completion``: print the completion script of a shell."""

from __future__ import annotations

import sys

from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from orchestrator.cli.commands import cli
from orchestrator.cli.parser.grammar import PROGRAM

_SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}

_VARIABLE = "_WPE_BACKUP_COMPLETE"
"""The variable by which the script calls ``wpe-backup``. click derives its name from the program's name."""

_SCRIPT_OF_BASH = f"""\
if (( BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404 )); then
    echo '{PROGRAM}: completion needs bash 4.4 or newer; this one is older' >&2
else
%s
fi
"""
"""Check the version of the bash that reads the script. click would check the one in the path, if there is one."""


def completion(shell: str) -> None:
    """Print the completion script of a shell."""
    script = ShellComplete.source(_SHELLS[shell](cli, {}, PROGRAM, _VARIABLE))
    sys.stdout.write(_SCRIPT_OF_BASH % script if shell == "bash" else script)
