"""A commented YAML to begin with: every section in a line or two, and the installs that a listing showed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.config.values import DEFAULT_BASE_URL, LONGEST_TEXT
from orchestrator.listings import ENVIRONMENTS, NAME_PATTERN
from orchestrator.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from orchestrator.listings import ListedInstall


LONGEST_COMMENT = 100
"""Characters of a server's text in a comment."""

_NAME = re.compile(NAME_PATTERN, re.ASCII)
_NO_TEXT = {"yes", "off", "true", "false", "null"}
"""Possible names that YAML takes for something else than text."""

_HEAD = """\
# What wpe-backup backs up, and how. Settings that are commented out show their defaults.
# All of them: docs/configuration.md; for editors: wpe-backup config schema
version: 1

# Whose credentials ask. What is left out here comes from the environment: WPE_API_USER_ID and WPE_API_PASSWORD, or the
# same with _FILE or _COMMAND behind it. So no secret has to stand in this file.
accounts:
  default:
"""

_CREDENTIALS = {
    "user_id": "    # user_id: ${WPE_API_USER_ID}         # or user_id_file, user_id_command\n",
    "password": "    # password: ${WPE_API_PASSWORD}       # or password_file: PATH, or password_command: op read"
    " op://ops/wpe/password\n",
}

_DEFAULTS = """
# What every install has that does not say otherwise.
defaults:
  description: "Backup {date} {time}"     # also {run_id} {name} {id} {environment}
"""

_REST = """\
  timezone: UTC                           # of {date} and {time}
  max_age: 26h                            # how old the newest backup may be, for: wpe-backup audit

# How fast. WP Engine publishes no limit: auto begins slowly, and finds out what is served.
throttle:
  # rate: auto                            # or a fixed number of requests per second
  # scope: account                        # host: one budget for all accounts, where the limit is one of the address
  # max_requests_per_second: 50           # never exceeded
  # concurrency: 64                       # requests in flight, at most
  # max_pause: 10m                        # a longer Retry-After ends the account's run
  # give_up: 30m                          # so does this long without a request that was served

# How long one install is tried, and how long an answer may take.
retry:
  # max_attempts: 5                       # a 429 is none
  # deadline: 30m
timeouts:
  # connect: 10s
  # read: 35s                             # longer than the 29 s after which the API's gateway gives up

# An answer that leaves open whether a backup was made (a 5xx, a timeout): reconcile looks for it in the listing, until
# it has been missing there for the grace; fail reports it as unconfirmed at once.
# on_ambiguous: reconcile
reconcile:
  # grace: 2m

# How --wait waits for accepted backups to be completed.
wait:
  # timeout: 2h
  # poll_interval: 15s
  # retry_aborted: 0                      # 1: what WP Engine aborts is requested once more

# How long finished runs are remembered.
state:
  # keep: 90d
"""

_SOURCES = """
# Further sources of installs. discover asks WP Engine when the plan is made: what was created yesterday is backed up
# tonight. What is listed below as well keeps its own fields.
inventory:
"""

_FILTERS = """\
# everything, or {environments: [production], exclude: ["sandbox*"]}
  # - files: [clients/*.yaml, clients/*.csv, clients/*.jsonl]   # lists in files
"""

_OPTIONS = """\
# What to back up: ids, names (looked up in the account's listing when the plan is made), or more of an install:
#   - id: 294deacc-d8b8-4005-82c4-0727ba8ddde0
#     name: torquemag
#     environment: production
#     tags: [client-a]                    # for wpe-backup run --tag client-a
#     description: "Before the upgrade"   # this, notification_emails, account and max_age instead of the defaults
#     enabled: false                      # kept in the list, not backed up
"""

_PLACEHOLDER = """\
  - name: yourinstall                     # put yours here
"""


@dataclass(frozen=True, slots=True)
class ListedGroup:
    """The installs of one of WP Engine's accounts, and what that is called."""

    title: str
    installs: tuple[ListedInstall, ...]


