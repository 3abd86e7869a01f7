"""The report's lines as JSON objects: one ``backup`` line per outcome, one ``summary`` line at the end."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC
from typing import TYPE_CHECKING, Any

from orchestrator.listings import EmptySource
from orchestrator.marker import marker
from orchestrator.model import Learned
from orchestrator.summary import AccountTotals, Line

if TYPE_CHECKING:
    from datetime import datetime

    from orchestrator.model import Backup, ErrorInfo, FailedSource, Outcome
    from orchestrator.summary import Summary

SCHEMA = 1


_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def line_of(run_id: str, outcome: Outcome) -> Line:
    """Return the line of an outcome of the run ``run_id``."""
    spent = outcome.spent
    retries = max(0, spent.tries + spent.throttled - 1)
    data = encode(backup_line(run_id, outcome))
    planned = outcome.planned
    return Line(planned.position, outcome.kind, retries, outcome.reconciled, data, planned.install.account)


def backup_line(run_id: str, outcome: Outcome) -> dict[str, Any]:
    """Return the line of an outcome as an object."""
    install, spent = outcome.planned.install, outcome.spent
    return {
        "type": "backup",
        "schema": SCHEMA,
        "run_id": run_id,
        "install_id": install.id,
        "name": install.name,
        "account": install.account,
        "environment": install.environment,
        "tags": list(install.tags),
        "description": outcome.planned.request.description,
        "outcome": outcome.kind.value,
        "backup": backup_fields(outcome.backup) if outcome.backup else None,
        "error": error_fields(outcome.error) if outcome.error else None,
        "reason": outcome.reason,
        "earlier_backups": [{"id": backup.id, "status": backup.status} for backup in outcome.earlier],
        "attempts": spent.attempts,
        "throttled": spent.throttled,
        "reconciled": outcome.reconciled,
        "settled_by": None,
        "look_for": [marker(each) for each in outcome.sought],
        "started_at": iso(spent.started_at),
        "finished_at": iso(outcome.finished_at),
        "duration_s": round(outcome.duration_s, 3),
        "request_id": outcome.request_id,
    }


def backup_fields(backup: Backup) -> dict[str, Any]:
    """Return ``backup`` as an object. ``asdict`` takes ten times as long."""
    return {
        "id": backup.id,
        "status": backup.status,
        "description": backup.description,
        "create_time": backup.create_time,
        "complete_time": backup.complete_time,
        "wordpress_version": backup.wordpress_version,
    }


def summary_line(summary: Summary) -> dict[str, Any]:
    """Return the summary line, which is also the content of ``summary.json``."""
    return {
        "type": "summary",
        "schema": SCHEMA,
        "run_id": summary.run_id,
        "started_at": iso(summary.started_at),
        "finished_at": iso(summary.finished_at),
        "duration_s": round(summary.duration_s, 3),
        "planned": summary.planned,
        "disabled": summary.disabled,
        "outcomes": {kind.value: count for kind, count in summary.outcomes.items()},
        "requests": summary.requests,
        "retries": summary.retries,
        "throttled": summary.throttled,
        "reconciled": summary.reconciled,
        "accounts": {name: _account(each) for name, each in summary.accounts.items()},
        "failed_sources": list(summary.failed_sources),
        "empty_sources": list(summary.empty_sources),
        "selection": summary.selection,
        "exit_code": summary.exit_code,
        "config": summary.config,
        "report": summary.report,
        "version": summary.version,
    }


def source_fields(source: FailedSource | EmptySource) -> dict[str, Any]:
    """Return a failed or an empty source as an object."""
    if isinstance(source, EmptySource):
        return {"source": source.source, "reason": source.reason}
    error = {"kind": source.error.kind.value, "status": source.error.status, "message": source.error.message}
    return {"source": source.source, "account": source.account, "error": error}


def _account(totals: AccountTotals) -> dict[str, Any]:
    limit, rates = totals.limit, totals.refused_rates
    return {
        "requests": totals.requests,
        "throttled": totals.throttled,
        "rate": round(totals.rate, 3),
        "outcomes": {kind.value: count for kind, count in totals.outcomes.items() if count},
        "limit": limit and {"rate": round(limit.rate, 3), "burst": round(limit.burst), "in_flight": limit.in_flight},
        "evidence": {
            "refused_rates": rates and [round(rate, 3) for rate in rates],
            "retry_after": totals.named_moments,
            "headers": dict(totals.headers),
        },
    }


def account_totals(fields: dict[str, Any]) -> AccountTotals:
    """Return one account's totals from a summary line that this program wrote."""
    limit, evidence = fields["limit"], fields["evidence"]
    rates = evidence["refused_rates"]
    return AccountTotals(
        requests=fields["requests"],
        throttled=fields["throttled"],
        rate=fields["rate"],
        limit=limit and Learned(limit["rate"], limit["burst"], limit["in_flight"]),
        refused_rates=rates and (rates[0], rates[1]),
        named_moments=evidence["retry_after"],
        headers=tuple(evidence["headers"].items()),
    )


def error_fields(error: ErrorInfo) -> dict[str, Any]:
    """Return ``error`` as an object."""
    return asdict(error) | {"kind": error.kind.value, "errors": [asdict(entry) for entry in error.errors]}


def encode(line: dict[str, Any]) -> bytes:
    """Return ``line`` as one line of UTF-8."""
    return _COMPACT.encode(line).encode("utf-8", "backslashreplace") + b"\n"


def iso(moment: datetime | None) -> str | None:
    """Format an instant for the report: UTC, milliseconds, ``Z``."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
