"""The path of a configuration as people name it. It stays the same when a symbolic link in it gets another target."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.descriptors import PIPE_NAME, STDIN_NAME, names_a_descriptor

if TYPE_CHECKING:
    from collections.abc import Mapping


def location(file: str, environment: Mapping[str, str]) -> str | None:
    """Return the absolute path of ``file`` without following links; ``None`` if it names a stream.

    A relative path starts at ``$PWD`` if that is the current directory, since a shell keeps in it the links that the
    user went through.
    """
    if file in {STDIN_NAME, PIPE_NAME}:
        return None
    try:
        start = "" if file.startswith("/") else _current_directory(environment)
        path = _without_detours(f"{start}/{file}")
    except OSError:
        return None
    return None if names_a_descriptor(path) else path


def _current_directory(environment: Mapping[str, str]) -> str:
    shown = environment.get("PWD", "")
    is_plain = shown.startswith("/") and not {".", ".."} & set(shown.split("/"))
    try:
        if is_plain and os.path.samefile(shown, "."):  # noqa: PTH121 - paths are text in this module
            return shown
    except (OSError, ValueError):
        pass
    return str(Path.cwd())


def _without_detours(path: str) -> str:
    """Return the absolute ``path`` without empty parts, ``.`` and ``..``.

    A ``..`` after a link is kept: the link may get another target later.
    """
    kept: list[str] = []
    for part in path.split("/"):
        if part in {"", "."}:
            continue
        is_behind_link = bool(kept) and (kept[-1] == ".." or Path("/", *kept).is_symlink())
        if part != ".." or is_behind_link:
            kept.append(part)
        elif kept:
            kept.pop()
    return "/" + "/".join(kept)
