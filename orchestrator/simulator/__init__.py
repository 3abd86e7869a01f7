"""A local stand-in for the API, over real sockets: for rehearsals, the demo and the tests.

It shares no code with the client. It is written from the API's specification alone, so that a mistake in shared code
cannot hide a mistake of the client.
"""

from orchestrator.simulator.fault_keys import Fault, Kind
from orchestrator.simulator.limit_keys import Bucket, RetryAfter
from orchestrator.simulator.scenario import Scenario
from orchestrator.simulator.server import Simulator

__all__ = ["Bucket", "Fault", "Kind", "RetryAfter", "Scenario", "Simulator"]
