"""The work of each command, one file per command, without its options and its texts on the terminal."""
