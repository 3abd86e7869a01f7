"""Check the report against its published schema, and docs/exit-codes.md against the code."""

from __future__ import annotations

import ast
import itertools
import json
import re
import signal
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import fakes
import pytest
from command import fleet, run_command, stand_in
from fakes import planned
from jsonschema import Draft202012Validator
from schemas import DOCS, REPORT_SCHEMA, report_line_problems

from orchestrator import cli, errors
from orchestrator.cli import demo
from orchestrator.cli.stopping import run_until_stopped
from orchestrator.commands.settle import OPERATOR
from orchestrator.marker import marker, second
from orchestrator.model import Backup, ErrorInfo, ErrorKind, FieldError, Install, Outcome, OutcomeKind, Spent
from orchestrator.report.lines import backup_line, encode, summary_line
from orchestrator.session.clock import new_run
from orchestrator.summary import Ending, exit_code

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.engine.stop import StopSwitch

AT = datetime(2026, 11, 23, 1, 0, 0, 123456, tzinfo=UTC)
RUN_ID = new_run().id
REQUESTED = Backup("e41f", "requested", f"Nightly [wpe-backup {RUN_ID}]", "2026-11-23T01:00:00Z", None, "6.8.1")
BARE = Backup("e41f")
ENTRIES = (FieldError("Backup", "emails", "invalid_value", "invalid", "are bad"), FieldError())
ERRORS = [
    *(ErrorInfo(kind, "why") for kind in ErrorKind),
    ErrorInfo(ErrorKind.REJECTED, "n\x1b[31mo\ud800", 400, "https://example.com", ENTRIES, "r-1", 2.5),
    ErrorInfo(ErrorKind.THROTTLED, "", 429, retry_after_s=0.0),
]
EXISTS = {
    OutcomeKind.ACCEPTED,
    OutcomeKind.COMPLETED,
    OutcomeKind.SKIPPED,
    OutcomeKind.ABORTED,
    OutcomeKind.INCOMPLETE,
}
WITHOUT_ERROR = {kind for kind in OutcomeKind if kind.is_success} | {OutcomeKind.ABORTED}
OUTCOMES = [
    Outcome(
        planned(1),
        kind,
        AT,
        0.4101,
        backup,
        error,
        Spent(2, 1, 3, AT),
        request_id="r-1",
        sought=(RUN_ID, second(RUN_ID)) if kind is OutcomeKind.UNCONFIRMED else (),
        reason="there is one" if kind is OutcomeKind.SKIPPED else None,
    )
    for kind in OutcomeKind
    for backup in ((REQUESTED, BARE) if kind in EXISTS else (None,))
    for error in ([None] if kind in WITHOUT_ERROR else ERRORS)
]
INSTALLS = [
    Install(planned(2).install.id, "b", "text", ()),
    Install(None, "b", "text", (), "gone"),
    Install(planned(2).install.id, "b", "text", (), "é\x07", "production", ("client-a", "")),
]
COUNTS = dict.fromkeys(OutcomeKind, 0) | {OutcomeKind.ACCEPTED: 2}
SUMMARY = replace(fakes.SUMMARY, run_id=RUN_ID, outcomes=COUNTS, exit_code=0, config="<stdin>", report="-")
GOOD = {kind: backup_line(RUN_ID, next(each for each in OUTCOMES if each.kind is kind)) for kind in OutcomeKind}
TABLE_ROW = re.compile(r"^\| (\d+) \|", re.MULTILINE)


def written(line: dict[str, Any]) -> Any:
    """Return ``line`` as a reader of the report gets it."""
    return json.loads(encode(line))


