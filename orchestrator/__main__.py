"""Make ``python -m orchestrator`` the same as ``wpe-backup``."""

from orchestrator.cli import main

main()
