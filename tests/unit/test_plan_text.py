"""The output of a plan before anything is sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from fakes import install_id

from orchestrator.model import BackupRequest, Install, Plan, PlannedBackup, Run
from orchestrator.report.plan_text import plan_lines, plan_table, plan_totals

ONE_MAIL = "1 install of 1 account would be backed up; WP Engine would send 1 mail to 1 address"
RUN = Run("01JD0000000000000000000000", datetime(2026, 11, 24, tzinfo=UTC))


def planned(number: int, *emails: str, account: str = "default", known: bool = True) -> PlannedBackup:
    found = install_id(number) if known else None
    install = Install(found, account, "{date}", emails, name=f"shop{number}", environment="staging", tags=("a",))
    return PlannedBackup(number, install, BackupRequest(found or "", f"Nightly {number}", emails))


def plan(*backups: PlannedBackup) -> Plan:
    return Plan(RUN, backups)


def test_the_table_has_a_row_for_each_planned_backup_in_aligned_columns() -> None:
    rows = [row.plain for row in plan_table(plan(planned(1, "a@b", "c@d"), planned(22, account="agency", known=False)))]
    assert rows == [
        "install  id                                    account  environment  emails    description",
        "shop1    00000000-0000-4000-8000-000000000001  default  staging      a@b, c@d  Nightly 1",
        "shop22   -                                     agency   staging      nobody    Nightly 22",
    ]


def test_terminal_codes_in_names_are_escaped() -> None:
    evil = PlannedBackup(
        0, Install("i", "\x1b[2J", "d", (), name="n\x07"), BackupRequest("i", "\u202edesc", ("a\r@b",))
    )
    text = "\n".join(row.plain for row in plan_table(plan(evil)))
    assert r"n\x07" in text
    assert r"\u202edesc" in text
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(text)


@pytest.mark.parametrize(
    ("backups", "words"),
    [
        ((), "0 installs of 0 accounts would be backed up; WP Engine would send no mail"),
        ((planned(1),), "1 install of 1 account would be backed up; WP Engine would send no mail"),
        (
            (planned(1, "a@b"),),
            ONE_MAIL,
        ),
        (
            (planned(1, "a@b"), planned(2, "a@b", "c@d", account="x")),
            "2 installs of 2 accounts would be backed up; WP Engine would send 3 mails to 2 addresses",
        ),
        (
            (planned(1, "a@b"), planned(2, "a@b", account="x", known=False)),
            f"{ONE_MAIL}; 1 install could not be requested: no id is known",
        ),
    ],
)
def test_the_totals_say_how_many_backups_and_mails_there_would_be(
    backups: tuple[PlannedBackup, ...], words: str
) -> None:
    assert plan_totals(plan(*backups)) == words


def test_the_json_output_has_an_object_for_each_planned_backup() -> None:
    (line,) = plan_lines(plan(planned(1, "a@b", known=False)))
    assert json.loads(json.dumps(line)) == {
        "type": "planned",
        "install_id": None,
        "name": "shop1",
        "account": "default",
        "environment": "staging",
        "tags": ["a"],
        "description": "Nightly 1",
        "notification_emails": ["a@b"],
    }
