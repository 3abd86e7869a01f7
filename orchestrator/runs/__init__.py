"""The work of a run: how a run is planned, recorded, resumed, retried and ended."""
