"""YAML with places: parse text, check the data against a model, and report problems with line and column."""
