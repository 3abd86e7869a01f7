"""A local stand-in for the API, over real sockets: for rehearsals, the demo and the tests.

Knows nothing of the rest of this package: it is written from the API's specification alone, so that a mistake of the
client cannot hide in a shared piece of code.
"""

from orchestrator.simulator.scenario import Bucket, Fault, Kind, RetryAfter, Scenario
from orchestrator.simulator.server import Simulator

__all__ = ["Bucket", "Fault", "Kind", "RetryAfter", "Scenario", "Simulator"]
