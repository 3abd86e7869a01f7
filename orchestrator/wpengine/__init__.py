"""The client of the WP Engine API: the only code that knows its URLs, its JSON and aiohttp's client."""
