"""A configuration for what is asked without a YAML: one account, whose credentials the environment has."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.config import load_config
from orchestrator.config.secrets import VARIABLES, is_given_outside
from orchestrator.config.values import is_loopback
from orchestrator.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from orchestrator.model import Config

NOWHERE = "<environment>"
"""What stands for the name of the file."""

MADE_UP = {"user_id": "any-user-will-do", "password": "any-password-will-do"}
"""What a stand-in is given. They are in no name and no path: as secrets they are taken out of whatever is said."""

_LEAST = "version: 1\ndefaults: {notification_emails: []}\ninventory: [discover: {}]\n"


def made_up_credentials(base_url: str | None) -> dict[str, str]:
    """Return what the account ``default`` sends to a stand-in at ``base_url`` where the environment gives nothing.

    The values are as a YAML writes them: what is exported later takes their place. None for an API elsewhere.
    """
    if base_url is None or not is_loopback(base_url):
        return {}
    return {
        secret: f"${{{variable}:-{MADE_UP[secret]}}}"
        for secret, variable in VARIABLES.items()
        if not is_given_outside(secret, os.environ)
    }


def config_of_environment(base_url: str | None = None) -> Config:
    """Return the configuration of the account ``default`` at ``base_url``, else where the API is.

    Raises ``UsageError`` if the environment has no usable credentials; a stand-in on this machine needs none.
    """
    account = json.dumps(made_up_credentials(base_url))
    text = f"{_LEAST}accounts: {{default: {account}}}\n"
    try:
        config = load_config(text.encode(), NOWHERE, os.environ)
    except ConfigError as error:
        faults = (f"{each.path}: {each.message.replace('give it here, or ', '')}" for each in error.problems)
        message = "the environment has no usable credentials:\n" + "\n".join(faults)
        raise UsageError(message) from None
    if base_url is None:
        return config
    return replace(config, accounts={name: replace(each, base_url=base_url) for name, each in config.accounts.items()})
