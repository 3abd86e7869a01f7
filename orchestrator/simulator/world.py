"""The data of the stand-in: WP Engine's accounts and installs, and the backups that it made."""

from __future__ import annotations

import html
import random
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from orchestrator.simulator.chance import between, draw
from orchestrator.simulator.rehearsal import REHEARSAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.simulator.scenario import Scenario, SimulatedAccount, SimulatedInstall

WORDPRESS = "6.8.1"
CUT_TO = 20

NIGHT_AGO = timedelta(hours=12)
"""The last night began this long before the stand-in started."""
CHECKPOINT_TAKES = timedelta(minutes=5)
A_DAY = timedelta(days=1)


def utc_now() -> datetime:
    """Return the time of this machine's clock."""
    return datetime.now(UTC)


@dataclass(slots=True)
class MadeBackup:
    """One backup that was made.

    ``made_at`` is in seconds since the first request, ``create_time`` is a time of the server's clock. The backup ends
    ``ends_after_s`` later, and ``aborts`` tells whether it is aborted then.
    """

    id: str
    install_id: str
    description: str
    notification_emails: list[str]
    made_at: float
    create_time: datetime
    ends_after_s: float
    aborts: bool = False

    def status(self, at: float, first: str = "requested") -> str:
        """Return the status at ``at`` of a backup that begins with the status ``first``."""
        age_s = at - self.made_at
        if age_s >= self.ends_after_s or first == "completed":
            return "aborted" if self.aborts else "completed"
        return first if first == "initiated" or age_s < self.ends_after_s / 2 else "in_progress"

    def as_json(self, at: float, first: str) -> dict[str, Any]:
        """Return the Backup object that the API shows at ``at``."""
        status = self.status(at, first)
        ended = iso(self.create_time + timedelta(seconds=self.ends_after_s))
        return {
            "id": self.id,
            "status": status,
            "description": self.description,
            "create_time": iso(self.create_time),
            "complete_time": ended if status == "completed" else None,
            "wordpress_version": WORDPRESS,
        }


@dataclass(slots=True)
class World:
    """The accounts, installs and backups of one stand-in.

    ``now`` is the clock of this machine. The server's clock differs from it by the scenario's ``clock_skew``.
    """

    scenario: Scenario
    now: Callable[[], datetime] = utc_now
    accounts: list[dict[str, Any]] = field(default_factory=list)
    installs: dict[str, dict[str, Any]] = field(default_factory=dict)
    backups: dict[str, list[MadeBackup]] = field(default_factory=dict)
    _night_at: datetime = field(init=False)

    def __post_init__(self) -> None:
        """Create the accounts and installs of the scenario, or of the rehearsal if the scenario has none."""
        self._night_at = self.clock() - NIGHT_AGO
        for account in self._accounts():
            account_id = _id(account.name)
            self.accounts.append({"id": account_id, "name": account.name, "nickname": account.name})
            for install in account.all_installs():
                shown = _installation(install, account.name, account_id)
                self.installs[shown["id"]] = shown

    def _accounts(self) -> tuple[SimulatedAccount, ...]:
        return (REHEARSAL,) if self.scenario.accounts is None else self.scenario.accounts

    def has(self, install_id: str) -> bool:
        """Tell whether an install exists. If the scenario names no accounts, every install exists."""
        return self.scenario.accounts is None or install_id in self.installs

    def make(self, install_id: str, body: dict[str, Any], at: float) -> MadeBackup:
        """Make a backup of an install, and return it."""
        settings, seed = self.scenario.backups, self.scenario.seed
        made = self.backups.setdefault(install_id, [])
        name = f"backup {install_id} {len(made)}"
        backup = MadeBackup(
            id=str(uuid.uuid4()),
            install_id=install_id,
            description=body["description"],
            notification_emails=body["notification_emails"],
            made_at=at,
            create_time=self.clock(),
            ends_after_s=between(*settings.completes_after, seed, name),
            aborts=draw(seed, f"{name} ends") < settings.aborts,
        )
        made.append(backup)
        return backup

    def clock(self) -> datetime:
        """Return the time of the server's clock."""
        return self.now() + timedelta(seconds=self.scenario.clock_skew)

    def shown(self, backup: MadeBackup, at: float) -> dict[str, Any]:
        """Return a backup in the form that answers have at ``at``."""
        shown = backup.as_json(at, self.scenario.backups.first_status)
        if self.scenario.backups.fields == "minimal":
            return {"id": shown["id"], "status": shown["status"]}
        return _spoiled(shown, self.scenario.listing.descriptions)

    def listed(self, install_id: str, at: float) -> list[dict[str, Any]]:
        """Return the listing of an install's backups at ``at``."""
        listing = self.scenario.listing
        made = [backup for backup in self.backups.get(install_id, []) if at >= backup.made_at + listing.lag]
        newest_first = sorted([*made, *self._nightly(install_id, at)], key=attrgetter("create_time"), reverse=True)
        shown = [self.shown(backup, at) for backup in newest_first]
        if listing.order == "oldest":
            shown.reverse()
        elif listing.order == "random":
            random.Random(f"{self.scenario.seed} {install_id}").shuffle(shown)  # noqa: S311 - an order, not a secret
        return shown

    def find(self, install_id: str, backup_id: str, at: float) -> MadeBackup | None:
        """Return the backup of an install with this id, ``None`` if there is none."""
        candidates = [*self.backups.get(install_id, []), *self._nightly(install_id, at)]
        return next((backup for backup in candidates if backup.id == backup_id), None)

    def _nightly(self, install_id: str, at: float) -> Iterator[MadeBackup]:
        """Yield WP Engine's own nightly backups, the newest first. All are completed.

        Nights count from the start of the stand-in, not from the hour of the day. So the newest one is about half a day
        old at every start.
        """
        now = self.clock()
        first = self._night_at + timedelta(minutes=int(draw(self.scenario.seed, f"nightly {install_id}") * 60))
        newest = first + (now - first - CHECKPOINT_TAKES) // A_DAY * A_DAY
        for night in range(self.scenario.listing.nightly):
            moment = newest - night * A_DAY
            yield MadeBackup(
                id=_id(f"{install_id} {moment.date()}"),
                install_id=install_id,
                description="Automatic backup",
                notification_emails=[],
                made_at=at - (now - moment).total_seconds(),
                create_time=moment,
                ends_after_s=CHECKPOINT_TAKES.total_seconds(),
            )


def _spoiled(shown: dict[str, Any], descriptions: str) -> dict[str, Any]:
    match descriptions:
        case "cut":
            return shown | {"description": shown["description"][:CUT_TO]}
        case "escaped":
            return shown | {"description": html.escape(shown["description"]).replace("[", "&#91;")}
        case "missing":
            return {key: value for key, value in shown.items() if key != "description"}
        case _:
            return shown


def _installation(install: SimulatedInstall, account_name: str, account_id: str) -> dict[str, Any]:
    return {
        "id": (install.id or _id(f"{account_name}/{install.name}")).lower(),
        "name": install.name,
        "account": {"id": account_id},
        "php_version": "8.2",
        "status": install.status,
        "site": {"id": _id(f"site {account_name}/{install.site or install.name}")},
        "cname": f"{install.name}.wpengine.example",
        "stable_ips": None,
        "environment": install.environment,
        "primary_domain": f"{install.name}.wpengine.example",
        "is_multisite": False,
        "created_at": "2025-06-12T09:56:42.386Z",
    }


@lru_cache(100_000)
def _id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"wpe-backup simulate {name}"))


def iso(moment: datetime) -> str:
    """Return an instant in the API's format: UTC, whole seconds."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
