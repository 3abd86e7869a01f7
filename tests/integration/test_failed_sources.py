"""The real command with sources of installs that cannot be read: the messages, and how a retry reads them again."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from command import Ended, StandIn, install_ids, run_command, stand_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("without_coverage")

IDS = install_ids(8)


@pytest.fixture
def server() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


def configure(folder: Path, server: StandIn, *patterns: str, more: str = "") -> None:
    (folder / "clients").mkdir(exist_ok=True)
    (folder / "wpe-backup.yaml").write_text(
        "version: 1\n"
        f'accounts: {{default: {{base_url: "{server.base_url}"}}}}\n'
        "defaults: {notification_emails: []}\n"
        "retry: {max_attempts: 1}\n"
        f"inventory: [{{files: {json.dumps(patterns)}}}]\n"
        f"installs: [{{id: {IDS[0]}, name: shop0}}]\n{more}"
    )


def client(folder: Path, name: str, *numbers: int, wrong: str = "") -> None:
    rows = "".join(f"{IDS[number]},shop{number}\n" for number in numbers)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(f"id,name\n{rows}{wrong}")


def run(folder: Path, *arguments: str) -> tuple[Ended, list[str], dict[str, Any]]:
    """Run with ``arguments``. Return its end, the names of its installs and its summary."""
    ended = run_command("run", "-o", "-", *arguments, cwd=folder)
    lines = ended.lines()
    summary = next((line for line in lines if line["type"] == "summary"), {})
    assert not summary or summary["exit_code"] == ended.code
    return ended, [line["name"] for line in lines if line["type"] == "backup"], summary


def made(server: StandIn) -> list[int]:
    """Return the number of the install of each backup that the server made, sorted."""
    return sorted(IDS.index(backup["install_id"]) for backup in server.backups())


def test_a_missing_folder_is_exit_3_with_the_reason_and_other_sources_run(server: StandIn, tmp_path: Path) -> None:
    configure(tmp_path, server, "clients/*.csv", "mnt/*.csv")
    client(tmp_path, "clients/a.csv", 1)
    ended, names, summary = run(tmp_path, "-q")
    assert (ended.code, names, made(server)) == (3, ["shop0", "shop1"], [0, 1])
    (failed,) = summary["failed_sources"]
    assert failed["source"] == "wpe-backup.yaml:5: files mnt/*.csv"
    assert failed["error"]["message"].startswith("the directory mnt cannot be read: No such file or directory")
    assert (failed["account"], failed["error"]["kind"], summary["empty_sources"]) == (None, "not_found", [])
    assert ended.stderr.count("the directory mnt cannot be read: No such file or directory") == 2, (
        "at once, and at the end"
    )
    assert "--retry-failed" in ended.stderr
    shown = run_command("report", "summary", "latest", cwd=tmp_path)
    assert shown.code == 2, "it went to standard output"
    machine = run_command("run", "-q", "--log-format", "json", cwd=tmp_path)
    events = [json.loads(line) for line in machine.stderr.splitlines()]
    assert [(each["event"], each["level"]) for each in events] == [
        ("source.failed", "error"),
        ("run.finished", "error"),
    ]


def test_an_empty_source_is_in_the_summary_and_reported_even_with_quiet(server: StandIn, tmp_path: Path) -> None:
    configure(tmp_path, server, "clients/*.csv", "clients/*.yaml", "clients/*.jsonl")
    client(tmp_path, "clients/a.csv")
    (tmp_path / "clients/b.yaml").write_text("[]\n")
    ended, _, summary = run(tmp_path, "-q")
    assert (ended.code, summary["failed_sources"]) == (0, [])
    assert summary["empty_sources"] == [
        {"source": "clients/a.csv", "reason": "holds no installs"},
        {"source": "clients/b.yaml", "reason": "holds no installs"},
        {"source": "wpe-backup.yaml:5: files clients/*.jsonl", "reason": "matches no file"},
    ]
    said = ended.stderr.splitlines()
    assert len(said) == 3
    assert all("source.empty" in line for line in said)
    again = run_command("run", "--resume", "latest", "-o", "-", cwd=tmp_path)
    assert again.lines()[-1]["empty_sources"] == summary["empty_sources"]
    strict = run_command("run", "--strict", cwd=tmp_path)
    assert (strict.code, strict.stderr.count("holds no installs"), len(server.backups())) == (2, 2, 1)
    valid = run_command("config", "validate", cwd=tmp_path)
    assert (valid.code, valid.stderr.count("warning: ")) == (0, 3)


def test_every_command_reports_a_wrong_clients_file(server: StandIn, tmp_path: Path) -> None:
    configure(tmp_path, server, "clients/*.csv")
    client(tmp_path, "clients/a.csv", 1, wrong="not-an-id,x\n")
    client(tmp_path, "clients/b.csv", 1, 2)
    places = ("clients/a.csv:3:1", "clients/b.csv:2:1")
    plan = run_command("run", "-n", cwd=tmp_path)
    assert (plan.code, plan.stderr.count("source.failed")) == (3, 2)
    assert plan.stdout.endswith("a run would end with exit code 3\n")
    for command in (("run", "--strict"), ("config", "validate"), ("config", "show")):
        refused = run_command(*command, cwd=tmp_path)
        assert (refused.code, [place in refused.stderr for place in places]) == (2, [True, True])
        assert "    3 | not-an-id,x\n      | ^" in refused.stderr
    assert server.requests() == []
    ended = run_command("run", "-q", cwd=tmp_path)
    assert (ended.code, made(server)) == (3, [0, 1, 2])
    assert all(f"not read: {place}: id: " in ended.stderr for place in places)
    assert "already listed at clients/a.csv:2" in ended.stderr
    told = run_command("report", "summary", "latest", cwd=tmp_path)
    assert all(f"not read: {place}: id: " in told.stdout for place in places)
    audit = run_command("audit", "--max-age", "1d", cwd=tmp_path)
    assert (audit.code, audit.stderr.count("source.failed")) == (3, 2)
    assert "sources that could not be read: 2" in audit.stdout
    drift = run_command("installs", "--diff", "--format", "json", cwd=tmp_path)
    unknown = [each["note"] for each in json.loads(drift.stdout) if each["kind"] == "unknown"]
    assert (drift.code, [note.split(": ")[0] for note in unknown]) == (3, list(places))
    doctor = run_command("doctor", "--format", "json", cwd=tmp_path)
    verdicts = {each["check"]: each["verdict"] for each in json.loads(doctor.stdout)}
    assert (doctor.code, verdicts["inventory"], verdicts["configuration"], verdicts["api"]) == (3, "fail", "ok", "ok")
    assert run_command("status", cwd=tmp_path).code in {0, 3}
    assert run_command("history", cwd=tmp_path).code == 0


def test_if_every_file_is_wrong_nothing_is_requested_and_the_exit_code_is_3(server: StandIn, tmp_path: Path) -> None:
    configure(tmp_path, server, "clients/*.csv")
    text = (tmp_path / "wpe-backup.yaml").read_text()
    (tmp_path / "wpe-backup.yaml").write_text(text[: text.index("installs:")])
    client(tmp_path, "clients/a.csv", wrong="not-an-id,x\n")
    ended, names, summary = run(tmp_path)
    assert (ended.code, names, len(summary["failed_sources"])) == (3, [], 1)


def test_a_named_install_runs_even_if_another_clients_file_is_wrong(server: StandIn, tmp_path: Path) -> None:
    configure(tmp_path, server, "clients/*.csv", "mnt/*.csv")
    client(tmp_path, "clients/a.csv", 1, wrong="not-an-id,x\n")
    ended, names, summary = run(tmp_path, "shop1")
    assert (ended.code, names, summary["failed_sources"]) == (0, ["shop1"], [])
    assert ended.stderr.count("plan.warning") == 2
    gone = run_command("run", "shop9", cwd=tmp_path)
    assert (gone.code, "clients/a.csv:3:1: id: must be" in gone.stderr) == (2, True)
    listed = tmp_path / "list.txt"
    listed.write_text("shop1\nshop9\n")
    ended, names, summary = run(tmp_path, "--installs-from", "list.txt")
    assert (ended.code, sorted(names), len(summary["failed_sources"])) == (3, ["shop1", "shop9"], 2)
    client(tmp_path, "clients/a.csv", 1)
    client(tmp_path, "mnt/b.csv", 2)
    (tmp_path / "mnt/b.csv").write_text(f"id,name\n{IDS[2]},shop9\n{IDS[3]},shop3\n")
    again, names, summary = run(tmp_path, "--retry-failed", "latest")
    assert (again.code, names, summary["failed_sources"]) == (0, ["shop9"], []), "what was listed, and nothing else"


def test_a_retry_reads_failed_sources_again_until_none_is_missing(server: StandIn, tmp_path: Path) -> None:
    configure(tmp_path, server, "clients/*.csv", "mnt/*.csv")
    client(tmp_path, "clients/a.csv", 1, wrong="not-an-id,x\n")
    report = tmp_path / "first.jsonl"
    first = run_command("run", "-o", str(report), cwd=tmp_path)
    for arguments in (("--resume", "latest"), ("--retry-failed", "latest"), ("--retry-failed", str(report))):
        ended, names, summary = run(tmp_path, *arguments)
        assert (first.code, ended.code, len(summary["failed_sources"])) == (3, 3, 2)
        assert (names if arguments[0] != "--resume" else [], made(server)) == ([], [0, 1])
    resumed = run_command("run", "--resume", "latest", cwd=tmp_path)
    assert resumed.code == 3, "a retry that found its sources as they were"
    client(tmp_path, "clients/a.csv", 1, 2)
    ended, names, summary = run(tmp_path, "--retry-failed", "latest")
    assert (ended.code, names, len(summary["failed_sources"])) == (3, ["shop2"], 1)
    client(tmp_path, "mnt/b.csv", 3)
    client(tmp_path, "clients/c.csv", 4)
    ended, names, _ = run(tmp_path, "--retry-failed", "latest")
    assert (ended.code, names) == (0, ["shop4", "shop3"])
    ended, names, _ = run(tmp_path, "--retry-failed", "latest")
    assert (ended.code, names, made(server)) == (0, [], [0, 1, 2, 3, 4])


def test_a_report_alone_is_enough_to_retry_a_failed_source(server: StandIn, tmp_path: Path) -> None:
    configure(tmp_path, server, "mnt/*.csv")
    report = tmp_path / "first.jsonl"
    run_command("run", "-o", str(report), cwd=tmp_path)
    shutil.rmtree(tmp_path / "state")
    retry = tmp_path / "retry.jsonl"
    assert run_command("run", "--retry-failed", str(report), "-o", str(retry), cwd=tmp_path).code == 3
    client(tmp_path, "mnt/b.csv", 1)
    ended, names, summary = run(tmp_path, "--retry-failed", str(retry))
    assert (ended.code, names) == (3, []), "this report alone does not tell what the first run had"
    assert "name the run by its id" in summary["failed_sources"][0]["error"]["message"]
    old = [json.loads(line) for line in report.read_text().splitlines()]
    del old[-1]["selection"]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old))
    assert run(tmp_path, "--retry-failed", str(tmp_path / "old.jsonl"))[:2][1] == []
    ended, names, _ = run(tmp_path, "--retry-failed", str(report))
    assert (ended.code, names, made(server)) == (0, ["shop1"], [0, 1])


@pytest.mark.parametrize(
    ("selection", "first", "then"),
    [
        (("--only", "shop[02]"), ["shop0"], ["shop2"]),
        (("--exclude", "shop3"), ["shop0", "shop1"], ["shop2"]),
        (("--limit", "3"), ["shop0", "shop1"], ["shop2"]),
        (("--limit", "2"), ["shop0", "shop1"], []),
        (("--tag", "x"), [], ["shop4"]),
    ],
)
def test_a_retry_keeps_to_the_selection_of_the_earlier_run(
    server: StandIn, tmp_path: Path, selection: tuple[str, ...], first: list[str], then: list[str]
) -> None:
    configure(tmp_path, server, "clients/*.csv", "mnt/*")
    client(tmp_path, "clients/a.csv", 1)
    ended, names, _ = run(tmp_path, *selection)
    assert (ended.code, names) == (3, first)
    client(tmp_path, "mnt/b.csv", 2, 3)
    (tmp_path / "mnt/c.jsonl").write_text(json.dumps({"id": IDS[4], "name": "shop4", "tags": ["x"]}) + "\n")
    ended, names, _ = run(tmp_path, "--retry-failed", "latest")
    taken = [name for name in names if name in {"shop2", "shop3"}] if selection[0] != "--tag" else names
    assert (ended.code, taken) == (0, then)
    assert len(server.backups()) == len({backup["install_id"] for backup in server.backups()})


def test_each_shard_of_a_night_retries_its_own_part(server: StandIn, tmp_path: Path) -> None:
    configure(tmp_path, server, "clients/*.csv", "mnt/*.csv")
    client(tmp_path, "clients/a.csv", 1, 2, 3)
    for part in (1, 2, 3):
        assert run(tmp_path, "--shard", f"{part}/3")[0].code == 3
    client(tmp_path, "mnt/b.csv", 4, 5, 6, 7)
    for part in (1, 2, 3):
        assert run(tmp_path, "--shard", f"{part}/3", "--retry-failed", "latest")[0].code == 0
    assert made(server) == [0, 1, 2, 3, 4, 5, 6, 7]


def test_a_failed_install_is_retried_unchanged_even_if_its_file_is_now_damaged(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(
        f"faults: [{{kind: unavailable, created: false, installs: [{IDS[1]}], first_tries: 1}}]\n"
    )
    with stand_in("--scenario", str(tmp_path / "scenario.yaml")) as server:
        configure(tmp_path, server, "clients/*.jsonl", more="reconcile: {grace: 1s}\n")
        path = tmp_path / "clients/a.jsonl"
        path.write_text(json.dumps({"id": IDS[1], "name": "shop1", "description": "Of its own"}) + "\n")
        assert run(tmp_path)[0].code == 3
        path.write_text(path.read_text()[:60])
        run(tmp_path, "--retry-failed", "latest")
        (backup,) = [each for each in server.backups() if each["install_id"] == IDS[1]]
    assert backup["description"].startswith("Of its own [wpe-backup ")


def test_names_that_could_not_be_resolved_stay_in_their_shards(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(
        "latency: 1ms\n"
        "accounts: [{name: agencyone, installs: 8}]\n"
        "faults: [{kind: unavailable, operation: installs, first_tries: 3}]\n"
    )
    with stand_in("--scenario", str(scenario)) as server:
        configure(tmp_path, server, more="")
        names = [f"agencyon00000{number}" for number in range(1, 9)]
        text = (tmp_path / "wpe-backup.yaml").read_text()
        text = text[: text.index("inventory:")]
        (tmp_path / "wpe-backup.yaml").write_text(
            f"{text}installs: [{', '.join(names[:5])}]\ninventory: [discover: {{}}]\n"
        )
        first = [run(tmp_path, "--shard", f"{part}/3") for part in (1, 2, 3)]
        assert [ended.code for ended, _, _ in first] == [3, 3, 3]
        assert sorted(name for _, planned, _ in first for name in planned) == names[:5]
        again = [run(tmp_path, "--shard", f"{part}/3", "--retry-failed", "latest") for part in (1, 2, 3)]
        assert [ended.code for ended, _, _ in again] == [0, 0, 0]
        assert sorted(name for _, planned, _ in again for name in planned) == names
        assert server.stats()["backups_made"] == server.stats()["installs_backed_up"] == 8


def test_a_name_that_turns_out_to_be_in_another_environment_is_left_out(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(
        "latency: 1ms\n"
        "accounts: [{name: agencyone, installs: [{name: live1}, {name: stage1, environment: staging}]}]\n"
        "faults: [{kind: unavailable, operation: installs, first_tries: 1}]\n"
    )
    with stand_in("--scenario", str(scenario)) as server:
        configure(tmp_path, server)
        text = (tmp_path / "wpe-backup.yaml").read_text()
        (tmp_path / "wpe-backup.yaml").write_text(text[: text.index("inventory:")] + "installs: [live1, stage1]\n")
        first, names, _ = run(tmp_path, "--environment", "staging")
        assert (first.code, names) == (3, ["live1", "stage1"])
        again, names, _ = run(tmp_path, "--retry-failed", "latest")
        assert (again.code, names, len(server.backups())) == (0, ["stage1"], 1)


def test_ten_thousand_wrong_rows_are_all_in_the_summary_but_few_are_printed(server: StandIn, tmp_path: Path) -> None:
    configure(tmp_path, server, "clients/*.csv")
    client(tmp_path, "clients/a.csv", 1, wrong="not-an-id,x\n" * 10_000)
    ended, names, summary = run(tmp_path)
    assert (ended.code, names, len(summary["failed_sources"])) == (3, ["shop0", "shop1"], 10_000)
    assert "9980 more" in ended.stderr
    assert "more=9980" in ended.stderr
    assert len(ended.stderr.splitlines()) < 60
