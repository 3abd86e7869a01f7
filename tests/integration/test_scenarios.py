"""The command against every scenario of the examples: whatever the server does, what the report says is true."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from command import fleet, install_ids, run_command, stand_in
from schemas import report_line_problems

from orchestrator.config import read_checked
from orchestrator.simulator import Scenario
from orchestrator.simulator.scenario import Operation

SCENARIOS = sorted((Path(__file__).parents[2] / "examples/scenarios").glob("*.yaml"))
PATIENCE = "timeouts: {connect: 1s, read: 2500ms}\nthrottle: {give_up: 4s}\nretry: {deadline: 5s}"
COUNT = 40

ENDS = {"as-documented": {0, 3}, "windows": {0}, "changing-limit": {0}, "slow-backend": {0, 3}, "revoked": {12}}
"""Exit codes that a scenario must end with, if not 3: these may spare this fleet, that one refuses the credentials."""

CANCELLED = {"revoked": "credentials", "quota": "quota", "outage": "unavailable"}
"""Scenarios that may stop the account in the middle, and the reason that the report gives."""


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_what_the_report_says_is_what_the_server_did(path: Path, tmp_path: Path) -> None:
    ids = install_ids(COUNT)
    with stand_in("--scenario", str(path)) as server:
        text = fleet(server.base_url, COUNT, PATIENCE)
        if path.stem == "agency":
            ids = ["294deacc-d8b8-4005-82c4-0727ba8ddde0", "4b7d2f0e-1c1b-4c37-9f39-6a0de3c59f6b", *ids[2:]]
            text = text.replace(install_ids(2)[0], ids[0]).replace(install_ids(2)[1], ids[1])
        (tmp_path / "fleet.yaml").write_text(text)
        ended = run_command("run", "-c", "fleet.yaml", "-o", "-", cwd=tmp_path)
        made = {backup["id"]: backup for backup in server.backups()}
        struck = {struck.partition(" ")[2] for struck in server.stats()["faults"]}
    *lines, summary = ended.lines()
    assert "Traceback" not in ended.stderr
    assert ended.code == summary["exit_code"]
    assert ended.code in ENDS.get(path.stem, {3})
    assert struck >= faults_of_posts(path) or path.stem == "as-documented"
    for line in lines:
        assert line["outcome"] != "cancelled" or line["error"]["kind"] == CANCELLED.get(path.stem, "throttled")
    if path.stem in {"revoked", "quota"}:
        assert {line["outcome"] for line in lines} == {"accepted", "cancelled"}
    assert [problem for line in (*lines, summary) for problem in report_line_problems(line)] == []
    assert sorted(line["install_id"] for line in lines) == sorted(ids)
    assert (ended.code == 0) is all(line["outcome"] == "accepted" for line in lines)
    _hold_against(lines, made)


def faults_of_posts(path: Path) -> set[str]:
    scenario = read_checked(path.read_bytes(), str(path), {}, Scenario)
    return {fault.kind for fault in scenario.faults if fault.operation is Operation.POST}


def _hold_against(lines: list[dict[str, Any]], made: dict[str, dict[str, Any]]) -> None:
    """Hold the report against what was really made: nothing twice, nothing lost, nothing guessed."""
    assert max(Counter(backup["install_id"] for backup in made.values()).values(), default=0) <= 1
    accepted = {line["backup"]["id"]: line["install_id"] for line in lines if line["outcome"] == "accepted"}
    assert {backup_id: made[backup_id]["install_id"] for backup_id in accepted} == accepted
    unknown = {line["install_id"] for line in lines if line["outcome"] == "unconfirmed"}
    assert {each["install_id"] for each in made.values()} <= unknown | set(accepted.values())
