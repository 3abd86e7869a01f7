"""Show the totals and failures of a report to people. The report's lines may hold any JSON values."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeGuard

from rich.text import Text

from orchestrator.model import OutcomeKind
from orchestrator.report.columns import columns
from orchestrator.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.report.read import Report

_SECONDS_PER_MINUTE = 60
_LONGEST_DURATION_S = 10**9
_MOST_LIMITS = 5
_MOST_ACCOUNTS = 20
_MOST_SOURCES = 20
_SUCCESSES = {kind.value for kind in OutcomeKind if kind.is_success}
_THREE_DIGITS = 100
_MOST_DAMAGE = 5


def totals(report: Report) -> Text:
    """Return a report's totals: one sentence, a line for each outcome, then requests, sources, limits and caveats."""
    summary = report.summary or {}
    total = report.outcomes.total()
    failed = total - report.succeeded
    text = Text()
    text.append(f"Run {visible(report.run_id or '?')}: ")
    text.append(f"{report.succeeded} of {total} installs backed up", "" if failed else "green")
    if failed:
        text.append(f", {failed} not", "bold red")
    duration = _duration(summary.get("duration_s"))
    text.append("," if failed and duration else "").append(duration)
    text.append("\n")
    known = [kind.value for kind in OutcomeKind]
    for outcome in [*known, *sorted(report.outcomes.keys() - set(known))]:
        if report.outcomes[outcome]:
            is_success = outcome in known and OutcomeKind(outcome).is_success
            text.append(f"  {visible(outcome):<12}{report.outcomes[outcome]:>8}\n", "" if is_success else "red")
    if summary:
        requests, throttled, retries = (_whole(summary.get(key)) for key in ("requests", "throttled", "retries"))
        text.append(f"  {requests} requests to the API, answered 429: {throttled}, retries: {retries}\n")
    for line in _by_account(_mapping(summary.get("accounts"))):
        text.append(f"  {line}\n")
    for line in _sources(summary):
        text.append(f"  {line}\n", "bold red")
    for line in _limits(_mapping(summary.get("accounts"))):
        text.append(f"  {line}\n")
    for caveat in caveats(report):
        text.append(f"  {caveat}\n", "yellow")
    return text


def _sources(summary: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each failed and each empty source, up to ``_MOST_SOURCES`` of each kind."""
    failed, empty = ([*map(_mapping, _list(summary.get(key)))] for key in ("failed_sources", "empty_sources"))
    said = [
        ("not read", [(each.get("source"), _mapping(each.get("error")).get("message")) for each in failed]),
        ("empty", [(each.get("source"), each.get("reason")) for each in empty]),
    ]
    for word, sources in said:
        for source, why in sources[:_MOST_SOURCES]:
            yield f"{word}: {visible(str(source))}: {visible(str(why))}"
        if len(sources) > _MOST_SOURCES:
            yield f"{word}: {len(sources) - _MOST_SOURCES} more, listed in the summary line"


def _limits(accounts: dict[str, Any]) -> Iterator[str]:
    """Yield a line with the measured limit of each account, up to ``_MOST_LIMITS``. Nobody publishes the limits."""
    for name, totals in islice(accounts.items(), _MOST_LIMITS):
        limit = _mapping(_mapping(totals).get("limit"))
        rate, burst, in_flight = (limit.get(key) for key in ("rate", "burst", "in_flight"))
        if not _is_number(rate):
            continue
        words = [f"rate limit of account {visible(str(name))}: about {_figure(rate)} requests a second"]
        if _is_number(burst) and burst >= 1:
            words.append(f"a burst of {_figure(burst)} beyond that")
        if _is_number(in_flight):
            words.append(f"{_figure(in_flight)} at a time")
        yield ", ".join(words)


def _by_account(accounts: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each account, most failures first. Yield none if there is only one account."""
    rows = []
    for name, totals in accounts.items():
        outcomes = _mapping(_mapping(totals).get("outcomes"))
        counts = {str(kind): count for kind, count in outcomes.items() if isinstance(count, int) and count > 0}
        failed = {kind: count for kind, count in counts.items() if kind not in _SUCCESSES}
        total = sum(counts.values())
        detail = "".join(f", {count} {visible(kind)}" for kind, count in failed.items())
        rows.append(
            (sum(failed.values()), f"account {visible(str(name))}: {total - sum(failed.values())} of {total}{detail}")
        )
    if len(rows) > 1:
        rows.sort(key=lambda row: -row[0])
        yield from (line for _, line in rows[:_MOST_ACCOUNTS])
        if len(rows) > _MOST_ACCOUNTS:
            yield f"… and {len(rows) - _MOST_ACCOUNTS} more accounts"


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _figure(value: float) -> str:
    return f"{value:.3g}" if value < _THREE_DIGITS else f"{value:.0f}"


def _is_number(value: object) -> TypeGuard[int | float]:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 <= value < _LONGEST_DURATION_S


def caveats(report: Report) -> list[str]:
    """Return why a report may be incomplete."""
    found = []
    if report.summary is None:
        known = f" --resume {visible(report.run_id)}" if report.run_id else " --resume latest"
        found.append(
            "There is no summary line: the run has not ended, and these are only the installs so far."
            f" If the run was stopped, finish it with wpe-backup run{known}"
        )
    if report.damage:
        found.append(f"The report is damaged: {told_damage(report.damage)}")
    return found


def told_damage(damage: Sequence[str]) -> str:
    """Return the damage in one sentence: up to ``_MOST_DAMAGE`` entries, and how many more there are."""
    more = len(damage) - _MOST_DAMAGE
    return "; ".join([*damage[:_MOST_DAMAGE], *([f"{more} more"] if more > 0 else [])])


def failures(lines: Sequence[dict[str, Any]]) -> Iterator[Text]:
    """Yield a row of column names, then a row for each failure. ``lines`` are the failures' lines of the report."""
    return columns(("install", "account", "outcome", "why", "request id", "message"), map(_cells, lines))


def _cells(line: dict[str, Any]) -> tuple[object, ...]:
    error = _mapping(line.get("error"))
    why = " ".join(str(error[key]) for key in ("kind", "status") if error.get(key))
    return (
        line.get("name") or line.get("install_id"),
        line.get("account"),
        line.get("outcome"),
        why,
        error.get("request_id") or line.get("request_id"),
        _message(error, line.get("look_for")),
    )


def _whole(value: object) -> str:
    return str(value) if isinstance(value, int) and abs(value) < _LONGEST_DURATION_S else "?"


def _message(error: dict[str, Any], look_for: object) -> str:
    """Return the error's message, the API's message for each field, and the markers to look for in the User Portal."""
    parts = [str(error.get("message") or "")]
    entries = error.get("errors")
    parts += [
        " ".join(str(entry[key]) for key in ("field", "message") if entry.get(key))
        for entry in map(_mapping, entries if isinstance(entries, list) else [])
    ]
    if isinstance(look_for, list) and look_for:
        parts.append(f"look for {' or '.join(map(str, look_for))}")
    return "; ".join(part for part in parts if part)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _duration(seconds: object) -> str:
    if not isinstance(seconds, int | float) or not math.isfinite(seconds) or not 0 <= seconds < _LONGEST_DURATION_S:
        return ""
    if seconds < _SECONDS_PER_MINUTE:
        return f" in {seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _SECONDS_PER_MINUTE)
    hours, minutes = divmod(minutes, _SECONDS_PER_MINUTE)
    return f" in {hours} h {minutes} min" if hours else f" in {minutes} min {rest} s"
