"""The checks of ``doctor`` on this machine: the state directory, the disk, the time zone.

They send no request, create nothing and change nothing.
"""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from datetime import UTC
from enum import StrEnum
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from orchestrator.journal.history import state_fault
from orchestrator.journal.store import FILE_NAME
from orchestrator.session.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from orchestrator.engine.ports import Clock
    from orchestrator.model import Config

LOW_DISK, FULL_DISK = 100_000_000, 10_000_000
"""Free bytes below which the check warns, and below which it fails, as a run may not reach its end."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the system knows of a path: the free bytes of its disk, and whether this user has access to it."""

    free_bytes: Callable[[Path], int] = lambda place: shutil.disk_usage(place).free
    may_use: Callable[[Path, int], bool] = os.access


THIS_MACHINE = Machine()

_ELSEWHERE = "or name another directory with --state-dir"


class Grade(StrEnum):
    """The verdict of a check. Only ``FAIL`` means that something does not work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its finding, and the remedy of a ``WARN`` or ``FAIL``. ``account`` is the account checked, if any."""

    name: str
    grade: Grade
    found: str
    remedy: str = ""
    account: str | None = None


def config_file_check(path: Path, *, holds_password: bool) -> Check:
    """Check that only the owner may read a configuration that contains a password."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return Check("config_file", Grade.SKIPPED, "it is not a file on this machine")
    if not holds_password or not stat.S_ISREG(mode):
        return Check("config_file", Grade.OK, "it contains no password")
    remedy = f"run chmod 600 {path}, or take the password from the environment, a file or a command"
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        who = "everybody" if mode & stat.S_IROTH else "its group"
        return Check("config_file", Grade.WARN, f"it contains a password, and {who} may read it", remedy)
    return Check("config_file", Grade.OK, "it contains a password, and only its owner may read it")


def machine_checks(state_dir: Path, config: Config | None, machine: Machine = THIS_MACHINE) -> Iterator[Check]:
    """Check the state directory, which need not exist, its disk and its database, and the time zone data."""
    place = next(each for each in (state_dir, *state_dir.parents) if os.path.exists(each))  # noqa: PTH110 - Path.exists raises if access is denied
    yield _state_dir(state_dir, place, machine)
    yield _disk(place, machine)
    yield _state_db(state_dir / FILE_NAME, machine)
    yield time_zone_check(config)


def _state_dir(state_dir: Path, place: Path, machine: Machine) -> Check:
    is_there = place == state_dir
    if not place.is_dir():
        return Check("state_dir", Grade.FAIL, f"{place} is not a directory", f"move it away, {_ELSEWHERE}")
    if not machine.may_use(place, os.R_OK | os.W_OK | os.X_OK):
        effect = "" if is_there else f", so {state_dir} cannot be created"
        found = f"this user may not read and write {place}{effect}"
        return Check("state_dir", Grade.FAIL, found, f"make it readable and writable for this user, {_ELSEWHERE}")
    if not is_there:
        return Check("state_dir", Grade.OK, f"{state_dir} does not exist yet; the first run creates it")
    mode = stat.S_IMODE(place.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        found = f"{state_dir} has the mode {mode:04o}: other users than its owner may access it"
        return Check("state_dir", Grade.WARN, found, f"run chmod 700 {state_dir}")
    return Check("state_dir", Grade.OK, f"{state_dir} is writable, and only its owner may access it")


def _disk(place: Path, machine: Machine) -> Check:
    free = machine.free_bytes(place)
    found = f"{free / 1e6:,.0f} MB are free for the state"
    if free >= LOW_DISK:
        return Check("disk", Grade.OK, found)
    return Check("disk", Grade.FAIL if free < FULL_DISK else Grade.WARN, found, f"make room on this disk, {_ELSEWHERE}")


def _state_db(path: Path, machine: Machine) -> Check:
    try:
        is_there = path.exists()
    except OSError as error:
        return Check("state_db", Grade.FAIL, f"{path}: {error.strerror}", f"let this user read it, {_ELSEWHERE}")
    if not is_there:
        return Check("state_db", Grade.OK, "there is none yet; the first run creates it")
    fault = state_fault(path)
    if fault is None and not machine.may_use(path, os.W_OK):
        fault = "is not writable for this user"
    if fault is None:
        return Check("state_db", Grade.OK, "it can be read, and this program knows its version")
    remedy = (
        "if access is denied, make it readable and writable for this user; if its version is too new, upgrade this"
        " program; if it is damaged, move it away with the files beside it that end in -wal and -shm (its runs and"
        f" limits are lost then); {_ELSEWHERE}"
    )
    return Check("state_db", Grade.FAIL, f"{path} {fault}", remedy)


def time_zone_check(config: Config | None, clock: Clock = SYSTEM_CLOCK) -> Check:
    """Check for time zone data with a zone that is no system's default, and say what time a run would write."""
    try:
        ZoneInfo("America/New_York")
    except (ZoneInfoNotFoundError, OSError, ValueError):
        remedy = "install the system package tzdata, or the Python package tzdata"
        return Check("time_zone", Grade.FAIL, "the time zone data is missing", remedy)
    now = clock.now().astimezone(UTC if config is None else config.timezone)
    zone = "UTC" if config is None else str(config.timezone)
    return Check("time_zone", Grade.OK, f"{{date}} {{time}} is {now:%Y-%m-%d %H:%M} now ({zone})")
