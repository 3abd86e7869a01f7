"""Check a run that ``kills.py`` killed and resumed against the stand-in's backups and answers."""

from __future__ import annotations

import json
import signal
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from command import install_ids
from schemas import report_line_problems

Line = dict[str, Any]

TOLD_TO_STOP = 128 + signal.SIGTERM
OPEN = {"unconfirmed", "cancelled", "incomplete"}
"""Outcomes that a resumed run takes up again; all others stay."""


ENDED = {"completed", "aborted"}
"""Outcomes that say how the backup itself ended."""


@dataclass(slots=True)
class Figures:
    """The totals of trials.

    ``stops`` counts SIGTERMs. ``anew`` counts runs that were killed before the journal knew them, and begun again.
    ``twice`` counts installs with several backups; ``late`` counts those of them whose first backup came after the
    grace. ``lost`` counts backups that no line of the report names.
    """

    kills: int = 0
    stops: int = 0
    anew: int = 0
    installs: int = 0
    made: int = 0
    twice: int = 0
    late: int = 0
    lost: int = 0
    unconfirmed: int = 0

    def add(self, other: Figures) -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def __str__(self) -> str:
        return ", ".join(f"{each.name} {getattr(self, each.name)}" for each in fields(self))


@dataclass(frozen=True, slots=True)
class Terms:
    """The fleet's size, and the times that the promise depends on: the grace and the lag of the listing.

    If ``waits``, the run waits for its backups. If ``repeats``, it requests an aborted backup once more.
    """

    installs: int
    grace_s: float
    lag_s: float
    waits: bool = False
    repeats: bool = False


@dataclass(frozen=True)
class Seen:
    """The report and exit code of a command, and the backups and requests that the stand-in had by then."""

    terms: Terms
    data: bytes
    code: int
    made: list[Line]
    requests: list[Line]
    lines: list[Line] = field(init=False)
    posts: dict[str, list[Line]] = field(init=False)
    """The POSTs of each install, in order."""

    def __post_init__(self) -> None:
        posts: dict[str, list[Line]] = {}
        for each in self.requests:
            if each["method"] == "POST":
                posts.setdefault(each["path"].split("/")[3], []).append(each)
        object.__setattr__(self, "posts", posts)
        object.__setattr__(self, "lines", [json.loads(line) for line in self.data.splitlines()])

    @property
    def backup_lines(self) -> list[Line]:
        return [line for line in self.lines if line["type"] == "backup"]

    def outcomes(self) -> dict[str, str]:
        return {line["install_id"]: line["outcome"] for line in self.backup_lines}

    def is_final(self) -> bool:
        """Tell whether the run has ended and no install remains to be requested."""
        return self.code in {0, 3} and not {"cancelled", "incomplete"} & set(self.outcomes().values())

    def twice(self) -> dict[str, list[Line]]:
        """Return the backups of installs that have several. An aborted backup and its replacement count as one."""
        made: dict[str, list[Line]] = {}
        for backup in self.made:
            made.setdefault(backup["install_id"], []).append(backup)
        return {install_id: backups for install_id, backups in made.items() if len(self._without_aborted(backups)) > 1}

    def _without_aborted(self, backups: list[Line]) -> list[Line]:
        """Return ``backups`` without the aborted one, if its replacement was allowed."""
        is_followed = self.terms.repeats and any("/2]" in each["description"] for each in backups)
        first = next((each for each in backups if is_followed and "/2]" not in each["description"]), None)
        return [each for each in backups if first is None or each is not first or each["status"] != "aborted"]

    def is_late(self, install_id: str, backups: list[Line]) -> bool:
        """Tell whether the second request came after the grace, and before the listing showed the first backup."""
        began = min(each["at"] for each in self.requests)
        first, second = sorted(backup["made_at"] for backup in backups)[:2]
        posts = [post["at"] - began for post in self.posts[install_id] if post["status"] != 429]
        before = [at for at in posts if at <= second][-2:]
        is_unseen = len(before) == 2 and first + self.terms.lag_s > before[1]
        return is_unseen and before[1] - before[0] >= self.terms.grace_s

    def lost(self) -> list[Line]:
        """Return the backups that the report does not name, except those of unconfirmed installs."""
        told = {each["id"] for line in self.backup_lines for each in _backups_of(line)}
        outcomes = self.outcomes()
        return [
            each for each in self.made if each["id"] not in told and outcomes.get(each["install_id"]) != "unconfirmed"
        ]

    def figures(self) -> Figures:
        twice = self.twice()
        return Figures(
            installs=self.terms.installs,
            made=len(self.made),
            twice=len(twice),
            late=sum(self.is_late(*each) for each in twice.items()),
            lost=len(self.lost()),
            unconfirmed=Counter(self.outcomes().values())["unconfirmed"],
        )


def stands(line: bytes) -> bool:
    """Tell whether a line is complete and has an outcome that a resumed run must keep."""
    if not line.endswith(b"\n"):
        return False
    read = json.loads(line)
    return read["type"] == "backup" and read["outcome"] not in OPEN


