"""The edge to YAML and pydantic: text in, a checked ``Config`` out, or every problem at once with its place."""

from orchestrator.config.load import load_config

__all__ = ["load_config"]
