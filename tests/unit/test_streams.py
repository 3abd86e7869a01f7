"""Standard streams never fail whoever writes to them, and say at the end what they lost."""

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
    """Leave the standard streams of the tests as they are."""
    kept = sys.stdin, sys.stdout, sys.stderr
    yield
    sys.stdin, sys.stdout, sys.stderr = kept


def prepared(stdout: TextIO | None, stderr: TextIO | None) -> None:
    sys.stdout, sys.stderr = stdout, stderr
    streams.prepare()


def written_to(path: Path, encoding: str) -> TextIO:
    return path.open("w", encoding=encoding, errors="strict")


def test_what_the_encoding_lacks_is_written_out(tmp_path: Path) -> None:
    with written_to(tmp_path / "out", "latin-1") as out, written_to(tmp_path / "err", "ascii") as err:
        prepared(out, err)
        sys.stdout.write("é…\udcff")
        streams.say("é")
        assert streams.stdout_failure() is None
    assert (tmp_path / "out").read_bytes() == b"\xe9\\u2026\\udcff"
    assert (tmp_path / "err").read_bytes() == b"\\xe9\n"


def test_data_is_utf8_and_json_is_ascii_whatever_the_encoding(tmp_path: Path) -> None:
    with written_to(tmp_path / "out", "ascii") as out, written_to(tmp_path / "err", "ascii") as err:
        prepared(out, err)
        sys.stdout.write("first ")
        streams.print_data("é\n")
        streams.print_json("é")
        sys.stdout.flush()
    assert (tmp_path / "out").read_bytes() == 'first é\n"\\u00e9"\n'.encode()


def test_a_full_disk_costs_nothing_and_is_told_once() -> None:
    with open("/dev/full", "w") as out, open("/dev/full", "w") as err:  # noqa: PTH123 - devices
        prepared(out, err)
        for _ in range(3):
            sys.stdout.write("x" * 100_000)
            streams.say("x" * 100_000)
        assert streams.stdout_failure() == "No space left on device"


def test_a_reader_that_went_away_wanted_no_more() -> None:
    source, sink = os.pipe()
    os.close(source)
    with open(sink, "w") as out:  # noqa: PTH123 - it is open already
        prepared(out, out)
        sys.stdout.write("x" * 100_000)
        assert streams.stdout_failure() is None


def test_a_closed_stream_is_told_of_only_if_something_was_to_be_written() -> None:
    prepared(None, None)
    streams.say("nobody reads this")
    assert streams.stdout_failure() is None
    sys.stdout.write("x")
    assert streams.stdout_failure() == "it is closed"


def test_a_pipe_that_somebody_made_non_blocking_is_waited_for() -> None:
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


def test_what_is_let_go_is_waited_for_no_more() -> None:
    source, sink = os.pipe()
    with open(sink, "w") as out:  # noqa: PTH123 - it is open already
        prepared(out, None)
        streams.let_go()
        sys.stdout.write("x" * 1_000_000)  # far more than the pipe takes
        assert streams.stdout_failure() is None
    os.close(source)


def test_a_stream_of_nobody_else_is_left_as_it_is() -> None:
    sys.stdout = io.StringIO()
    sys.stdout.write("x")
    assert streams.stdout_failure() is None
