"""The asynchronous core: admits requests, carries each install to its one outcome, stops when told.

Knows no third-party library, no file and no socket; ``ports.py`` declares what it needs of the edges.
"""
