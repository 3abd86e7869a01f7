"""One file a command: what it does, without its arguments and its words on the terminal."""
