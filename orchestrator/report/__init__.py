"""The edge to the report: write its JSON lines, read them, and show them to people."""
