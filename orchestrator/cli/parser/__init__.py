"""The grammar of the command line: commands, options, and the words of their help.

Nothing here imports more than click and a few small modules, so help, completion and a usage error are quick. A command
imports the work behind it (``orchestrator.cli.<command>``) when it runs.
"""
