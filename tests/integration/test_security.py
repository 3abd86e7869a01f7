"""The real command with links, secrets, permissions and limits of the system."""

from __future__ import annotations

import base64
import resource
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest
from command import COMMAND, PASSWORD, USER, environment, fleet, install_ids, run_command, stand_in

if TYPE_CHECKING:
    from pathlib import Path

SCENARIO = f"""\
faults:
  - {{kind: gateway_timeout, created: true, installs: [{install_ids(3)[1]}]}}
listing: {{available: false}}
"""


def test_no_file_or_output_of_a_run_holds_a_secret(tmp_path: Path) -> None:
    """The report, the summary, the state, and the logs of run, resume, retry and settle."""
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    with stand_in("--scenario", str(tmp_path / "scenario.yaml")) as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 3))
        said = [
            run_command(*arguments, cwd=tmp_path)
            for arguments in (
                ("run", "-v"),
                ("run", "-v", "--log-format", "json", "--resume", "latest"),
                ("run", "-v", "-o", "-", "--retry-failed", "latest"),
                ("settle", "latest", "shop1", "--absent"),
                ("config", "show"),
                ("report", "summary"),
            )
        ]
    pair = f"{USER}:{PASSWORD}"
    secrets = [each.encode() for each in (USER, PASSWORD, pair)]
    secrets += [base64.b64encode(each) for each in secrets]
    written = {str(path): path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file()}
    written |= {f"output {n}": (each.stdout + each.stderr).encode() for n, each in enumerate(said)}
    assert {"state.db", "report.jsonl", "summary.json", "lock"} <= {name.rpartition("/")[2] for name in written}
    assert [(name, secret) for name, data in written.items() for secret in secrets if secret in data] == []


def test_only_the_owner_can_read_the_state(tmp_path: Path) -> None:
    with stand_in() as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 1))
        for more in ((), ("-o", "report.jsonl")):
            assert run_command("run", *more, cwd=tmp_path).code == 0
        state = tmp_path / "state"
        run_id = next((state / "runs").glob("*/report.jsonl")).parent.name
        assert run_command("status", run_id, cwd=tmp_path).code in {0, 3}
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (state, *state.rglob("*"))}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}


@pytest.mark.parametrize("way", ["link", "folder/report.jsonl"])
def test_a_link_in_a_shared_folder_is_not_followed(tmp_path: Path, way: str) -> None:
    shared, target = tmp_path / "shared", tmp_path / "target"
    shared.mkdir()
    shared.chmod(0o1777)
    target.mkdir()
    (target / "report.jsonl").write_text("precious")
    (shared / "link").symlink_to(target / "report.jsonl")
    (shared / "folder").symlink_to(target)
    with stand_in() as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 1))
        ended = run_command("run", "-o", str(shared / way), cwd=tmp_path)
        assert (ended.code, server.stats()["requests"]) == (4, 0)
    assert "symbolic link in a directory that others may write to" in ended.stderr
    assert (target / "report.jsonl").read_text() == "precious"


def test_a_link_in_an_own_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "elsewhere/report.jsonl")
    with stand_in() as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, 1))
        assert run_command("run", "-o", "link.jsonl", cwd=tmp_path).code == 0
    assert (tmp_path / "elsewhere/report.jsonl").read_text().count("\n") == 2
    assert (tmp_path / "link.jsonl").is_symlink()


def test_a_low_limit_of_open_files_bounds_the_requests_in_flight(tmp_path: Path) -> None:
    count = 200
    with stand_in("--latency-min", "800ms", "--latency-max", "800ms") as server:
        (tmp_path / "wpe-backup.yaml").write_text(fleet(server.base_url, count))
        ended = subprocess.run(
            [*COMMAND, "run", "-o", "-", "--concurrency", "2000", "--rate", "400", "--max-rate", "400"],
            cwd=tmp_path,
            env=environment(WPE_BACKUP_STATE_DIR=str(tmp_path / "state"), HOME=str(tmp_path)),
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ended.returncode, server.stats()["backups_made"]) == (0, count)
        assert server.stats()["most_in_flight"] <= 96
    assert "96 requests in flight instead of 2000: only 160 files may be open" in ended.stderr
