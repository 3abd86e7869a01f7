"""Start commands without starting Python each time: a process that has imported everything forks for each command.

A normal start costs 0.43 s of CPU time, most of it for imports, and the tests start hundreds of commands. The child
runs the command's own ``main`` with the given arguments, environment, directory and streams. Coverage measures it like
any other process. Run as a script, this file is the process that forks. It serves one request per connection on the
listening socket that is its standard input. It ends when its parent ends.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGEST_REQUEST = 1 << 20


@dataclass
class Forked:
    """A running command and its process id."""

    pid: int
    _connection: socket.socket
    _code: int | None = None

    def wait(self, timeout: float) -> int:
        """Return the exit code; below 0, the signal that ended it. On timeout, kill it and raise ``TimeoutError``."""
        if self._code is None:
            self._connection.settimeout(timeout)
            with self._connection, self._connection.makefile() as answers:
                try:
                    self._code = int(answers.readline())
                except TimeoutError:
                    os.kill(self.pid, signal.SIGKILL)
                    raise
        return self._code


def fork(arguments: Sequence[str], environment: dict[str, str], cwd: Path, streams: tuple[int, int, int]) -> Forked:
    """Start ``wpe-backup`` with ``arguments`` and the descriptors ``streams`` as its standard streams."""
    return _forked_by(_zygote(), arguments, environment, cwd, streams)


def _forked_by(
    zygote: Path, arguments: Sequence[str], environment: dict[str, str], cwd: Path, streams: tuple[int, int, int]
) -> Forked:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(zygote))
    request = {"arguments": arguments, "environment": environment, "cwd": str(cwd)}
    socket.send_fds(connection, [json.dumps(request).encode()], list(streams))
    connection.shutdown(socket.SHUT_WR)
    return Forked(int(connection.recv(20)), connection)


def command_by_fork() -> list[str]:
    """Return the words of a shell command that acts as ``wpe-backup`` but starts faster; append the arguments.

    A signal ends this process and not the command. The command has only the standard streams.
    """
    return [sys.executable, "-IS", __file__, "fork", str(_zygote())]


@cache
def _zygote() -> Path:
    """Start the process that forks (once per test process), and return the path of its socket."""
    folder = Path(tempfile.mkdtemp(prefix="zygote-"))
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        environment = {name: value for name, value in os.environ.items() if name != "COVERAGE_PROCESS_CONFIG"}
        process = subprocess.Popen(
            [sys.executable, __file__, "serve", str(os.getpid())], stdin=listening.fileno(), env=environment
        )
    atexit.register(_end, process, folder)
    return path


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    process.kill()
    process.wait()
    (folder / "s").unlink(missing_ok=True)
    folder.rmdir()


# -- the process that forks -------------------------------------------------------------------------------------------


def serve(listening: socket.socket, parent: int) -> None:
    """Fork for each request until ``parent`` ends. The child becomes the command."""
    waiting: dict[int, socket.socket] = {}
    awake, wake = socket.socketpair()
    for each in (awake, wake):
        each.settimeout(0.0)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    ready = selectors.DefaultSelector()
    ready.register(listening, selectors.EVENT_READ)
    ready.register(awake, selectors.EVENT_READ)
    while os.getppid() == parent:
        events = [key.fileobj for key, _ in ready.select(1.0)]
        if awake in events:
            with contextlib.suppress(BlockingIOError):
                awake.recv(4096)
        _tell_ends(waiting)
        if listening in events:
            connection, _ = listening.accept()
            request, streams = _received(connection)
            pid = os.fork()
            if pid == 0:
                ready.close()
                for each in (listening, connection, awake, wake, *waiting.values()):
                    each.close()
                _become_command(request, streams)
            for stream in streams:
                os.close(stream)
            waiting[pid] = connection
            connection.sendall(f"{pid}\n".encode())


def _received(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    data, streams, _, _ = socket.recv_fds(connection, LARGEST_REQUEST, 3)
    while more := connection.recv(LARGEST_REQUEST):
        data += more
    return json.loads(data), list(streams)


def _tell_ends(waiting: dict[int, socket.socket]) -> None:
    while waiting:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with contextlib.suppress(OSError), waiting.pop(pid) as connection:
            connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _become_command(request: dict[str, Any], streams: list[int]) -> None:
    """Run the command in this process, and exit as the command does."""
    signal.set_wakeup_fd(-1)
    for each in (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8")
    sys.stdout = sys.__stdout__ = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), "utf-8")  # type: ignore[misc]  # as a new process has it
    errors = io.BufferedWriter(io.FileIO(2, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(errors, "utf-8", "backslashreplace", line_buffering=True)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    sys.argv = ["wpe-backup", *request["arguments"]]
    if "COVERAGE_PROCESS_CONFIG" in os.environ:
        import coverage  # noqa: PLC0415 - only if coverage is measured

        coverage.process_startup(force=True)
    from orchestrator.cli import main  # noqa: PLC0415 - only in the command's own process

    main()


def _serve_on_standard_input(parent: int) -> None:
    from orchestrator.cli.commands import load_all  # noqa: PLC0415 - only in the process that forks

    load_all()
    gc.freeze()
    with socket.socket(fileno=0) as listening:
        serve(listening, parent)


if __name__ == "__main__":
    what, whom, *words = sys.argv[1:]
    if what == "serve":
        _serve_on_standard_input(int(whom))
    else:
        forked = _forked_by(Path(whom), words, dict(os.environ), Path.cwd(), (0, 1, 2))
        sys.exit(forked.wait(3600))
