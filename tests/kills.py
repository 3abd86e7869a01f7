"""Kill the command at random moments while the stand-in misbehaves, resume it, and check the stand-in's backups.

    .venv/bin/python tests/kills.py [--kills N] [--seed N] [--trial N]... [--jobs N]

A trial is one run over a fleet. The run is begun, killed or stopped (or both) at least once, and resumed to its end.
Then it is resumed once more, with nothing left to do. Seed and number give the scenario, the YAML and the blows, so a
trial can be repeated; only the moment of a blow depends on the machine's timing. Trials go on until ``--kills``
processes were killed. If a promise of ``docs/reliability.md`` was broken, the exit code is 1, and the printed directory
keeps the evidence.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent / "integration"))  # pytest finds this directory by its own settings

from command import COMMAND, StandIn, environment, fleet, stand_in
from kill_verdict import TOLD_TO_STOP, Figures, Seen, Terms, problems_of, problems_of_rest, stands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Line = dict[str, Any]

PATIENCE_S = 120.0
"""The longest time for one command: several graces and holds, on a busy machine."""
SLACK_S = 1.2
"""The grace exceeds the stand-in's own delays by this, because a busy machine adds delays."""
SHARE_THAT_WAITS = 0.5
"""The share of trials that wait for their backups, and are killed during the wait too."""
MOST_RESUMES = 4
"""The most resumptions until no install is cancelled: a failing API may stop an account."""

POST_FAULTS: tuple[Line, ...] = (
    *({"kind": "gateway_timeout", "created": created} for created in (True, False)),
    *({"kind": "reset", "created": created} for created in (True, False)),
    *({"kind": "hang", "created": created} for created in (True, False)),
    *({"kind": "unavailable", "created": created, "after": "150ms"} for created in (True, False)),
    {"kind": "cut_head", "created": True},
    *({"kind": kind} for kind in ("bad_gateway", "cut_short", "broken_json", "missing_id", "wrong_type")),
)
LISTING_FAULTS: tuple[Line, ...] = tuple(
    {"kind": kind, "operation": "listing"} for kind in ("unavailable", "reset", "hang", "broken_json", "cut_short")
)
POLL_FAULTS: tuple[Line, ...] = tuple(
    {"kind": kind, "operation": "show"} for kind in ("unavailable", "reset", "broken_json", "not_found", "missing_id")
)
BACKENDS = (("0ms", 50, 29_000), ("10ms", 700, 500), ("10ms", 1250, 29_000))
"""The backend's shortest and longest time, and the gateway's timeout (ms). The three rows: all is well; a 504 comes
before the backup is made; the backup is made after the client has gone, which waits 1 s."""


class Moment(StrEnum):
    """The event that a blow waits for."""

    START = "start"
    STATE = "state"
    FOLDER = "folder"
    POST = "post"
    REQUEST = "request"
    LINE = "line"
    END = "end"


