"""Make text from outside safe to show in a terminal. Pure."""

from __future__ import annotations

import re

_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0 and C1 controls, escape sequences among them
    "\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"  # invisible, reordering, or not text
)


def visible(text: str) -> str:
    r"""Return ``text`` with everything that a terminal would obey or hide written out, as ``\x1b``."""
    return _HIDDEN.sub(_written_out, text)


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004 - where one byte ends


def is_text(text: str) -> bool:
    """Tell whether ``text`` can be UTF-8: Python lets stand-ins for bytes, and halves of characters, stand in one."""
    if text.isascii():  # which a string knows of itself, however long it is
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
