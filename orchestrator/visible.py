"""Make text from outside safe to show in a terminal. Pure."""

from __future__ import annotations

import re

_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0 and C1 controls, escape sequences among them
    "\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"  # invisible, reordering, or not text
)


def visible(text: str) -> str:
    r"""Return ``text`` with an escape such as ``\x1b`` for each character that a terminal would obey or hide."""
    return _HIDDEN.sub(_written_out, text)


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004 - where one byte ends


def is_text(text: str) -> bool:
    """Tell whether ``text`` can be encoded as UTF-8: a Python string may also contain lone surrogates."""
    if text.isascii():  # fast at any length
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
