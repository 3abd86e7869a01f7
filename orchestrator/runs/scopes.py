"""Scopes: which runs belong to one configuration, and which parts of it only one run at a time may work on.

A configuration is known by its ``name``. Without a name, it is known by its path as given, so it stays the same if a
link in the path gets another target. A configuration from a stream is known by its installs. Earlier releases followed
links: their runs are still found, and their locks are respected.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.journal import runs
from orchestrator.run_names import LATEST, run_named

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orchestrator.journal.runs import KnownRun, RunRecord
    from orchestrator.journal.store import Store
    from orchestrator.listings import Discovery
    from orchestrator.model import Config
    from orchestrator.selection import Selection

WHOLE, NAMED = "", "named"
"""The parts of a configuration that are not a shard: the whole of it, and installs named one by one."""

_NAMED_ONE_BY_ONE = "named: "
_NAME = "name: "
_STREAM = "<stdin> "
_SHARD = re.compile(r"(?P<base>.*) shard (?P<part>\d+/\d+)", re.DOTALL | re.ASCII)
_MOST_OTHERS = 3


@dataclass(frozen=True, slots=True)
class Scope:
    """A part of a configuration. ``base`` identifies the configuration. ``part`` is a shard (``1/3``) or a constant.

    Only one run of a scope may go on at a time. Runs of installs named one by one are excepted.
    """

    base: str
    part: str = WHOLE

    @classmethod
    def parsed(cls, text: str) -> Scope:
        """Parse ``text``, which the journal stores."""
        if text.startswith(_NAMED_ONE_BY_ONE):
            return cls(text.removeprefix(_NAMED_ONE_BY_ONE), NAMED)
        shard = _SHARD.fullmatch(text)
        return cls(shard["base"], shard["part"]) if shard else cls(text)

    def __str__(self) -> str:
        """Return the text that the journal stores. It also decides the lock file."""
        if self.part == NAMED:
            return f"{_NAMED_ONE_BY_ONE}{self.base}"
        return f"{self.base} shard {self.part}" if self.part else self.base

    @property
    def is_locked(self) -> bool:
        """Return whether only one run at a time may have this scope."""
        return self.part != NAMED

    @property
    def label(self) -> str:
        """Return the scope in words for people."""
        base = self.base.removeprefix(_NAME)
        base = f"a YAML from a stream ({base.removeprefix(_STREAM)})" if base.startswith(_STREAM) else base
        if self.part == NAMED:
            return f"named installs of {base}"
        return f"shard {self.part} of {base}" if self.part else base


def part_of(selection: Selection) -> str:
    """Return the part of a configuration that ``selection`` means."""
    if selection.is_named:
        return NAMED
    return WHOLE if selection.shard is None else f"{selection.shard[0]}/{selection.shard[1]}"


class Scopes:
    """The scopes of one configuration: those of its new runs, and those under which earlier runs may be stored."""

    def __init__(self, config: Config) -> None:
        """Work out every base under which runs of ``config`` are known."""
        self._config = config
        self._real = _real_path(config.source)
        unnamed = [config.path] if config.path else [_by_installs(config), _as_released(config, config.source)]
        unnamed += [self._real] if self._real else []
        self._bases = [_NAME + json.dumps(config.name, ensure_ascii=False), *unnamed] if config.name else unnamed
        self._locked = self._bases[:1] if config.name else unnamed
        self._known: dict[tuple[str, str], bool] = {}

    def now(self, part: str) -> Scope:
        """Return the scope of a new run."""
        return Scope(self._bases[0], part)

    def to_lock(self, part: str) -> list[Scope]:
        """Return the scopes that a new run locks, including those that an older release or another path uses."""
        scopes = {str(scope): scope for base in self._locked if (scope := Scope(base, part)).is_locked}
        return list(scopes.values())

    def has(self, run: KnownRun | RunRecord) -> bool:
        """Return whether ``run`` is of this configuration, in any part."""
        base = Scope.parsed(run.scope).base
        key = base, run.config
        if key not in self._known:
            self._known[key] = base in self._bases or (not base.startswith(_NAME) and self._was_ours(base, run.config))
        return self._known[key]

    def has_as(self, part: str, run: KnownRun | RunRecord) -> bool:
        """Return whether ``run`` is of this part of the configuration."""
        return Scope.parsed(run.scope).part == part and self.has(run)

    def alike(self, run: RunRecord) -> Callable[[KnownRun], bool]:
        """Return a function that tells whether another run has the scope of ``run``, in the form of any release."""
        if self.has(run):
            return partial(self.has_as, Scope.parsed(run.scope).part)
        return lambda other: other.scope == run.scope

    def to_lock_for(self, run: KnownRun | RunRecord) -> list[Scope]:
        """Return the scopes to lock before resuming ``run``."""
        scope = Scope.parsed(run.scope)
        ours = self.to_lock(scope.part) if self.has(run) else []
        return ours if not scope.is_locked or scope in ours else [scope, *ours]

    def _was_ours(self, base: str, source: str) -> bool:
        """Return whether ``base`` is another path to this file, or an older release ran it from ``source``."""
        if self._config.path is None:
            return base == _as_released(self._config, source)
        return source == self._config.path or (self._real is not None and _real_path(base) == self._real)


def _real_path(source: str) -> str | None:
    """Return the path, with links resolved, by which earlier releases knew the file ``source``."""
    try:
        return str(Path(source).resolve()) if Path(source).is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _by_installs(config: Config) -> str:
    """Return the base of a configuration from a stream, which is the same for every descriptor."""
    return _STREAM + _digest(config, [str(replace(each, place="")) for each in config.discoveries])


def _as_released(config: Config, source: str) -> str:
    """Return the base that release 0.1 used for a configuration from the stream ``source``."""
    return f"{source} {_digest(config, [_released_text(each, source) for each in config.discoveries])}"


def _released_text(discovery: Discovery, source: str) -> str:
    """Return the text that release 0.1 hashed for a discovery. Do not change it: stored scopes depend on it."""
    place = f"{source}:{discovery.place.rpartition(':')[2]}"
    return (
        f"Discovery(account={discovery.account!r}, wpengine_accounts={discovery.wpengine_accounts!r},"
        f" environments={discovery.environments!r}, exclude={discovery.exclude!r}, place={place!r})"
    )


def _digest(config: Config, discoveries: Sequence[str]) -> str:
    ids = sorted(install.id or install.label for install in config.installs)
    return hashlib.sha256(" ".join([*ids, *discoveries]).encode()).hexdigest()[:16]


async def run_meant(
    store: Store, config: Config, word: str, state_dir: str | os.PathLike[str], part: str | None
) -> KnownRun:
    """Return the run that ``word`` means. ``latest`` is the newest run of ``config``, or of one ``part`` of it.

    Raises ``StorageError``, and ``UsageError`` if there is none. Without a run of ``config``, that error names the
    scopes that have runs.
    """
    where = f"in {os.fspath(state_dir)}"
    known, scopes = await runs.known(store), Scopes(config)
    if word == LATEST:
        mine = [each.id for each in known if (scopes.has(each) if part is None else scopes.has_as(part, each))]
        of_what = f"of {scopes.now(part or WHOLE).label} {where}"
        run_id = run_named(word, mine, of_what, remedy=_others(known) or runs.ANOTHER_FOLDER)
    else:
        run_id = run_named(word, [each.id for each in known], where, remedy=runs.ANOTHER_FOLDER)
    return next(each for each in known if each.id == run_id)


def _others(known: Sequence[KnownRun]) -> str:
    """Return a sentence that lists the scopes with runs, newest first, and the remedy. It is empty without runs."""
    newest: dict[str, str] = {}
    for run in reversed(known):
        newest.setdefault(run.scope, run.id)
    shown = list(newest.items())
    said = [f"{Scope.parsed(scope).label} (the newest is {run_id})" for scope, run_id in shown[:_MOST_OTHERS]]
    said += [f"{len(shown) - _MOST_OTHERS} more"] if len(shown) > _MOST_OTHERS else []
    if not said:
        return ""
    remedy = "give the id of a run, or set the key `name` to the same value in both YAMLs"
    return f"there are runs of {', '.join(said)}; {remedy}"