def closed(schema: Any) -> Any:
    """Return ``schema`` with a ban on properties that it does not describe."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(each) for key, each in schema.items()}
    return inner | {"additionalProperties": False} if "required" in schema else inner


DESCRIBED_ONLY = Draft202012Validator(closed(REPORT_SCHEMA))


def test_the_schema_is_a_valid_json_schema() -> None:
    Draft202012Validator.check_schema(REPORT_SCHEMA)


@pytest.mark.parametrize("kind", OutcomeKind)
def test_a_line_of_each_outcome_with_each_error_fits_the_schema(kind: OutcomeKind) -> None:
    outcomes = [each for each in OUTCOMES if each.kind is kind]
    assert len(outcomes) >= 2
    for outcome in outcomes:
        assert report_line_problems(written(backup_line(RUN_ID, outcome)), DESCRIBED_ONLY) == []


@pytest.mark.parametrize("kind", sorted(EXISTS - {OutcomeKind.SKIPPED}))
def test_a_line_of_a_backup_found_in_the_listing_fits_the_schema(kind: OutcomeKind) -> None:
    outcome = next(each for each in OUTCOMES if each.kind is kind)
    found = replace(outcome, reconciled=True, earlier=(BARE, REQUESTED))
    assert report_line_problems(written(backup_line(RUN_ID, found)), DESCRIBED_ONLY) == []


@pytest.mark.parametrize("kind", [OutcomeKind.ACCEPTED, OutcomeKind.EXHAUSTED])
def test_a_line_that_an_operator_settled_fits_the_schema(kind: OutcomeKind) -> None:
    line = written(GOOD[kind]) | {"settled_by": OPERATOR}
    assert report_line_problems(line, DESCRIBED_ONLY) == []


@pytest.mark.parametrize("install", INSTALLS, ids=["bare", "without id", "full"])
def test_a_line_of_each_kind_of_install_fits_the_schema(install: Install) -> None:
    never_sent = Outcome(replace(planned(2), install=install), OutcomeKind.CANCELLED, AT, error=ERRORS[0])
    assert report_line_problems(written(backup_line(RUN_ID, never_sent)), DESCRIBED_ONLY) == []


@pytest.mark.parametrize(
    "ending",
    [
        Ending(),
        Ending(crashed=True),
        Ending(unwritten=True),
        Ending(signum=signal.SIGHUP),
        Ending(signum=signal.SIGINT),
        Ending(signum=signal.SIGTERM),
        Ending(credentials_refused=True),
        Ending(deadline_passed=True),
        Ending(failed=1),
    ],
)
def test_a_summary_of_each_exit_code_fits_the_schema(ending: Ending) -> None:
    summary = replace(SUMMARY, exit_code=exit_code(ending))
    assert report_line_problems(written(summary_line(summary)), DESCRIBED_ONLY) == []


@pytest.mark.parametrize(
    ("more", "kinds", "statuses"),
    [
        ("reconcile: {grace: 200ms}", {"accepted", "rejected"}, {400, 403, 404}),
        ("on_ambiguous: fail", {"accepted", "rejected", "unconfirmed"}, {400, 403, 404, 504}),
    ],
    ids=["with lookups", "without lookups"],
)
def test_the_report_of_a_real_run_fits_the_schema(
    more: str, kinds: set[str], statuses: set[int], tmp_path: Path
) -> None:
    faults = ("--invalid", "0.1", "--forbidden", "0.1", "--not-found", "0.1", "--timed-out", "0.1")
    is_looked_up = "unconfirmed" not in kinds
    limit = ("--bucket-rate", "15", "--bucket-burst", "5", "--retry-after", "seconds") if is_looked_up else ()
    latency = ("--latency-min", "1ms", "--latency-max", "5ms")
    with stand_in(*faults, *limit, *latency, "--timed-out-created", "0.1", "--seed", "3") as api:
        more += "\nthrottle: {start_requests_per_second: 50}"
        (tmp_path / "wpe-backup.yaml").write_text(fleet(api.base_url, 40, more))
        ended = run_command("run", "-o", "-", cwd=tmp_path)
    lines = ended.lines()
    assert [report_line_problems(line, DESCRIBED_ONLY) for line in lines] == [[]] * 41
    outcomes = Counter(line["outcome"] for line in lines[:-1])
    assert set(outcomes) == kinds
    assert {line["error"]["status"] for line in lines[:-1] if line["error"]} == statuses
    assert (lines[-1]["reconciled"] > 0) is is_looked_up
    assert lines[-1]["reconciled"] == sum(line["reconciled"] for line in lines[:-1])
    assert (lines[-1]["throttled"] > 0) is is_looked_up
    (summary,) = (tmp_path / "state" / "runs").glob("*/summary.json")
    assert json.loads(summary.read_bytes()) == lines[-1]


def test_a_line_may_have_fields_that_the_schema_does_not_know() -> None:
    for line in (GOOD[OutcomeKind.ACCEPTED], summary_line(SUMMARY)):
        newer = written(line) | {"new": {"of": "a later version"}}
        assert report_line_problems(newer) == []
        assert report_line_problems(newer, DESCRIBED_ONLY) != []


def test_the_schema_requires_every_field_that_is_written() -> None:
    lines = [GOOD[OutcomeKind.ACCEPTED], GOOD[OutcomeKind.REJECTED], summary_line(SUMMARY)]
    for line, way in [
        *((each, ()) for each in lines),
        (lines[0], ("backup",)),
        (lines[1], ("error",)),
        (lines[2], ("outcomes",)),
        (lines[2], ("accounts", "default")),
    ]:
        for key in _at(written(line), way):
            shorter = written(line)
            del _at(shorter, way)[key]
            assert report_line_problems(shorter) != [], f"{way} {key} may lack"


def _at(line: Any, way: tuple[str, ...]) -> Any:
    for key in way:
        line = line[key]
    return line


@pytest.mark.parametrize(
    ("kind", "change", "problem"),
    [
        ("accepted", {"type": "Backup"}, "is not valid under any of the given schemas"),
        ("accepted", {"type": None}, "is not valid under any of the given schemas"),
        ("accepted", {"schema": 2}, r"\$\.schema: 1 was expected"),
        ("accepted", {"run_id": "01jd"}, r"\$\.run_id: '01jd' does not match"),
        ("accepted", {"install_id": "294DEACC-d8b8-4005-82c4-0727ba8ddde0"}, r"\$\.install_id: .* does not match"),
        ("accepted", {"install_id": None}, r"\$\.outcome: 'accepted' is not one of \['rejected', 'cancelled'\]"),
        ("accepted", {"environment": "prod"}, r"\$\.environment: 'prod' is not one of"),
        ("accepted", {"tags": "client-a"}, r"\$\.tags: 'client-a' is not of type 'array'"),
        ("accepted", {"outcome": "done"}, r"\$\.outcome: 'done' is not one of"),
        ("accepted", {"error": written(GOOD[OutcomeKind.REJECTED])["error"]}, r"\$\.error: .* is not of type 'null'"),
        ("accepted", {"backup": None}, r"\$\.backup: None is not of type 'object'"),
        ("accepted", {"backup": {"id": "e41f"}}, r"\$\.backup: .* is not valid under any"),
        ("accepted", {"attempts": -1}, r"\$\.attempts: -1 is less than the minimum of 0"),
        ("accepted", {"attempts": "1"}, r"\$\.attempts: '1' is not of type 'integer'"),
        ("accepted", {"reconciled": 0}, r"\$\.reconciled: 0 is not of type 'boolean'"),
        ("accepted", {"settled_by": "nobody"}, r"\$\.settled_by: 'nobody' is not one of"),
        ("accepted", {"look_for": [marker(RUN_ID)]}, r"\$\.look_for: .* is too long|expected to be empty"),
        ("rejected", {"settled_by": "operator"}, r"\$\.outcome: 'rejected' is not one of \['accepted', 'compl"),
        ("rejected", {"reconciled": True}, r"\$\.outcome: 'rejected' is not one of"),
        ("unconfirmed", {"look_for": []}, r"\$\.look_for: \[\] (is too short|should be non-empty)"),
        ("unconfirmed", {"look_for": [RUN_ID]}, r"\$\.look_for\[0\]: .* does not match"),
        ("unconfirmed", {"look_for": None}, r"\$\.look_for: None is not of type 'array'"),
        ("accepted", {"finished_at": None}, r"\$\.finished_at: None is not of type 'string'"),
        ("accepted", {"finished_at": "2026-11-23T01:00:00Z"}, r"\$\.finished_at: .* does not match"),
        ("accepted", {"finished_at": "2026-11-23T01:00:00.123+00:00"}, r"\$\.finished_at: .* does not match"),
        ("accepted", {"finished_at": "2026-13-23T01:00:00.123Z"}, r"\$\.finished_at: .* does not match"),
        ("accepted", {"duration_s": None}, r"\$\.duration_s: None is not of type 'number'"),
        ("accepted", {"earlier_backups": [{"id": "a"}]}, r"\$\.earlier_backups\[0\]: 'status' is a required property"),
        ("completed", {"backup": None}, r"\$\.backup: None is not of type 'object'"),
        ("skipped", {"backup": None}, r"\$\.backup: None is not of type 'object'"),
        ("incomplete", {"backup": None}, r"\$\.backup: None is not of type 'object'"),
        ("incomplete", {"error": None}, r"\$\.error: None is not of type 'object'"),
        ("aborted", {"error": written(GOOD[OutcomeKind.REJECTED])["error"]}, r"\$\.error: .* is not of type 'null'"),
        ("rejected", {"error": None}, r"\$\.error: None is not of type 'object'"),
        ("rejected", {"error": {"kind": "rejected", "message": "no"}}, r"\$\.error: .* is not valid under any"),
        ("rejected", {"backup": written(GOOD[OutcomeKind.ACCEPTED])["backup"]}, r"\$\.backup: .* not of type 'null'"),
        ("exhausted", {"error": None}, r"\$\.error: None is not of type 'object'"),
        ("unconfirmed", {"error": None}, r"\$\.error: None is not of type 'object'"),
        ("cancelled", {"error": None}, r"\$\.error: None is not of type 'object'"),
    ],
)
def test_a_wrong_backup_line_is_refused(kind: str, change: dict[str, Any], problem: str) -> None:
    line = written(GOOD[OutcomeKind(kind)])
    assert report_line_problems(line) == []
    assert re.search(problem, "\n".join(report_line_problems(line | change)))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"exit_code": 2}, r"\$\.exit_code: 2 is not one of"),
        ({"outcomes": {}}, r"\$\.outcomes: 'accepted' is a required property"),
        ({"accounts": {"default": {"requests": 1, "throttled": 0}}}, r"\$\.accounts\.default: 'rate' is a required"),
        ({"started_at": None}, r"\$\.started_at: None is not of type 'string'"),
        ({"report": None}, r"\$\.report: None is not of type 'string'"),
        ({"outcomes": written(summary_line(SUMMARY))["outcomes"] | {"rejected": 1}}, r"\$\.outcomes\.rejected: 0 was"),
    ],
)
def test_a_wrong_summary_is_refused(change: dict[str, Any], problem: str) -> None:
    line = written(summary_line(SUMMARY))
    assert re.search(problem, "\n".join(report_line_problems(line | change)))


def test_the_example_of_the_operating_guide_fits_the_schema() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", (DOCS / "operating.md").read_text(encoding="utf-8"), re.DOTALL)
    line, whole = json.loads(example), written(GOOD[OutcomeKind.ACCEPTED])
    for shown, full in ((line, whole), (line["backup"], whole["backup"])):
        shown |= {key: full[key] for key, value in shown.items() if str(value).endswith("…")}
    assert report_line_problems(line, DESCRIBED_ONLY) == []


@pytest.mark.parametrize("line", [None, [], "backup", 7, {}, {"type": "backup"}, {"type": ["backup"]}])
def test_a_value_that_is_no_line_is_refused(line: Any) -> None:
    assert report_line_problems(line) != []


def test_the_exit_codes_document_names_every_code_and_no_other() -> None:
    named = [int(code) for code in TABLE_ROW.findall((DOCS / "exit-codes.md").read_text(encoding="utf-8"))]
    assert named == sorted(codes_of_the_code())


def test_the_exit_codes_document_names_them_in_the_order_of_precedence() -> None:
    text = (DOCS / "exit-codes.md").read_text(encoding="utf-8")
    (order,) = re.findall(r"the first that fits of ([\d/, ]+)", text)
    signals = "/".join(str(128 + signum) for signum in sorted(signals_that_stop()))
    steps: list[Callable[[Ending], Ending]] = [
        lambda ending: replace(ending, crashed=True),
        lambda ending: replace(ending, unwritten=True),
        lambda ending: replace(ending, signum=signal.SIGINT),
        lambda ending: replace(ending, credentials_refused=True),
        lambda ending: replace(ending, deadline_passed=True),
        lambda ending: replace(ending, failed=1),
    ]
    ending, applied = Ending(), []
    for step in reversed(steps):
        ending = step(ending)
        applied.append(str(exit_code(ending)))
    assert order == ", ".join(reversed(applied)).replace("130", signals)


def codes_of_the_code() -> set[int]:
    """Return every exit code of the command: of runs, of exceptions, of click, of the demo, and literal ones."""
    signums = signals_that_stop()
    booleans = (False, True)
    endings = itertools.product(booleans, booleans, (None, *signums), booleans, booleans, (0, 1))
    codes = {exit_code(Ending(*ending)) for ending in endings}
    codes |= {errors.StoppedError(signum).exit_code for signum in signums}
    codes |= {kind.exit_code for kind in subclasses(errors.OrchestratorError)}
    return codes | {click.UsageError.exit_code, demo.CONTRADICTED} | returned_codes()


def subclasses(kind: type[errors.OrchestratorError]) -> set[type[errors.OrchestratorError]]:
    return {kind}.union(*(subclasses(each) for each in kind.__subclasses__()))


def returned_codes() -> set[int]:
    """Return the literal numbers that functions of the command line return."""
    folder = Path(cli.__file__).parent
    nodes = [node for path in folder.glob("*.py") for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    values = [node.value for node in nodes if isinstance(node, ast.Return)]
    return {value.value for value in values if isinstance(value, ast.Constant) and type(value.value) is int}


def signals_that_stop() -> set[signal.Signals]:
    """Return the signals for which the command line installs a handler."""

    async def handled(_stop: StopSwitch) -> set[signal.Signals]:
        return {signum for signum in ours if signal.getsignal(signum) != kept[signum]}

    ours = [signum for signum in signal.Signals if signum not in {signal.SIGKILL, signal.SIGSTOP}]
    kept = {signum: signal.getsignal(signum) for signum in ours}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        return run_until_stopped(handled)
    finally:
        for signum, handler in kept.items():
            if signal.getsignal(signum) != handler:
                signal.signal(signum, handler)
