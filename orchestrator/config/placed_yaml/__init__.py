"""YAML with places: text to data that knows its lines, data to a model, problems in words for people."""
