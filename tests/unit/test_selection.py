"""The selection of installs: options alone and together, lists, shards, and the message about an empty selection."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner, Result
from fakes import install_id
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.parser.shared import CONFIG, SELECTION
from orchestrator.cli.selecting import WORDS as OPTIONS
from orchestrator.cli.selecting import check_accounts, parse_shard, read_list, with_selection
from orchestrator.errors import ConfigError, OrchestratorError, UsageError
from orchestrator.model import Install
from orchestrator.selection import Selected, check_values, may_be_meant, selected, selection_from
from orchestrator.selection import Selection as SelectionOfAnybody

if TYPE_CHECKING:
    from pathlib import Path

HEX_ID = "ABCDEF00-0000-4000-8000-00000000000F"


Selection = partial(SelectionOfAnybody, words=OPTIONS)
"""A selection as the command line makes it."""


def install(number: int, name: str | None = None, **changes: object) -> Install:
    fields: dict[str, object] = {"id": install_id(number), "account": "default", "name": name or f"shop{number}"}
    fields |= {"description": "x", "notification_emails": ()}
    return Install(**(fields | changes))  # type: ignore[arg-type]  # the fields above are right


def names(found: Selected) -> list[str]:
    return [each.label for each in found.installs]


FLEET = (
    install(1, tags=("woo", "a"), environment="production"),
    install(2, tags=("a",), environment="staging"),
    install(3, account="acme", tags=("b",), environment="production"),
    install(4, account="acme", enabled=False, tags=("woo",), environment="production"),
    install(5, "shop1-old", account="acme"),
    install(6, "by-id", id=HEX_ID.lower(), account="globex"),
    install(7, "gone", id=None, tags=("a",)),
    install(8, "a[1]", environment="development"),
)
ENABLED = ["shop1", "shop2", "shop3", "shop1-old", "by-id", "gone", "a[1]"]


def listed(*entries: str) -> tuple[tuple[str, str], ...]:
    return tuple((entry, f"l:{line}") for line, entry in enumerate(entries, 1))


@pytest.mark.parametrize(
    ("selection", "meant"),
    [
        (Selection(), ENABLED),
        (Selection(names=("shop3", "shop1")), ["shop1", "shop3"]),
        (Selection(names=("shop1", "shop1", install_id(1))), ["shop1"]),
        (Selection(names=(HEX_ID,)), ["by-id"]),
        (Selection(names=("gone",)), ["gone"]),
        (Selection(names=("a[1]",)), ["a[1]"]),
        (Selection(listed=listed("shop2", HEX_ID, "shop2")), ["shop2", "by-id"]),
        (Selection(names=("shop1", "shop2"), listed=listed("shop2", "shop3")), ["shop2"]),
        (Selection(only=("shop?",)), ["shop1", "shop2", "shop3"]),
        (Selection(only=("shop[12]", "gone")), ["shop1", "shop2", "gone"]),
        (Selection(only=("a[[]1]",)), ["a[1]"]),
        (Selection(only=("SHOP1",), listed=listed("shop1", "by-id")), None),
        (Selection(only=("ABCDEF00*",)), ["by-id"]),
        (Selection(only=("*-00000000000[12]",)), ["shop1", "shop2"]),
        (Selection(exclude=("shop*", "a[[]*")), ["by-id", "gone"]),
        (Selection(only=("shop*",), exclude=("*1*",)), ["shop2", "shop3"]),
        (Selection(names=("shop1", "shop2"), exclude=("shop1",)), ["shop2"]),
        (Selection(tags=("woo", "b")), ["shop1", "shop3"]),
        (Selection(environments=("staging", "development")), ["shop2", "gone", "a[1]"]),
        (Selection(accounts=("acme", "globex")), ["shop3", "shop1-old", "by-id"]),
        (Selection(tags=("a",), environments=("production",)), ["shop1", "gone"]),
        (Selection(limit=2), ["shop1", "shop2"]),
        (Selection(limit=99), ENABLED),
        (Selection(accounts=("acme",), limit=1), ["shop3"]),
    ],
)
def test_values_of_one_option_widen_and_different_options_narrow(
    selection: SelectionOfAnybody, meant: list[str] | None
) -> None:
    if meant is None:
        with pytest.raises(UsageError, match="no install is selected"):
            selected(FLEET, selection)
    else:
        assert names(selected(FLEET, selection)) == meant


WORDS = st.text("ab1", min_size=1, max_size=3)
GLOBS = st.lists(st.text("ab1*?[]!", min_size=1, max_size=4), max_size=2).map(tuple)
SOME = st.lists(st.sampled_from("ab"), max_size=2).map(tuple)


@st.composite
def fleets(draw: st.DrawFn) -> list[Install]:
    return [
        install(number, draw(WORDS), enabled=draw(st.booleans()), account=draw(st.sampled_from("abc")), tags=draw(SOME))
        for number in range(draw(st.integers(0, 6)))
    ]


@given(fleets(), GLOBS, GLOBS, SOME, SOME)
def test_an_install_is_selected_if_it_is_enabled_and_meets_every_option(
    fleet: list[Install],
    only: tuple[str, ...],
    exclude: tuple[str, ...],
    tags: tuple[str, ...],
    accounts: tuple[str, ...],
) -> None:
    def matches(each: Install, globs: tuple[str, ...]) -> bool:
        ids = [glob for glob in globs if glob[0].isdigit()]  # any other glob this short matches only names
        return any(fnmatchcase(each.name or "", glob) for glob in globs) or any(
            fnmatchcase(each.id or "", glob) for glob in ids
        )

    selection = Selection(only=only, exclude=exclude, tags=tags, accounts=accounts)
    meant = [
        each
        for each in fleet
        if (matches(each, only) or not only)
        and not matches(each, exclude)
        and (set(tags) & set(each.tags) or not tags)
        and (each.account in accounts or not accounts)
    ]
    assert all(may_be_meant(each, selection) for each in meant)
    expected = tuple(each for each in meant if each.enabled)
    if not expected:
        with pytest.raises(UsageError):
            selected(fleet, selection)
        return
    found = selected(fleet, selection)
    assert (found.installs, found.disabled) == (expected, len(meant) - len(expected))
    assert all(part in selected(fleet, replace(selection, only=())).installs for part in found.installs)


@given(st.integers(1, 12), st.sets(st.integers(0, 999), min_size=1, max_size=30), st.integers(0, 999))
def test_shards_divide_the_selection_and_a_new_install_moves_no_other(
    count: int, numbers: set[int], further: int
) -> None:
    fleet = [install(number) for number in sorted(numbers)]
    shards = [selected(fleet, Selection(shard=(number, count))).installs for number in range(1, count + 1)]
    assert sorted(each.id or "" for shard in shards for each in shard) == [each.id for each in fleet]
    grown = [install(further + 1000, "new"), *fleet]
    for number, shard in enumerate(shards, 1):
        assert [each for each in selected(grown, Selection(shard=(number, count))).installs if each.name != "new"] == [
            *shard
        ]


def test_several_values_in_one_option_are_refused_with_a_hint() -> None:
    fleet = [install(1, "shop01", tags=("a", "Acme, Inc")), install(2, "shop02", tags=("b",))]
    refused = {
        Selection(tags=("a,b",)): "--tag a,b matches no install: repeat --tag for each value",
        Selection(tags=("a", "a,b")): "--tag a,b matches no install",
        Selection(only=("shop01,shop02",)): "--only shop01,shop02 matches no install: repeat --only for each value",
        Selection(exclude=("shop01,*2",)): "--exclude 'shop01,*2' matches no install: repeat --exclude for each value",
        Selection(exclude=("shop01 shop02",)): "--exclude 'shop01 shop02' matches no install: repeat --exclude for",
        Selection(only=("*01;none",)): "--only '*01;none' matches no install: repeat --only for each value",
        Selection(tags=("a b",)): "--tag 'a b' matches no install: repeat --tag for each value",
        Selection(exclude=("Shop02",)): "--exclude Shop02 matches no install: did you mean shop02?",
        Selection(only=("shop02.wpengine.com",)): "--only shop02.wpengine.com matches no install: did you mean shop02?",
    }
    for selection, words in refused.items():
        with pytest.raises(UsageError) as error:
            check_values(fleet, selection)
        assert str(error.value).startswith(words)
    for fine in (
        Selection(tags=("Acme, Inc", "none", "no such")),
        Selection(only=("shop0[1,2]", "none")),
        Selection(exclude=("old*", "Old Shop", "Shop09")),
    ):
        check_values(fleet, fine)
    with pytest.raises(UsageError, match="separate several names with spaces, not commas"):
        selected(fleet, Selection(names=("shop01,shop02",)))
    with pytest.raises(UsageError, match="; repeat --account for several"):
        check_accounts(Selection(accounts=("a,b",)), ["a", "b"])


def test_a_wrong_form_of_a_name_gets_the_right_name_as_a_hint() -> None:
    fleet = [install(1, "shop01"), install(2, "shop02")]
    for word in ("Shop02", "shop02.wpengine.com", "https://shop02.wpengine.com", "shop02.wpengine.com/"):
        with pytest.raises(UsageError, match=r"did you mean shop02\?"):
            selected(fleet, Selection(names=(word,)))
        found = selected(fleet, Selection(listed=((word, "l:1"), ("shop01", "l:2"))))
        assert found.unknown == ((word, "is not in the plan (l:1); did you mean shop02?"),)
    words = ("shop01,shop02", "shop01", "Shop09", "shop02.com", "shop01 shop02", "shop01;x", "Old Shop")
    listed = Selection(listed=tuple((word, f"l:{number}") for number, word in enumerate(words, 1)))
    assert [why for _, why in selected(fleet, listed).unknown] == [
        "is not in the plan (l:1); write one name or id per line",
        "is not in the plan (l:3)",
        "is not in the plan (l:4)",
        "is not in the plan (l:5); write one name or id per line",
        "is not in the plan (l:6); write one name or id per line",
        "is not in the plan (l:7)",
    ]


def test_shards_are_about_equal_and_the_same_in_every_version() -> None:
    fleet = [*map(install, range(4000))]
    sizes = [len(selected(fleet, Selection(shard=(number, 4))).installs) for number in range(1, 5)]
    assert sum(sizes) == 4000
    assert all(900 < size < 1100 for size in sizes)
    assert names(selected([*map(install, range(24))], Selection(shard=(1, 4)))) == [
        f"shop{number}" for number in (0, 4, 8, 12, 19, 22)
    ]


def test_an_install_without_an_id_is_sharded_by_its_name_and_a_shard_may_be_empty() -> None:
    fleet = [install(1, "gone", id=None)]
    assert sorted(len(selected(fleet, Selection(shard=(number, 3))).installs) for number in (1, 2, 3)) == [0, 0, 1]


def test_the_limit_counts_within_the_shard() -> None:
    fleet = [*map(install, range(40))]
    whole = selected(fleet, Selection(shard=(2, 3))).installs
    assert selected(fleet, Selection(shard=(2, 3), limit=5)).installs == whole[:5]
    assert len(whole) > 5


def test_entries_of_a_list_without_an_install_are_reported_once_with_the_reason() -> None:
    found = selected(FLEET, Selection(listed=listed("shop1", "zz", "shop4", "zz", install_id(99), install_id(4))))
    assert names(found) == ["shop1"]
    assert found.unknown == (
        ("zz", "is not in the plan (l:2)"),
        (install_id(99), "is not in the plan (l:5)"),
        ("shop4", "is disabled with enabled: false (l:3)"),
        (install_id(4), "is disabled with enabled: false (l:6)"),
    )
    assert found.disabled == 1


@pytest.mark.parametrize(
    "narrowed",
    [Selection(exclude=("zz", "shop4")), Selection(only=("shop1",)), Selection(names=("shop1",))],
)
def test_entries_that_other_options_exclude_are_not_reported_as_missing(narrowed: SelectionOfAnybody) -> None:
    found = selected(FLEET, replace(narrowed, listed=listed("shop1", "zz", "shop4")))
    assert (names(found), found.unknown, found.disabled) == (["shop1"], (), 0)


def test_a_disabled_entry_of_another_account_is_not_reported_as_missing() -> None:
    found = selected(FLEET, Selection(listed=listed("shop1", "shop4"), accounts=("default",)))
    assert found.unknown == ()


def test_each_missing_entry_and_each_disabled_install_belongs_to_one_shard() -> None:
    selection = Selection(listed=listed("shop1", "shop4", *(f"zz{number}" for number in range(20))))
    parts = [selected(FLEET, replace(selection, shard=(number, 3))) for number in (1, 2, 3)]
    assert sorted(each for part in parts for each in part.unknown) == sorted(selected(FLEET, selection).unknown)
    assert all(len(part.unknown) < 21 for part in parts)
    assert sum(part.disabled for part in parts) == 1


def test_an_enabled_install_has_precedence_over_a_disabled_one_of_the_same_name() -> None:
    fleet = [install(1, "shop", enabled=False), install(2, "shop")]
    assert [each.id for each in selected(fleet, Selection(names=("shop",))).installs] == [install_id(2)]
    assert selected(fleet, Selection(listed=listed("shop"))).unknown == ()


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        (Selection(names=("shop1", "shpo3", "x y")), "not in the plan: shpo3, 'x y'; did you mean shop3?"),
        (Selection(names=("SHOP2",)), "not in the plan: SHOP2; did you mean shop2?"),
        (Selection(names=("zz",)), "not in the plan: zz; wpe-backup run --dry-run shows the plan"),
        (Selection(names=("z*",)), "shows the plan; for a glob, use --only"),
        (Selection(names=("",)), "not in the plan: ''"),
        (Selection(names=(install_id(1)[:8],)), "not in the plan: 00000000"),
        (
            Selection(names=("shop4", "zz")),
            "disabled in the configuration (enabled: false): shop4\nnot in the plan: zz",
        ),
        (
            Selection(names=("shop1",), exclude=("shop*",)),
            "of 7 in the plan, shop1 leaves 1, --exclude 'shop*' leaves 3",
        ),
        (Selection(tags=("zz",), accounts=("acme",)), "of 7 in the plan, --account acme leaves 2, --tag zz leaves 0"),
        (Selection(only=tuple("bcdefg")), "--only b --only c --only d --only e --only f … leaves 0"),
        (Selection(environments=("production",), only=("shop4",)), "; matching but disabled (enabled: false): 1"),
        (Selection(listed=listed("zz")), "--installs-from leaves 0; zz is not in the plan (l:1)"),
        (Selection(listed=()), "--installs-from leaves 0"),
        (Selection(tags=("zz",), shard=(1, 2)), "--tag zz leaves 0"),
    ],
)
def test_an_empty_selection_is_an_error_that_shows_how_many_each_option_leaves(
    selection: SelectionOfAnybody, words: str
) -> None:
    with pytest.raises(UsageError) as error:
        selected(FLEET, selection)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("fleet", "words"),
    [
        ([], "there is no install to back up"),
        ([FLEET[3]], "there is no install to back up; disabled (enabled: false): 1"),
    ],
)
def test_a_plan_without_an_enabled_install_is_an_error(fleet: list[Install], words: str) -> None:
    with pytest.raises(UsageError) as error:
        selected(fleet, Selection())
    assert str(error.value) == words


def test_before_listings_are_read_only_account_and_tag_exclude_installs() -> None:
    selection = Selection(names=("x",), only=("x",), environments=("staging",), accounts=("acme",), tags=("b", "woo"))
    assert [each.label for each in FLEET if may_be_meant(each, selection)] == ["shop3", "shop4"]


def test_a_selection_knows_whether_it_has_options_and_names() -> None:
    assert not Selection().is_given
    assert Selection(listed=()).is_given
    assert Selection(limit=1).is_given
    assert not Selection(limit=1).is_named
    assert Selection(names=("a",)).is_named


def asked(*arguments: str, stdin: str | None = None, **environment: str) -> Result:
    """Run a command with these options, which prints the selection that it gets as JSON."""

    def work(*, config_file: str | None, selection: SelectionOfAnybody) -> None:
        click.echo(json.dumps(asdict(replace(selection, words={})) | {"config_file": config_file}))

    command = click.Command("asked", params=[CONFIG, *SELECTION], callback=with_selection(work))
    return CliRunner(env=environment).invoke(command, arguments, input=stdin)


def given_of(result: Result) -> dict[str, object]:
    assert result.exit_code == 0, result.output
    return {name: value for name, value in json.loads(result.output).items() if value not in (None, [], {})}


def test_options_come_from_the_command_line_and_repeat() -> None:
    arguments = "--only a* --only b[1,2] --exclude c --tag t --environment staging --account x --limit 3 --shard 2/4"
    assert given_of(asked(*arguments.split())) == {
        "only": ["a*", "b[1,2]"],
        "exclude": ["c"],
        "tags": ["t"],
        "environments": ["staging"],
        "accounts": ["x"],
        "limit": 3,
        "shard": [2, 4],
    }
    assert given_of(asked()) == {}


def test_options_come_from_the_environment_with_commas_between_values() -> None:
    found = asked(
        WPE_BACKUP_ONLY="a*, b c,",
        WPE_BACKUP_ENVIRONMENT="production,staging",
        WPE_BACKUP_ACCOUNT="x",
        WPE_BACKUP_TAG=" , ",
        WPE_BACKUP_LIMIT="3",
    )
    wanted = {"only": ["a*", "b c"], "environments": ["production", "staging"], "accounts": ["x"], "limit": 3}
    assert given_of(found) == wanted
    assert given_of(asked("--only", "z", WPE_BACKUP_ONLY="a,b")) == {"only": ["z"]}
    assert "'nope' is not one of" in asked(WPE_BACKUP_ENVIRONMENT="staging,nope").output


@pytest.mark.parametrize(
    "option",
    ["--limit=0", "--limit=x", "--environment=prod", "--shard=0/2", "--shard=3/2", "--shard=1", "--shard=1/10001"],
)
def test_impossible_values_of_options_are_refused(option: str) -> None:
    result = asked(option)
    assert result.exit_code == 2
    assert option.partition("=")[0] in result.output


@pytest.mark.parametrize("text", ["", "1/", "/1", "1/2/3", "-1/2", " 1/2", "1.0/2", "\u0661/\u0662", "999999/999999"])
def test_text_that_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not I/N, such as 1/4"):
        parse_shard(text)


def test_a_list_holds_names_and_ids_with_their_places(tmp_path: Path) -> None:
    path = tmp_path / "l.txt"
    path.write_bytes("\ufeffshop1\r\n\r\n# shop2\n   # also none\n  Ünicode shop \n\nshop1#x".encode())
    assert read_list(str(path)) == (("shop1", f"{path}:1"), ("Ünicode shop", f"{path}:5"), ("shop1#x", f"{path}:7"))
    assert given_of(asked("--installs-from", str(path)))["listed"] == [[*each] for each in read_list(str(path))]


def test_a_list_may_be_standard_input() -> None:
    assert given_of(asked("--installs-from", "-", stdin="a\nb\n"))["listed"] == [["a", "<stdin>:1"], ["b", "<stdin>:2"]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ":1:1: has no name and no id"),
        (b"\n# a\n", ":1:1: has no name and no id"),
        (b"a\nb\xff\n", ":2:2: is not UTF-8 text"),
        ("a\nb\n".encode("utf-16"), ":1:1: is UTF-16 text: save it as UTF-8"),
        (b"a\n\nb\0c\n", ":3:1: has a control character"),
        (b"a\n" + b"x" * 5000, ":2:1: is longer than the 4096 characters of a name"),
    ],
)
def test_an_invalid_list_is_refused_with_its_place(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "l.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        read_list(str(path))
    assert str(error.value).startswith(f"{path}{words}")


def test_a_binary_list_shows_few_problems_and_an_unreadable_list_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "l.bin"
    path.write_bytes(b"\0\n" * 1000)
    with pytest.raises(ConfigError) as error:
        read_list(str(path))
    assert len(error.value.problems) == 10
    for name in (tmp_path, tmp_path / "nope"):
        with pytest.raises(ConfigError, match="cannot be read: "):
            read_list(str(name))


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"])
def test_standard_input_is_not_read_twice(name: str) -> None:
    result = asked("-c", name, "--installs-from", "-")
    assert isinstance(result.exception, OrchestratorError)
    assert "would both read standard input" in str(result.exception)


def test_a_pipe_is_not_read_twice_under_different_names(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    (tmp_path / "list").write_text("shop1\n")
    source, sink = os.pipe()
    try:
        for names in ((f"/dev/fd/{source}", f"/proc/self/fd/{source}"), (tmp_path / "fifo", tmp_path / "link")):
            result = asked("-c", str(names[0]), "--installs-from", str(names[1]))
            assert "would both read the same pipe, which can be read only once" in str(result.exception)
    finally:
        os.close(source)
        os.close(sink)
    same = asked("-c", str(tmp_path / "list"), "--installs-from", str(tmp_path / "list"))
    assert same.exception is None, "a file is read from its beginning each time"


def test_an_account_that_is_not_in_the_configuration_is_an_error() -> None:
    check_accounts(Selection(accounts=("acme",)), {"acme": 1, "default": 2})
    check_accounts(Selection(), [])
    with pytest.raises(UsageError) as error:
        check_accounts(Selection(accounts=("acme", "acmee", "zz")), ["acme", "default"])
    assert str(error.value) == (
        "there is no such account: 'acmee'; did you mean acme?, 'zz'; the configuration has acme, default"
    )


@pytest.mark.parametrize(
    "selection",
    [
        Selection(),
        Selection(only=("a*",), exclude=("b",), tags=("t",), environments=("staging",), accounts=("x",)),
        Selection(limit=3, shard=(2, 4)),
    ],
)
def test_a_selection_is_stored_as_json(selection: SelectionOfAnybody) -> None:
    assert selection_from(json.loads(json.dumps(selection.told()))) == selection


@pytest.mark.parametrize("selection", [Selection(names=("shop1",)), Selection(listed=(("shop1", "list.txt:1"),))])
def test_a_stored_selection_with_names_selects_no_further_installs(
    selection: SelectionOfAnybody,
) -> None:
    again = selection_from(json.loads(json.dumps(selection.told())))
    assert again == Selection(listed=())
    assert again.told() == selection.told()
    with pytest.raises(UsageError):
        selected([Install(None, "x", "d", (), "shop1")], again)


@pytest.mark.parametrize(
    "change",
    [{"only": "a"}, {"tags": [1]}, {"limit": "3"}, {"shard": "0/4"}, {"shard": 4}, {"named": None}, {"accounts": None}],
)
def test_invalid_stored_selections_are_ignored(change: dict[str, object]) -> None:
    assert selection_from(Selection().told() | change) is None
    assert selection_from(None) is None
