"""Turn the bytes of an answer into an ``AttemptResult``. Read leniently: no odd answer may crash a run.

Strings of the API are kept whole up to ``LONGEST_STRING`` characters, and longer ones are cut with a mark. They are not
escaped here: the code that shows them does that.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING, Any

from orchestrator.listings import LONGEST_BACKUP_ID
from orchestrator.model import AttemptResult, Backup, Fault, FieldError
from orchestrator.value import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LONGEST_BODY = 1024 * 1024
LONGEST_STRING = 4096
MOST_FIELD_ERRORS = 100
DEEPEST_NESTING = 8
SNIPPET = 200

REQUEST_ID_HEADERS = ("x-amzn-RequestId", "X-Request-ID", "x-amz-cf-id")
"""Headers that hold an answer's request id, the most useful one for WP Engine's support first."""


RATE_HEADER = re.compile(
    r"(x-)?rate-?limit(-(limit|remaining|reset|used|policy|burst|window|interval|resource))?(-(second|minute|hour|day))?",
    re.ASCII | re.IGNORECASE,
)
"""A closed list of names: a header that a server invents may hold our credentials, and must not get into the log."""

MOST_RATE_HEADERS, LONGEST_RATE_HEADER = 8, 200


def rate_headers(headers: Mapping[str, str], clean: Callable[[str], str]) -> tuple[tuple[str, str], ...]:
    """Return the names, in lower case, and the values of the first ``MOST_RATE_HEADERS`` headers about rates."""
    found = ((name.lower(), clean(value)[:LONGEST_RATE_HEADER]) for name, value in headers.items() if is_of_rate(name))
    return tuple(islice(found, MOST_RATE_HEADERS))


def is_of_rate(name: str) -> bool:
    """Tell whether ``name`` is a header about rates (``RateLimit``, ``X-RateLimit-Remaining`` …)."""
    return RATE_HEADER.fullmatch(name) is not None


def unpack(body: bytes, encoding: str) -> bytes | None:
    """Undo a ``Content-Encoding`` that was not asked for; return ``None`` if that fails or the result is too large."""
    if encoding in {"", "identity"}:
        return body
    if encoding not in {"gzip", "deflate"}:
        return None
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32 if encoding == "gzip" else zlib.MAX_WBITS)
    try:
        text = inflater.decompress(body, LONGEST_BODY + 1)
    except zlib.error:
        return None
    return text if inflater.eof and len(text) <= LONGEST_BODY else None


@dataclass(frozen=True, slots=True)
class Received:
    """An answer: its head as ``base``, its unpacked ``body``, and ``clean``, which removes secrets from a text."""

    base: AttemptResult
    body: bytes
    clean: Callable[[str], str]

    def parsed(self) -> dict[str, Any] | None:
        """Return the body's JSON object, which may hold secrets; ``None`` if there is none."""
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return document if isinstance(document, dict) else None

    def document(self) -> dict[str, Any] | None:
        """Return the body's JSON object with secrets removed, except from its id; ``None`` if there is none."""
        document = self.parsed()
        return document if document is None or self._is_plain(document) else self.without_secrets(document)

    def _is_plain(self, document: dict[str, Any]) -> bool:
        """Tell whether ``document`` is flat, without JSON escapes, and without secrets."""
        if b"\\" in self.body or any(isinstance(value, dict | list) for value in document.values()):
            return False
        text = self.body.decode("utf-8", "replace")
        return self.clean(text) == text

    def without_secrets(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``document`` with secrets removed, except from its id, which must not change."""
        cleaned = {key: _cleaned(value, self.clean, 1) for key, value in document.items()}
        return cleaned | ({"id": document["id"]} if "id" in document else {})

    def snippet(self) -> str:
        """Return the beginning of the body, for a message."""
        text = " ".join(self.clean(self.body.decode("utf-8", "replace")).split())
        return text if len(text) <= SNIPPET else text[:SNIPPET] + "…"


def read_backup(received: Received) -> AttemptResult:
    """Return the result of a POST."""
    document = received.document()
    if not is_success(received.base.status):
        return refusal(received, document)
    backup = backup_of(document, strict=received.base.status != HTTPStatus.ACCEPTED)
    return _unusable(received) if backup is None else replace(received.base, backup=backup)


def read_shown(backup_id: str, received: Received) -> AttemptResult:
    """Return the result of a ``GET`` of the backup ``backup_id``; an answer without its status is unusable."""
    document = received.document()
    if not is_success(received.base.status):
        return refusal(received, document)
    backup = backup_of(document, strict=True) if received.base.status == HTTPStatus.OK else None
    if backup is None or backup.id.lower() != backup_id.lower():
        return _unusable(received)
    return replace(received.base, backup=backup)


def read_user(received: Received) -> AttemptResult:
    """Return the result of a ``GET /user``: any JSON object proves the credentials."""
    document = received.document()
    if not is_success(received.base.status):
        return refusal(received, document)
    return _unusable(received) if document is None else received.base


def is_success(status: int | None) -> bool:
    """Tell whether HTTP calls ``status`` a success."""
    return status is not None and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES


def backup_of(document: Mapping[str, Any] | None, *, strict: bool) -> Backup | None:
    """Return the backup in ``document`` if it has an id, and with ``strict`` also a status; else ``None``."""
    if document is None:
        return None
    backup_id, status = document.get("id"), document.get("status")
    if not isinstance(backup_id, str) or not 0 < len(backup_id.strip()) <= LONGEST_BACKUP_ID:
        return None
    if strict and not isinstance(status, str):
        return None
    return Backup(
        id=backup_id,
        status=text_of(status),
        description=text_of(document.get("description")),
        create_time=text_of(document.get("create_time")),
        complete_time=text_of(document.get("complete_time")),
        wordpress_version=text_of(document.get("wordpress_version")),
    )


def _unusable(received: Received) -> AttemptResult:
    message = f"{received.base.status} with an unusable body: {received.snippet()}"
    return replace(received.base, fault=Fault.UNREADABLE, message=message)


def refusal(received: Received, document: Mapping[str, Any] | None) -> AttemptResult:
    """Return the result of an answer that is not a success, with the API's message if ``document`` has one."""
    reason = _reason(received.base.status or 0)
    if HTTPStatus.MULTIPLE_CHOICES <= (received.base.status or 0) < HTTPStatus.BAD_REQUEST:
        return replace(received.base, message=f"redirected ({reason}); a redirect is never followed")
    if document is None:
        snippet = received.snippet()
        return replace(received.base, message=f"{reason}: {snippet}" if snippet else reason)
    entries = document.get("errors")
    errors = entries[:MOST_FIELD_ERRORS] if isinstance(entries, list) else []
    return replace(
        received.base,
        message=text_of(document.get("message")) or reason,
        documentation_url=text_of(document.get("documentation_url")),
        errors=tuple(_field_error(entry) for entry in errors if isinstance(entry, dict)),
    )


def _cleaned(value: Any, clean: Callable[[str], str], depth: int) -> Any:  # noqa: ANN401 - JSON may hold anything
    """Return ``value`` with secrets removed, and without values nested deeper than ``DEEPEST_NESTING``."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict | list) and depth >= DEEPEST_NESTING:
        return None
    if isinstance(value, dict):
        return {clean(key): _cleaned(each, clean, depth + 1) for key, each in value.items()}
    if isinstance(value, list):
        return [_cleaned(each, clean, depth + 1) for each in value]
    return value


def _field_error(entry: Mapping[str, Any]) -> FieldError:
    return FieldError(
        resource=text_of(entry.get("resource")),
        field=text_of(entry.get("field")),
        type=text_of(entry.get("type")),
        code=text_of(entry.get("code")),
        message=text_of(entry.get("message")),
    )


def _reason(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def text_of(value: object) -> str | None:
    """Return a field of the API as text, whatever its type; ``None`` if it is null."""
    if value is None:
        return None
    return cut(value if isinstance(value, str) else json.dumps(value))


def cut(text: str) -> str:
    """Return ``text``, cut with a mark if it is longer than ``LONGEST_STRING``."""
    return text if len(text) <= LONGEST_STRING else f"{text[:LONGEST_STRING]}… [cut, {len(text)} characters]"
