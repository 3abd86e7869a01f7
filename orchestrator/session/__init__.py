"""The parts that all commands with requests to the API share: connections, queries, the inventory, progress logs."""