@dataclass(frozen=True, slots=True)
class Blow:
    """When and how a process is hit: ``after_s`` after the moment. With ``warned_s``, a SIGTERM comes so long before.

    ``share`` is the share of the remaining POSTs, requests or lines that the process may complete first.
    """

    moment: Moment
    share: float
    after_s: float
    warned_s: float | None
    last: signal.Signals | None


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial, drawn from seed and number."""

    terms: Terms
    scenario: Line
    sections: str
    report: str | None
    blows: tuple[Blow, ...]


def drawn(seed: int, number: int, installs: tuple[int, int] = (30, 60)) -> Trial:
    """Draw trial ``number`` of ``seed``; the fleet has between ``installs[0]`` and ``installs[1]`` installs."""
    rng = random.Random(f"{seed} {number}")
    (quickest, slowest, patience), *_ = rng.choices(BACKENDS, (3, 4, 2))
    lag = rng.choice((0, 200, 500))
    grace_s = (100 + slowest + lag) / 1000 + SLACK_S
    rejected = {"kind": rng.choice(("bad_request", "forbidden", "not_found")), "share": rng.uniform(0, 0.1)}
    faults = [*_shared(rng, POST_FAULTS, 0.6), *_shared(rng, LISTING_FAULTS, 0.2), rejected]
    scenario = {
        "seed": rng.randrange(10**6),
        "latency": ["2ms", "40ms"],
        "limits": [{"kind": "bucket", "rate": rng.choice((20, 40, 80)), "burst": rng.choice((3, 10, 30))}],
        "retry_after": rng.choice(("none", "none", "seconds")),
        "clock_skew": rng.choice((0, 0, "90s", "-1h")),
        "backend": {"slots": 500, "takes": [quickest, f"{slowest}ms"]},
        "gateway_timeout": f"{patience}ms",
        "pages": {"size": rng.choice((1, 2, 100))},
        "listing": {"lag": f"{lag}ms", "order": rng.choice(("random", "newest")), "nightly": rng.choice((0, 2))},
        "faults": faults,
    }
    sections = (
        f"timeouts: {{connect: 1s, read: 1s}}\nreconcile: {{grace: {grace_s:.2f}s}}\n"
        f"retry: {{max_attempts: {rng.randint(3, 6)}}}\n"
        "throttle: {start_requests_per_second: 20, max_requests_per_second: 50}\n"
    )
    blows = tuple(_blow(rng, is_first=n == 0) for n in range(rng.choice((1, 2, 2, 3, 3, 4))))
    count, report = rng.randint(*installs), rng.choice((None, "whole.jsonl"))
    waits, repeats = rng.random() < SHARE_THAT_WAITS, rng.random() < 0.5
    if waits:
        faults.extend(fault | {"of": "requests"} for fault in _shared(rng, POLL_FAULTS, 0.3))
        ends = {"completes_after": ["100ms", rng.choice(("500ms", "3s"))], "aborts": rng.choice((0, 0.1, 0.3))}
        scenario["backups"] = ends
        sections += f"wait: {{timeout: 60s, poll_interval: 200ms, retry_aborted: {int(repeats)}}}\n"
    terms = Terms(count, grace_s, lag / 1000, waits, waits and repeats)
    return Trial(terms, scenario, sections, report, blows)


def _shared(rng: random.Random, faults: Sequence[Line], most: float) -> list[Line]:
    """Return ``faults``, each with a share; the shares add up to ``most`` at most."""
    weights = [rng.random() for _ in faults]
    total = rng.uniform(0.2, 1.0) * most / sum(weights)
    return [fault | {"share": weight * total} for fault, weight in zip(faults, weights, strict=True)]


def _blow(rng: random.Random, *, is_first: bool) -> Blow:
    weights = (1, 1, 2, 3, 2, 3, 2) if is_first else (2, 0, 1, 2, 4, 2, 2)
    (moment,) = rng.choices(list(Moment), weights)
    longest_s = {Moment.START: 1.5, Moment.POST: 0.3, Moment.REQUEST: 0.3}.get(moment, 0.04)
    warned_s = rng.uniform(0, 0.8) if rng.random() < 0.2 else None
    last = rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, None)) if warned_s else signal.SIGKILL
    return Blow(moment, rng.random() ** 2, rng.uniform(0, longest_s), warned_s, last)


@dataclass
class Play:
    """One execution of a trial in ``folder`` against ``server``."""

    trial: Trial
    folder: Path
    server: StandIn
    figures: Figures = field(default_factory=Figures)
    problems: list[str] = field(default_factory=list)
    run_id: str | None = None
    stood: set[bytes] = field(default_factory=set)
    commands: int = 0
    is_begun: bool = False
    last: Seen | None = None

    def play(self) -> None:
        """Begin the run, strike it, resume it to its end, and resume it once more."""
        (self.folder / "wpe-backup.yaml").write_text(
            fleet(self.server.base_url, self.trial.terms.installs, self.trial.sections)
        )
        for blow in self.trial.blows:
            if not self._has_ended():
                self._command(blow)
        for _ in range(MOST_RESUMES):
            if not self._has_ended():
                self._command()
        if self.last is None:
            self.problems.append("the run never came to its end")
            return
        if not self.problems:
            before = self.last
            self._command()
            self.problems += problems_of_rest(before, self.last)
        self.figures.add(self.last.figures())

    def _has_ended(self) -> bool:
        return bool(self.problems) or (self.last is not None and self.last.is_final())

    # -- one command --------------------------------------------------------------------------------------------------

    def _command(self, blow: Blow | None = None) -> None:
        """Run the command once, and hit it with ``blow``."""
        self.commands += 1
        options = ["--resume", "latest"] if self.is_begun else ["-o", self.trial.report] if self.trial.report else []
        options += ["--wait"] if self.trial.terms.waits else []
        with (self.folder / f"{self.commands}.log").open("wb") as log:
            process = subprocess.Popen(
                [*COMMAND, "run", "-v", "--log-format", "json", *options],
                cwd=self.folder,
                env=environment(WPE_BACKUP_STATE_DIR=str(self.folder / "state"), HOME=str(self.folder)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.is_begun = True
        try:
            if blow:
                self._strike(process, blow)
            self._judge(process.wait(PATIENCE_S), was_told=blow is not None and blow.warned_s is not None)
        except subprocess.TimeoutExpired:
            self.problems.append(f"command {self.commands} did not come to its end")
        finally:
            process.kill()
            process.wait()

    def _strike(self, process: subprocess.Popen[bytes], blow: Blow) -> None:
        has_come = self._condition(blow)
        until = time.monotonic() + PATIENCE_S
        while not has_come():
            if process.poll() is not None or time.monotonic() > until:
                return
            time.sleep(0.02 if blow.moment in {Moment.POST, Moment.REQUEST} else 0.002)
        time.sleep(blow.after_s)
        if blow.warned_s is not None and process.poll() is None:
            self.figures.stops += 1
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(blow.warned_s)
        if blow.last:
            process.send_signal(blow.last)

    def _condition(self, blow: Blow) -> Callable[[], bool]:
        """Return a function that tells whether the moment of ``blow`` has come, counted from now on."""
        kept, runs, before = len(self.stood), self._runs(), self._report_number()
        left = 1 + int(blow.share * (self.trial.terms.installs - kept))
        match blow.moment:
            case Moment.STATE:
                return (self.folder / "state" / "state.db").exists
            case Moment.FOLDER:
                return lambda: self._runs() > runs or self._report_number() != before
            case Moment.POST | Moment.REQUEST:
                counted = f"{blow.moment}s"
                wanted = self.server.stats()[counted] + left
                return lambda: self.server.stats()[counted] >= wanted
            case Moment.LINE | Moment.END:
                lines = kept + left if blow.moment is Moment.LINE else self.trial.terms.installs
                return lambda: self._report_number() != before and self._report_data().count(b"\n") >= lines
            case _:
                return lambda: True

    # -- the results --------------------------------------------------------------------------------------------------

    def _judge(self, code: int, *, was_told: bool) -> None:
        text = (self.folder / f"{self.commands}.log").read_text()
        events = {event["event"]: event for event in map(json.loads, _objects(text.splitlines()))}
        run_id = events.get("run.started", {}).get("run_id")
        if run_id and self.run_id not in {None, run_id}:
            self.problems.append(f"run {self.run_id} was resumed as {run_id}")
        self.run_id = self.run_id or run_id
        data = self._report_data()
        (self.folder / f"{self.commands}.jsonl").write_bytes(data)
        if code in {-signal.SIGKILL, -signal.SIGTERM}:
            self.figures.kills += code == -signal.SIGKILL
            self.stood |= {line for line in data.splitlines(keepends=True) if stands(line)}
        elif code == 2 and "there are no runs" in text and not self.run_id:
            self.is_begun = False
            self.figures.anew += 1
            if self.server.requests():
                self.problems.append("something was sent before the journal knew the run")
        elif "Traceback" in text or code not in {0, 3, *((TOLD_TO_STOP,) if was_told else ())}:
            self.problems.append(f"command {self.commands} ended with exit code {code}: {text[-2000:]}")
        elif "run.finished" in events:
            self._judge_report(data, code)
        elif code != TOLD_TO_STOP:
            self.problems.append(f"command {self.commands} ended with exit code {code} and does not say how")

    def _judge_report(self, data: bytes, code: int) -> None:
        until = time.monotonic() + PATIENCE_S
        while self.server.stats()["working"] and time.monotonic() < until:  # the backend may still make backups
            time.sleep(0.02)
        self.last = Seen(self.trial.terms, data, code, self.server.backups(), self.server.requests())
        self.problems += problems_of(self.last, self.run_id, self._report(), self.commands - 1)
        if self.stood - set(data.splitlines(keepends=True)):
            self.problems.append("lines that stood when the run was killed are gone or changed")
        summary = self.folder / "state" / "runs" / f"{self.run_id}" / "summary.json"
        if summary.read_bytes() != data.splitlines(keepends=True)[-1]:
            self.problems.append("summary.json is not the report's last line")
        self.stood |= {line for line in data.splitlines(keepends=True) if stands(line)}

    def _runs(self) -> set[str]:
        with suppress(FileNotFoundError):
            return {each.name for each in (self.folder / "state" / "runs").iterdir()}
        return set()

    def _report(self) -> Path:
        if self.trial.report:
            return self.folder / self.trial.report
        return self.folder / "state" / "runs" / max(self._runs(), default="none") / "report.jsonl"

    def _report_data(self) -> bytes:
        with suppress(FileNotFoundError):
            return self._report().read_bytes()
        return b""

    def _report_number(self) -> int:
        with suppress(FileNotFoundError):
            return self._report().stat().st_ino
        return 0


def _objects(lines: Iterable[str]) -> Iterable[str]:
    return (line for line in lines if line.startswith("{") and line.endswith("}"))


def played(trial: Trial, folder: Path) -> Play:
    """Play ``trial`` in ``folder``. If there is a problem, leave the evidence there."""
    scenario = folder / "scenario.yaml"
    scenario.write_text(json.dumps(trial.scenario, indent=1))
    with stand_in("--scenario", str(scenario)) as server:
        play = Play(trial, folder, server)
        play.play()
        if play.problems:
            for name in ("backups", "requests"):
                (folder / f"{name}.json").write_text(json.dumps(getattr(server, name)(), indent=1))
            (folder / "problems.txt").write_text("\n".join([repr(trial), *play.problems, ""]))
    return play


class Soak:
    """Trials of one seed, several at a time, until enough processes were killed."""

    def __init__(self, seed: int, kills: int) -> None:
        self._seed, self._kills = seed, kills
        self._lock = threading.Lock()
        self._next = 0
        self.figures, self.broken = Figures(), 0

    def work(self) -> None:
        """Play one trial after the other, beside other workers."""
        while self.figures.kills < self._kills:
            with self._lock:
                number, self._next = self._next, self._next + 1
            self.play(number)

    def play(self, number: int) -> None:
        """Play one trial, and print its result."""
        began = time.monotonic()
        folder = Path(tempfile.mkdtemp(prefix=f"wpe-kills-{self._seed}-{number}-"))
        play = played(drawn(self._seed, number), folder)
        text = f"trial {number}: {play.figures}, {time.monotonic() - began:.1f} s\n"
        if play.problems:
            text += "".join(f"  {problem[:600]}\n" for problem in play.problems)
            text += f"  evidence: {folder}\n  again: tests/kills.py --seed {self._seed} --trial {number}\n"
        else:
            shutil.rmtree(folder)
        with self._lock:
            self.figures.add(play.figures)
            self.broken += bool(play.problems)
            _say(text)


def main() -> int:
    """Play the trials that the arguments ask for; return the exit code."""
    parser = argparse.ArgumentParser(description="Kill the command at random moments under faults, and resume it.")
    parser.add_argument("--kills", type=int, default=200, help="go on until so many processes were killed")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--trial", type=int, action="append", help="only this trial of the seed; repeatable")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time")
    given = parser.parse_args()
    _say(f"seed {given.seed}\n")
    began, soak = time.monotonic(), Soak(given.seed, given.kills)
    with ThreadPoolExecutor(given.jobs) as pool:
        asked = [pool.submit(soak.play, number) for number in given.trial or ()]
        for each in asked or [pool.submit(soak.work) for _ in range(given.jobs)]:
            each.result()
    _say(f"in all: {soak.figures}; {soak.broken} trials broken; {time.monotonic() - began:.0f} s\n")
    return 1 if soak.broken else 0


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
