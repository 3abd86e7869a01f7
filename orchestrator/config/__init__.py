"""The edge to YAML and pydantic: text in, a checked ``Config`` out, or every problem at once with its place."""

from orchestrator.config.checked import read_checked
from orchestrator.config.load import Fleet, load_config, read_fleet
from orchestrator.config.schema import config_schema

__all__ = ["Fleet", "config_schema", "load_config", "read_checked", "read_fleet"]
