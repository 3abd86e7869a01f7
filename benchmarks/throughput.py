"""Measure how many requests per second the real command sends to a server without limits, beside a bare loop.

    .venv/bin/python benchmarks/throughput.py [--installs N] [--concurrency N] [--rounds N] [--profile]

``command`` is ``wpe-backup run`` with its journal, limiter and report. ``bare`` is the minimum with aiohttp: one
session, and one worker per request in flight. The workers only send the same bodies with the same credentials, and read
the JSON of the answers. Both are processes, and take turns against one server, which is a process too and does very
little for a request. The figures come from the server:

- ``requests/s``: the number of POSTs after the first one, divided by the time between the first and the last POST.
- ``summary``: the number of installs, divided by the duration in the command's summary (start of the run to its end).
- ``start``: from the start of the process to its first POST. ``end``: from its last POST to the end of the process.

``--profile`` runs the command once more with its event loop under cProfile, and shows where the main thread's time
goes.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import platform
import pstats
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from functools import partialmethod
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any, cast

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence

    Function = tuple[str, int, str]
    Timing = tuple[int, int, float, float, dict[Function, tuple[int, int, float, float]]]

HERE = [sys.executable, str(Path(__file__).resolve())]
COMMAND = [sys.executable, "-m", "orchestrator"]
USER, PASSWORD = "a-user", "a-password"

NO_LIMIT = "100000"
"""A rate in requests per second that the command never reaches."""

DESCRIPTION = "Throughput"
MARKED = f"{DESCRIPTION} [wpe-backup {'0' * 26}]"
"""The description that the bare loop sends. It is as long as the command's, with a marker."""

AIM = 0.6
IN_MEMORY = {"tmpfs", "ramfs", "?"}

# -- the server --------------------------------------------------------------------------------------------------------


class Light(asyncio.Protocol):
    """One connection to a server that does as little as HTTP allows: one request at a time, and 200 for every GET."""

    def __init__(self, seen: Seen) -> None:
        """Count requests in ``seen``, which all connections share."""
        self._seen = seen
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer a request once all of it has arrived. Clients send no request before the answer to the last one."""
        data = self._unread + data
        head, end, body = data.partition(b"\r\n\r\n")
        length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        if not end or len(body) < int(length or 0):
            self._unread = data
            return
        self._unread = b""
        self._transport.write(self._seen.answer(head[: head.index(b"\r\n")], body))


class Seen:
    """What the server saw of the POSTs: their number, bytes of bodies, first and last instant (monotonic)."""

    def __init__(self) -> None:
        """Start with all counts at 0."""
        self._second, self._date, self._created = 0, b"", ""
        self._forget()

    def _forget(self) -> None:
        self._posts, self._bytes, self._first_at, self._last_at = 0, 0, 0.0, 0.0

    def answer(self, line: bytes, body: bytes) -> bytes:
        """Return the answer to a request with the request line ``line`` and ``body``."""
        method, path, _ = line.split(b" ")
        if method == b"POST" and path.endswith(b"/backups"):
            return self._response(HTTPStatus.ACCEPTED, self._backup(body))
        if path == b"/_reset":
            self._forget()
        seen = {"posts": self._posts, "bytes": self._bytes, "first_at": self._first_at, "last_at": self._last_at}
        return self._response(HTTPStatus.OK, json.dumps(seen if path == b"/_stats" else {}))

    def _backup(self, body: bytes) -> str:
        self._last_at = time.monotonic()
        self._first_at = self._first_at or self._last_at
        self._posts += 1
        self._bytes += len(body)
        description = json.loads(body)["description"]
        return (
            f'{{"id":"00000000-0000-4000-8000-{self._posts:012x}","status":"requested",'
            f'"description":{json.dumps(description)},"create_time":"{self._created}"}}'
        )

    def _response(self, status: HTTPStatus, document: str) -> bytes:
        now = int(time.time())
        if now != self._second:
            self._second, self._date = now, formatdate(now, usegmt=True).encode()
            self._created = datetime.fromtimestamp(now, UTC).isoformat().replace("+00:00", "Z")
        return b"HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
            status,
            status.phrase.encode(),
            self._date,
            len(document),  # ASCII only: characters are bytes
            document.encode(),
        )


async def serve() -> None:
    """Serve on a free port until the process is ended. Print the base URL to standard output."""
    seen = Seen()
    server = await asyncio.get_running_loop().create_server(lambda: Light(seen), "127.0.0.1", 0)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1\n")
    sys.stdout.flush()
    await server.serve_forever()


# -- the bare loop -----------------------------------------------------------------------------------------------------


async def post_all(base_url: str, installs: int, concurrency: int) -> None:
    """Send one POST for each install, ``concurrency`` at a time, and read the answers."""
    urls = (f"{base_url}/installs/{install_id}/backups" for install_id in install_ids(installs))
    headers = {"Authorization": aiohttp.encode_basic_auth(USER, PASSWORD), "Accept": "application/json"}

    async def work() -> None:
        for url in urls:
            body = json.dumps({"description": MARKED, "notification_emails": []}).encode()
            sent = {"Content-Type": "application/json"}
            async with session.post(url, data=body, headers=sent) as response:
                await response.json()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:
        await asyncio.gather(*(work() for _ in range(concurrency)))


def install_ids(count: int) -> Iterator[str]:
    """Yield ``count`` UUIDs."""
    return (f"00000000-0000-4000-8000-{number:012d}" for number in range(count))


# -- the processes -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Load:
    """The number of installs of a run, and the number of requests at a time."""

    installs: int
    concurrency: int


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of one process: its requests per second, and the seconds before the first POST and after the last."""

    body_bytes: int
    per_s: float
    start_s: float
    end_s: float


