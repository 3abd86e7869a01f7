"""The outcome table, row by row."""

from __future__ import annotations

import pytest

from orchestrator.model import AttemptResult, Backup, ErrorKind, Fault, OutcomeKind
from orchestrator.outcome import (
    Answer,
    Decision,
    Expense,
    Step,
    backoff,
    classify,
    decide,
    decide_absent,
    decide_check,
    error_info,
    error_kind,
)
from orchestrator.policies import RetryPolicy

POLICY = RetryPolicy(max_attempts=3, deadline_s=100.0)


def answered(status: int, message: str = "", fault: Fault | None = None) -> AttemptResult:
    return AttemptResult(status=status, message=message, fault=fault)


def broken(fault: Fault, *, sent: bool) -> AttemptResult:
    return AttemptResult(fault=fault, sent=sent)


@pytest.mark.parametrize(
    ("result", "answer", "kind"),
    [
        (AttemptResult(status=202, backup=Backup("b")), Answer.ACCEPTED, None),
        (answered(200), Answer.ACCEPTED, None),
        (answered(202, fault=Fault.UNREADABLE), Answer.UNREADABLE, ErrorKind.PROTOCOL),
        (answered(204, fault=Fault.UNREADABLE), Answer.UNREADABLE, ErrorKind.PROTOCOL),
        (answered(429, "Too Many Requests"), Answer.THROTTLED, ErrorKind.THROTTLED),
        (answered(429, "Rate limit exceeded for you"), Answer.THROTTLED, ErrorKind.THROTTLED),
        (answered(429, "limit exceeded"), Answer.THROTTLED, ErrorKind.THROTTLED),
        (answered(429, "Limit Exceeded"), Answer.QUOTA, ErrorKind.QUOTA),
        (answered(401), Answer.CREDENTIALS, ErrorKind.CREDENTIALS),
        *[(answered(s), Answer.PERMANENT, ErrorKind.REJECTED) for s in (400, 403, 404, 405, 409, 413, 415, 422, 423)],
        *[(answered(s), Answer.PERMANENT, ErrorKind.PROTOCOL) for s in (301, 302, 304, 307, 308)],
        *[(answered(s), Answer.AMBIGUOUS, ErrorKind.UNAVAILABLE) for s in (408, 425, 500, 501, 502, 503, 504, 599)],
        (broken(Fault.UNREACHABLE, sent=False), Answer.NOT_SENT, ErrorKind.NETWORK),
        (broken(Fault.TLS, sent=False), Answer.NOT_SENT, ErrorKind.NETWORK),
        (broken(Fault.CONNECT_TIMEOUT, sent=False), Answer.NOT_SENT, ErrorKind.TIMEOUT),
        (broken(Fault.DISCONNECTED, sent=True), Answer.AMBIGUOUS, ErrorKind.NETWORK),
        (broken(Fault.READ_TIMEOUT, sent=True), Answer.AMBIGUOUS, ErrorKind.TIMEOUT),
        (broken(Fault.MALFORMED, sent=True), Answer.AMBIGUOUS, ErrorKind.PROTOCOL),
        (broken(Fault.INTERRUPTED, sent=True), Answer.AMBIGUOUS, ErrorKind.INTERRUPTED),
        (broken(Fault.INTERRUPTED, sent=False), Answer.NOT_SENT, ErrorKind.INTERRUPTED),
        (broken(Fault.CERTIFICATE, sent=False), Answer.MISCONFIGURED, ErrorKind.NETWORK),
        (broken(Fault.INVALID_URL, sent=True), Answer.AMBIGUOUS, ErrorKind.NETWORK),
        (broken(Fault.INVALID_URL, sent=False), Answer.MISCONFIGURED, ErrorKind.NETWORK),
    ],
)
def test_each_attempt_result_has_its_class_and_its_error_kind(
    result: AttemptResult, answer: Answer, kind: ErrorKind | None
) -> None:
    assert classify(result) is answer
    if kind is not None:
        assert error_kind(answer, result) is kind


