"""Which runs belong to a configuration: runs of release 0.1 are found, and other configurations are named."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from fakes import planned
from states import AT, with_store

from orchestrator.errors import UsageError
from orchestrator.journal.runs import KnownRun, RunRecord, begin
from orchestrator.journal.store import FILE_NAME
from orchestrator.listings import Discovery
from orchestrator.model import Config, Install, Run
from orchestrator.runs.scopes import NAMED, WHOLE, Scope, Scopes, part_of, run_meant
from orchestrator.selection import Selection

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.journal.store import Store

ID = "00000000-0000-4000-8000-000000000000"
INSTALL = Install(ID, "default", "Backup", (), "shop0")
DISCOVERY = Discovery("default", (), ("production",), ("sandbox*",), "<stdin>:5")


def config(source: str, path: str | None = None, name: str | None = None, *discoveries: Discovery) -> Config:
    return Config(source, {}, (INSTALL,), discoveries=discoveries, name=name, path=path)


def is_of(config: Config, scope: str, source: str = "elsewhere.yaml", part: str | None = None) -> bool:
    run = KnownRun("R1", scope, source)
    return Scopes(config).has(run) if part is None else Scopes(config).has_as(part, run)


@pytest.mark.parametrize(
    ("text", "base", "part", "label"),
    [
        ("/etc/fleet.yaml", "/etc/fleet.yaml", WHOLE, "/etc/fleet.yaml"),
        ("/etc/a shard b shard 2/3", "/etc/a shard b", "2/3", "shard 2/3 of /etc/a shard b"),
        ("named: /etc/fleet.yaml", "/etc/fleet.yaml", NAMED, "named installs of /etc/fleet.yaml"),
        ('name: "named: x shard 1/2"', 'name: "named: x shard 1/2"', WHOLE, '"named: x shard 1/2"'),
        ('name: "x" shard 1/2', 'name: "x"', "1/2", 'shard 1/2 of "x"'),
        ("<stdin> cfcb", "<stdin> cfcb", WHOLE, "a YAML from a stream (cfcb)"),
        ("/a\nb shard 1/2", "/a\nb", "1/2", "shard 1/2 of /a\nb"),
    ],
)
def test_a_scope_is_parsed_from_its_text(text: str, base: str, part: str, label: str) -> None:
    scope = Scope.parsed(text)
    assert (scope, str(scope), scope.label) == (Scope(base, part), text, label)
    assert scope.is_locked is (part != NAMED)


def test_a_selection_means_the_whole_a_shard_or_named_installs() -> None:
    parts = [part_of(each) for each in (Selection(), Selection(shard=(2, 3)), Selection(names=("shop0",)))]
    assert parts == [WHOLE, "2/3", NAMED]


def test_a_file_has_the_scope_of_its_path_and_also_locks_the_target_of_a_link(tmp_path: Path) -> None:
    real = tmp_path.resolve() / "real.yaml"
    real.touch()
    link = real.with_name("fleet.yaml")
    link.symlink_to(real)
    scopes = Scopes(config(str(link), str(link)))
    assert scopes.now("1/2") == Scope(str(link), "1/2")
    assert scopes.to_lock("1/2") == [Scope(str(link), "1/2"), Scope(str(real), "1/2")]
    assert scopes.to_lock(NAMED) == []
    assert Scopes(config(str(real), str(real))).to_lock(WHOLE) == [Scope(str(real))]


def test_runs_of_a_file_include_those_of_its_current_and_earlier_link_targets(tmp_path: Path) -> None:
    folder = tmp_path.resolve()
    for name in ("..1", "..2"):
        (folder / name).mkdir()
        (folder / name / "fleet.yaml").touch()
    (folder / "..data").symlink_to("..2")
    link = folder / "fleet.yaml"
    link.symlink_to("..data/fleet.yaml")
    (folder / "other.yaml").touch()
    of_link = config(str(link), str(link))
    assert is_of(of_link, str(link))
    assert is_of(of_link, f"{folder}/..2/fleet.yaml")
    assert is_of(of_link, f"{folder}/..data/fleet.yaml", "..data/fleet.yaml")
    assert is_of(of_link, f"{folder}/..1/fleet.yaml", str(link))  # stored by release 0.1 before the link was swapped
    assert is_of(of_link, f"{folder}/..gone/fleet.yaml shard 1/2", str(link), "1/2")
    assert not is_of(of_link, f"{folder}/..gone/fleet.yaml shard 1/2", str(link), WHOLE)
    assert not is_of(of_link, f"{folder}/..1/fleet.yaml", f"{folder}/..1/fleet.yaml")
    assert not is_of(of_link, f"{folder}/other.yaml")
    assert not is_of(of_link, 'name: "x"', str(link))


def test_a_name_replaces_the_path_and_keeps_runs_from_before_the_name(tmp_path: Path) -> None:
    file = tmp_path.resolve() / "fleet.yaml"
    file.touch()
    named = config(str(file), str(file), 'nightly "x"')
    scope = str(Scopes(named).now(WHOLE))
    assert Scopes(named).to_lock(WHOLE) == [Scopes(named).now(WHOLE)]
    assert is_of(config("<stdin>", None, 'nightly "x"'), scope)
    assert is_of(named, str(file))
    assert not is_of(named, 'name: "nightly"')
    assert not is_of(config(str(file), str(file)), scope)
    assert not is_of(config(str(file), str(file), "other"), scope)


def test_a_stream_is_identified_by_its_installs_on_any_descriptor() -> None:
    """Release 0.1 (commit cab67d9) printed these texts for this fleet."""
    of_stdin = Scopes(config("<stdin>", None, None, DISCOVERY))
    on_63 = config("/dev/fd/63", None, None, replace(DISCOVERY, place="/dev/fd/63:5"))
    of_63 = Scopes(on_63)
    assert of_63.now(WHOLE) == of_stdin.now(WHOLE)
    assert Scopes(config("<stdin>")).now(WHOLE) != of_63.now(WHOLE)
    assert Scope("<stdin> cfcba200b98f02ed") in of_stdin.to_lock(WHOLE)
    assert Scope("/dev/fd/63 8cee9dd8e919c2b3") in of_63.to_lock(WHOLE)
    assert is_of(on_63, "<stdin> cfcba200b98f02ed", "<stdin>")
    assert is_of(config("<stdin>", None, None, DISCOVERY), "/dev/fd/63 8cee9dd8e919c2b3 shard 1/2", "/dev/fd/63", "1/2")
    assert not is_of(config("<stdin>"), "<stdin> cfcba200b98f02ed", "<stdin>")


def test_a_resumed_run_locks_its_stored_scope_and_the_current_one(tmp_path: Path) -> None:
    link = tmp_path.resolve() / "fleet.yaml"
    scopes = Scopes(config(str(link), str(link)))

    def locked(scope: str, source: str) -> list[str]:
        return [str(each) for each in scopes.to_lock_for(RunRecord(Run("R1", AT), scope, source, "-", {}))]

    assert locked("/gone/fleet.yaml shard 1/2", str(link)) == ["/gone/fleet.yaml shard 1/2", f"{link} shard 1/2"]
    assert locked(str(link), str(link)) == [str(link)]
    assert locked("/other.yaml", "/other.yaml") == ["/other.yaml"]
    assert locked(f"named: {link}", str(link)) == []


def test_old_runs_of_the_same_part_are_alike_even_if_their_stored_scopes_differ() -> None:
    ours = Scopes(config("/etc/fleet.yaml", "/etc/fleet.yaml"))
    record = RunRecord(Run("R1", AT), "/etc/fleet.yaml shard 1/2", "/etc/fleet.yaml", "-", {})
    is_alike = ours.alike(record)
    assert is_alike(KnownRun("R0", "/gone/fleet.yaml shard 1/2", "/etc/fleet.yaml"))
    assert not is_alike(KnownRun("R0", "/etc/fleet.yaml", "/etc/fleet.yaml"))
    is_alike = ours.alike(replace(record, scope="/other.yaml", config="/other.yaml"))
    assert is_alike(KnownRun("R0", "/other.yaml", "other.yaml"))
    assert not is_alike(KnownRun("R0", "/etc/fleet.yaml", "/etc/fleet.yaml"))


def test_if_there_are_only_runs_of_other_configurations_the_message_names_them(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    scopes = ["/a.yaml", "/b.yaml", "/a.yaml", "/etc/fleet.yaml shard 1/2", 'name: "x"', "named: /etc/fleet.yaml"]

    async def begin_all(store: Store) -> None:
        for number, scope in enumerate(scopes):
            record = RunRecord(Run(f"01JD{number}", AT), scope, scope, "-", {})
            await begin(store, record, [planned(0)], [])

    def meant(word: str, part: str | None, source: str = "/etc/fleet.yaml") -> str:
        async def main(store: Store) -> str:
            return (await run_meant(store, config(source, source), word, tmp_path, part)).id

        return with_store(path, main)

    with_store(path, begin_all)
    assert (meant("latest", "1/2"), meant("latest", None), meant("01JD1", WHOLE)) == ("01JD3", "01JD5", "01JD1")
    assert meant("latest", WHOLE, "/a.yaml") == "01JD2"
    with pytest.raises(UsageError) as caught:
        meant("latest", WHOLE)
    assert str(caught.value) == (
        f"there are no runs of /etc/fleet.yaml in {tmp_path}; there are runs of named installs of /etc/fleet.yaml"
        ' (the newest is 01JD5), "x" (the newest is 01JD4), shard 1/2 of /etc/fleet.yaml (the newest is 01JD3), 2 more;'
        " give the id of a run, or set the key `name` to the same value in both YAMLs"
    )
    with pytest.raises(UsageError, match=r"^there are no runs of shard 2/2 of /etc/fleet.yaml in "):
        meant("latest", "2/2")
