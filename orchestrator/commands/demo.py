"""Demonstrate a run without credentials: a stand-in for the API, a fleet, a real run over HTTP, and the proof.

The proof compares the report with the stand-in's own count of the backups that it made for each install.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config import load_config
from orchestrator.errors import ExitCode
from orchestrator.runs.options import RunOptions
from orchestrator.runs.run import RunEnd, run_backups
from orchestrator.simulator import Bucket, Fault, Kind, Scenario, Simulator

if TYPE_CHECKING:
    from orchestrator.engine.ports import Log
    from orchestrator.engine.stop import StopSwitch

FLEET_SIZE = 200

RATE = 30.0
SCENARIO = Scenario(
    seed=7,
    limits=(Bucket(rate=RATE, burst=10),),
    latency=(0.05, 0.25),
    faults=(
        Fault(kind=Kind.BAD_REQUEST, share=0.01),
        Fault(kind=Kind.FORBIDDEN, share=0.01),
        Fault(kind=Kind.NOT_FOUND, share=0.02),
        Fault(kind=Kind.GATEWAY_TIMEOUT, share=0.02, created=True, after=0.5),
        Fault(kind=Kind.RESET, share=0.01, created=False),
    ),
)

EXIT_CODES = {ExitCode.OK, ExitCode.FAILED}
"""The exit codes of a run that reached its end. Any other code is passed on, and the demo proves nothing."""


@dataclass(frozen=True, slots=True)
class DemoEnd:
    """The end of the demo: the run, the stand-in's counts, and their contradictions to the report."""

    run: RunEnd
    config_file: Path
    stats: dict[str, int]
    refused: int
    contradictions: tuple[str, ...]


async def run_demo(folder: Path, log: Log, stop: StopSwitch) -> DemoEnd:
    """Back up a fleet of ``FLEET_SIZE`` made-up installs against a stand-in. All files stay in ``folder``."""
    async with Simulator(SCENARIO) as simulator:
        config_file = folder / "fleet.yaml"
        text = _fleet_yaml(simulator.base_url).encode()
        config_file.write_bytes(text)
        config = load_config(text, str(config_file), {})
        end = await run_backups(config, RunOptions(folder), log, stop)
        is_cut_short = end.summary.exit_code not in EXIT_CODES
        return DemoEnd(
            run=end,
            config_file=config_file,
            stats=simulator.stats(),
            refused=len(simulator.tally.refused),
            contradictions=() if is_cut_short else tuple(_contradictions(Path(end.summary.report), simulator)),
        )


def _fleet() -> dict[str, str]:
    """Return the names of the made-up installs by id."""
    return {str(uuid.uuid5(uuid.NAMESPACE_DNS, f"demo{n:03}")): f"demo{n:03}" for n in range(1, FLEET_SIZE + 1)}


def _fleet_yaml(base_url: str) -> str:
    head = f"""\
version: 1
accounts:
  default:
    user_id: demo-user
    password: demo-password
    base_url: {base_url}
reconcile: {{grace: 3s}}
defaults:
  description: "Demo backup of {{name}}, {{date}}"
  notification_emails: []
installs:
"""
    return head + "".join(f"  - {{id: {install_id}, name: {name}}}\n" for install_id, name in _fleet().items())


def _contradictions(report: Path, simulator: Simulator) -> list[str]:
    """Compare the report with the backups that the stand-in really made; return each contradiction."""
    lines = [json.loads(line) for line in report.read_bytes().splitlines()]
    lines = [line for line in lines if line["type"] == "backup"]
    found = []
    if Counter(line["install_id"] for line in lines) != Counter(list(_fleet())):
        found.append("the report does not have exactly one line for each install")
    reported = {line["backup"]["id"] for line in lines if line["outcome"] == "accepted"}
    made = {backup.id for backups in simulator.world.backups.values() for backup in backups}
    if reported != made:
        lacking, invented = len(made - reported), len(reported - made)
        found.append(f"the report lacks {lacking} backups, and has {invented} that were not made")
    if any(len(backups) > 1 for backups in simulator.world.backups.values()):
        found.append("an install was backed up twice")
    found += [
        f"{line['name']} is {line['outcome']}"
        for line in lines
        if line["outcome"] != ("rejected" if line["install_id"] in simulator.tally.refused else "accepted")
    ]
    return found
