"""What every command that asks the API shares: the connections, what is asked over them, what is said meanwhile."""
