"""Which run is meant: its id, a unique prefix of one, or ``latest``. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

LATEST = "latest"


def run_named(word: str, known: Sequence[str], where: str, what: str = "run", remedy: str = "") -> str:
    """Return the run of ``known`` that ``word`` means. ``known`` is in order of time, the newest last.

    ``where`` says where they were looked for, ``what`` what ``word`` may be, ``remedy`` what to do where there is no
    run. Raises ``UsageError``, saying which runs there are.
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
        message = f"{word} is the beginning of several runs; say more of it"
        raise UsageError(message)
    newest = ", ".join(reversed(known[-3:]))
    message = f"there is no {what} {shlex.quote(word)}; the newest runs {where} are {newest}"
    raise UsageError(message)
