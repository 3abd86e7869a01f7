"""Where the state and the configuration are if nobody says: folders of systemd's, of XDG's, and of the user's home.

A user need not have a home: containers run as a number that no passwd file knows. A variable that names no absolute
path counts as not set, as XDG has it.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from orchestrator.errors import UsageError

PROGRAM_FOLDER = "wpe-backup"

NO_STATE_DIR = (
    "there is no folder for the state: neither STATE_DIRECTORY nor XDG_STATE_HOME names one, and this user has no home"
)
STATE_DIR_REMEDY = "name one with --state-dir"


def default_state_dir() -> Path | None:
    """Return where the state is if nobody says otherwise, ``None`` if there is no such place.

    systemd may name several folders; the first is meant.
    """
    return _absolute("STATE_DIRECTORY", ":") or usual_state_dir()


def usual_state_dir() -> Path | None:
    """Return where the state is for the same user outside a service of systemd's."""
    return _in_xdg("XDG_STATE_HOME", ".local/state")


def needed_state_dir(state_dir: Path | None) -> Path:
    """Return ``state_dir``. Raises ``UsageError`` if nobody named one and there is no default."""
    if state_dir is None:
        message = f"{NO_STATE_DIR}; {STATE_DIR_REMEDY}"
        raise UsageError(message)
    return state_dir


def config_places() -> list[Path]:
    """Return where a configuration is looked for, in order."""
    own = _in_xdg("XDG_CONFIG_HOME", ".config")
    return [
        Path("wpe-backup.yaml"),
        *([] if own is None else [own / "config.yaml"]),
        Path("/etc") / PROGRAM_FOLDER / "config.yaml",
    ]


def _in_xdg(variable: str, below_home: str) -> Path | None:
    """Return the program's folder in the one that ``variable`` names, else in the usual one below the user's home."""
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
