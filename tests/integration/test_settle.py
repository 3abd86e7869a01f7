"""The real ``settle``: an operator decides about an unconfirmed install."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from command import Ended, StandIn, fleet, install_ids, run_command, stand_in
from schemas import report_line_problems

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COUNT = 6
LOST = install_ids(COUNT)[2]

SCENARIO = f"""\
faults:
  - {{kind: gateway_timeout, created: true, installs: [{LOST}], first_tries: 1}}
  - {{kind: not_found, installs: [{install_ids(COUNT)[4]}]}}
listing: {{available: false}}
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StandIn]:
    """Serve the stand-in after a run of six installs: one is unconfirmed but its backup exists, one is rejected."""
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    with stand_in("--scenario", str(tmp_path / "scenario.yaml")) as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, COUNT))
        assert run_command("run", cwd=tmp_path).code == 3
        yield server


def report(folder: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return the backup lines by install, and the summary, of the only run. Check every line against the schema."""
    (path,) = (folder / "state/runs").glob("*/report.jsonl")
    *lines, summary = map(json.loads, path.read_text().splitlines())
    assert [problem for line in (*lines, summary) for problem in report_line_problems(line)] == []
    assert len(lines) == COUNT
    return {line["install_id"]: line for line in lines}, summary


def settle(folder: Path, *arguments: str) -> Ended:
    return run_command("settle", *arguments, cwd=folder)


def test_the_line_of_an_unconfirmed_install_names_the_marker_to_look_for(server: StandIn, tmp_path: Path) -> None:
    lines, summary = report(tmp_path)
    assert lines[LOST]["outcome"] == "unconfirmed"
    assert lines[LOST]["look_for"] == [f"[wpe-backup {summary['run_id']}]"]
    assert [line["look_for"] for line in lines.values() if line["outcome"] != "unconfirmed"] == [[]] * 5
    (made,) = (backup for backup in server.backups() if backup["install_id"] == LOST)
    assert lines[LOST]["look_for"][0] in made["description"]


def test_an_install_settled_as_existing_is_accepted_in_report_and_summary(server: StandIn, tmp_path: Path) -> None:
    (made,) = (backup for backup in server.backups() if backup["install_id"] == LOST)
    ended = settle(tmp_path, "latest", "shop2", "--exists", made["id"])
    assert (ended.code, "shop2 is accepted now" in ended.stderr) == (0, True)
    lines, summary = report(tmp_path)
    line = lines[LOST]
    assert (line["outcome"], line["backup"]["id"], line["settled_by"]) == ("accepted", made["id"], "operator")
    assert (line["error"], line["look_for"]) == (None, [])
    assert (summary["outcomes"]["accepted"], summary["outcomes"]["unconfirmed"], summary["exit_code"]) == (5, 0, 3)
    assert summary["accounts"]["default"]["outcomes"] == {"accepted": 5, "rejected": 1}
    (folder,) = (tmp_path / "state/runs").iterdir()
    assert json.loads((folder / "summary.json").read_text()) == summary


def test_an_install_settled_as_absent_is_exhausted_and_can_be_retried(server: StandIn, tmp_path: Path) -> None:
    run_id = report(tmp_path)[1]["run_id"]
    assert settle(tmp_path, run_id[:20], LOST, "--absent").code == 0
    line = report(tmp_path)[0][LOST]
    assert (line["outcome"], line["backup"], line["error"]["status"]) == ("exhausted", None, 504)
    assert line["error"]["message"].endswith("the operator found no backup")
    again = run_command("run", "--retry-failed", run_id, "-o", "-", cwd=tmp_path)
    retried = {each["install_id"]: each["outcome"] for each in again.lines()[:-1]}
    assert retried == {LOST: "accepted", install_ids(COUNT)[4]: "rejected"}
    assert server.stats()["posts"] == COUNT + 2


def test_a_settled_install_stays_settled_when_the_run_is_resumed(server: StandIn, tmp_path: Path) -> None:
    settle(tmp_path, "latest", "shop2", "--absent")
    before, posts = report(tmp_path), server.stats()["requests"]
    assert run_command("run", "--resume", "latest", cwd=tmp_path).code == 3
    assert (report(tmp_path), server.stats()["requests"]) == (before, posts)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["latest", "shop0", "--absent"], "shop0 is accepted; only an unconfirmed install can be settled"),
        (["latest", "shop4", "--exists", "x-1"], "shop4 is rejected; only"),
        (["latest", "shop", "--absent"], "there is no install shop"),
        (["01ZZZ", "shop2", "--absent"], "there is no run 01ZZZ; the newest runs"),
        (["latest", "shop2"], "use either --exists BACKUP_ID or --absent"),
        (["latest", "shop2", "--absent", "--exists", "x-1"], "use either"),
        (["latest", "shop2", "--exists", "two words"], "is not a backup id"),
        (["latest", "shop2", "--exists", "x\x1b[2J"], "is not a backup id"),
    ],
)
def test_wrong_arguments_are_exit_2_and_change_nothing(
    server: StandIn, tmp_path: Path, arguments: list[str], said: str
) -> None:
    before, requests = report(tmp_path), server.stats()["requests"]
    ended = settle(tmp_path, *arguments)
    assert (ended.code, said in ended.stderr, ended.stderr.count("\n")) == (2, True, 1)
    assert (report(tmp_path), server.stats()["requests"]) == (before, requests)


def test_without_a_run_settle_is_exit_2_and_makes_no_state(tmp_path: Path) -> None:
    ended = settle(tmp_path, "latest", "shop2", "--absent")
    assert (ended.code, "there are no runs in" in ended.stderr) == (2, True)
    assert not (tmp_path / "state").exists()


def test_if_the_report_went_to_a_pipe_only_the_journal_is_settled(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    with stand_in("--scenario", str(tmp_path / "scenario.yaml")) as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, COUNT))
        run_command("run", "-o", "-", cwd=tmp_path)
        ended = settle(tmp_path, "latest", "shop2", "--exists", "b-1")
        assert (ended.code, "not written again" in ended.stderr) == (0, True)
        again = run_command("run", "--resume", "latest", "-o", "-", cwd=tmp_path)
    (line,) = (each for each in again.lines()[:-1] if each["install_id"] == LOST)
    assert (line["outcome"], line["backup"]["id"]) == ("accepted", "b-1")
