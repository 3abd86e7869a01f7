"""The real ``installs`` against the stand-in: the installs that the API shows, and the drift of the YAML."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from command import PASSWORD, USER, Ended, StandIn, run_command, stand_in

if TYPE_CHECKING:
    from pathlib import Path

TORQUE = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(4)]
SCENARIO = f"""\
latency: 1ms
accounts:
  - {{name: agencyone, installs: 4, environments: [production, staging]}}
  - name: agencytwo
    installs:
      - {{name: torquemag, id: {TORQUE[0]}}}
      - {{name: torqueshop, id: {TORQUE[1]}, environment: staging}}
      - {{name: newsite, id: {TORQUE[2]}, status: pending}}
pages: {{size: 3}}
"""
ALL = [f"agencyon00000{number}" for number in range(1, 5)] + ["torquemag", "torqueshop", "newsite"]
FAST = ("--rate", "200", "--max-rate", "200")


def serve(folder: Path, more: str = "") -> Any:
    (folder / "scenario.yaml").write_text(SCENARIO + more)
    return stand_in("--scenario", str(folder / "scenario.yaml"))


def configure(folder: Path, server: StandIn, more: str) -> None:
    head = f'version: 1\naccounts: {{default: {{base_url: "{server.base_url}"}}}}\n'
    rest = "defaults: {notification_emails: []}\nretry: {max_attempts: 1}\n"
    (folder / "wpe-backup.yaml").write_text(head + rest + more)


def installs(folder: Path, *arguments: str) -> Ended:
    return run_command("installs", *FAST, *arguments, cwd=folder)


def differences(folder: Path, *arguments: str) -> tuple[int, list[tuple[str, str | None]]]:
    ended = installs(folder, "--diff", "--format", "json", *arguments)
    return ended.code, [(row["kind"], row["name"] or row["install_id"]) for row in json.loads(ended.stdout)]


def test_every_page_is_shown_with_the_names_of_wp_engines_accounts(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        configure(tmp_path, server, "installs: [torquemag]\n")
        ended = installs(tmp_path)
        names, *rows, totals = ended.stdout.splitlines()
        assert (ended.code, totals) == (0, "7 installs, 1 of them pending")
        assert names.split()[:3] == ["name", "id", "environment"]
        assert [row.split()[0] for row in rows] == ALL
        assert rows[-1].split()[2:] == ["production", "pending", "default", "agencytwo", "newsite.wpengine.example"]
        assert server.stats()["requests"] == 1 + 3 + 1
        first = json.loads(installs(tmp_path, "--format", "json").stdout)[0]
        assert list(first)[:5] == ["name", "install_id", "environment", "status", "account"]
        assert (first["name"], first["wpengine_account"]) == ("agencyon000001", "agencyone")
        assert not (tmp_path / "state").exists()
        unknown = installs(tmp_path, "--account", "nobody")
        assert (unknown.code, "not an account of the configuration" in unknown.stderr) == (2, True)


def test_drift_has_unprotected_gone_renamed_and_pending_installs(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        listed = f"""\
installs:
  - {{id: {TORQUE[0]}, name: oldmag, enabled: false}}
  - {{id: {TORQUE[3]}, name: vanished}}
  - gonesite
  - agencyon000001
"""
        configure(tmp_path, server, listed)
        code, found = differences(tmp_path)
        assert code == 3
        assert found == [
            *(("unprotected", name) for name in (*ALL[1:4], "torqueshop")),
            ("gone", "gonesite"),
            ("gone", "vanished"),
            ("renamed", "torquemag"),
            ("pending", "newsite"),
        ]
        table = installs(tmp_path, "--diff")
        assert table.stdout.splitlines()[-1].endswith("; 4 unprotected, 2 gone, 1 renamed, 1 pending")
        assert "was oldmag; wpe-backup.yaml:6" in table.stdout
        discover = 'inventory: [discover: {wpengine_accounts: [agencyone], environments: [staging], exclude: ["*4"]}]\n'
        configure(tmp_path, server, f"{discover}installs: [{TORQUE[0]}, torqueshop, newsite]\n")
        assert differences(tmp_path) == (0, [])
        well = installs(tmp_path, "--diff")
        assert well.stdout == (
            "7 installs, 1 of them pending: no difference; the YAML lists each install or leaves it out\n"
        )
        assert installs(tmp_path, "--diff", "-q").stdout == ""
        configure(tmp_path, server, "inventory: [discover: {environments: [development]}]\n")
        assert differences(tmp_path) == (0, [])
        assert server.stats()["posts"] == 0


def test_a_failed_listing_makes_installs_unknown_and_never_gone(tmp_path: Path) -> None:
    with serve(tmp_path, "faults: [{kind: forbidden, operation: accounts, of: requests}]\n") as server:
        configure(tmp_path, server, "inventory: [discover: {wpengine_accounts: [agencyone]}]\ninstalls: [gonesite]\n")
        assert '"wpengine_account": null' in installs(tmp_path, "--format", "json").stdout
        code, found = differences(tmp_path)
        assert (code, found) == (3, [("unknown", None), ("gone", "gonesite")])
    with serve(tmp_path, "faults: [{kind: unavailable, operation: installs}]\n") as server:
        configure(tmp_path, server, "installs: [gonesite]\n")
        assert differences(tmp_path) == (3, [("unknown", None)])
        ended = installs(tmp_path)
        assert (ended.code, ended.stdout) == (3, "0 installs; listings that could not be read: 1\n")
        assert "source.failed" in ended.stderr


def test_each_account_is_judged_on_its_own(tmp_path: Path) -> None:
    with serve(tmp_path, f"credentials: {{user_id: {USER}, password: {PASSWORD}}}\n") as server:
        (tmp_path / "wpe-backup.yaml").write_text(f"""\
version: 1
accounts:
  default: {{base_url: "{server.base_url}"}}
  again: {{base_url: "{server.base_url}", user_id: {USER}, password: {PASSWORD}}}
  b: {{base_url: "{server.base_url}", user_id: a-stranger, password: out-of-date}}
defaults: {{notification_emails: []}}
inventory: [discover: {{account: again}}]
installs: [{{id: {TORQUE[3]}, account: b}}]
""")
        assert differences(tmp_path) == (12, [("unknown", None)])
        assert differences(tmp_path, "--account", "again") == (0, [])
        ended = installs(tmp_path, "--account", "default", "--account", "again", "--format", "json")
        rows = json.loads(ended.stdout)
        assert (ended.code, [row["name"] for row in rows]) == (0, ALL)
        assert {row["account"] for row in rows} == {"default"}


def test_without_a_yaml_the_environment_must_have_the_credentials(tmp_path: Path) -> None:
    ended = installs(tmp_path, "--diff")
    assert (ended.code, "there is no configuration" in ended.stderr) == (2, True)
    ended = run_command("installs", cwd=tmp_path, WPE_API_PASSWORD="", WPE_API_USER_ID="")
    assert ended.code == 2
    assert "there is no configuration" in ended.stderr
    assert "accounts.default.user_id: is required: set WPE_API_USER_ID," in ended.stderr
    assert "give it here" not in ended.stderr
