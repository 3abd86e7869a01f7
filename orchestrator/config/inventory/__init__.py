"""The files that installs come from besides the YAML: found, read once each, every problem with its place."""
