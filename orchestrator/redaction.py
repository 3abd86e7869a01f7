"""Replace known secrets in text. Pure."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.model import Config

REDACTED = "[redacted]"

SHORTEST_SECRET = 4
"""The fewest characters of a secret that is replaced. Replacing shorter ones would make text unreadable."""


@dataclass(frozen=True, slots=True)
class Redactor:
    """Replace ``secrets``, the longest first, in text."""

    secrets: tuple[str, ...] = field(default=(), repr=False)

    def knowing(self, user_id: str, password: str) -> Redactor:
        """Return a redactor that also knows these two: plain, in base64, as Basic auth, and as JSON writes them."""
        raw = [each.encode("utf-8", "surrogatepass") for each in (f"{user_id}:{password}", user_id, password)]
        encoded = [base64.b64encode(each).decode() for each in raw]
        plain = [secret for secret in (user_id, password, *encoded) if len(secret) >= SHORTEST_SECRET]
        written = [
            json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for secret in plain for ascii_only in (True, False)
        ]
        return Redactor(tuple(sorted({*self.secrets, *plain, *written}, key=len, reverse=True)))

    def clean(self, text: str) -> str:
        """Return ``text`` with each secret replaced by ``REDACTED``."""
        for secret in self.secrets:
            text = text.replace(secret, REDACTED)
        return text


def redactor_of(config: Config) -> Redactor:
    """Return a redactor that knows the credentials of every account of ``config``."""
    redactor = Redactor()
    for account in config.accounts.values():
        redactor = redactor.knowing(account.user_id, account.password)
    return redactor
