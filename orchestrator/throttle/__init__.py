"""The gate between the pure control law and the clock: ``gate.py``, which uses asyncio-throttle."""
