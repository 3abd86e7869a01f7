"""Text is UTF-8, whatever the locale: arguments, variables, and the names of files.

The YAML names files in UTF-8, and so do people. Where Python has taken another encoding from the locale, it can neither
open these nor tell what an argument says, and no call changes that in a process that runs.
"""

from __future__ import annotations

import os
import sys

from orchestrator.cli import signals

PRINTS = "wpe-backup-prints"
"""By this option of the interpreter, the process that goes on knows the encoding that people's terminals have."""


def restart_unless_utf8() -> None:
    """Have Python begin anew in its UTF-8 mode, in the same process, unless names are UTF-8 already.

    Signals wait meanwhile. Where nobody can tell how this process was started, it goes on as it is.
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
    """Return the encoding that the locale, or ``PYTHONIOENCODING``, asked for before Python began anew, if it did."""
    prints = sys._xoptions.get(PRINTS)  # noqa: SLF001 - its documented name
    return prints if isinstance(prints, str) else None