@contextmanager
def server() -> Iterator[str]:
    """Run the server as a process and yield its base URL."""
    process = subprocess.Popen([*HERE, "--serve"], stdout=subprocess.PIPE, text=True)  # noqa: S603 - this file
    try:
        yield process.stdout.readline().strip() if process.stdout else ""
    finally:
        process.terminate()
        process.communicate()


def ask(base_url: str, page: str) -> dict[str, Any]:
    """Return the server's answer for ``page``."""
    with urllib.request.urlopen(base_url.replace("v1", page), timeout=30) as reply:  # noqa: S310 - loopback
        return json.load(reply)  # type: ignore[no-any-return]  # it is an object


def measure(base_url: str, command: Sequence[str], load: Load, folder: Path) -> Measured:
    """Run ``command`` in ``folder`` against the server, and return the figures from the server.

    Raises ``RuntimeError`` if it fails or does not send one POST per install.
    """
    ask(base_url, "_reset")
    began = time.monotonic()
    ended = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)  # noqa: S603 - our own
    ended_at = time.monotonic()
    seen = ask(base_url, "_stats")
    posts, first_at, last_at = seen["posts"], seen["first_at"], seen["last_at"]
    if ended.returncode != 0 or posts != load.installs:
        message = f"{command[1:3]} ended with {ended.returncode} after {posts} POSTs: {ended.stderr}"
        raise RuntimeError(message)
    per_s = (posts - 1) / max(last_at - first_at, 1e-6)
    return Measured(seen["bytes"], per_s, first_at - began, ended_at - last_at)


