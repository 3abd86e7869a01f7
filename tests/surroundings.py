"""Find the variables of a developer's shell that could change a test's result; tests remove them."""

from __future__ import annotations

OURS = ("WPE_", "XDG_", "STATE_DIRECTORY")
OF_THE_TERMINAL = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CI", "COLUMNS", "LINES", "TTY_")
OF_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def is_foreign(name: str) -> bool:
    """Tell whether the environment variable ``name`` changes what the command does or shows."""
    return name.startswith((*OURS, *OF_THE_TERMINAL)) or name.lower() in OF_PROXIES
