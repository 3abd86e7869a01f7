"""Write a regular file anew: replace it by a new file if possible, else overwrite it in place.

A replacement appears whole or not at all. A file cannot be replaced if it is a mount (for example a file that is bound
into a container), or if its directory accepts no new files. Such a file is emptied and written again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import select
import stat
from typing import TYPE_CHECKING

from orchestrator.descriptors import names_a_descriptor

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE, PUBLIC = 0o600, 0o666
"""The mode of a new file: accessible to its owner only, or what the umask allows."""

_NO_NEW_FILE = {errno.EACCES, errno.EPERM, errno.EROFS}
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def is_replaceable(path: Path) -> bool:
    """Tell whether ``path`` is a regular file or does not exist. Raises ``OSError`` if a link to it is not trusted."""
    if names_a_descriptor(str(path.absolute())):
        return False
    _refuse_others_links(path.absolute())
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True


def _refuse_others_links(path: Path) -> None:
    """Raise ``OSError`` if ``path`` goes through a symbolic link in a directory that others may write to.

    Whoever made that link would choose the file that we write.
    """
    for place in (path, *path.parents):
        if place.is_symlink() and place.parent.stat().st_mode & _WRITABLE_BY_OTHERS:
            raise OSError(errno.ELOOP, f"{place} is a symbolic link in a directory that others may write to")


def opened_anew(path: Path, first: bytes = b"", *, is_private: bool = False) -> int:
    """Write the regular file ``path`` anew with the content ``first``. Return its descriptor when ``first`` is on disk.

    A private file is accessible to its owner only. Any other file keeps the mode of the file that it replaces, and the
    owner and group if the system allows that. Without such a file the umask sets the mode. Raises ``OSError``.
    """
    real = path.resolve()
    name = real.with_name(f".wpe-backup.{secrets.token_hex(8)}")
    older = None if is_private else _stat_of(real)
    try:
        mode = PRIVATE if is_private or older else PUBLIC
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    except OSError as error:
        if error.errno not in _NO_NEW_FILE or not real.exists():
            raise
        return _opened_in_place(real, first)
    try:
        if older:
            _liken(descriptor, older)
        _put(descriptor, first)
        name.replace(real)
    except OSError as error:
        os.close(descriptor)
        name.unlink()
        if error.errno != errno.EBUSY:
            raise
        return _opened_in_place(real, first)
    if first:
        _sync_folder(real.parent)
    return descriptor


def _stat_of(path: Path) -> os.stat_result | None:
    with contextlib.suppress(FileNotFoundError):
        return path.stat()
    return None


def _liken(descriptor: int, older: os.stat_result) -> None:
    """Give a new file the owner, group and mode of an older file, as far as the system allows."""
    own = os.fstat(descriptor)
    for uid, gid in ((older.st_uid, older.st_gid), (-1, older.st_gid)):
        if (own.st_uid, own.st_gid) != (older.st_uid, older.st_gid):
            with contextlib.suppress(OSError):
                os.fchown(descriptor, uid, gid)
                break
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, stat.S_IMODE(older.st_mode) & 0o777)


def _opened_in_place(path: Path, first: bytes) -> int:
    """Open the existing file, and overwrite it. Its other hard links then show the new content too."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _refuse_others_file(os.fstat(descriptor), path.parent)
        os.set_blocking(descriptor, True)
        os.ftruncate(descriptor, 0)
        _put(descriptor, first)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _refuse_others_file(found: os.stat_result, folder: Path) -> None:
    """Raise ``OSError`` if another user may have chosen the file that we would overwrite."""
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no longer a regular file")
    if found.st_nlink > 1 and folder.stat().st_mode & _WRITABLE_BY_OTHERS:
        raise OSError(errno.EMLINK, "it is a hard link in a directory that others may write to")


def _put(descriptor: int, first: bytes) -> None:
    if first:
        write_all(descriptor, first)
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    """Write the names in ``folder`` to disk. Ignore a file system that cannot do that for a folder."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``, even if the descriptor accepts only a few bytes at a time. Raises ``OSError``."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()
