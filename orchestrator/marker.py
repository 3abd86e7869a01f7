"""Write the description of a backup, and the marker at its end that ties the backup to its run. Pure."""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELDS = ("date", "time", "run_id", "name", "id", "environment")

MAX_DESCRIPTION = 255
"""The most characters of a description with its marker. WP Engine publishes no limit; 255 is a usual column width."""

_MARKERS = re.compile(r"\[wpe-backup ([0-9A-HJKMNP-TV-Z]{26}(?:/2)?)\]", re.ASCII)


def second(run_id: str) -> str:
    """Return the name of the run's second request for an install, which it sends if the first backup was aborted."""
    return f"{run_id}/2"


def marker(run_id: str) -> str:
    """Return the marker of the run ``run_id``. Anywhere in a description, it proves that this run requested the backup.

    The marker of ``second(run_id)`` proves that the second request of this run made the backup.
    """
    return f"[wpe-backup {run_id}]"


def runs_marked(description: str) -> set[str]:
    """Return the runs whose markers are in ``description``: ids, or names of second requests."""
    return set(_MARKERS.findall(description))


def described_again(description: str, run_id: str) -> str:
    """Replace the marker of ``run_id`` in ``description`` by the marker of the run's second request."""
    return _fitted(description.removesuffix(f" {marker(run_id)}"), second(run_id))[0]


def template_fault(template: str) -> str | None:
    """Return what is wrong with a description template, or ``None``."""
    if not template.strip():
        return "must not be empty"
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        return f"{error} (write a brace as {{{{ or }}}})"
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if name not in FIELDS or spec or conversion:
            known = ", ".join("{" + each + "}" for each in FIELDS)
            shown = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            return f"unknown field {{{shown}}}; the fields are {known} (write a brace as {{{{ or }}}})"
    return None


def describe(template: str, fields: Mapping[str, str], run_id: str) -> tuple[str, bool]:
    """Render ``template`` and append the marker.

    Returns the description, and whether its text was shortened to fit ``MAX_DESCRIPTION``. The marker is never
    shortened. The template must have passed ``template_fault``.
    """
    return _fitted(template.format_map(fields), run_id)


def _fitted(text: str, run_id: str) -> tuple[str, bool]:
    tail = f" {marker(run_id)}"
    room = MAX_DESCRIPTION - len(tail)
    if len(text) <= room:
        return text + tail, False
    return text[: room - 1].rstrip() + "…" + tail, True
