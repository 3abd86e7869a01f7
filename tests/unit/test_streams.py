"""Writes to standard streams never raise; the first failure is reported at the end."""

from __future__ import annotations

import io
import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from orchestrator.cli import streams

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import TextIO


@pytest.fixture(autouse=True)
def own_streams() -> Iterator[None]:
    """Restore the standard streams after each test."""
    kept = sys.stdin, sys.stdout, sys.stderr
    yield
    sys.stdin, sys.stdout, sys.stderr = kept


def prepared(stdout: TextIO | None, stderr: TextIO | None) -> None:
    sys.stdout, sys.stderr = stdout, stderr
    streams.prepare()


def written_to(path: Path, encoding: str) -> TextIO:
    return path.open("w", encoding=encoding, errors="strict")


def test_characters_that_the_encoding_lacks_are_escaped(tmp_path: Path) -> None:
    with written_to(tmp_path / "out", "latin-1") as out, written_to(tmp_path / "err", "ascii") as err:
        prepared(out, err)
        sys.stdout.write("é…\udcff")
        streams.say("é")
        assert streams.stdout_failure() is None
    assert (tmp_path / "out").read_bytes() == b"\xe9\\u2026\\udcff"
    assert (tmp_path / "err").read_bytes() == b"\\xe9\n"


def test_data_is_utf8_and_json_is_ascii_in_any_encoding(tmp_path: Path) -> None:
    with written_to(tmp_path / "out", "ascii") as out, written_to(tmp_path / "err", "ascii") as err:
        prepared(out, err)
        sys.stdout.write("first ")
        streams.print_data("é\n")
        streams.print_json("é")
        sys.stdout.flush()
    assert (tmp_path / "out").read_bytes() == 'first é\n"\\u00e9"\n'.encode()


def test_a_full_disk_raises_nothing_and_is_reported_at_the_end() -> None:
    with open("/dev/full", "w") as out, open("/dev/full", "w") as err:  # noqa: PTH123 - devices
        prepared(out, err)
        for _ in range(3):
            sys.stdout.write("x" * 100_000)
            streams.say("x" * 100_000)
        assert streams.stdout_failure() == "No space left on device"


def test_a_reader_that_goes_away_is_no_failure() -> None:
    source, sink = os.pipe()
    os.close(source)
    with open(sink, "w") as out:  # noqa: PTH123 - it is open already
        prepared(out, out)
        sys.stdout.write("x" * 100_000)
        assert streams.stdout_failure() is None


def test_a_closed_stream_is_reported_only_if_something_was_written() -> None:
    prepared(None, None)
    streams.say("nobody reads this")
    assert streams.stdout_failure() is None
    sys.stdout.write("x")
    assert streams.stdout_failure() == "it is closed"


def test_a_write_waits_for_a_non_blocking_pipe() -> None:
    source, sink = os.pipe()
    os.set_blocking(sink, False)
    read: list[bytes] = []

    def reader() -> None:
        with open(source, "rb") as pipe:  # noqa: PTH123 - it is open already
            read.append(pipe.read())

    thread = threading.Thread(target=reader)
    with open(sink, "w") as out:  # noqa: PTH123 - it is open already
        prepared(out, out)
        thread.start()
        sys.stdout.write("x" * 1_000_000)
        assert streams.stdout_failure() is None
    thread.join()
    assert len(read[0]) == 1_000_000


def test_a_released_stream_is_no_longer_waited_for() -> None:
    source, sink = os.pipe()
    with open(sink, "w") as out:  # noqa: PTH123 - it is open already
        prepared(out, None)
        streams.let_go()
        sys.stdout.write("x" * 1_000_000)  # far more than fits into the pipe
        assert streams.stdout_failure() is None
    os.close(source)


def test_a_stream_that_was_not_prepared_is_left_unchanged() -> None:
    sys.stdout = io.StringIO()
    sys.stdout.write("x")
    assert streams.stdout_failure() is None