@pytest.mark.parametrize(
    ("answer", "spent", "decision"),
    [
        (Answer.ACCEPTED, Expense(1, 0), Decision(Step.DONE, OutcomeKind.ACCEPTED)),
        (Answer.UNREADABLE, Expense(1, 0), Decision(Step.LOOK_UP)),
        (Answer.AMBIGUOUS, Expense(1, 0), Decision(Step.LOOK_UP)),
        (Answer.PERMANENT, Expense(1, 0), Decision(Step.DONE, OutcomeKind.REJECTED)),
        (Answer.CREDENTIALS, Expense(1, 0), Decision(Step.CHECK_CREDENTIALS)),
        (Answer.QUOTA, Expense(0, 0), Decision(Step.STOP_ACCOUNT)),
        (Answer.MISCONFIGURED, Expense(1, 0), Decision(Step.STOP_ACCOUNT)),
        (Answer.THROTTLED, Expense(0, 0), Decision(Step.AGAIN)),
        (Answer.THROTTLED, Expense(99, 99), Decision(Step.AGAIN)),
        (Answer.THROTTLED, Expense(0, 100), Decision(Step.DONE, OutcomeKind.EXHAUSTED)),
        (Answer.NOT_SENT, Expense(1, 0), Decision(Step.AGAIN, after_s=0.375)),
        (Answer.NOT_SENT, Expense(2, 0), Decision(Step.AGAIN, after_s=0.75)),
        (Answer.NOT_SENT, Expense(3, 0), Decision(Step.DONE, OutcomeKind.EXHAUSTED)),
        (Answer.NOT_SENT, Expense(1, 99.9), Decision(Step.DONE, OutcomeKind.EXHAUSTED)),
    ],
)
def test_each_answer_to_a_post_has_its_decision(answer: Answer, spent: Expense, decision: Decision) -> None:
    assert decide(answer, spent, POLICY, 0.5) == decision


@pytest.mark.parametrize("answer", [Answer.AMBIGUOUS, Answer.UNREADABLE])
@pytest.mark.parametrize("seconds", [0, 99.9, 1e9])
@pytest.mark.parametrize("tries", range(1, 5))
def test_a_post_that_may_have_created_a_backup_is_looked_up_even_after_max_attempts(
    answer: Answer, tries: int, seconds: float
) -> None:
    assert decide(answer, Expense(tries, seconds), POLICY, 0.5) == Decision(Step.LOOK_UP)


@pytest.mark.parametrize(
    ("spent", "decision"),
    [
        (Expense(1, 0), Decision(Step.AGAIN)),
        (Expense(2, 99.9), Decision(Step.AGAIN)),
        (Expense(3, 0), Decision(Step.DONE, OutcomeKind.EXHAUSTED)),
        (Expense(4, 0), Decision(Step.DONE, OutcomeKind.EXHAUSTED)),
        (Expense(1, 100), Decision(Step.DONE, OutcomeKind.EXHAUSTED)),
    ],
)
def test_an_install_without_a_backup_is_requested_again_immediately_within_the_limits(
    spent: Expense, decision: Decision
) -> None:
    assert decide_absent(spent, POLICY) == decision


@pytest.mark.parametrize(
    ("answer", "attempts", "step"),
    [
        (Answer.ACCEPTED, 1, Step.DONE),
        (Answer.THROTTLED, 9, Step.AGAIN),
        (Answer.NOT_SENT, 2, Step.AGAIN),
        (Answer.AMBIGUOUS, 2, Step.AGAIN),
        (Answer.NOT_SENT, 99, Step.AGAIN),
        (Answer.AMBIGUOUS, 99, Step.AGAIN),
        *[
            (answer, 1, Step.STOP_ACCOUNT)
            for answer in (
                Answer.CREDENTIALS,
                Answer.QUOTA,
                Answer.PERMANENT,
                Answer.UNREADABLE,
                Answer.MISCONFIGURED,
            )
        ],
    ],
)
def test_each_answer_to_a_check_of_credentials_has_its_decision(answer: Answer, attempts: int, step: Step) -> None:
    assert decide_check(answer, attempts, 0.5).step is step


@pytest.mark.parametrize(
    ("attempts", "draw", "seconds"), [(1, 0, 0.25), (1, 1, 0.5), (2, 0, 0.5), (4, 1, 4.0), (7, 1, 30.0), (99, 0, 15.0)]
)
def test_backoff_doubles_to_thirty_seconds_and_half_of_each_wait_is_fixed(
    attempts: int, draw: float, seconds: float
) -> None:
    assert backoff(attempts, draw) == pytest.approx(seconds)


def test_an_error_keeps_the_apis_own_fields() -> None:
    result = AttemptResult(status=400, message="no", documentation_url="d", request_id="r", retry_after_s=2.0)
    error = error_info(ErrorKind.REJECTED, result)
    assert (error.message, error.status, error.documentation_url, error.request_id) == ("no", 400, "d", "r")
    assert error_info(ErrorKind.REJECTED, result, "other").message == "other"
