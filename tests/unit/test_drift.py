"""How a configuration differs from listings: a table of the views of accounts."""

from __future__ import annotations

import pytest
from fakes import install_id

from orchestrator.drift import DriftKind, View, differences
from orchestrator.listings import ListedInstall
from orchestrator.model import Install

UNPROTECTED, PENDING, GONE, RENAMED = (
    DriftKind.UNPROTECTED,
    DriftKind.PENDING,
    DriftKind.GONE,
    DriftKind.RENAMED,
)


def listed(number: int, name: str | None = None, status: str = "active") -> ListedInstall:
    return ListedInstall(install_id(number), name or f"shop{number}", status=status)


def configured(number: int | None, name: str | None = None, account: str = "a", *, enabled: bool = True) -> Install:
    place = None if number is None else install_id(number)
    return Install(place, account, "text", (), name=name, enabled=enabled)


def view(*installs: ListedInstall, account: str = "a", discovered: tuple[int, ...] | None = ()) -> View:
    ids = None if discovered is None else frozenset(map(install_id, discovered))
    return View(account, installs, ids)


@pytest.mark.parametrize(
    ("installs", "views", "expected"),
    [
        ([], [], []),
        ([configured(1), configured(None, "shop2")], [view(listed(1), listed(2))], []),
        ([configured(1, enabled=False)], [view(listed(1))], []),
        ([configured(1)], [view(listed(1), listed(2))], [(UNPROTECTED, "shop2")]),
        ([configured(1)], [view(listed(1), listed(2, status="pending"))], [(PENDING, "shop2")]),
        ([configured(1, "shop1")], [view(listed(1, status="pending"))], []),
        ([], [view(listed(1), listed(2), discovered=(1, 2))], []),
        ([], [view(listed(1), discovered=None)], []),
        ([configured(1), configured(None, "shop9")], [view()], [(GONE, install_id(1)), (GONE, "shop9")]),
        ([configured(1, "old")], [view(listed(1, "new"))], [(RENAMED, "new")]),
        ([configured(None, "old")], [view(listed(1, "new"))], [(UNPROTECTED, "new"), (GONE, "old")]),
        ([configured(1, account="b")], [view(listed(1))], []),
        ([configured(1), configured(2, account="b")], [view(listed(1)), view(account="b")], [(GONE, install_id(2))]),
        ([], [view(listed(1)), view(listed(1), account="b")], [(UNPROTECTED, "shop1")]),
        ([], [view(listed(1)), view(listed(1), account="b", discovered=(1,))], []),
        (
            [configured(3), configured(4, "x")],
            [view(listed(4), listed(2), listed(1), listed(5, status="pending"))],
            [
                (UNPROTECTED, "shop1"),
                (UNPROTECTED, "shop2"),
                (GONE, install_id(3)),
                (RENAMED, "shop4"),
                (PENDING, "shop5"),
            ],
        ),
    ],
)
def test_the_drift_of_an_install_depends_on_who_backs_it_up_and_who_lists_it(
    installs: list[Install], views: list[View], expected: list[tuple[DriftKind, str]]
) -> None:
    assert [(each.kind, each.name) for each in differences(installs, views)] == expected


def test_a_note_names_the_account_that_shows_an_install_and_its_old_name() -> None:
    found = differences(
        [configured(1), configured(2, "old", account="b")], [view(), view(listed(1), listed(2), account="b")]
    )
    assert [(each.kind, each.account, each.note) for each in found] == [
        (GONE, "a", "account b shows it"),
        (RENAMED, "b", "was old"),
    ]
