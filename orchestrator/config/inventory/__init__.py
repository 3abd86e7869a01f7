"""Inventory files: find them, read each once, and report every problem with its place."""