def starter(
    emails: Sequence[str],
    base_url: str | None,
    groups: Sequence[ListedGroup] | None,
    made_up: Mapping[str, str] | None = None,
) -> str:
    """Return a YAML to begin with, which is valid as it is.

    With the installs of ``groups``, the pending ones commented out, or with one to be replaced where nobody was asked.
    Where none of them is active yet, it discovers what will be. ``made_up`` are credentials for a stand-in, as the YAML
    writes them: ``user_id`` or ``password``, or both.
    """
    entries = None if groups is None else [*_entries(groups)]
    discovers = groups is not None and not any(not each.is_pending for group in groups for each in group.installs)
    listed = _PLACEHOLDER if entries is None else "".join(f"{line}\n" for line in entries)
    head = f"{_HEAD}{_account(base_url, made_up or {})}{_DEFAULTS}{_emails(emails)}"
    return f"{head}{_REST}{_inventory(is_used=discovers)}\n{_OPTIONS}installs:\n{listed}"


def _account(base_url: str | None, made_up: Mapping[str, str]) -> str:
    """Return the lines of the account; what is not given is commented out."""
    written = {key: f"{f'    {key}: {value}':<59} # the stand-in takes any\n" for key, value in made_up.items()}
    url = f"    # base_url: {DEFAULT_BASE_URL}\n" if base_url is None else f"    base_url: {_quoted(base_url)}\n"
    return "".join((_CREDENTIALS | written).values()) + url


def _emails(emails: Sequence[str]) -> str:
    """Return the line about mails."""
    value = f"[{', '.join(map(_quoted, emails))}]"
    return (
        "  # Whom WP Engine mails when a backup has completed: one mail for each install and address, so 200 installs\n"
        "  # are 200 mails a night; [] for nobody.\n"
        f"  notification_emails: {value}\n"
    )


def _inventory(*, is_used: bool) -> str:
    """Return the section with its entry on discovery, commented out unless it ``is_used``."""
    entry = ("  - discover: {}" if is_used else "  # - discover: {}").ljust(42)
    return _SOURCES + entry + _FILTERS


def _entries(groups: Sequence[ListedGroup]) -> Iterator[str]:
    for group in groups:
        yield f"  # {_comment(group.title)}"
        for each in sorted(group.installs, key=lambda each: (each.is_pending, each.name)):
            yield from _entry(each)


def _entry(install: ListedInstall) -> Iterator[str]:
    """Yield the lines of one install; what no YAML of ours may hold stands in a comment."""
    mark, notes = ("# ", ["pending: put it in when it is active"]) if install.is_pending else ("", [])
    notes += [] if install.primary_domain is None else [install.primary_domain]
    is_usable = install.name.isprintable() and len(install.name) <= LONGEST_TEXT
    notes += [] if is_usable else [f"called {install.name}"]
    yield f"  {mark}- id: {install.id}" + (f"    # {_comment('; '.join(notes))}" if notes else "")
    if is_usable:
        yield f"  {mark}  name: {_written(install.name)}"
    if install.environment in ENVIRONMENTS:
        yield f"  {mark}  environment: {install.environment}"


def _written(name: str) -> str:
    return name if _NAME.fullmatch(name) and name not in _NO_TEXT else _quoted(name)


def _quoted(text: str) -> str:
    """Return printable ``text`` as a scalar that YAML reads as that text, without a variable in it."""
    return json.dumps(text.replace("$", "$$"), ensure_ascii=False)


def _comment(text: str) -> str:
    """Return ``text`` as it may stand in a comment: one line, and nothing that YAML or a terminal would choke on."""
    shown = "".join(each if each.isprintable() else "?" for each in visible(text))
    return shown if len(shown) <= LONGEST_COMMENT else shown[:LONGEST_COMMENT] + "…"
