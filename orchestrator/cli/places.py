"""The default places of state and configuration: directories of systemd, of XDG, and of the user's home.

A user need not have a home: containers run as a number that is in no passwd file. A variable without an absolute path
counts as not set, by the rule of XDG.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from orchestrator.errors import UsageError

PROGRAM_FOLDER = "wpe-backup"

NO_STATE_DIR = (
    "there is no directory for the state: STATE_DIRECTORY and XDG_STATE_HOME are not set, and this user has no home"
)
STATE_DIR_REMEDY = "name one with --state-dir"


def default_state_dir() -> Path | None:
    """Return the default place of the state, ``None`` if there is none.

    If systemd names several directories, use the first.
    """
    return _absolute("STATE_DIRECTORY", ":") or usual_state_dir()


def usual_state_dir() -> Path | None:
    """Return the default place of the state for this user outside a systemd service."""
    return _in_xdg("XDG_STATE_HOME", ".local/state")


def needed_state_dir(state_dir: Path | None) -> Path:
    """Return ``state_dir``. Raises ``UsageError`` if it is ``None``: there is no default."""
    if state_dir is None:
        message = f"{NO_STATE_DIR}; {STATE_DIR_REMEDY}"
        raise UsageError(message)
    return state_dir


def config_places() -> list[Path]:
    """Return the default places of the configuration, in order."""
    own = _in_xdg("XDG_CONFIG_HOME", ".config")
    return [
        Path("wpe-backup.yaml"),
        *([] if own is None else [own / "config.yaml"]),
        Path("/etc") / PROGRAM_FOLDER / "config.yaml",
    ]


def _in_xdg(variable: str, below_home: str) -> Path | None:
    """Return the program's directory in the one that ``variable`` names, else below the user's home."""
    base = _absolute(variable)
    if base is None:
        home = _home()
        base = home and home / below_home
    return base and base / PROGRAM_FOLDER


def _home() -> Path | None:
    home = _absolute("HOME")
    if home is None:
        try:
            home = Path(pwd.getpwuid(os.getuid()).pw_dir)
        except KeyError:
            return None
    return home if home.is_absolute() else None


def _absolute(variable: str, separator: str | None = None) -> Path | None:
    value = os.environ.get(variable, "")
    value = value.split(separator)[0] if separator else value
    return Path(value) if value.startswith("/") else None
