"""The fleet that a stand-in shows if its scenario names no accounts: an example for the first minutes."""

from __future__ import annotations

from typing import Literal

from orchestrator.simulator.scenario import SimulatedAccount, SimulatedInstall

_ENVIRONMENTS: tuple[Literal["production", "staging", "development"], ...] = ("production", "staging", "development")

_SHOPS = """
fc7c9103-c27d-53fb-a7d7-c46929cae037 a26458a3-d91a-5ed9-8bac-a0bb6cb81cbb 9d3e7127-7fa8-5294-a16b-0d9321355822
4f52219f-698a-5ba7-992d-662f4d60a11b 52761433-224b-5900-8404-d22ac9200596 ab270fa3-993a-5a36-8d4e-4cb33996858b
1927d8a9-e243-56b8-a5d7-62b3f9e20279 64392875-9fb8-5b54-be98-6d40f058768b bb88d4c8-8694-5864-bf2b-1f158dbf1a58
f3eac89a-17f2-550e-97fe-a2f19fd47f82 ad034771-5106-5ed1-9ebd-7c9946010c96 c67569eb-5c72-5b75-8792-693c221546a7
e8bef456-0c23-57e4-8c59-ae25da254dcb 1f4e4fd5-0531-577d-b976-23d60e81118f 3443ddf6-59f3-52be-93d7-8f42866fe535
77c8b883-1d32-5f9f-baf0-8aa86735b534 46691b42-4c82-5d6a-a8c3-54bd9744f453 1385e93d-455d-58b3-9694-ce2b7b29c75a
6aa25dca-9834-586b-b759-fb300f2e69e0 1f4056dc-3a55-5bcf-9368-9c839572f52b c80a61ef-5c79-534d-9617-7acc127fbe34
96167924-5427-5ef4-ad08-7ee9e7de552a 97d8d87a-dc79-507b-b442-6f9e57ee6857 b7829054-2068-565d-adb0-fe04638656f8
"""
"""The install ids of ``examples/rehearsal.yaml``. Each line is one site: production, staging, development."""

REHEARSAL = SimulatedAccount(
    name="rehearsal",
    installs=tuple(
        SimulatedInstall(
            name=f"shop{number:02}",
            id=install_id,
            environment=_ENVIRONMENTS[(number - 1) % 3],
            site=f"site-{(number + 2) // 3}",
        )
        for number, install_id in enumerate(_SHOPS.split(), 1)
    ),
)
"""One account with eight sites, each in three environments."""