def environment(folder: Path) -> dict[str, str]:
    """Return the environment for the command, without any settings of this process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WPE_", "XDG_"))}
    return kept | {"WPE_API_USER_ID": USER, "WPE_API_PASSWORD": PASSWORD, "HOME": str(folder)}


def run_command(base_url: str, load: Load, folder: Path, program: Sequence[str] = COMMAND) -> tuple[Measured, float]:
    """Run the real command as ``program`` in ``folder``. Return its figures, and the summary's installs per second."""
    installs = "".join(f"  - {install_id}\n" for install_id in install_ids(load.installs))
    head = f'version: 1\naccounts: {{default: {{base_url: "{base_url}"}}}}\n'
    defaults = f"defaults: {{notification_emails: [], description: {DESCRIPTION}}}\n"
    (folder / "fleet.yaml").write_text(f"{head}{defaults}installs:\n{installs}", encoding="utf-8")
    rate = ["--rate", NO_LIMIT, "--max-rate", NO_LIMIT, "--concurrency", str(load.concurrency)]
    files = ["-c", "fleet.yaml", "-o", "report.jsonl", "--state-dir", "state"]
    measured = measure(base_url, [*program, "run", *files, *rate], load, folder)
    summary = json.loads((folder / "report.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return measured, summary["planned"] / summary["duration_s"]


def run_bare(base_url: str, load: Load, folder: Path) -> Measured:
    """Run the bare loop, and return its figures."""
    return measure(base_url, [*HERE, "--bare", base_url, *map(str, (load.installs, load.concurrency))], load, folder)


def file_system(folder: Path) -> str:
    """Return the type of the file system of ``folder``, ``?`` if the system does not tell it."""
    mounts = Path("/proc/self/mounts")
    lines = mounts.read_text(encoding="utf-8").splitlines() if mounts.exists() else []
    points = {Path(line.split(" ")[1]): line.split(" ")[2] for line in lines}
    here = folder.resolve()
    return next((points[each] for each in (here, *here.parents) if each in points), "?")


def folder_on_disk() -> Path:
    """Return a folder for temporary files, on a disk if there is one, because the journal waits for the disk."""
    folders = [Path(gettempdir()), Path("/var/tmp"), Path.cwd()]  # noqa: S108 - we create our own folder in it
    return next((each for each in folders if each.is_dir() and file_system(each) not in IN_MEMORY), folders[0])


# -- where the time goes -----------------------------------------------------------------------------------------------

WAITING = "(waiting)"
OURS = ("pacing", "throttle", "engine", "wpengine", "journal", "report", "runs", "session")
AIOHTTP = ("aiohttp", "yarl", "multidict", "propcache", "aiosignal", "frozenlist")
GROUPS = (
    *((f"/orchestrator/{name}/", name) for name in OURS),
    ("/orchestrator/", "decisions, model, redaction"),
    *((f"/{name}/", "aiohttp") for name in AIOHTTP),
    ("/asyncio_throttle/", "asyncio-throttle"),
    ("/structlog/", "structlog"),
    ("/asyncio/", "asyncio"),
    ("/selectors.py", "asyncio"),
    ("/json/", "json"),
    ("/email/", "email (HTTP-dates)"),
    ("/sqlite3/", "sqlite"),
)
"""Parts of a file's name, and the group of its functions. The time of all other functions goes to their callers."""


def by_group(timings: Mapping[Function, Timing]) -> dict[str, float]:
    """Return the seconds spent in each group. The time of built-ins, data classes etc. goes to their callers."""
    shares: dict[Function, dict[str, float]] = {}

    def share(function: Function) -> dict[str, float]:
        if function not in shares:
            group = _group(function)
            shares[function] = {group or "(other)": 1.0}
            callers = {caller: own_s for caller, (_, _, own_s, _) in timings[function][4].items() if caller in timings}
            total_s = sum(callers.values())
            if group is None and total_s > 0.0:
                shares[function] = _sum((share(caller), own_s / total_s) for caller, own_s in callers.items())
        return shares[function]

    return _sum((share(function), own_s) for function, (_, _, own_s, _, _) in timings.items())


def _sum(parts: Iterable[tuple[Mapping[str, float], float]]) -> dict[str, float]:
    """Return the sum of shares, each multiplied by its weight."""
    found: dict[str, float] = defaultdict(float)
    for shares, weight in parts:
        for group, part in shares.items():
            found[group] += part * weight
    return found


def _group(function: Function) -> str | None:
    file, _, name = function
    if "epoll" in name or "select.select" in name:
        return WAITING
    return next((group for part, group in GROUPS if part in file), None)


def profile_command(arguments: Sequence[str]) -> None:
    """Run the command in this process, its event loop under cProfile, and write the timings to the file ``profile``."""
    profiler, run, runners = cProfile.Profile(), asyncio.Runner.run, cast("Any", asyncio.Runner)

    def profiled(runner: asyncio.Runner, work: Coroutine[Any, Any, Any], **named: Any) -> Any:  # noqa: ANN401 - as in asyncio
        return profiler.runcall(cast("Any", run), runner, work, **named)

    runners.run = partialmethod(profiled)
    sys.argv[1:] = arguments
    from orchestrator.cli import main as command  # noqa: PLC0415 - the other processes of this file must not load it

    try:
        command()
    finally:
        profiler.dump_stats("profile")


def profile(base_url: str, load: Load, root: Path) -> None:
    """Run the command under cProfile, and print the time per request of each group."""
    with TemporaryDirectory(dir=root) as folder:
        run_command(base_url, load, Path(folder), [*HERE, "--profiled"])
        timings: Mapping[Function, Timing] = pstats.Stats(f"{folder}/profile").stats  # type: ignore[attr-defined]  # undocumented
    spent = by_group(timings)
    spent["in all"] = total_s = sum(spent.values())
    print("\nTime of the command's main thread, from start to end of the run. cProfile makes each call slower:")
    for group, seconds in sorted(spent.items(), key=lambda each: -each[1]):
        print(f"{group:30} {seconds / load.installs * 1e6:8.1f} µs a request {seconds / total_s:6.1%}")


def compare(base_url: str, load: Load, rounds: int, root: Path) -> float:
    """Run the command and the bare loop in turn, print their figures, and return the ratio of the medians."""
    print(f"{'':8}{'requests/s':>22}{'':8}{'summary':>9}{'start':>18}{'end':>18}")
    print(f"{'round':8}{'command':>11}{'bare':>11}{'ratio':>8}{'command':>9}" + f"{'command':>10}{'bare':>8}" * 2)
    pairs = []
    for number in range(1, rounds + 1):
        with TemporaryDirectory(dir=root) as folder:
            command, summary_per_s = run_command(base_url, load, Path(folder))
            bare = run_bare(base_url, load, Path(folder))
        pairs.append((command.per_s, bare.per_s))
        rates = f"{command.per_s:11.0f}{bare.per_s:11.0f}{command.per_s / bare.per_s:8.2f}{summary_per_s:9.0f}"
        seconds = (command.start_s, bare.start_s, command.end_s, bare.end_s)
        print(f"{number:<8}{rates}" + "{:8.2f} s{:6.2f} s{:8.2f} s{:6.2f} s".format(*seconds), flush=True)
    ours, its = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
    print(f"{'median':8}{ours:11.0f}{its:11.0f}{ours / its:8.2f}")
    return ours / its


def chosen(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--installs", type=int, default=5000, metavar="N", help="installs per run (default: 5000)")
    parser.add_argument("--concurrency", type=int, default=64, metavar="N", help="requests at a time (default: 64)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="runs of each of the two (default: 3)")
    parser.add_argument("--profile", action="store_true", help="show where the command's time goes")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--bare", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--profiled", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare the command with the bare loop, or run as one of the processes."""
    given = chosen(argv)
    if given.serve:
        asyncio.run(serve())
    elif given.bare:
        asyncio.run(post_all(given.bare[0], int(given.bare[1]), int(given.bare[2])))
    elif given.profiled:
        profile_command(given.profiled)
    else:
        _compare(given)
    return 0


def _compare(given: argparse.Namespace) -> None:
    load, root = Load(given.installs, given.concurrency), folder_on_disk()
    print(f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f} at the start, state on {file_system(root)},")
    print(f"Python {platform.python_version()}, aiohttp {version('aiohttp')};")
    print(f"{load.installs} installs, {load.concurrency} at a time\n")
    with server() as base_url:
        ratio = compare(base_url, load, given.rounds, root)
        print(f"\nThe command sends {ratio:.2f} times the requests per second of the bare loop. The aim is {AIM:g}.")
        if given.profile:
            profile(base_url, load, root)


if __name__ == "__main__":
    sys.exit(main())
