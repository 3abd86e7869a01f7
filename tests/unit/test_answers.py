"""Answers and Retry-After are read leniently."""

from __future__ import annotations

import gzip
import json
import zlib
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.listings import ListedAccount, ListedInstall
from orchestrator.model import AttemptResult, Backup, Fault, FieldError
from orchestrator.redaction import Redactor
from orchestrator.wpengine.answers import (
    LONGEST_BODY,
    LONGEST_RATE_HEADER,
    LONGEST_STRING,
    Received,
    cut,
    rate_headers,
    read_backup,
    read_shown,
    read_user,
    unpack,
)
from orchestrator.wpengine.pages import ACCOUNTS, BACKUPS, INSTALLS, LARGEST_PAGE, PageKind, page_reader
from orchestrator.wpengine.retry_after import retry_after_s

NOW = datetime(2026, 11, 24, 1, 0, 0, tzinfo=UTC)
DATE = "Tue, 24 Nov 2026 01:00:00 GMT"
LATER = "Tue, 24 Nov 2026 01:00:07 GMT"


def read(status: int, body: object) -> AttemptResult:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_backup(Received(AttemptResult(status=status, request_id="r"), raw, Redactor(("s3cret",)).clean))


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("7", None, 7.0),
        (" 0 ", None, 0.0),
        ("1.5", None, 1.5),
        (LATER, DATE, 7.0),
        (LATER, None, 7.0),
        (LATER, "nonsense", 7.0),
        (LATER, "Tue, 24 Nov 2026 02:00:00 GMT", 0.0),
        ("Tue, 24 Nov 2026 05:00:07 +0400", DATE, 7.0),
        ("Tuesday, 24-Nov-26 01:00:07 GMT", DATE, 7.0),
        ("Tue Nov 24 01:00:07 2026", DATE, 7.0),
        (None, DATE, None),
        ("", DATE, None),
        ("-1", DATE, None),
        ("+1", DATE, None),
        ("1.5x", DATE, None),
        ("1e3", DATE, None),
        ("soon", DATE, None),
        ("inf", DATE, None),
        ("٣", DATE, None),
        ("9" * 13, DATE, 1e9),
        ("9" * 400, DATE, 1e9),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", DATE, None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", DATE, 1e9),
        ("Tue, 99 Nov 2026 01:00:07 GMT", DATE, None),
        ("1, 2", DATE, None),
    ],
)
def test_retry_after_is_read_in_every_form(value: str | None, date: str | None, seconds: float | None) -> None:
    assert retry_after_s(value, date, NOW) == seconds


def test_an_accepted_backup_keeps_every_field() -> None:
    body = {
        "id": "b",
        "status": "requested",
        "description": "d",
        "create_time": "c",
        "complete_time": None,
        "wordpress_version": "6.8",
    }
    assert read(202, body).backup == Backup("b", "requested", "d", "c", None, "6.8")


@pytest.mark.parametrize(
    "body", [{"id": "b"}, {"id": "b", "status": None}, {"id": "b", "status": "of the future", "x": 1}]
)
def test_a_202_needs_nothing_but_an_id(body: dict[str, object]) -> None:
    result = read(202, body)
    assert result.fault is None
    assert result.backup is not None
    assert result.backup.id == "b"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"\xff\xfe",
        b"[" * 100_000,
        {},
        {"id": 7},
        {"id": ""},
        {"id": " "},
        {"id": None},
        {"id": ["b"]},
        {"id": "x" * 201},
    ],
)
def test_a_202_without_a_usable_id_is_unreadable(body: object) -> None:
    result = read(202, body)
    assert (result.fault, result.backup, result.status) == (Fault.UNREADABLE, None, 202)
    assert result.message.startswith("202 with an unusable body")


def test_a_success_other_than_202_needs_a_complete_backup() -> None:
    assert read(200, {"id": "b", "status": "completed"}).fault is None
    assert read(200, {"id": "b"}).fault is Fault.UNREADABLE
    assert read(204, b"").fault is Fault.UNREADABLE


def test_a_refusal_keeps_the_apis_own_fields() -> None:
    entry = {"resource": "Backup", "field": "f", "type": "invalid_value", "code": "c", "message": "m"}
    result = read(400, {"message": "no", "documentation_url": "u", "errors": [entry, {"field": 7}, "x"]})
    assert (result.message, result.documentation_url, result.request_id) == ("no", "u", "r")
    assert result.errors == (FieldError("Backup", "f", "invalid_value", "c", "m"), FieldError(field="7"))


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (502, b"<html>\n <b>Bad</b>  gateway</html>", "502 Bad Gateway: <html> <b>Bad</b> gateway</html>"),
        (503, b"", "503 Service Unavailable"),
        (599, b"", "599"),
        (400, {"errors": "x"}, "400 Bad Request"),
        (404, {"message": None}, "404 Not Found"),
        (400, {"message": {"a": 1}}, '{"a": 1}'),
        (302, b"", "redirected (302 Found); a redirect is never followed"),
    ],
)
def test_a_refusal_has_a_message_for_any_body(status: int, body: object, message: str) -> None:
    assert read(status, body).message == message


