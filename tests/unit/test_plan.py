"""The plan, the description, the marker."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from fakes import install_id

from orchestrator.marker import MAX_DESCRIPTION, describe, marker, template_fault
from orchestrator.model import Account, Config, Install, PlannedBackup, Run
from orchestrator.plan import budget_of, differences, mails_of, make_plan

RUN = Run("01JD0000000000000000000000", datetime(2026, 11, 24, 23, 30, tzinfo=UTC))


def install(number: int = 1, **changes: object) -> Install:
    fields: dict[str, object] = {
        "id": install_id(number),
        "account": "default",
        "description": "{date} {time} {name} {id} {environment} {run_id} {{x}}",
        "notification_emails": ("a@b",),
        "name": f"shop{number}",
        "environment": "staging",
    }
    return Install(**(fields | changes))  # type: ignore[arg-type]  # the fields above are right


def config(*installs: Install) -> Config:
    return Config("f.yaml", {}, installs, timezone=ZoneInfo("Europe/Berlin"))


def test_the_description_has_its_fields_in_the_configured_zone_and_ends_with_the_marker() -> None:
    (planned,) = make_plan(config(install()), RUN).backups
    assert planned.request.description == (
        f"2026-11-25 00:30 shop1 {install_id(1)} staging {RUN.id} {{x}} [wpe-backup {RUN.id}]"
    )
    assert planned.request.notification_emails == ("a@b",)


def test_an_install_without_a_name_is_labelled_with_its_id() -> None:
    plan = make_plan(config(install(name=None, environment=None, description="{name}/{environment}")), RUN)
    assert plan.backups[0].request.description == f"{install_id(1)}/ {marker(RUN.id)}"


def test_disabled_installs_are_counted_and_not_planned() -> None:
    plan = make_plan(config(install(1), install(2, enabled=False), install(3)), RUN)
    assert [planned.install.id for planned in plan.backups] == [install_id(1), install_id(3)]
    assert plan.disabled == 1
    assert [planned.position for planned in plan.backups] == [0, 1]


def test_a_long_description_is_shortened_but_never_its_marker() -> None:
    plan = make_plan(config(*(install(number, description="é" * 300) for number in range(5))), RUN)
    text = plan.backups[0].request.description
    assert len(text) == MAX_DESCRIPTION
    assert text.endswith(f"…{' ' + marker(RUN.id)}")
    assert "5 install(s) is shortened" in plan.warnings[0]
    assert plan.warnings[0].endswith("shop0, shop1, shop2, …")


def test_a_description_that_just_fits_is_not_shortened() -> None:
    room = MAX_DESCRIPTION - len(f" {marker(RUN.id)}")
    assert describe("x" * room, {}, RUN.id) == ("x" * room + f" {marker(RUN.id)}", False)
    assert describe("x" * (room + 1), {}, RUN.id)[1]


def test_more_than_a_hundred_mails_to_one_address_cause_a_warning() -> None:
    assert make_plan(config(*map(install, range(100))), RUN).warnings == ()
    (warning,) = make_plan(config(*map(install, range(101))), RUN).warnings
    assert warning.startswith("a@b will get 101 mails")


def test_differences_between_the_configuration_and_a_runs_plan_are_reported() -> None:
    def planned(*installs: Install) -> tuple[PlannedBackup, ...]:
        return make_plan(config(*installs), RUN).backups

    then = planned(*map(install, range(5)))
    assert differences(then, planned(*map(install, reversed(range(5))))) == []
    now = planned(
        install(1), install(2, description="new"), install(3, account="b"), install(4, tags=("x",)), install(9)
    )
    added, gone, changed = differences(then, now)
    assert added.startswith("1 install(s) of the configuration are not in this run")
    assert gone.startswith("1 install(s) of this run are no longer in the configuration")
    assert changed.startswith("2 install(s) have other settings in the configuration now")
    assert [each.rpartition(": ")[2] for each in (added, gone, changed)] == ["shop9", "shop0", "shop2, shop3"]


@pytest.mark.parametrize("template", ["", " ", "{", "}", "{nope}", "{}", "{0}", "{date!r}", "{date:>9}", "{date.year}"])
def test_a_template_that_cannot_be_rendered_is_refused(template: str) -> None:
    assert template_fault(template)


def test_a_template_with_every_field_is_accepted() -> None:
    assert template_fault("{date} {time} {run_id} {name} {id} {environment} {{}}") is None


def test_accounts_of_one_user_at_one_url_share_a_budget() -> None:
    first, same, other = (Account(str(n), "https://x", user, "p") for n, user in enumerate(("u", "u", "v")))
    assert budget_of(first, per_host=False) == budget_of(same, per_host=False)
    assert budget_of(first, per_host=False) != budget_of(other, per_host=False)
    assert budget_of(first, per_host=True) == budget_of(other, per_host=True)


def test_mails_are_counted_once_per_address_and_requested_backup() -> None:
    installs = (
        install(1, notification_emails=("a@b", "c@d")),
        install(2, notification_emails=("c@d", "c@d")),
        install(3, notification_emails=()),
        install(4, id=None),
    )
    assert mails_of(make_plan(config(*installs), RUN).backups) == {"a@b": 1, "c@d": 2}
