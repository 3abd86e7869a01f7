"""Logs: two forms, no secrets, no terminal control codes."""

from __future__ import annotations

import base64
import io
import json

import pytest

from orchestrator.logs import make_log
from orchestrator.redaction import Redactor
from orchestrator.visible import visible


def logged(*, as_json: bool, verbosity: int = 0, **fields: object) -> str:
    stream, redactor = io.StringIO(), Redactor().knowing("user-1", "pass word")
    log = make_log(stream, redactor, as_json=as_json, colors=False, verbosity=verbosity)
    log.debug("a.debug", **fields)
    log.info("an.info", **fields)
    log.error("an.error", **fields)
    return stream.getvalue()


def test_the_log_for_machines_is_json_lines() -> None:
    lines = [json.loads(line) for line in logged(as_json=True, n=1, e="é").splitlines()]
    assert [(line["event"], line["level"], line["n"], line["e"]) for line in lines] == [
        ("an.info", "info", 1, "é"),
        ("an.error", "error", 1, "é"),
    ]
    assert lines[0]["timestamp"].endswith("Z")


@pytest.mark.parametrize(("verbosity", "count"), [(-1, 1), (0, 2), (1, 3), (5, 3)])
def test_the_verbosity_selects_the_logged_events(verbosity: int, count: int) -> None:
    assert len(logged(as_json=False, verbosity=verbosity).splitlines()) == count


@pytest.mark.parametrize("as_json", [True, False])
def test_secrets_are_removed_from_every_part_of_an_event(as_json: bool) -> None:  # noqa: FBT001 - a parameter of the test
    encoded = base64.b64encode(b"user-1:pass word").decode()
    text = logged(as_json=as_json, a="xpass wordx", b=["user-1"], c={"d": f"Basic {encoded}"}, e=("pass word", 1))
    assert "[redacted]" in text
    for secret in ("user-1", "pass word", encoded):
        assert secret not in text


@pytest.mark.parametrize("as_json", [True, False])
def test_server_text_cannot_control_a_terminal(as_json: bool) -> None:  # noqa: FBT001 - a parameter of the test
    text = logged(as_json=as_json, reason="a\x1b[2Jb\nc\u202ed")
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert len(text.splitlines()) == 2


def test_very_short_secrets_are_not_removed_from_words() -> None:
    assert Redactor().knowing("a", "b").clean("abba") == "abba"


def test_a_secret_is_also_found_in_its_json_form() -> None:
    redactor = Redactor().knowing("user-1", 'pä"ss')
    for text in (json.dumps('pä"ss'), json.dumps('pä"ss', ensure_ascii=False)):
        assert redactor.clean(text) == '"[redacted]"'


def test_json_is_ascii_if_the_stream_is_not_utf8() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="latin-1", errors="backslashreplace", write_through=True)
    make_log(stream, Redactor(), as_json=True, colors=False, verbosity=0).info("é…", name="日本")
    line = raw.getvalue().decode("ascii")
    assert (json.loads(line)["event"], json.loads(line)["name"]) == ("é…", "日本")


def test_only_the_log_for_machines_has_the_run_id() -> None:
    for as_json in (True, False):
        stream = io.StringIO()
        make_log(stream, Redactor(), as_json=as_json, colors=False, verbosity=0).bind(run_id="R1").info("x")
        assert ("R1" in stream.getvalue()) is as_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain é ✓", "plain é ✓"), ("\x00\x7f\x9b", r"\x00\x7f\x9b"), ("a\u200bb\ud800", r"a\u200bb\ud800")],
)
def test_invisible_characters_are_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown
