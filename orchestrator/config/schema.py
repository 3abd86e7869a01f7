"""The YAML's keys as pydantic models. What each key means is said here once; every value is checked by itself.

Checks across keys are in ``load.py``: an ``after`` validator would not run when some field failed.
"""

from __future__ import annotations

import ipaddress
import math
import re
import uuid
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool
from pydantic_core import PydanticCustomError

from orchestrator.marker import template_fault

DEFAULT_BASE_URL = "https://api.wpengineapi.com/v1"
DEFAULT_DESCRIPTION = "Backup {date} {time}"

SLOWEST, FASTEST = 0.0001, 100_000.0
LONGEST_TEXT = 4096

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}(\.\d{0,9})?(e[-+]?\d{1,2})?", re.ASCII | re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError("wrong", "{message}", {"message": message})


def parse_text(value: object) -> str:
    """Return ``value`` if it is text without control characters. Raises ``PydanticCustomError``."""
    if isinstance(value, bool | int | float):
        message = "must be text: put it in quotes"
        raise _wrong(message)
    if not isinstance(value, str) or not value.strip():
        message = "must be text, and not empty"
        raise _wrong(message)
    if _CONTROL.search(value):
        message = "must be one line, without control characters"
        raise _wrong(message)
    if len(value) > LONGEST_TEXT:
        message = f"must not be longer than {LONGEST_TEXT} characters"
        raise _wrong(message)
    return value


def parse_duration(value: object) -> float:
    """Return the seconds that ``value``, as ``30s`` or ``1.5h``, stands for. Raises ``PydanticCustomError``."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None or float(match[1]) == 0:
        message = "must be a duration above 0: a number and ms, s, m, h or d, as 30s"
        raise _wrong(message)
    return float(match[1]) * _SECONDS[match[2]]


def parse_rate(value: object) -> float:
    """Return ``value`` as requests per second. Raises ``PydanticCustomError``."""
    text = str(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else ""
    rate = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not SLOWEST <= rate <= FASTEST:
        message = f"must be a number of requests per second from {SLOWEST:g} to {FASTEST:g}"
        raise _wrong(message)
    return rate


def parse_rate_or_auto(value: object) -> float | None:
    """Return ``None`` for ``auto``, else as ``parse_rate``."""
    if value == "auto":
        return None
    try:
        return parse_rate(value)
    except PydanticCustomError as error:
        message = f"{error.message()}, or auto"
        raise _wrong(message) from None


def _count(most: int) -> BeforeValidator:
    def parse(value: object) -> object:
        text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
        if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not 1 <= int(text) <= most:
            message = f"must be a whole number from 1 to {most}"
            raise _wrong(message)
        return int(text)

    return BeforeValidator(parse)


def _template(value: object) -> str:
    text = parse_text(value)
    fault = template_fault(text)
    if fault:
        raise _wrong(fault)
    return text


def _email(value: object) -> str:
    text = parse_text(value)
    name, _, host = text.rpartition("@")
    if not name or not host or any(character.isspace() for character in text):
        message = "must be an email address, with an @ and no spaces"
        raise _wrong(message)
    return text


def _install_id(value: object) -> str:
    text = parse_text(value)
    if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text):
        message = "must be an install's id, a UUID as 294deacc-d8b8-4005-82c4-0727ba8ddde0"
        raise _wrong(message)
    return str(uuid.UUID(text))


def _timezone(value: object) -> ZoneInfo:
    text = parse_text(value)
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        message = "is not a time zone; name one as UTC or Europe/Berlin"
        raise _wrong(message) from None


def _base_url(value: object) -> str:
    text = parse_text(value)
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        message = f"is not a URL: {error}"
        raise _wrong(message) from None
    if parts.scheme not in {"https", "http"} or not host:
        message = f"must be an https URL, as {DEFAULT_BASE_URL}"
        raise _wrong(message)
    if parts.scheme == "http" and not _is_loopback(host):
        message = "must be https: credentials go over http to this machine itself only"
        raise _wrong(message)
    if "@" in parts.netloc or "?" in text or "#" in text or any(character.isspace() for character in text):
        message = "must have no user, query, fragment or spaces"
        raise _wrong(message)
    return text.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _version(value: object) -> object:
    if type(value) is not int:
        message = "must be 1"
        raise _wrong(message)
    return value


def _user_id(value: object) -> str:
    text = parse_text(value)
    if ":" in text:
        message = "must not contain a colon: Basic authentication cannot send one"
        raise _wrong(message)
    return text


Text = Annotated[str, BeforeValidator(parse_text)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
Rate = Annotated[float, BeforeValidator(parse_rate)]
Description = Annotated[str, BeforeValidator(_template)]
Email = Annotated[str, BeforeValidator(_email)]
InstallId = Annotated[str, BeforeValidator(_install_id)]
Timezone = Annotated[ZoneInfo, BeforeValidator(_timezone)]
BaseUrl = Annotated[str, BeforeValidator(_base_url)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class AccountSection(_Section):
    """Named credentials; each is one rate budget."""

    user_id: Annotated[str, BeforeValidator(_user_id)]
    password: Text
    base_url: BaseUrl = DEFAULT_BASE_URL
    ca_file: Text | None = None
    proxy_from_environment: StrictBool = False


class DefaultsSection(_Section):
    """What every install has that does not say otherwise."""

    account: Text = "default"
    description: Description = DEFAULT_DESCRIPTION
    notification_emails: tuple[Email, ...] | None = None
    timezone: Timezone = ZoneInfo("UTC")
    max_age: Duration = 93_600.0


class ThrottleSection(_Section):
    """How fast requests may go, per budget."""

    rate: Annotated[float | None, BeforeValidator(parse_rate_or_auto)] = None
    scope: Literal["account", "host"] = "account"
    max_requests_per_second: Rate = 50.0
    start_requests_per_second: Rate = 5.0
    concurrency: Annotated[int, _count(10_000)] = 64
    max_pause: Duration = 600.0
    give_up: Duration = 1800.0


class RetrySection(_Section):
    """How long one install is tried."""

    max_attempts: Annotated[int, _count(1000)] = 5
    deadline: Duration = 1800.0


class TimeoutsSection(_Section):
    """How long a connection and an answer may take."""

    connect: Duration = 10.0
    read: Duration = 35.0


class InstallSection(_Section):
    """One install."""

    id: InstallId
    name: Text | None = None
    account: Text | None = None
    environment: Literal["production", "staging", "development"] | None = None
    tags: tuple[Text, ...] = ()
    description: Description | None = None
    notification_emails: tuple[Email, ...] | None = None
    enabled: StrictBool = True
    max_age: Duration | None = None


class FleetFile(_Section):
    """The whole YAML."""

    version: Annotated[Literal[1], BeforeValidator(_version)]
    accounts: dict[Text, AccountSection] = Field(default_factory=dict)
    defaults: DefaultsSection = DefaultsSection()
    throttle: ThrottleSection = ThrottleSection()
    retry: RetrySection = RetrySection()
    timeouts: TimeoutsSection = TimeoutsSection()
    installs: tuple[InstallSection, ...]