def test_a_long_body_that_is_not_json_is_shown_in_part() -> None:
    assert len(read(502, b"x" * 5000).message) < 300


def test_long_strings_are_cut_and_the_cut_is_marked() -> None:
    result = read(400, {"message": "m" * 5000})
    assert result.message == cut("m" * 5000)
    assert result.message.endswith("… [cut, 5000 characters]")
    assert cut("m" * LONGEST_STRING) == "m" * LONGEST_STRING


def test_only_a_json_object_proves_the_credentials() -> None:
    def user(status: int, body: bytes) -> AttemptResult:
        return read_user(Received(AttemptResult(status=status), body, str))

    assert user(200, b"{}") == AttemptResult(status=200)
    assert user(200, b"<html>").fault is Fault.UNREADABLE
    assert user(403, b'{"message": "no"}').message == "no"


def test_secrets_that_the_server_echoes_are_removed_but_ids_stay_unchanged() -> None:
    echo = {"message": "s3cret!", "errors": [{"message": "x s3cret", "code": ["s3cret"]}]}
    assert "s3cret" not in repr(read(400, echo))
    assert "s3cret" not in repr(read(502, b"<b>s3cret"))
    backup = read(202, {"id": "a-s3cret-b", "status": "s3cret", "description": "s3cret"}).backup
    assert backup == Backup("a-s3cret-b", "[redacted]", "[redacted]")


def test_a_secret_that_the_server_echoes_as_a_key_is_removed_too() -> None:
    assert "s3cret" not in repr(read(400, {"message": {"s3cret": 1}}))


def test_an_answer_to_a_poll_must_have_the_id_and_the_status() -> None:
    def shown(status: int, body: object) -> AttemptResult:
        received = Received(AttemptResult(status=status), json.dumps(body).encode(), Redactor(("s3cret",)).clean)
        return read_shown("B-1", received)

    whole = {"id": "b-1", "status": "completed", "description": "s3cret"}
    assert shown(200, whole) == AttemptResult(200, backup=Backup("b-1", "completed", "[redacted]"))
    for status, body in (
        (200, {"id": "b-1"}),
        (200, {"status": "completed"}),
        (200, whole | {"id": "b-2"}),
        (202, whole),
        (204, {}),
        (200, []),
    ):
        assert (shown(status, body).fault, shown(status, body).backup) == (Fault.UNREADABLE, None)
    assert (shown(404, {"message": "gone"}).message, shown(404, whole).backup) == ("gone", None)


def listed(document: object, offset: int = 0, listing: PageKind[Any] = BACKUPS) -> AttemptResult:
    received = Received(AttemptResult(status=200), json.dumps(document).encode(), Redactor(("s3cret",)).clean)
    return page_reader(listing, offset)(received)


def test_a_page_keeps_ids_unchanged_and_removes_secrets_elsewhere() -> None:
    page = listed({"results": [{"id": "a-s3cret-b", "status": "x", "description": "s3cret"}]}).page
    assert page is not None
    assert page.entries == (Backup("a-s3cret-b", "x", "[redacted]"),)


@pytest.mark.parametrize(
    "link",
    [
        "https://api.example/v1/installs?offset=100",
        "/v1/installs?offset=100",
        "?offset=100",
        "https://api.wpengineapi.com/v1/installs?limit=100&offset=100",
        "https://api.example@evil/v1",
        "//evil/v1",
        "mailto:a@b",
        "https://evil/" + "x" * 100_000,
    ],
)
def test_a_link_to_a_next_page_on_any_host_only_gives_the_next_offset(link: str) -> None:
    page = listed({"results": [{"id": "a"}], "next": link}).page
    assert page is not None
    assert page.next_offset == 1


def test_a_count_below_the_entries_seen_is_ignored() -> None:
    full = [{"id": str(number)} for number in range(LARGEST_PAGE)]
    page = listed({"results": full, "count": LARGEST_PAGE}, offset=LARGEST_PAGE).page
    assert page is not None
    assert page.next_offset == 2 * LARGEST_PAGE


def test_an_unreadable_entry_is_named_in_the_message() -> None:
    assert "number 2" in listed({"results": [{"id": "a"}, {"status": "x"}, 7]}).message