def problems_of(seen: Seen, run_id: str | None, report: Path, kills: int) -> list[str]:
    """Return the problems of a report, and of the stand-in's backups, after so many ``kills``."""
    found = [f"line {n}: {problem}" for n, line in enumerate(seen.lines, 1) for problem in report_line_problems(line)]
    if [line["type"] for line in seen.lines] != ["backup"] * seen.terms.installs + ["summary"]:
        return [*found, f"not one line an install, then the summary: {Counter(line['type'] for line in seen.lines)}"]
    return [*found, *_of_the_whole(seen, run_id, report), *_of_backups(seen, run_id), *_of_answers(seen, kills)]


def problems_of_rest(before: Seen, after: Seen) -> list[str]:
    """Return the problems of one more resumption after ``before``: it may send requests for open installs only."""
    found = []
    is_open = {each for each, outcome in before.outcomes().items() if outcome in OPEN}
    asked = {each: len(after.posts[each]) - len(before.posts.get(each, ())) for each in after.posts.keys() - is_open}
    if any(asked.values()) or (not is_open and len(after.requests) != len(before.requests)):
        more = len(after.requests) - len(before.requests)
        found.append(f"a run that had ended sent {more} requests more, POSTs by install {asked}")
    kept = {line for line in before.data.splitlines(keepends=True) if stands(line)}
    if not kept <= set(after.data.splitlines(keepends=True)) or (not is_open and after.code != before.code):
        found.append("a run that had ended has other outcomes when it is resumed")
    return found


def _of_the_whole(seen: Seen, run_id: str | None, report: Path) -> list[str]:
    """Check the lines: one for each install, all of one run; the totals and the exit code must fit them."""
    found = []
    summary, counted = seen.lines[-1], Counter(seen.outcomes().values())
    if sorted(line["install_id"] for line in seen.backup_lines) != install_ids(seen.terms.installs):
        found.append("not every planned install has exactly one line")
    if {line["run_id"] for line in seen.lines} != {run_id}:
        found.append(f"run ids are {sorted({line['run_id'] for line in seen.lines})}, not {run_id}")
    if Path(summary["report"]) != report:
        found.append(f"the report is said to be {summary['report']}, not {report}")
    if {kind: count for kind, count in summary["outcomes"].items() if count} != counted:
        found.append(f"the summary counts {summary['outcomes']}, the lines are {counted}")
    expected = 0 if set(counted) <= {"accepted", "completed"} else 3
    if not (seen.code == summary["exit_code"] and seen.code in {expected, TOLD_TO_STOP}):
        found.append(f"exit code {seen.code}, in the summary {summary['exit_code']}, by the outcomes {expected}")
    return found


def _of_backups(seen: Seen, run_id: str | None) -> list[str]:
    """Check the report against the stand-in's backups."""
    found = [
        f"{install_id} was backed up {len(backups)} times: {backups}; POSTs: {seen.posts[install_id]}"
        for install_id, backups in seen.twice().items()
        if not seen.is_late(install_id, backups)
    ]
    found += [f"no line tells of {backup}" for backup in seen.lost()]
    ours = (f"[wpe-backup {run_id}]", f"[wpe-backup {run_id}/2]")
    found += [f"not of this run: {each}" for each in seen.made if not each["description"].endswith(ours)]
    made = {backup["id"]: backup for backup in seen.made}
    for line in seen.backup_lines:
        told = [each["id"] for each in _backups_of(line)]
        lacking = [each for each in told if each not in made or made[each]["install_id"] != line["install_id"]]
        found += [f"nobody made {each} for {line}" for each in lacking]
        if line["outcome"] in ENDED and told[0] in made and made[told[0]]["status"] != line["outcome"]:
            found.append(f"{made[told[0]]['status']} is the backup of {line}")
        if line["outcome"] == "accepted" and seen.terms.waits and not line["settled_by"]:
            found.append(f"accepted, though it was to be waited for: {line}")
    return found


def _of_answers(seen: Seen, kills: int) -> list[str]:
    """Check each line against the stand-in's answers. After a kill, a line may count one POST too many."""
    found = []
    for line in seen.backup_lines:
        statuses = [post["status"] for post in seen.posts.get(line["install_id"], ())]
        carried_out = sum(status != 429 for status in statuses)
        if not carried_out <= line["attempts"] <= len(statuses) + kills:
            found.append(f"{line['attempts']} attempts, but POSTs answered {statuses} and {kills} kills: {line}")
        if line["outcome"] == "rejected" and not {400, 403, 404} & set(statuses):
            found.append(f"rejected, but answered {statuses}: {line}")
        if seen.code in {0, 3} and line["outcome"] == "cancelled" and line["error"]["kind"] == "interrupted":
            found.append(f"cancelled, though nobody stopped the run: {line}")
    return found


def _backups_of(line: Line) -> list[Line]:
    return [each for each in (line["backup"], *line["earlier_backups"]) if each]
