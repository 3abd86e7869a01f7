"""The command line: arguments, environment, signals. The only ``asyncio.run`` and ``sys.exit``."""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit with its code."""
    _fill_closed_streams()
    try:
        from orchestrator.cli.commands import run_command_line  # noqa: PLC0415 - Ctrl-C may come while this takes its time

        code = run_command_line()
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


def _fill_closed_streams() -> None:
    """Put nothing in the place of closed standard streams, so that no file of ours gets their descriptors."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - open while we run