ID, ACCOUNT_ID = "294deacc-d8b8-4005-82c4-0727ba8ddde0", "eeda3227-9a39-46ae-9e14-20958bb4e6c9"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ListedInstall(ID, "shop")),
        (
            {
                "environment": "production",
                "status": "pending",
                "account": {"id": ACCOUNT_ID.upper()},
                "primary_domain": "a.b",
                "cname": "c",
            },
            ListedInstall(ID, "shop", "production", "pending", ACCOUNT_ID, "a.b"),
        ),
        ({"environment": None, "status": None, "account": {}}, ListedInstall(ID, "shop")),
        ({"account": "x", "primary_domain": 7}, ListedInstall(ID, "shop", primary_domain="7")),
        ({"account": {"id": 7}}, ListedInstall(ID, "shop")),
        (
            {"name": "of s3cret", "primary_domain": "s3cret" + "x" * 5000},
            ListedInstall(ID, "of [redacted]", primary_domain=cut("[redacted]" + "x" * 5000)),
        ),
    ],
)
def test_a_listed_install_is_read_leniently(more: dict[str, object], expected: ListedInstall) -> None:
    result = listed({"results": [{"id": ID.upper(), "name": "shop"} | more], "count": 2}, listing=INSTALLS)
    assert result.installs is not None
    assert result.installs.entries == (expected,)
    assert (result.installs.next_offset, result.installs.total) == (1, 2)
    assert (result.page, result.accounts, result.fault) == (None, None, None)


def test_a_listed_account_is_read_leniently() -> None:
    entries = [{"id": ID.upper(), "name": "agency s3cret"}, {"id": ACCOUNT_ID, "name": "b", "nickname": "B"}]
    result = listed({"results": entries, "next": None}, listing=ACCOUNTS)
    assert result.accounts is not None
    assert result.accounts.entries == (ListedAccount(ID, "agency [redacted]"), ListedAccount(ACCOUNT_ID, "b", "B"))
    assert (result.accounts.next_offset, result.page, result.installs) == (None, None, None)


@pytest.mark.parametrize(("listing", "what"), [(INSTALLS, "unreadable install"), (ACCOUNTS, "unreadable account")])
@pytest.mark.parametrize(
    "bad",
    [
        7,
        {"name": "shop"},
        {"id": ID},
        {"id": "294deacc", "name": "shop"},
        {"id": ID + "\n", "name": "shop"},
        {"id": 7, "name": "shop"},
        {"id": ID, "name": " "},
        {"id": ID, "name": None},
    ],
)
def test_one_entry_without_a_usable_id_or_name_makes_the_page_unreadable(
    listing: PageKind[Any], what: str, bad: object
) -> None:
    result = listed({"results": [{"id": ID, "name": "shop"}, bad]}, listing=listing)
    assert (result.fault, result.installs, result.accounts) == (Fault.UNREADABLE, None, None)
    assert f"{what}, number 2" in result.message


def test_deeply_nested_nonsense_does_not_hide_the_id() -> None:
    deep: dict[str, object] = {}
    for _ in range(900):
        deep = {"x": deep}
    backup = read(202, {"id": "b", "status": deep}).backup
    assert backup is not None
    assert backup.id == "b"


def test_a_compressed_body_is_unpacked_up_to_the_size_limit() -> None:
    assert unpack(b"x", "") == unpack(gzip.compress(b"x"), "gzip") == unpack(zlib.compress(b"x"), "deflate") == b"x"
    assert unpack(gzip.compress(b"0" * (LONGEST_BODY + 1)), "gzip") is None
    assert unpack(gzip.compress(b"x")[:-9], "gzip") is None
    assert unpack(b"x", "gzip") is None
    assert unpack(b"x", "br") is None


def test_only_headers_about_rates_are_kept_and_without_secrets() -> None:
    headers = {
        "X-RateLimit-Limit": "50",
        "ratelimit-policy": "50;w=1, for s3cret",
        "Rate-Limit-Reset": "7" * 1000,
        "X-Rate-Limit": "1",
        "Content-Type": "text/plain",
        "X-Generate-Limit": "1",
        "X-RateLimit-s3cret": "a name that no limiter has",
        "x-ratelimit-S3CRET": "nor this",
    }
    assert rate_headers(headers, Redactor(("s3cret",)).clean) == (
        ("x-ratelimit-limit", "50"),
        ("ratelimit-policy", "50;w=1, for [redacted]"),
        ("rate-limit-reset", "7" * LONGEST_RATE_HEADER),
        ("x-rate-limit", "1"),
    )
