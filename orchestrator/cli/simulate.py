"""``wpe-backup simulate``: serve a local stand-in for the API."""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from orchestrator.cli.stopping import run_until_stopped
from orchestrator.cli.streams import say, stdout_failure
from orchestrator.config import read_checked
from orchestrator.config.secrets import BYTE_ORDER_MARK, VARIABLES
from orchestrator.config.source import yaml_text
from orchestrator.errors import UsageError
from orchestrator.simulator import Bucket, Fault, Kind, Scenario, Simulator

if TYPE_CHECKING:
    from orchestrator.engine.stop import StopSwitch

SHARES = (
    ("invalid", Kind.BAD_REQUEST, None),
    ("forbidden", Kind.FORBIDDEN, None),
    ("not_found", Kind.NOT_FOUND, None),
    ("unavailable", Kind.UNAVAILABLE, False),
    ("timed_out", Kind.GATEWAY_TIMEOUT, False),
    ("timed_out_created", Kind.GATEWAY_TIMEOUT, True),
)
"""The options that cause faults: name, kind, and whether the backup is made."""


def simulate(*, port: int, host: str, scenario: str | None, **settings: Any) -> int:  # noqa: ANN401 - the values of the options, by name
    """Serve the stand-in until a signal comes, and return 0."""
    base = Scenario()
    if scenario is not None:
        name, text = yaml_text(scenario)
        base = read_checked(text, name, os.environ, Scenario)
    try:
        complete = _with_options(base, settings)
    except ValidationError as error:
        raise click.UsageError(error.errors()[0]["msg"]) from None
    run_until_stopped(lambda stop: _serve(Simulator(complete, host, port), stop))
    return 0


def _with_options(base: Scenario, settings: dict[str, Any]) -> Scenario:
    changes: dict[str, Any] = {key: settings[key] for key in ("retry_after", "seed") if settings[key] is not None}
    quickest = base.latency[0] if settings["latency_min"] is None else settings["latency_min"]
    slowest = base.latency[1] if settings["latency_max"] is None else settings["latency_max"]
    changes["latency"] = (quickest, max(quickest, slowest))
    if settings["completes_after"] is not None:
        changes["backups"] = base.backups.model_copy(update={"completes_after": (settings["completes_after"],) * 2})
    changes["credentials"] = base.credentials.model_copy(
        update={
            key: getattr(base.credentials, key) or os.environ.get(variable, "").removeprefix(BYTE_ORDER_MARK) or None
            for key, variable in VARIABLES.items()
        }
    )
    rate, burst = settings["bucket_rate"], settings["bucket_burst"]
    return base.with_more(
        [] if rate is None else [Bucket(rate=rate, burst=burst)],
        [
            Fault(kind=kind, share=settings[name], created=created)
            for name, kind, created in SHARES
            if settings[name] is not None
        ],
        **changes,
    )


def _welcome(simulator: Simulator) -> str:
    """Return the welcome: the installs that the stand-in shows, and the credentials that it accepts."""
    world, wanted = simulator.world, simulator.scenario.credentials
    said = f"Serving until Ctrl-C. {len(world.installs)} installs of {len(world.accounts)} account(s) are listed"
    if simulator.scenario.accounts is None:
        said += "; any other install id is accepted, too"
    said += ".\nSet base_url of an account to this address"
    counts = f"\nCounts: {simulator.base_url.removesuffix('/v1')}/_admin/stats"
    if wanted.user_id is None and wanted.password is None:
        return f"{said}; any credentials are accepted.{counts}"
    return (
        f"{said}, and use the credentials of the scenario, or those in WPE_API_USER_ID and WPE_API_PASSWORD: set"
        f" these variables to the same values for the other commands.{counts}"
    )


async def _serve(simulator: Simulator, stop: StopSwitch) -> None:
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(simulator)
        except OSError as error:
            message = f"cannot listen: {error.strerror}; choose another --port (0 for any) or --host"
            raise UsageError(message) from error
        sys.stdout.write(f"{simulator.base_url}\n")
        if stdout_failure():
            return  # the reason is printed at the end
        say(_welcome(simulator))
        await stop.draining.wait()
    counted = simulator.stats()
    say(
        f"Counted {counted['requests']} requests, {counted['throttled']} of them answered 429; "
        f"made {counted['backups_made']} backups of {counted['installs_backed_up']} installs, "
        f"at most {counted['most_per_install']} of one."
    )
