"""The edge to the state on disk: one SQLite file that several processes share, and the records in it."""
