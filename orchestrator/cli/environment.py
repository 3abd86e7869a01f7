"""The configuration of a command without a YAML: one account with the credentials of the environment."""

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
"""The name of this configuration, in place of a file name."""

MADE_UP = {"user_id": "any-user-will-do", "password": "any-password-will-do"}
"""Credentials for a stand-in. These words occur in no name and no path, because the output redacts them."""

_LEAST = "version: 1\ndefaults: {notification_emails: []}\ninventory: [discover: {}]\n"


def made_up_credentials(base_url: str | None) -> dict[str, str]:
    """Return made-up credentials for a stand-in at ``base_url``, in the form of the YAML.

    A secret that the environment has is left out. A variable that is exported later overrides the made-up value. For an
    API on another machine, return nothing.
    """
    if base_url is None or not is_loopback(base_url):
        return {}
    return {
        secret: f"${{{variable}:-{MADE_UP[secret]}}}"
        for secret, variable in VARIABLES.items()
        if not is_given_outside(secret, os.environ)
    }


def config_of_environment(base_url: str | None = None) -> Config:
    """Return the configuration of the account ``default`` at ``base_url``, or at the API's address.

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
