"""What ``doctor`` checks on this machine, without asking anybody: the state directory, the disk, the time zone.

Nothing is made and nothing is changed.
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
"""Bytes below which a disk is worth a word, and below which a run may not come to its end."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What is asked of the system: how many bytes are free below a place, and whether this user may use it so."""

    free_bytes: Callable[[Path], int] = lambda place: shutil.disk_usage(place).free
    may_use: Callable[[Path, int], bool] = os.access


THIS_MACHINE = Machine()

_ELSEWHERE = "or name another folder with --state-dir"


class Grade(StrEnum):
    """What a check came to. Only ``FAIL`` means that something does not work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what was found, and what to do about it unless all is well. ``account`` is whom it is about."""

    name: str
    grade: Grade
    found: str
    remedy: str = ""
    account: str | None = None


def config_file_check(path: Path, *, holds_password: bool) -> Check:
    """Check that a file with a password in it is not everybody's to read."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return Check("config_file", Grade.SKIPPED, "it is no file of this machine's")
    if not holds_password or not stat.S_ISREG(mode):
        return Check("config_file", Grade.OK, "no password stands in it")
    remedy = f"chmod 600 {path}, or take the password from the environment, a file or a command"
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        who = "everybody" if mode & stat.S_IROTH else "its group"
        return Check("config_file", Grade.WARN, f"a password stands in it, and {who} may read it", remedy)
    return Check("config_file", Grade.OK, "a password stands in it, and only its owner may read it")


def machine_checks(state_dir: Path, config: Config | None, machine: Machine = THIS_MACHINE) -> Iterator[Check]:
    """Check the state directory, which need not exist, the disk below it, what it remembers, and the time zone."""
    place = next(each for each in (state_dir, *state_dir.parents) if os.path.exists(each))  # noqa: PTH110 - Path's raises where it may not look
    yield _state_dir(state_dir, place, machine)
    yield _disk(place, machine)
    yield _state_db(state_dir / FILE_NAME, machine)
    yield time_zone_check(config)


def _state_dir(state_dir: Path, place: Path, machine: Machine) -> Check:
    is_there = place == state_dir
    if not place.is_dir():
        return Check("state_dir", Grade.FAIL, f"{place} is no folder", f"move it away, {_ELSEWHERE}")
    if not machine.may_use(place, os.R_OK | os.W_OK | os.X_OK):
        found = f"{place} may not be written" + ("" if is_there else f", so {state_dir} cannot be made")
        return Check("state_dir", Grade.FAIL, found, f"make it writable for this user, {_ELSEWHERE}")
    if not is_there:
        return Check("state_dir", Grade.OK, f"{state_dir} is not there yet, and the first run makes it")
    mode = stat.S_IMODE(place.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        found = f"{state_dir} has the mode {mode:04o}: others than its owner may look into it"
        return Check("state_dir", Grade.WARN, found, f"chmod 700 {state_dir}")
    return Check("state_dir", Grade.OK, f"{state_dir} is writable, and its owner's alone")


def _disk(place: Path, machine: Machine) -> Check:
    free = machine.free_bytes(place)
    found = f"{free / 1e6:,.0f} MB are free for the state"
    if free >= LOW_DISK:
        return Check("disk", Grade.OK, found)
    return Check("disk", Grade.FAIL if free < FULL_DISK else Grade.WARN, found, f"make room, {_ELSEWHERE}")


def _state_db(path: Path, machine: Machine) -> Check:
    try:
        is_there = path.exists()
    except OSError as error:
        return Check("state_db", Grade.FAIL, f"{path}: {error.strerror}", f"make it readable, {_ELSEWHERE}")
    if not is_there:
        return Check("state_db", Grade.OK, "there is none yet, and the first run makes it")
    fault = state_fault(path)
    if fault is None and not machine.may_use(path, os.W_OK):
        fault = "may not be written"
    if fault is None:
        return Check("state_db", Grade.OK, "can be read, and is of a version that this program knows")
    remedy = (
        f"make it readable and writable, upgrade this program, {_ELSEWHERE}; a damaged one is moved away with the files"
        " beside it that end in -wal and -shm: what it remembers of runs and limits is lost then"
    )
    return Check("state_db", Grade.FAIL, f"{path} {fault}", remedy)


def time_zone_check(config: Config | None, clock: Clock = SYSTEM_CLOCK) -> Check:
    """Check that there are time zones, by one that is nobody's default, and say what time a run would write."""
    try:
        ZoneInfo("America/New_York")
    except (ZoneInfoNotFoundError, OSError, ValueError):
        remedy = "install the system's tzdata, or the Python package of that name"
        return Check("time_zone", Grade.FAIL, "the data of time zones is missing", remedy)
    now = clock.now().astimezone(UTC if config is None else config.timezone)
    zone = "UTC" if config is None else str(config.timezone)
    return Check("time_zone", Grade.OK, f"{{date}} {{time}} is {now:%Y-%m-%d %H:%M} now ({zone})")
