"""The work of a run: what it has to do, how it is recorded, how it ends."""
