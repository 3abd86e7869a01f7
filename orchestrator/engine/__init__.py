"""The asynchronous core: it admits requests, brings each install to its one outcome, and stops on a signal.

It uses no third-party library, no file and no socket; ``ports.py`` declares the interfaces that it needs.
"""
