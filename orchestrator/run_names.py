"""Find a run by its id, a unique prefix of it, or ``latest``. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

LATEST = "latest"


def run_named(word: str, known: Sequence[str], where: str, what: str = "run", remedy: str = "") -> str:
    """Return the run of ``known`` that ``word`` names. ``known`` is in order of time, the newest last.

    For the message, ``where`` says which place was searched, ``what`` the kinds of thing that ``word`` may name, and
    ``remedy`` what to do if ``known`` is empty. Raises ``UsageError``, which names the newest runs.
    """
    if not known:
        message = f"there are no runs {where}" + (f"; {remedy}" if remedy else "")
        raise UsageError(message)
    if word == LATEST:
        return known[-1]
    matches = [run_id for run_id in known if word and run_id.startswith(word.upper())]
    if len(matches) == 1:
        return matches[0]
    if matches:
        message = f"{word} is the beginning of several run ids; give more characters"
        raise UsageError(message)
    newest = ", ".join(reversed(known[-3:]))
    message = f"there is no {what} {shlex.quote(word)}; the newest runs {where} are {newest}"
    raise UsageError(message)
