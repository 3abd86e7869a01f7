"""The system's limit on open files; each connection counts as one."""

from __future__ import annotations

import resource
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.engine.ports import Log
    from orchestrator.model import Config

RESERVED = 64
"""Files other than connections: the state, the report, logs, name look-ups."""

ENOUGH = 65_536


def most_in_flight(config: Config) -> tuple[int, int]:
    """Raise the limit on open files if needed; return the most requests in flight, and the most open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    accounts = len({install.account for install in config.installs if install.enabled})
    return max(1, (soft - RESERVED) // max(1, accounts)), soft


def within_open_files(config: Config, log: Log) -> Config:
    """Return ``config`` with no more requests in flight than the system allows connections."""
    most, files = most_in_flight(config)
    if config.throttle.concurrency <= most:
        return config
    reason = (
        f"at most {most} requests in flight instead of {config.throttle.concurrency}: only {files} files may be open"
    )
    log.warning("plan.warning", reason=reason)
    return replace(config, throttle=replace(config.throttle, concurrency=most))
