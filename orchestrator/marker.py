"""The description that a backup is requested with, and the marker at its end that ties it to the run.

Pure. Used by ``plan.py`` to render and by ``config`` to check a template before anything is planned.
"""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELDS = ("date", "time", "run_id", "name", "id", "environment")

MAX_DESCRIPTION = 255
"""Characters of description and marker together. No limit is published; 255 is the usual width of such a column."""


_MARKERS = re.compile(r"\[wpe-backup ([0-9A-HJKMNP-TV-Z]{26}(?:/2)?)\]", re.ASCII)


def second(run_id: str) -> str:
    """Return the name of the run's second request for an install, which follows a backup that was aborted."""
    return f"{run_id}/2"


def marker(run_id: str) -> str:
    """Return the text that proves a backup to be of the run ``run_id``, wherever it stands in a description.

    Of ``second(run_id)``, that it is of that request.
    """
    return f"[wpe-backup {run_id}]"


def runs_marked(description: str) -> set[str]:
    """Return the ids of the runs, or the names of their second requests, whose markers stand in ``description``."""
    return set(_MARKERS.findall(description))


def described_again(description: str, run_id: str) -> str:
    """Return ``description``, which ends with the marker of ``run_id``, for the run's second request."""
    return _fitted(description.removesuffix(f" {marker(run_id)}"), second(run_id))[0]


def template_fault(template: str) -> str | None:
    """Say what is wrong with a description template, or return ``None``."""
    if not template.strip():
        return "must not be empty"
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        return f"{error} (a brace is written {{{{ or }}}})"
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if name not in FIELDS or spec or conversion:
            known = ", ".join("{" + each + "}" for each in FIELDS)
            shown = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            return f"unknown field {{{shown}}}; known are {known} (a brace is written {{{{ or }}}})"
    return None


def describe(template: str, fields: Mapping[str, str], run_id: str) -> tuple[str, bool]:
    """Render ``template`` and put the marker behind it.

    Returns the description and whether its text, never the marker, had to be shortened to ``MAX_DESCRIPTION``.
    The template must have passed ``template_fault``.
    """
    return _fitted(template.format_map(fields), run_id)


def _fitted(text: str, run_id: str) -> tuple[str, bool]:
    tail = f" {marker(run_id)}"
    room = MAX_DESCRIPTION - len(tail)
    if len(text) <= room:
        return text + tail, False
    return text[: room - 1].rstrip() + "…" + tail, True
