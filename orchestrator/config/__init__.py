"""The edge to YAML and pydantic: it turns text into a checked ``Config``, or reports every problem with its place."""

from orchestrator.config.load import CheckedYaml, load_config, read_yaml
from orchestrator.config.placed_yaml.checked import read_checked
from orchestrator.config.schema import config_schema

__all__ = ["CheckedYaml", "config_schema", "load_config", "read_checked", "read_yaml"]
