"""The types of values in the YAML: how each is parsed, written again, and described to an editor.

A parser returns the value, or raises ``PydanticCustomError`` with a message that says what the value must be.
"""

from __future__ import annotations

import ipaddress
import math
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, PlainSerializer, SerializationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from orchestrator.config.placed_yaml.suggest import MEANT, did_you_mean
from orchestrator.listings import NAME_PATTERN, install_name_in
from orchestrator.marker import FIELDS, template_fault
from orchestrator.redaction import Redactor
from orchestrator.units import DURATION_PATTERN, duration_s, duration_text
from orchestrator.visible import is_text

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_BASE_URL = "https://api.wpengineapi.com/v1"

SLOWEST, FASTEST = 0.0001, 100_000.0
LONGEST_TEXT = 4096
LONGEST_CONFIG_NAME = 100
UUID_PATTERN = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
EMAIL_PATTERN = r"[^\s@,;<>:]+@[^\s@,;<>:]+"
"""One address. It is sent unchanged, and each address counts as one mail."""

GLOB_PATTERN = r"[^\s,;]+$|^.*\["
"""One glob, as far as an editor can check it. Text with ``[`` passes, since brackets may contain a comma."""

SEVERAL_EMAILS = "write several as a list, one in each entry"

_NAMED_EMAIL = re.compile(r"^[^,;]*<[^<>@]+@[^<>@]+>\s*$|^mailto:[^@]+@[^@]+$", re.IGNORECASE)
_UUID = re.compile(UUID_PATTERN, re.ASCII)
_NAME = re.compile(NAME_PATTERN, re.ASCII)
_SEVERAL = re.compile(r"[\s,;]+")
_IN_BRACKETS = re.compile(r"\[[^\]]*+\]")
_NUMBER = re.compile(r"\d{1,9}(\.\d{0,20})?(e[-+]?\d{1,2})?", re.ASCII | re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def wrong(message: str) -> PydanticCustomError:
    """Return an error with ``message``, unchanged."""
    return PydanticCustomError("wrong", "{message}", {"message": message})


def parse_text(value: object) -> str:
    """Return ``value`` if it is text without control characters. Raises ``PydanticCustomError``."""
    if isinstance(value, bool | int | float):
        message = "must be text: put it in quotes"
        raise wrong(message)
    if isinstance(value, dict | list):
        message = "must be text: put a value that begins with { or [ in quotes"
        raise wrong(message)
    if not isinstance(value, str) or not value.strip():
        message = "must be text, and not empty"
        raise wrong(message)
    if _CONTROL.search(value):
        message = "must be one line, without control characters"
        raise wrong(message)
    if not is_text(value):
        message = "must be UTF-8 text"
        raise wrong(message)
    if len(value) > LONGEST_TEXT:
        message = f"must not be longer than {LONGEST_TEXT} characters"
        raise wrong(message)
    return value


def parse_config_name(value: object) -> str:
    """Return the name of a configuration. Raises ``PydanticCustomError``."""
    text = parse_text(value)
    if not text.isprintable() or text != text.strip():
        message = "must be printable, with no spaces at its ends"
        raise wrong(message)
    if len(text) > LONGEST_CONFIG_NAME:
        message = f"must not be longer than {LONGEST_CONFIG_NAME} characters"
        raise wrong(message)
    return text


def parse_duration(value: object) -> float:
    """Return ``value``, for example ``30s`` or ``1.5h``, in seconds. Raises ``PydanticCustomError``."""
    seconds = duration_s(value)
    if not seconds:
        message = "must be a duration above 0: a number with the unit ms, s, m, h or d, for example 30s"
        raise wrong(message)
    return seconds


def parse_rate(value: object) -> float:
    """Return ``value`` as requests per second. Raises ``PydanticCustomError``."""
    text = str(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else ""
    rate = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not SLOWEST <= rate <= FASTEST:
        message = f"must be a number of requests per second from {SLOWEST:g} to {FASTEST:g}"
        raise wrong(message)
    return rate


def parse_rate_or_auto(value: object) -> float | None:
    """Return ``None`` for ``auto``, otherwise the result of ``parse_rate``. Raises ``PydanticCustomError``."""
    if value == "auto":
        return None
    try:
        return parse_rate(value)
    except PydanticCustomError as error:
        message = f"{error.message()}, or auto"
        raise wrong(message) from None


def count(least: int, most: int) -> BeforeValidator:
    """Return a parser of a whole number from ``least`` to ``most``."""

    def parse(value: object) -> int:
        text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
        if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not least <= int(text) <= most:
            message = f"must be a whole number from {least} to {most}"
            raise wrong(message)
        return int(text)

    return BeforeValidator(parse)


def parse_user_id(value: object) -> str:
    """Return an API user's id. Raises ``PydanticCustomError``."""
    text = parse_text(value)
    if ":" in text:
        message = "must not contain a colon: Basic authentication cannot send it"
        raise wrong(message)
    return text


def one_of(*choices: str) -> BeforeValidator:
    """Return a parser of one of ``choices``. Its message suggests the nearest choice for a misspelt one."""

    def parse(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            message = f"must be {', '.join(choices[:-1])} or {choices[-1]}{did_you_mean(value, choices)}"
            raise wrong(message)
        return value

    return BeforeValidator(parse)


def parse_template(value: object) -> str:
    """Return the template of a description. Raises ``PydanticCustomError``."""
    text = parse_text(value)
    fault = template_fault(text)
    if fault:
        unknown = re.match(r"unknown field \{(.*?)\}", fault)
        raise wrong(fault + (did_you_mean(unknown[1], FIELDS) if unknown else ""))
    return text


def parse_email(value: object) -> str:
    """Return one email address. Raises ``PydanticCustomError``."""
    text = parse_text(value)
    if re.fullmatch(EMAIL_PATTERN, text):
        if text.isprintable():
            return text
        message = "must have no invisible characters: type the address again by hand"
        raise wrong(message)
    if _NAMED_EMAIL.search(text):
        message = "must be the bare address, such as ops@example.com: no name, no < > and no mailto:"
    elif text.count("@") > 1:
        message = f"must be one email address: {SEVERAL_EMAILS}"
    else:
        message = "must be an email address: one @ with text on both sides, without spaces and without , ; < > :"
    raise wrong(message)


def parse_glob(value: object) -> str:
    """Return one glob of install names or ids. Raises ``PydanticCustomError``, also for several globs in one text."""
    text = parse_text(value)
    if _SEVERAL.search(_IN_BRACKETS.sub("", text)):
        message = "must be one glob, without spaces, commas or semicolons: write several globs as a list"
        raise wrong(message)
    return text


def is_install_id(text: str) -> bool:
    """Tell whether ``text`` has the form of an install's id."""
    return _UUID.fullmatch(text) is not None


def install_name_hint(text: str) -> str:
    """Return ``; …`` with the install name in ``text``, or an empty text if there is none or ``text`` is the name.

    If ``text`` contains several installs, the hint is to write separate entries.
    """
    several = [word for word in _SEVERAL.split(text) if word]
    if len(several) > 1 and all(_NAME.fullmatch(word) or is_install_id(word) for word in several):
        return "; write each install as a separate entry"
    name = install_name_in(text)
    if name is None or name == text:
        return ""
    return f"{MEANT}{name}?" if text.strip().lower() == name else f"; the install's name is {name}"


def _install_id(value: object) -> str:
    text = parse_text(value)
    if not is_install_id(text):
        name = text if _NAME.fullmatch(text) else "torqueshop"
        message = "must be an install's id, a UUID such as 294deacc-d8b8-4005-82c4-0727ba8ddde0; for a name, write"
        message += f" name: {name}{install_name_hint(text)}"
        raise wrong(message)
    return text.lower()


def _timezone(value: object) -> ZoneInfo:
    text = parse_text(value)
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        message = "is not a time zone; write one such as UTC or Europe/Berlin"
        raise wrong(message) from None


def parse_base_url(value: object) -> str:
    """Return the base URL of the API without a slash at its end. Raises ``PydanticCustomError``."""
    text = parse_text(value)
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        message = f"is not a URL; it must look like {DEFAULT_BASE_URL}"
        raise wrong(message) from None
    if parts.scheme not in {"https", "http"} or not host:
        message = f"must be an https URL, such as {DEFAULT_BASE_URL}"
        raise wrong(message)
    if parts.scheme == "http" and not _is_loopback_host(host):
        message = "must be https: http sends the credentials in clear text, and is allowed only for this machine itself"
        raise wrong(message)
    if "@" in parts.netloc or "?" in text or "#" in text or any(character.isspace() for character in text):
        message = "must have no user, query, fragment or spaces"
        raise wrong(message)
    return text.rstrip("/")


def is_loopback(base_url: str) -> bool:
    """Tell whether ``base_url``, a result of ``parse_base_url``, leads to this machine itself."""
    return _is_loopback_host(urlsplit(base_url).hostname or "")


def _is_loopback_host(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _version(value: object) -> object:
    if type(value) is not int or value != 1:
        message = "must be 1"
        raise wrong(message)
    return value


def _described(schema: dict[str, Any]) -> WithJsonSchema:
    """Describe a value to editors. A ``${VARIABLE}`` is allowed instead of any value."""
    return WithJsonSchema({"anyOf": [schema, {"type": "string", "pattern": r"\$\{"}]})


def _written(write: Callable[..., Any]) -> PlainSerializer:
    return PlainSerializer(write, when_used="json")


def _plain(number: float) -> object:
    return int(number) if number == int(number) else number


def _free_text(text: str, info: SerializationInfo) -> str:
    """Return ``text`` escaped for the YAML; if the context is a redactor, without secrets."""
    return _escaped(info.context.clean(text) if isinstance(info.context, Redactor) else text)


def _escaped(text: str) -> str:
    """Escape dollars where reading ``text`` again would change them."""
    return text.replace("$", "$$") if "$$" in text or "${" in text else text


_RATE_SCHEMA = {"type": "number", "minimum": SLOWEST, "maximum": FASTEST}
_NUMBER_SCHEMA = {"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]{0,20})?([eE][-+]?[0-9]{1,2})?$"}

Text = Annotated[
    str,
    BeforeValidator(parse_text),
    _written(_free_text),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": LONGEST_TEXT}),
]
ConfigName = Annotated[
    str | None,
    BeforeValidator(parse_config_name),
    PlainSerializer(_free_text, when_used="json-unless-none"),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": LONGEST_CONFIG_NAME}),
]
UserId = Annotated[
    str,
    BeforeValidator(parse_user_id),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": LONGEST_TEXT, "pattern": r"^[^:]+$|\$\{"}),
]
Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    _written(duration_text),
    _described({"type": "string", "pattern": f"^{DURATION_PATTERN}$"}),
]
Rate = Annotated[
    float,
    BeforeValidator(parse_rate),
    _written(_plain),
    _described({"anyOf": [_RATE_SCHEMA, _NUMBER_SCHEMA]}),
]
RateOrAuto = Annotated[
    float | None,
    BeforeValidator(parse_rate_or_auto),
    _written(lambda rate: "auto" if rate is None else _plain(rate)),
    _described({"anyOf": [{"const": "auto"}, _RATE_SCHEMA, _NUMBER_SCHEMA]}),
]
Description = Annotated[
    str,
    BeforeValidator(parse_template),
    _written(_free_text),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": LONGEST_TEXT}),
]
Email = Annotated[
    str,
    BeforeValidator(parse_email),
    _written(_free_text),
    _described({"type": "string", "pattern": f"^{EMAIL_PATTERN}$"}),
]
Glob = Annotated[
    str,
    BeforeValidator(parse_glob),
    _written(_free_text),
    _described({"type": "string", "pattern": f"^{GLOB_PATTERN}"}),
]
InstallId = Annotated[
    str,
    BeforeValidator(_install_id),
    _described({"type": "string", "pattern": f"^{UUID_PATTERN}$"}),
]
Timezone = Annotated[
    ZoneInfo,
    BeforeValidator(_timezone),
    _written(lambda zone: zone.key),
    WithJsonSchema({"type": "string", "examples": ["UTC", "Europe/Berlin"]}),
]
BaseUrl = Annotated[
    str,
    BeforeValidator(parse_base_url),
    _written(_escaped),
    _described({"type": "string", "pattern": r"^https?://[^\s?#@]+$"}),
]
Environment = Annotated[
    Literal["production", "staging", "development"],
    one_of("production", "staging", "development"),
    _described({"enum": ["production", "staging", "development"]}),
]
Scope = Annotated[Literal["account", "host"], one_of("account", "host"), _described({"enum": ["account", "host"]})]
OnAmbiguous = Annotated[
    Literal["reconcile", "fail"], one_of("reconcile", "fail"), _described({"enum": ["reconcile", "fail"]})
]
Version = Annotated[Literal[1], BeforeValidator(_version)]
Count1000 = Annotated[
    int,
    count(1, 1000),
    _described({"type": ["integer", "string"], "pattern": "^[0-9]{1,9}$", "minimum": 1, "maximum": 1000}),
]
Concurrency = Annotated[
    int,
    count(1, 10_000),
    _described({"type": ["integer", "string"], "pattern": "^[0-9]{1,9}$", "minimum": 1, "maximum": 10_000}),
]
RetryAborted = Annotated[
    int, count(0, 1), _described({"type": ["integer", "string"], "pattern": "^[0-9]{1,9}$", "minimum": 0, "maximum": 1})
]
