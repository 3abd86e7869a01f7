"""The command line: arguments, environment, signals. It has the only event loop and the only ``sys.exit``.

Import next to nothing here: a signal that comes before ``main`` runs may be lost.
"""

from __future__ import annotations

import sys

from orchestrator.cli import signals


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        signals.arm()
        code = _run()
        signals.ignore()
    except signals.Interrupt as interrupt:
        code = signals.exit_code_of(interrupt)
    sys.exit(code)


def _run() -> int:
    from orchestrator.cli.utf8 import restart_unless_utf8  # noqa: PLC0415 - signals first

    restart_unless_utf8()
    from orchestrator.cli import streams  # noqa: PLC0415 - signals first

    streams.prepare()
    try:
        from orchestrator.cli.commands import run_command_line  # noqa: PLC0415 - this takes time

        return run_command_line()
    except signals.Interrupt:
        streams.let_go()
        raise
