"""A new report replaces a regular file if possible, or else overwrites it in place; its mode is kept."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.report.files import opened_anew

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534
IS_ROOT = os.geteuid() == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a directory that other users can access, unlike pytest's folders."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name).resolve()


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Act as a user to whom file permissions apply."""
    if not IS_ROOT:
        yield
        return
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def begin(path: Path, first: bytes = b"new\n", *, is_private: bool = False) -> None:
    descriptor = opened_anew(path, first, is_private=is_private)
    os.write(descriptor, b"more\n")
    os.close(descriptor)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o007, 0o660)])
def test_a_new_file_follows_the_umask_and_a_private_one_does_not(folder: Path, mask: int, expected: int) -> None:
    with umask(mask):
        begin(folder / "r.jsonl")
        begin(folder / "own.jsonl", is_private=True)
    assert (mode(folder / "r.jsonl"), mode(folder / "own.jsonl")) == (expected, 0o600)
    assert {path.name for path in folder.iterdir()} == {"r.jsonl", "own.jsonl"}


@pytest.mark.parametrize("older", [0o600, 0o640, 0o666, 0o444, 0o4755])
def test_a_file_that_is_replaced_keeps_its_mode_unless_it_is_private(folder: Path, older: int) -> None:
    for name in ("r.jsonl", "own.jsonl"):
        (folder / name).write_text("old\n" * 9)
        (folder / name).chmod(older)
    inode = (folder / "r.jsonl").stat().st_ino
    begin(folder / "r.jsonl")
    begin(folder / "own.jsonl", is_private=True)
    assert (mode(folder / "r.jsonl"), mode(folder / "own.jsonl")) == (older & 0o777, 0o600)
    assert ((folder / "r.jsonl").read_text(), (folder / "r.jsonl").stat().st_ino != inode) == ("new\nmore\n", True)


@pytest.mark.skipif(not IS_ROOT, reason="only root may give a file away")
def test_a_file_that_is_replaced_keeps_its_owner(folder: Path) -> None:
    path = folder / "r.jsonl"
    path.touch()
    os.chown(path, NOBODY, 4242)
    begin(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, 4242)


@pytest.mark.skipif(not IS_ROOT, reason="only root may give a file away")
def test_a_file_whose_owner_cannot_be_kept_is_still_written(folder: Path) -> None:
    os.chown(folder, NOBODY, NOBODY)
    path = folder / "r.jsonl"
    path.touch()
    path.chmod(0o640)
    with unprivileged():
        begin(path)
    assert (path.stat().st_uid, mode(path), path.read_text()) == (NOBODY, 0o640, "new\nmore\n")


def test_a_file_in_a_read_only_folder_is_written_in_place(folder: Path) -> None:
    path = folder / "r.jsonl"
    path.write_text("old\n" * 9)
    path.chmod(0o666)
    inode = path.stat().st_ino
    folder.chmod(0o555)
    try:
        with unprivileged():
            begin(path)
            with pytest.raises(PermissionError):
                begin(folder / "another.jsonl")
    finally:
        folder.chmod(0o755)
    assert (path.read_text(), path.stat().st_ino, mode(path)) == ("new\nmore\n", inode, 0o666)
    assert list(folder.iterdir()) == [path]


def test_a_hard_link_in_a_shared_folder_is_not_overwritten(folder: Path) -> None:
    path = folder / "r.jsonl"
    path.write_text("old\n")
    path.chmod(0o666)
    os.link(path, folder / "other-name")
    if IS_ROOT:
        os.chown(folder, 0, 4242)
    folder.chmod(0o575)
    try:
        with unprivileged(), pytest.raises(OSError, match="hard link in a directory that others") as caught:
            begin(path)
    finally:
        folder.chmod(0o755)
    assert (caught.value.errno, path.read_text()) == (errno.EMLINK, "old\n")


def test_hard_links_to_a_replaced_file_keep_the_old_content(folder: Path) -> None:
    path = folder / "r.jsonl"
    path.write_text("old\n")
    os.link(path, folder / "other-name")
    begin(path)
    assert ((folder / "other-name").read_text(), path.read_text()) == ("old\n", "new\nmore\n")
