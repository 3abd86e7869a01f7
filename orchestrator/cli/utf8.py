"""Treat arguments, variables and file names as UTF-8 in any locale.

The YAML and people name files in UTF-8. If Python took another encoding from the locale, it cannot open these files or
decode an argument, and a running process cannot change its encoding.
"""

from __future__ import annotations

import os
import sys

from orchestrator.cli import signals

PRINTS = "wpe-backup-prints"
"""This option of the interpreter tells the restarted process the encoding of the terminal."""


def restart_unless_utf8() -> None:
    """Restart Python in UTF-8 mode, in the same process, unless names are UTF-8 already.

    Signals wait in the meantime. If it is unknown how this process was started, it goes on unchanged.
    """
    if sys.getfilesystemencoding() == "utf-8" or "utf8" in sys._xoptions:  # noqa: SLF001 - its documented name
        return
    own, given = sys.orig_argv, sys.argv[1:]
    started_by = own[1 : len(own) - len(given)]
    if not (sys.executable and started_by) or own[1:] != [*started_by, *given]:
        return
    prints = getattr(sys.stdout or sys.stderr, "encoding", "utf-8")
    options = ("-X", "utf8", "-X", f"{PRINTS}={prints}")
    signals.block()
    try:
        os.execv(sys.executable, [sys.executable, *options, *own[1:]])  # noqa: S606 - this very command
    except OSError:
        signals.arm()


def encoding_of_terminals() -> str | None:
    """Return the encoding of the locale or ``PYTHONIOENCODING`` before the restart, ``None`` without a restart."""
    prints = sys._xoptions.get(PRINTS)  # noqa: SLF001 - its documented name
    return prints if isinstance(prints, str) else None
