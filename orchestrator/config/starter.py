"""The commented YAML that ``init`` writes: every section with a line or two, and the installs that a listing showed."""

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
"""Characters of a server's text that are put into a comment."""

_NAME = re.compile(NAME_PATTERN, re.ASCII)
_NO_TEXT = {"yes", "off", "true", "false", "null"}
"""Possible install names that YAML does not read as text."""

_HEAD = """\
# The installs that wpe-backup backs up, and how. Settings that are commented out show their defaults.
# docs/configuration.md lists every setting. Editors can use the schema that wpe-backup config schema prints.
version: 1

# The credentials. If you leave one out, wpe-backup reads it from the environment variable WPE_API_USER_ID or
# WPE_API_PASSWORD, or from the same name with _FILE or _COMMAND at the end. No secret has to stand in this file.
accounts:
  default:
"""

_CREDENTIALS = {
    "user_id": "    # user_id: ${WPE_API_USER_ID}         # or user_id_file, user_id_command\n",
    "password": "    # password: ${WPE_API_PASSWORD}       # or password_file: PATH, or password_command: op read"
    " op://ops/wpe/password\n",
}

_DEFAULTS = """
# Settings of every install that does not set its own.
defaults:
  description: "Backup {date} {time}"     # other fields: {run_id} {name} {id} {environment}
"""

_REST = """\
  timezone: UTC                           # the time zone of {date} and {time}
  max_age: 26h                            # wpe-backup audit reports an older newest backup as stale

# How fast requests go. WP Engine publishes no limit: auto starts slowly and finds out what the API serves.
throttle:
  # rate: auto                            # or a fixed number of requests per second
  # scope: account                        # host: one budget for all accounts, if the API limits by IP address
  # max_requests_per_second: 50           # never exceeded
  # concurrency: 64                       # the maximum number of requests in flight
  # max_pause: 10m                        # a longer Retry-After stops the account
  # give_up: 30m                          # the account stops if no request is served for this long

# How often, and for how long, one backup is tried, and how long a connection and an answer may take.
retry:
  # max_attempts: 5                       # a 429 does not count
  # deadline: 30m                         # for one install, from its first request
timeouts:
  # connect: 10s
  # read: 35s                             # keep it above 29 s: then the API's gateway gives up

# After a 5xx or a timeout, nobody knows whether the backup was made. reconcile looks it up in the listing, where it may
# be missing for the grace before its absence counts. fail reports it as unconfirmed immediately.
# on_ambiguous: reconcile
reconcile:
  # grace: 2m

# How --wait waits for accepted backups to complete.
wait:
  # timeout: 2h                           # for one backup, from its acceptance
  # poll_interval: 15s
  # retry_aborted: 0                      # 1: if WP Engine aborts a backup, request it once more

# How long ended runs are kept.
state:
  # keep: 90d
"""

_SOURCES = """
# Further sources of installs. discover asks WP Engine when a run makes its plan: an install that was created yesterday
# is backed up tonight. If an install is also listed below, the listed fields count.
inventory:
"""

_FILTERS = """\
# all installs, or {environments: [production], exclude: ["sandbox*"]}
  # - files: [clients/*.yaml, clients/*.csv, clients/*.jsonl]   # lists of installs in files
"""

_OPTIONS = """\
# The installs to back up. An entry is an id, or a name (looked up in the account's listing), or a mapping:
#   - id: 294deacc-d8b8-4005-82c4-0727ba8ddde0
#     name: torquemag
#     environment: production
#     tags: [client-a]                    # for wpe-backup run --tag client-a
#     description: "Before the upgrade"   # overrides defaults, as do notification_emails, account and max_age
#     enabled: false                      # keep it in the list, but do not back it up
"""

_PLACEHOLDER = """\
  - name: yourinstall                     # replace this name with yours
"""


@dataclass(frozen=True, slots=True)
class ListedGroup:
    """The installs of one of WP Engine's accounts, with the title to show above them."""

    title: str
    installs: tuple[ListedInstall, ...]


