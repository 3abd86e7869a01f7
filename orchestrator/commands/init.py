"""Write a first YAML, with the installs that the credentials can see. It replaces no file unless told to."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.config.starter import ListedGroup
from orchestrator.errors import StorageError, UsageError
from orchestrator.model import ErrorInfo
from orchestrator.report.write import write_whole
from orchestrator.session.connections import Connections
from orchestrator.session.queries import asked

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.engine.ports import Log
    from orchestrator.engine.stop import StopSwitch
    from orchestrator.listings import ListedInstall
    from orchestrator.model import Config
    from orchestrator.session.queries import Queries

UNNAMED = "of an unknown account of WP Engine"


@dataclass(frozen=True, slots=True)
class VisibleInstalls:
    """Every install that the credentials can see, grouped by WP Engine's accounts.

    ``accounts`` are the names of all accounts that they can see. ``unnamed`` says why these names could not be read,
    ``None`` if they were.
    """

    groups: tuple[ListedGroup, ...]
    accounts: tuple[str, ...] = ()
    unnamed: ErrorInfo | None = None

    @property
    def installs(self) -> list[ListedInstall]:
        """Return the installs of all groups."""
        return [each for group in self.groups for each in group.installs]


async def visible_installs(config: Config, log: Log, stop: StopSwitch) -> VisibleInstalls | ErrorInfo:
    """Return the installs that the only account of ``config`` can see, or why they cannot be listed.

    Raises ``StoppedError`` if a signal comes first.
    """
    (account,) = config.accounts
    async with AsyncExitStack() as stack:
        return await asked(
            Connections(config, None, log, stack), [account], lambda queries: _look(account, queries), stop
        )


async def _look(account: str, queries: Queries) -> VisibleInstalls | ErrorInfo:
    installs, accounts = await asyncio.gather(queries.installs(account), queries.accounts(account))
    if isinstance(installs, ErrorInfo):
        return installs
    seen = () if isinstance(accounts, ErrorInfo) else accounts
    names = {each.id: f"{each.name} ({each.id})" for each in seen}
    by_account: defaultdict[str, dict[str, ListedInstall]] = defaultdict(dict)
    for each in installs:
        title = each.account_id and f"of WP Engine's account {names.get(each.account_id, each.account_id)}"
        by_account[title or UNNAMED][each.id] = each
    groups = (ListedGroup(title, tuple(by_account[title].values())) for title in sorted(by_account))
    unnamed = accounts if isinstance(accounts, ErrorInfo) else None
    return VisibleInstalls(tuple(groups), tuple(each.name for each in seen), unnamed)


def check_target(path: Path, *, replaces: bool) -> None:
    """Raise ``UsageError`` if a file cannot be written to ``path``, or exists there and ``replaces`` is false."""
    if not path.parent.is_dir():
        message = f"there is no directory {path.parent}: make it first, or name another file with -c FILE"
        raise UsageError(message)
    if os.path.lexists(path) and not path.is_file():
        message = f"{path} is not a regular file: name another one with -c FILE, or print the YAML with -c -"
        raise UsageError(message)
    if path.exists() and not replaces:
        raise UsageError(_is_there(path))


def write_starter(path: Path, text: str, *, replaces: bool) -> None:
    """Write ``text`` to ``path``, whole or not at all, readable only by its owner.

    Raises ``UsageError`` if a file exists there by now and ``replaces`` is false, and ``StorageError`` if it cannot
    write.
    """
    if not replaces:
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            raise UsageError(_is_there(path)) from None
        except OSError as error:
            message = f"{path} cannot be written: {error.strerror}"
            raise StorageError(message) from error
    try:
        write_whole(path, text.encode())
    except StorageError:
        if not replaces:
            path.unlink(missing_ok=True)
        raise


def _is_there(path: Path) -> str:
    return f"{path} already exists: --force replaces it, -c FILE writes another file, -c - prints the YAML"
