"""From the bytes of an answer to an ``AttemptResult``. Reads leniently: no answer, however odd, may crash a run.

Strings of the API are kept whole up to ``LONGEST_STRING`` characters, then cut with a mark. What they contain is
data: whoever shows them escapes them.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from orchestrator.model import AttemptResult, Backup, Fault, FieldError

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_BODY = 1024 * 1024
LONGEST_STRING = 4096
LONGEST_ID = 200
MOST_FIELD_ERRORS = 100
SNIPPET = 200

REQUEST_ID_HEADERS = ("x-amzn-RequestId", "X-Request-ID", "x-amz-cf-id")
"""Where an answer's request id stands, the most useful to WP Engine's support first."""


def unpack(body: bytes, encoding: str) -> bytes | None:
    """Undo a ``Content-Encoding`` that was not asked for; ``None`` if it cannot be, or is larger than it may be."""
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


def read_backup(status: int, body: bytes, base: AttemptResult) -> AttemptResult:
    """Return the result of a POST, with what ``body`` says put into ``base``."""
    document = parse_object(body)
    if not is_success(status):
        return _refusal(status, body, document, base)
    backup = backup_of(document, strict=status != HTTPStatus.ACCEPTED)
    return _unusable(status, body, base) if backup is None else replace(base, backup=backup)


def read_user(status: int, body: bytes, base: AttemptResult) -> AttemptResult:
    """Return the result of a ``GET /user``: any JSON object proves the credentials."""
    document = parse_object(body)
    if not is_success(status):
        return _refusal(status, body, document, base)
    return _unusable(status, body, base) if document is None else base


def is_success(status: int) -> bool:
    """Tell whether HTTP calls ``status`` a success."""
    return HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES


def parse_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in ``body``, ``None`` if there is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def backup_of(document: Mapping[str, Any] | None, *, strict: bool) -> Backup | None:
    """Return the Backup in ``document`` if it has an id; ``strict`` demands the status too."""
    if document is None:
        return None
    backup_id, status = document.get("id"), document.get("status")
    if not isinstance(backup_id, str) or not 0 < len(backup_id.strip()) <= LONGEST_ID:
        return None
    if strict and not isinstance(status, str):
        return None
    return Backup(
        id=backup_id,
        status=_text(status),
        description=_text(document.get("description")),
        create_time=_text(document.get("create_time")),
        complete_time=_text(document.get("complete_time")),
        wordpress_version=_text(document.get("wordpress_version")),
    )


def _unusable(status: int, body: bytes, base: AttemptResult) -> AttemptResult:
    return replace(base, fault=Fault.UNREADABLE, message=f"{status} with an unusable body: {_snippet(body)}")


def _refusal(status: int, body: bytes, document: Mapping[str, Any] | None, base: AttemptResult) -> AttemptResult:
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return replace(base, message=f"redirected ({_reason(status)}), and a redirect is never followed")
    if document is None:
        snippet = _snippet(body)
        return replace(base, message=_reason(status) + (f": {snippet}" if snippet else ""))
    entries = document.get("errors")
    errors = entries[:MOST_FIELD_ERRORS] if isinstance(entries, list) else []
    return replace(
        base,
        message=_text(document.get("message")) or _reason(status),
        documentation_url=_text(document.get("documentation_url")),
        errors=tuple(_field_error(entry) for entry in errors if isinstance(entry, dict)),
    )


def _field_error(entry: Mapping[str, Any]) -> FieldError:
    return FieldError(
        resource=_text(entry.get("resource")),
        field=_text(entry.get("field")),
        type=_text(entry.get("type")),
        code=_text(entry.get("code")),
        message=_text(entry.get("message")),
    )


def _reason(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _text(value: object) -> str | None:
    if value is None:
        return None
    return cut(value if isinstance(value, str) else json.dumps(value))


def _snippet(body: bytes) -> str:
    text = " ".join(body[: SNIPPET * 4].decode("utf-8", "replace").split())
    return text if len(text) <= SNIPPET else text[:SNIPPET] + "…"


def cut(text: str) -> str:
    """Return ``text``, cut with a mark if it is longer than ``LONGEST_STRING``."""
    return text if len(text) <= LONGEST_STRING else f"{text[:LONGEST_STRING]}… [cut, {len(text)} characters]"
