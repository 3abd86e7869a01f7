"""Recognise paths that name an open stream instead of a file, such as ``/dev/stdin``. Pure.

The process that opened the stream owns its content. The number of a descriptor does not identify that content, because
the shell takes another number each time.
"""

from __future__ import annotations

import re

STDIN_NAME, PIPE_NAME = "<stdin>", "<pipe>"
"""The names of a configuration that was read from standard input, or from any other stream."""

_DESCRIPTOR = re.compile(r"/dev/(stdin|stdout|stderr|fd/\d+)|/proc/[^/]+/fd/\d+", re.ASCII)


def names_a_descriptor(path: str) -> bool:
    """Tell whether the absolute ``path`` names an open descriptor, such as ``/dev/stdin`` or ``/dev/fd/63``."""
    return _DESCRIPTOR.fullmatch(path) is not None