def starter(
    emails: Sequence[str],
    base_url: str | None,
    groups: Sequence[ListedGroup] | None,
    made_up: Mapping[str, str] | None = None,
) -> str:
    """Return the text of a first YAML, which is valid without any change.

    It lists the installs of ``groups``; pending ones are commented out. If ``groups`` is ``None``, it lists a
    placeholder. If no install is active yet, it turns discovery on. ``made_up`` holds credentials for a stand-in, in
    YAML syntax: ``user_id``, ``password`` or both.
    """
    entries = None if groups is None else [*_entries(groups)]
    discovers = groups is not None and not any(not each.is_pending for group in groups for each in group.installs)
    listed = _PLACEHOLDER if entries is None else "".join(f"{line}\n" for line in entries)
    head = f"{_HEAD}{_account(base_url, made_up or {})}{_DEFAULTS}{_emails(emails)}"
    return f"{head}{_REST}{_inventory(is_used=discovers)}\n{_OPTIONS}installs:\n{listed}"


def _account(base_url: str | None, made_up: Mapping[str, str]) -> str:
    """Return the lines of the account; settings without a value are commented out."""
    written = {key: f"{f'    {key}: {value}':<59} # the stand-in accepts any\n" for key, value in made_up.items()}
    url = f"    # base_url: {DEFAULT_BASE_URL}\n" if base_url is None else f"    base_url: {_quoted(base_url)}\n"
    return "".join((_CREDENTIALS | written).values()) + url


def _emails(emails: Sequence[str]) -> str:
    """Return the lines about mails."""
    value = f"[{', '.join(map(_quoted, emails))}]"
    return (
        "  # WP Engine mails these addresses when a backup has completed: one mail for each install and address.\n"
        "  # So 200 installs mean 200 mails a night for each address. [] means nobody.\n"
        f"  notification_emails: {value}\n"
    )


def _inventory(*, is_used: bool) -> str:
    """Return the section ``inventory``. Its discovery is commented out unless it ``is_used``."""
    entry = ("  - discover: {}" if is_used else "  # - discover: {}").ljust(42)
    return _SOURCES + entry + _FILTERS


def _entries(groups: Sequence[ListedGroup]) -> Iterator[str]:
    for group in groups:
        yield f"  # {_comment(group.title)}"
        for each in sorted(group.installs, key=lambda each: (each.is_pending, each.name)):
            yield from _entry(each)


def _entry(install: ListedInstall) -> Iterator[str]:
    """Yield the lines of one install. A name that our YAML does not allow goes into a comment."""
    mark, notes = ("# ", ["pending: uncomment these lines when it is active"]) if install.is_pending else ("", [])
    notes += [] if install.primary_domain is None else [install.primary_domain]
    is_usable = install.name.isprintable() and len(install.name) <= LONGEST_TEXT
    notes += [] if is_usable else [f"name: {install.name}"]
    yield f"  {mark}- id: {install.id}" + (f"    # {_comment('; '.join(notes))}" if notes else "")
    if is_usable:
        yield f"  {mark}  name: {_written(install.name)}"
    if install.environment in ENVIRONMENTS:
        yield f"  {mark}  environment: {install.environment}"


def _written(name: str) -> str:
    return name if _NAME.fullmatch(name) and name not in _NO_TEXT else _quoted(name)


def _quoted(text: str) -> str:
    """Return printable ``text`` as a YAML scalar that is read as the same text; a ``$`` in it names no variable."""
    return json.dumps(text.replace("$", "$$"), ensure_ascii=False)


def _comment(text: str) -> str:
    """Return ``text`` as one line for a comment, without characters that break YAML or a terminal."""
    shown = "".join(each if each.isprintable() else "?" for each in visible(text))
    return shown if len(shown) <= LONGEST_COMMENT else shown[:LONGEST_COMMENT] + "…"
