"""The edge between the pure control law and the clock: ``gate.py``, over asyncio-throttle."""
