"""The command against every scenario of the examples: the report is true in each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from command import fleet, install_ids, run_command, stand_in
from schemas import report_line_problems

from orchestrator.config import read_checked
from orchestrator.simulator import Scenario
from orchestrator.simulator.fault_keys import Operation

pytestmark = pytest.mark.usefixtures("without_coverage")

SCENARIOS = sorted((Path(__file__).parents[2] / "examples/scenarios").glob("*.yaml"))
PATIENCE = "timeouts: {connect: 1s, read: 2500ms}\nthrottle: {give_up: 4s}"
COUNT = 40

GRACE = {"lost-answers": "4s", "as-documented": "2s", "slow-backend": "2s"}
"""The grace of scenarios whose listing lags, or whose backend works on, for more than a second; the grace is longer."""

KINDS = {
    "agency": {"accepted", "rejected"},
    "hostile": {"accepted", "rejected", "unconfirmed"},
    "old-gateway": {"accepted", "unconfirmed"},
    "outage": {"accepted", "unconfirmed", "cancelled"},
    "quota": {"accepted", "cancelled"},
    "revoked": {"accepted", "cancelled"},
    "spoiled-descriptions": {"accepted", "unconfirmed"},
}
"""The exact set of outcomes of each scenario. In a scenario that is not named here, every install is accepted."""

CANCELLED = {"revoked": "credentials", "quota": "quota", "outage": "unavailable"}
"""The scenarios that stop the account during the run, and the reason in the report."""

FOUND = {"lost-answers", "hostile"}
"""The scenarios in which some backups are found only by a lookup."""


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_report_agrees_with_the_server(path: Path, tmp_path: Path) -> None:
    ids = install_ids(COUNT)
    with stand_in("--scenario", str(path)) as server:
        text = fleet(server.base_url, COUNT, f"{PATIENCE}\nreconcile: {{grace: {GRACE.get(path.stem, '1s')}}}")
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
    kinds = {line["outcome"] for line in lines}
    assert kinds == KINDS.get(path.stem, {"accepted"})
    assert ended.code == (12 if path.stem == "revoked" else 0 if kinds == {"accepted"} else 3)
    assert struck >= faults_of_posts(path) or path.stem == "as-documented"
    cancelled = {line["error"]["kind"] for line in lines if line["outcome"] == "cancelled"}
    assert cancelled == ({CANCELLED[path.stem]} if path.stem in CANCELLED else set())
    assert any(line["reconciled"] for line in lines) or path.stem not in FOUND
    assert [problem for line in (*lines, summary) for problem in report_line_problems(line)] == []
    assert sorted(line["install_id"] for line in lines) == sorted(ids)
    _hold_against(lines, made)


def faults_of_posts(path: Path) -> set[str]:
    scenario = read_checked(path.read_bytes(), str(path), {}, Scenario)
    return {fault.kind for fault in scenario.faults if fault.operation is Operation.POST}


def _hold_against(lines: list[dict[str, Any]], made: dict[str, dict[str, Any]]) -> None:
    """Check the report against the server's backups: none is made twice, lost or guessed."""
    assert max(Counter(backup["install_id"] for backup in made.values()).values(), default=0) <= 1
    accepted = {line["backup"]["id"]: line["install_id"] for line in lines if line["outcome"] == "accepted"}
    assert {backup_id: made[backup_id]["install_id"] for backup_id in accepted} == accepted
    assert len(accepted) == sum(line["outcome"] == "accepted" for line in lines)
    unknown = {line["install_id"] for line in lines if line["outcome"] == "unconfirmed"}
    assert {each["install_id"] for each in made.values()} <= unknown | set(accepted.values())
