"""Request backups of many WP Engine installs concurrently, under a rate limit, and report each outcome truthfully.

``__all__`` is the public library; ``docs/library.md`` explains it. Everything else may change with any release.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from orchestrator.version import __version__

if TYPE_CHECKING:
    from orchestrator.errors import (
        ConfigError,
        ExitCode,
        LockedError,
        OrchestratorError,
        Problem,
        StoppedError,
        StorageError,
        UsageError,
    )
    from orchestrator.library import RunResult, back_up, load_config
    from orchestrator.model import Backup, Config, ErrorInfo, ErrorKind, Outcome, OutcomeKind
    from orchestrator.runs.options import RunOptions
    from orchestrator.selection import Selection
    from orchestrator.summary import FailureLimit

__all__ = [
    "Backup",
    "Config",
    "ConfigError",
    "ErrorInfo",
    "ErrorKind",
    "ExitCode",
    "FailureLimit",
    "LockedError",
    "OrchestratorError",
    "Outcome",
    "OutcomeKind",
    "Problem",
    "RunOptions",
    "RunResult",
    "Selection",
    "StoppedError",
    "StorageError",
    "UsageError",
    "__version__",
    "back_up",
    "load_config",
]

_MODULES = ("errors", "library", "model", "runs.options", "selection", "summary")


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a public name may have any type
    """Import a public name at its first use, so that the command starts faster and handles signals sooner."""
    if name in __all__:
        for module_name in _MODULES:
            module = import_module(f"orchestrator.{module_name}")
            if name in vars(module):
                return vars(module)[name]
    message = f"module 'orchestrator' has no attribute {name!r}"
    raise AttributeError(message)
