"""``wpe-backup simulate``: serve a local stand-in for the API."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from typing import Any

import rich_click as click

from orchestrator.cli.options import option, parsed_by
from orchestrator.config.values import parse_duration, parse_rate
from orchestrator.errors import UsageError
from orchestrator.logs import forgiving
from orchestrator.simulator import RetryAfter, Scenario, Simulator

SHARE = click.FloatRange(0.0, 1.0)


@click.command()
@option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 picks a free one.")
@option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@option(
    "--bucket-rate",
    metavar="N",
    callback=parsed_by(parse_rate),
    help="Limit requests to N per second. Default: no limit.",
)
@option(
    "--bucket-burst",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="What the limit lets through at once.",
)
@option(
    "--retry-after",
    type=click.Choice([form.value for form in RetryAfter]),
    default="none",
    show_default=True,
    help="How a 429 names the moment to come back; the real gateway does not.",
)
@option(
    "--latency-min",
    metavar="DURATION",
    default="20ms",
    show_default=True,
    callback=parsed_by(parse_duration),
    help="The quickest answer.",
)
@option(
    "--latency-max",
    metavar="DURATION",
    default="80ms",
    show_default=True,
    callback=parsed_by(parse_duration),
    help="The slowest answer.",
)
@option(
    "--completes-after",
    metavar="DURATION",
    default="2s",
    show_default=True,
    callback=parsed_by(parse_duration),
    help="Until a backup is completed.",
)
@option("--invalid", type=SHARE, default=0.0, help="Share of the installs that are answered 400.")
@option("--forbidden", type=SHARE, default=0.0, help="Share of the installs that are answered 403.")
@option("--not-found", type=SHARE, default=0.0, help="Share of the installs that are answered 404.")
@option("--unavailable", type=SHARE, default=0.0, help="Share of the POSTs that are answered 503.")
@option("--timed-out", type=SHARE, default=0.0, help="Share of the POSTs that are answered 504, nothing made.")
@option(
    "--timed-out-created",
    type=SHARE,
    default=0.0,
    help="Share of the POSTs that are answered 504 though the backup is made.",
)
@option("--seed", type=int, default=0, show_default=True, help="Whom the shares hit.")
def simulate(*, port: int, host: str, **settings: Any) -> int:  # noqa: ANN401 - the options above, by name
    """Serve a local stand-in for the API, for rehearsals.

    Prints its base URL on standard output. Credentials: WPE_API_USER_ID and WPE_API_PASSWORD where they are set, else
    any. What it really made and counted is shown at /_admin/stats, /_admin/backups and /_admin/requests.
    """
    try:
        scenario = _scenario(settings)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    asyncio.run(_serve(Simulator(scenario, host, port)))
    return 0


def _scenario(settings: dict[str, Any]) -> Scenario:
    return Scenario(
        rate=settings["bucket_rate"],
        burst=settings["bucket_burst"],
        retry_after=RetryAfter(settings["retry_after"]),
        latency_s=(settings["latency_min"], max(settings["latency_min"], settings["latency_max"])),
        completes_after_s=settings["completes_after"],
        invalid=settings["invalid"],
        forbidden=settings["forbidden"],
        not_found=settings["not_found"],
        unavailable=settings["unavailable"],
        timed_out=settings["timed_out"],
        timed_out_created=settings["timed_out_created"],
        seed=settings["seed"],
        user_id=os.environ.get("WPE_API_USER_ID") or None,
        password=os.environ.get("WPE_API_PASSWORD") or None,
    )


async def _serve(simulator: Simulator) -> None:
    stopped = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stopped.set)
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(simulator)
        except OSError as error:
            message = f"cannot listen: {error.strerror}; choose another --port (0 for any) or --host"
            raise UsageError(message) from error
        sys.stdout.write(f"{simulator.base_url}\n")
        sys.stdout.flush()
        forgiving(sys.stderr).write("Serving until Ctrl-C. Give this address as base_url of an account.\n")
        await stopped.wait()
    counted = simulator.world.stats()
    forgiving(sys.stderr).write(
        f"Counted {counted['requests']} requests, {counted['throttled']} of them answered 429; "
        f"made {counted['backups_made']} backups of {counted['installs_backed_up']} installs, "
        f"at most {counted['most_per_install']} of one.\n"
    )
