"""Request backups of many WP Engine installs: concurrently, under a rate limit, reported truthfully."""

__version__ = "0.1.0"
