"""Find the proxy that the environment names for a URL, nearly as curl does. Pure.

``https_proxy`` names the proxy of ``https`` URLs, ``http_proxy`` that of ``http`` URLs. ``all_proxy`` is used if the
first is missing. ``no_proxy`` lists hosts that need no proxy. Capitals are read too, also ``HTTP_PROXY``, which curl
ignores; small letters come first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_SCHEMES = {"http", "https"}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy: its URL, with a scheme, and the variable that names it."""

    url: str
    variable: str

    @property
    def has_credentials(self) -> bool:
        """Tell whether the URL contains a user name."""
        return urlsplit(self.url).username is not None


def proxy_for(url: str, environment: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for ``url``, ``None`` if there is none.

    Raises ``ValueError`` with the variable's name and the remedy, but without the variable's value, which may contain a
    password.
    """
    parts = urlsplit(url)
    excepted = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    if any(_covers(entry, parts.hostname or "", parts.netloc) for entry in excepted.split(",")):
        return None
    for name in (f"{parts.scheme}_proxy", f"{parts.scheme}_proxy".upper(), "all_proxy", "ALL_PROXY"):
        if value := environment.get(name, "").strip():
            return Proxy(_checked(value, name), name)
    return None


def _covers(entry: str, host: str, host_and_port: str) -> bool:
    """Tell whether an entry of ``no_proxy`` covers a host: the host itself, a parent domain, or ``*`` for all."""
    name = entry.strip().lower().removeprefix("*").removeprefix(".")
    if not name:
        return entry.strip() == "*"
    return name in {host, host_and_port.lower()} or host.endswith(f".{name}")


def _checked(value: str, variable: str) -> str:
    """Return the URL of a proxy, with ``http://`` if ``value`` has no scheme. Raises ``ValueError``."""
    url = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(url)
        is_usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_usable = False
    else:
        if parts.scheme.lower() not in _SCHEMES:
            shown = parts.scheme.lower() if parts.scheme.isalnum() else "other"
            message = f"{variable} names a {shown} proxy, which cannot be used; write an HTTP proxy as http://host:port"
            raise ValueError(message)
    if not is_usable or not url.isprintable() or " " in url:
        message = f"{variable} is not the address of a proxy; write it as http://host:port"
        raise ValueError(message)
    return url
