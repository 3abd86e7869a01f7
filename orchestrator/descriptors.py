"""What names a stream instead of a file: what is behind it belongs to whoever opened it. Pure.

The number of a descriptor says nothing of what is read from it: the shell takes another one each time.
"""

from __future__ import annotations

import re

STDIN_NAME, PIPE_NAME = "<stdin>", "<pipe>"
"""What a configuration is called that came over standard input, or over any other stream."""

_DESCRIPTOR = re.compile(r"/dev/(stdin|stdout|stderr|fd/\d+)|/proc/[^/]+/fd/\d+", re.ASCII)


def names_a_descriptor(path: str) -> bool:
    """Tell whether the absolute ``path`` names an open descriptor, as ``/dev/stdin`` and ``/dev/fd/63`` do."""
    return _DESCRIPTOR.fullmatch(path) is not None
