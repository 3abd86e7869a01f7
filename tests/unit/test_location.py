"""The location of a configuration: it stays the same if a link is swapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.config.location import location

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory with ``releases/7``, a link ``current`` to it, and another directory ``plain``."""
    root = tmp_path.resolve()
    (root / "releases" / "7").mkdir(parents=True)
    (root / "plain").mkdir()
    (root / "current").symlink_to("releases/7")
    monkeypatch.chdir(root)
    return root


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("fleet.yaml", "/fleet.yaml"),
        ("./fleet.yaml", "/fleet.yaml"),
        ("plain//./fleet.yaml", "/plain/fleet.yaml"),
        ("plain/../fleet.yaml", "/fleet.yaml"),
        ("current/fleet.yaml", "/current/fleet.yaml"),
        ("current/../fleet.yaml", "/current/../fleet.yaml"),
        ("current/../../fleet.yaml", "/current/../../fleet.yaml"),
        ("plain/../current/fleet.yaml", "/current/fleet.yaml"),
    ],
)
def test_a_path_stays_as_given_without_redundant_parts(folder: Path, file: str, place: str) -> None:
    assert location(file, {}) == f"{folder}{place}"
    assert location(f"{folder}/{file}", {}) == f"{folder}{place}"
    assert location(f"/{folder}//{file}", {}) == f"{folder}{place}"


@pytest.mark.parametrize("file", ["/../fleet.yaml", "//fleet.yaml", "/./fleet.yaml"])
def test_nothing_is_above_the_root(file: str) -> None:
    assert location(file, {}) == "/fleet.yaml"


def test_pwd_keeps_the_links_that_lead_to_the_current_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "current")
    assert location("fleet.yaml", {"PWD": f"{folder}/current"}) == f"{folder}/current/fleet.yaml"
    lies = [f"{folder}/plain", f"{folder}/gone", "current", f"{folder}/plain/../current", "", "\0"]
    for environment in ({}, *({"PWD": lie} for lie in lies)):
        assert location("fleet.yaml", environment) == f"{folder}/releases/7/fleet.yaml"


@pytest.mark.parametrize("file", ["<stdin>", "<pipe>", "/dev/stdin", "/dev/fd/63", "/proc/self/fd/11", "/dev//fd/./7"])
def test_a_stream_has_no_location(file: str) -> None:
    assert location(file, {}) is None


def test_a_missing_current_directory_gives_no_location(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "plain")
    (folder / "plain").rmdir()
    assert location("fleet.yaml", {}) is None
    assert location("/fleet.yaml", {}) == "/fleet.yaml"
