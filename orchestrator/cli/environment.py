"""A configuration for what is asked without a YAML: one account, whose credentials the environment has."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.config import load_config
from orchestrator.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from orchestrator.model import Config

NOWHERE = "<environment>"
"""What stands for the name of the file."""

_LEAST = b"version: 1\ndefaults: {notification_emails: []}\ninventory: [discover: {}]\n"


def config_of_environment(base_url: str | None = None) -> Config:
    """Return the configuration of the account ``default`` at ``base_url``, else where the API is.

    Raises ``UsageError`` if the environment has no usable credentials.
    """
    try:
        config = load_config(_LEAST, NOWHERE, os.environ)
    except ConfigError as error:
        faults = (f"{each.path}: {each.message.replace('give it here, or ', '')}" for each in error.problems)
        message = "the environment has no usable credentials:\n" + "\n".join(faults)
        raise UsageError(message) from None
    if base_url is None:
        return config
    return replace(config, accounts={name: replace(each, base_url=base_url) for name, each in config.accounts.items()})
