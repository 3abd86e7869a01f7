"""Make the plan of a run from a configuration: the backups to request, with their descriptions.

Pure: the run's id and start are arguments.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from orchestrator.marker import MAX_DESCRIPTION, describe
from orchestrator.model import BackupRequest, Plan, PlannedBackup

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from orchestrator.model import Account, Config, Install, Run

MAILS_WORTH_A_WARNING = 100
"""WP Engine sends one mail per backup and address. More mails than this to one address cause a warning."""


def make_plan(config: Config, run: Run) -> Plan:
    """Plan a backup of every enabled install, in the order of the configuration."""
    local = run.started_at.astimezone(config.timezone)
    enabled = [install for install in config.installs if install.enabled]
    shortened: list[str] = []
    backups: list[PlannedBackup] = []
    for install in enabled:
        text, cut = describe(install.description, _fields(install, run.id, local), run.id)
        if cut:
            shortened.append(install.label)
        request = BackupRequest(install.id or "", text, install.notification_emails)
        backups.append(PlannedBackup(len(backups), install, request))
    return Plan(
        run=run,
        backups=tuple(backups),
        disabled=len(config.installs) - len(enabled),
        warnings=tuple(_shortened_warning(shortened) + _mail_warnings(backups)),
    )


def budget_of(account: Account, *, per_host: bool) -> tuple[str, str]:
    """Return the key of the rate budget that ``account`` draws on.

    Accounts with the same base URL and user id are one user to the API, and share one budget. With ``per_host``, all
    accounts of a base URL share one.
    """
    return (account.base_url, "" if per_host else account.user_id)


def _fields(install: Install, run_id: str, local: datetime) -> dict[str, str]:
    return {
        "date": f"{local:%Y-%m-%d}",
        "time": f"{local:%H:%M}",
        "run_id": run_id,
        "name": install.label,
        "id": install.id or "",
        "environment": install.environment or "",
    }


def _shortened_warning(labels: list[str]) -> list[str]:
    if not labels:
        return []
    what = f"the description of {len(labels)} install(s) is shortened to {MAX_DESCRIPTION} characters"
    return [f"{what}, the run's marker included: {_named(labels)}"]


def mails_of(backups: Iterable[PlannedBackup]) -> Counter[str]:
    """Count the mails that WP Engine will send to each address: one per backup that will be requested."""
    return Counter(
        address
        for planned in backups
        if planned.request.install_id
        for address in dict.fromkeys(planned.request.notification_emails)
    )


def _mail_warnings(backups: Iterable[PlannedBackup]) -> list[str]:
    return [
        f"{address} will get {count} mails: WP Engine sends one per backup and address"
        for address, count in mails_of(backups).items()
        if count > MAILS_WORTH_A_WARNING
    ]


def differences(then: Iterable[PlannedBackup], now: Iterable[PlannedBackup]) -> list[str]:
    """Say how the plan ``now`` differs from the plan ``then``, which the run follows."""
    before, after = ({each.install.id or each.install.label: each for each in plan} for plan in (then, now))
    added = [each for each in after.values() if (each.install.id or each.install.label) not in before]
    gone = [each for each in before.values() if (each.install.id or each.install.label) not in after]
    changed = [each for key, each in before.items() if key in after and _said(each) != _said(after[key])]
    found = (
        (added, "of the configuration are not in this run, so it does not back them up"),
        (gone, "of this run are no longer in the configuration, but the run still backs them up"),
        (changed, "have other settings in the configuration now; this run keeps the settings that it began with"),
    )
    return [
        f"{len(each)} install(s) {what}: {_named([one.install.label for one in each])}" for each, what in found if each
    ]


def _said(planned: PlannedBackup) -> tuple[object, ...]:
    return planned.request, planned.install.account


def _named(labels: list[str]) -> str:
    return ", ".join(labels[:3]) + (", …" if len(labels) > 3 else "")  # noqa: PLR2004 - about as many as fit a line
