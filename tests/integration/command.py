"""Run the real command as a process, and the stand-in for the API as another process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from surroundings import is_foreign
from zygote import fork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

COMMAND = [sys.executable, "-m", "orchestrator"]
PATIENCE_S = 60.0
"""The longest wait on a very busy machine; only a bug takes longer."""

AT_THE_TRUE_TIME = {"LD_PRELOAD": ""}
"""Changes of the environment for a program with closed streams: they switch faketime off. Faketime opens a file for its
state, which would become standard output and be overwritten."""

USER, PASSWORD = "an-api-user", "a-secret-password"


def environment(**changes: str) -> dict[str, str]:
    """Return the environment for a command: the test's own without variables that could change the result."""
    kept = {name: value for name, value in os.environ.items() if not is_foreign(name)}
    return kept | {"WPE_API_USER_ID": USER, "WPE_API_PASSWORD": PASSWORD} | changes


def _environment_in(cwd: Path, changes: dict[str, str]) -> dict[str, str]:
    return environment(**{"WPE_BACKUP_STATE_DIR": str(cwd / "state"), "HOME": str(cwd)} | changes)


@dataclass(frozen=True)
class Ended:
    """The exit code and the output of a command."""

    code: int
    stdout: str
    stderr: str

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]


def run_command(*arguments: str, cwd: Path, stdin: str = "", **changes: str) -> Ended:
    """Run ``wpe-backup`` with ``arguments`` in ``cwd``; its state is in ``cwd`` too."""
    return start_command(*arguments, cwd=cwd, stdin=stdin, **changes).ended()


def run_program(*words: str, cwd: Path, **changes: str) -> Ended:
    """Run any program in ``cwd`` with the environment of ``run_command``, for tests that must start Python itself."""
    env = _environment_in(cwd, changes)
    ended = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return Ended(ended.returncode, ended.stdout, ended.stderr)


class Live:
    """A running command, with its output as it comes."""

    def __init__(self, arguments: Sequence[str], env: dict[str, str], cwd: Path, stdin: str) -> None:
        """Start ``wpe-backup`` with ``arguments`` and with ``stdin`` as its input."""
        (out, out_sink), (err, err_sink) = os.pipe(), os.pipe()
        with tempfile.TemporaryFile() as given:
            given.write(stdin.encode())
            given.seek(0)
            self._process = fork(arguments, env, cwd, (given.fileno(), out_sink, err_sink))
        for each in (out_sink, err_sink):
            os.close(each)
        self.pid = self._process.pid
        self.stdout = open(out, encoding="utf-8", newline="")  # noqa: PTH123, SIM115 - it is open already; ended() closes it
        self.stderr = open(err, encoding="utf-8", newline="")  # noqa: PTH123, SIM115 - likewise

    def send_signal(self, signum: int) -> None:
        """Send a signal; if the command has ended, do nothing."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signum)

    def wait(self) -> int:
        """Wait for its end without reading its output, and return its exit code."""
        return self._process.wait(PATIENCE_S)

    def ended(self) -> Ended:
        """Wait for its end, and return its exit code with the output that was not read before."""
        with ThreadPoolExecutor(2) as readers:
            out, err = (readers.submit(_rest_of, stream) for stream in (self.stdout, self.stderr))
            code = self.wait()
        return Ended(code, out.result(), err.result())


def _rest_of(stream: TextIO) -> str:
    if stream.closed:
        return ""
    with stream:
        return stream.read()


def start_command(*arguments: str, cwd: Path, stdin: str = "", **changes: str) -> Live:
    """Start ``wpe-backup`` as ``run_command`` does; the caller waits for its end."""
    return Live(arguments, _environment_in(cwd, changes), cwd, stdin)


@dataclass(frozen=True)
class StandIn:
    """A running ``wpe-backup simulate``."""

    base_url: str

    def _admin(self, page: str) -> Any:
        with urllib.request.urlopen(self.base_url.replace("/v1", f"/_admin/{page}"), timeout=10) as reply:  # noqa: S310 - our own
            return json.load(reply)

    def stats(self) -> dict[str, Any]:
        return self._admin("stats")  # type: ignore[no-any-return]  # it is JSON

    def backups(self) -> list[dict[str, Any]]:
        return self._admin("backups")["backups"]  # type: ignore[no-any-return]  # it is JSON

    def requests(self) -> list[dict[str, Any]]:
        return self._admin("requests")["requests"]  # type: ignore[no-any-return]  # it is JSON


@contextmanager
def stand_in(*options: str, **changes: str) -> Iterator[StandIn]:
    """Serve the stand-in with ``options`` on a free port.

    Its coverage is not measured, so that it is fast; its own tests run it in their process.
    """
    env = environment(**changes)
    env.pop("COVERAGE_PROCESS_CONFIG", None)
    source, sink = os.pipe()
    with open(os.devnull, "r+b") as nothing, open(source, encoding="utf-8") as printed:  # noqa: PTH123 - one is open already
        streams = (nothing.fileno(), sink, nothing.fileno())
        process = fork(("simulate", "--port", "0", *options), env, Path.cwd(), streams)
        os.close(sink)
        try:
            yield StandIn(printed.readline().strip())
        finally:
            os.kill(process.pid, signal.SIGTERM)
            process.wait(PATIENCE_S)


def until(condition: Callable[[], object]) -> None:
    """Call ``condition()`` until it is true, for ``PATIENCE_S`` at most."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def opened(pid: int) -> str:
    """Return the paths that a process has open."""
    paths = []
    with suppress(FileNotFoundError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                paths.append(str(link.readlink()))
    return "\n".join(paths)


def install_ids(count: int) -> list[str]:
    return [f"00000000-0000-4000-8000-{number:012d}" for number in range(count)]


def fleet(base_url: str, count: int, more: str = "") -> str:
    """Return a YAML of ``count`` installs at ``base_url``, with ``more`` sections."""
    head = f"""\
version: 1
accounts: {{default: {{base_url: "{base_url}"}}}}
defaults: {{notification_emails: [], description: "Test {{name}}"}}
{more}
installs:
"""
    return head + "".join(f"  - {{id: {each}, name: shop{n}}}\n" for n, each in enumerate(install_ids(count)))
