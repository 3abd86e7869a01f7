"""The command line: arguments, environment, signals. The only ``asyncio.run`` and ``sys.exit``."""

from orchestrator.cli.main import main

__all__ = ["main"]
