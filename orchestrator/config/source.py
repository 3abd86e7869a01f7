"""Read the text of a configuration from a file, standard input, or another stream."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from orchestrator.descriptors import PIPE_NAME, STDIN_NAME, names_a_descriptor
from orchestrator.errors import ConfigError, Problem

STANDARD_INPUT = "-"
LARGEST_CONFIG = 64 * 1024 * 1024


def yaml_text(name: str) -> tuple[str, bytes]:
    """Return the name and the content of the file ``name``; ``-`` is standard input. Raises ``ConfigError``.

    A stream is named ``<stdin>``, or ``<pipe>`` if a shell opened it for ``<(command)``. It has no directory, so its
    relative paths start at the current directory.
    """
    try:
        if is_standard_input(name):
            name, text = STDIN_NAME, sys.stdin.buffer.read(LARGEST_CONFIG + 1)
        else:
            with Path(name).open("rb") as file:
                text = file.read(LARGEST_CONFIG + 1)
                name = PIPE_NAME if _is_pipe(name, file.fileno()) else name
    except OSError as error:
        problem = Problem(name, 1, 1, "", f"cannot be read: {error.strerror}")
        raise ConfigError([problem]) from error
    if len(text) > LARGEST_CONFIG:
        raise ConfigError([Problem(name, 1, 1, "", "is larger than 64 MiB")])
    if not text and name in {STDIN_NAME, PIPE_NAME}:
        raise ConfigError(
            [Problem(name, 1, 1, "", "no data came: check whether the command that writes this input failed")]
        )
    return name, text


def is_standard_input(name: str | None) -> bool:
    """Tell whether the file ``name`` is standard input, under any of its names."""
    return name == STANDARD_INPUT or name in {"/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"}


def is_one_stream(one: str | None, other: str | None) -> bool:
    """Tell whether the files ``one`` and ``other`` are the same stream, which can be read only once."""
    if one is None or other is None:
        return False
    if is_standard_input(one) and is_standard_input(other):
        return True
    try:
        first, second = (os.fstat(0) if is_standard_input(name) else Path(name).stat() for name in (one, other))
    except (OSError, ValueError):
        return False
    return os.path.samestat(first, second) and not stat.S_ISREG(first.st_mode)


def _is_pipe(name: str, descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or names_a_descriptor(str(Path(name).absolute()))
