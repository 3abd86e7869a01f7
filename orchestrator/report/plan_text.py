"""Show a plan before anything is sent: a table and totals for people, JSON objects for machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.plan import mails_of
from orchestrator.report.columns import columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.text import Text

    from orchestrator.model import Plan, PlannedBackup


def plan_table(plan: Plan) -> Iterator[Text]:
    """Yield a row of column names, then a row for each planned backup."""
    return columns(("install", "id", "account", "environment", "emails", "description"), map(_cells, plan.backups))


def _cells(planned: PlannedBackup) -> tuple[str | None, ...]:
    install, request = planned.install, planned.request
    emails = ", ".join(request.notification_emails) or "nobody"
    return (install.name, install.id, install.account, install.environment, emails, request.description)


def plan_totals(plan: Plan) -> str:
    """Return in one line what the run would do: backups, accounts, mails, and the installs without an id."""
    requested = [planned for planned in plan.backups if planned.request.install_id]
    accounts = len({planned.install.account for planned in requested})
    mails = mails_of(requested)
    backups = f"{_count(len(requested), 'install')} of {_count(accounts, 'account')} would be backed up"
    sent = f"{_count(mails.total(), 'mail')} to {_count(len(mails), 'address', 'addresses')}" if mails else "no mail"
    parts = [backups, f"WP Engine would send {sent}"]
    lost = len(plan.backups) - len(requested)
    if lost:
        parts.append(f"{_count(lost, 'install')} could not be requested: no id is known")
    return "; ".join(parts)


def plan_lines(plan: Plan) -> list[dict[str, Any]]:
    """Return a JSON object for each planned backup, with the field names of the report."""
    return [
        {
            "type": "planned",
            "install_id": planned.install.id,
            "name": planned.install.name,
            "account": planned.install.account,
            "environment": planned.install.environment,
            "tags": list(planned.install.tags),
            "description": planned.request.description,
            "notification_emails": list(planned.request.notification_emails),
        }
        for planned in plan.backups
    ]


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
