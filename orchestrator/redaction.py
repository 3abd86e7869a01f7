"""Take known secrets out of text, wherever they stand in it. Pure."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.model import Config

REDACTED = "[redacted]"

SHORTEST_SECRET = 4
"""Characters of a secret worth looking for: a shorter one would take half of every word out."""


@dataclass(frozen=True, slots=True)
class Redactor:
    """Know secrets, longest first, and take them out."""

    secrets: tuple[str, ...] = field(default=(), repr=False)

    def knowing(self, user_id: str, password: str) -> Redactor:
        """Return a redactor that also knows these two, their base64, that of Basic auth, and how JSON writes them."""
        raw = [each.encode("utf-8", "surrogatepass") for each in (f"{user_id}:{password}", user_id, password)]
        encoded = [base64.b64encode(each).decode() for each in raw]
        plain = [secret for secret in (user_id, password, *encoded) if len(secret) >= SHORTEST_SECRET]
        written = [
            json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for secret in plain for ascii_only in (True, False)
        ]
        return Redactor(tuple(sorted({*self.secrets, *plain, *written}, key=len, reverse=True)))

    def clean(self, text: str) -> str:
        """Return ``text`` without secrets."""
        for secret in self.secrets:
            text = text.replace(secret, REDACTED)
        return text


def redactor_of(config: Config) -> Redactor:
    """Return what keeps the credentials of ``config`` out of everything that is said."""
    redactor = Redactor()
    for account in config.accounts.values():
        redactor = redactor.knowing(account.user_id, account.password)
    return redactor
