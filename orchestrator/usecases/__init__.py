"""What a user wants done, a file a thing: the only place where the core's Protocols meet the real objects."""
