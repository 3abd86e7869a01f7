"""Classify the result of a request, and decide what to do next: one table, as pure functions.

=============  ===================================================================  ================================
answer         given by                                                             then
=============  ===================================================================  ================================
ACCEPTED       2xx with a usable body                                               done: accepted
UNREADABLE     2xx whose body cannot be used                                        look it up; never again
THROTTLED      429                                                                  again after the budget's hold
QUOTA          429 that says exactly ``Limit Exceeded``                             the account stops
NOT_SENT       no byte left: DNS, refused, TLS handshake, connect timeout           again after a backoff
AMBIGUOUS      5xx, 408, 425, a reset, a timeout, malformed HTTP, an interruption   look it up; again if it is absent
PERMANENT      any other 3xx or 4xx                                                 done: rejected
CREDENTIALS    401                                                                  ask ``GET /user``, then decide
MISCONFIGURED  an invalid URL, a certificate that does not verify, a proxy's 407    the account stops
=============  ===================================================================  ================================

A fault on a connection that had served before (``on_reused``) follows the same rows, but does not count as a try.

The POST is not idempotent and has no idempotency key. A request that may have created a backup is not sent again before
the listing has proven that it did not; see ``reconcile.py``. Random draws are arguments, so a test can check each row.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from orchestrator.model import AttemptResult, ErrorInfo, ErrorKind, Fault, OutcomeKind
from orchestrator.value import value

if TYPE_CHECKING:
    from orchestrator.policies import RetryPolicy

QUOTA_MESSAGE = "Limit Exceeded"
"""API Gateway's message for the exhausted quota of a usage plan. Its rate limit says ``Too Many Requests``."""

BACKOFF_FIRST_S = 0.5
BACKOFF_LONGEST_S = 30.0


class Answer(StrEnum):
    """The class of an attempt result. The decisions below look at nothing else."""

    ACCEPTED = "accepted"
    UNREADABLE = "unreadable"
    THROTTLED = "throttled"
    QUOTA = "quota"
    NOT_SENT = "not_sent"
    AMBIGUOUS = "ambiguous"
    PERMANENT = "permanent"
    CREDENTIALS = "credentials"
    MISCONFIGURED = "misconfigured"


class Step(StrEnum):
    """The next step with an install, or with a check of credentials."""

    DONE = "done"
    AGAIN = "again"
    LOOK_UP = "look_up"
    CHECK_CREDENTIALS = "check_credentials"
    STOP_ACCOUNT = "stop_account"


@value
class Decision:
    """The next step. ``outcome`` belongs to ``DONE``; ``after_s``, the seconds to wait first, belongs to ``AGAIN``."""

    step: Step
    outcome: OutcomeKind = OutcomeKind.UNCONFIRMED
    after_s: float = 0.0


@value
class Expense:
    """What was spent so far: the tries, not counting 429s, and the seconds since the first try, not counting holds."""

    tries: int
    seconds: float


def classify(result: AttemptResult) -> Answer:
    """Return the class of ``result``."""
    if result.status is None:
        return _classify_fault(result)
    status = result.status
    if 200 <= status < 300:  # noqa: PLR2004 - the range that HTTP calls success
        return Answer.UNREADABLE if result.fault else Answer.ACCEPTED
    if status == 429:  # noqa: PLR2004 - Too Many Requests
        return Answer.QUOTA if result.message == QUOTA_MESSAGE else Answer.THROTTLED
    if status == 401:  # noqa: PLR2004 - Unauthorized
        return Answer.CREDENTIALS
    if 300 <= status < 500 and status not in {408, 425}:  # noqa: PLR2004 - redirects and client errors
        return Answer.PERMANENT
    return Answer.AMBIGUOUS


def _classify_fault(result: AttemptResult) -> Answer:
    if result.sent:
        return Answer.AMBIGUOUS
    is_final = result.fault in {Fault.CERTIFICATE, Fault.INVALID_URL, Fault.PROXY}
    return Answer.MISCONFIGURED if is_final else Answer.NOT_SENT


def counts_as_failed(answer: Answer, result: AttemptResult) -> bool:
    """Tell whether a failed request counts towards ``max_attempts``."""
    return answer not in {Answer.THROTTLED, Answer.QUOTA} and not result.on_reused


_SETTLED = {
    Answer.ACCEPTED: Decision(Step.DONE, OutcomeKind.ACCEPTED),
    Answer.UNREADABLE: Decision(Step.LOOK_UP),
    Answer.AMBIGUOUS: Decision(Step.LOOK_UP),
    Answer.PERMANENT: Decision(Step.DONE, OutcomeKind.REJECTED),
    Answer.CREDENTIALS: Decision(Step.CHECK_CREDENTIALS),
    Answer.QUOTA: Decision(Step.STOP_ACCOUNT),
    Answer.MISCONFIGURED: Decision(Step.STOP_ACCOUNT),
}
"""The decisions that do not depend on the expense. The decisions after ``THROTTLED`` and ``NOT_SENT`` depend on it."""


def decide(answer: Answer, spent: Expense, policy: RetryPolicy, draw: float) -> Decision:
    """Decide what to do after the answer to a POST.

    ``draw`` is uniform in [0, 1) and spreads the backoff.
    """
    if answer in _SETTLED:
        return _SETTLED[answer]
    if answer is Answer.THROTTLED:
        return _again(0.0, spent.seconds, policy)
    if spent.tries >= policy.max_attempts:
        return Decision(Step.DONE, OutcomeKind.EXHAUSTED)
    return _again(backoff(spent.tries, draw), spent.seconds, policy)


def decide_absent(spent: Expense, policy: RetryPolicy) -> Decision:
    """Decide what to do once it is known that the backup does not exist."""
    if spent.tries >= policy.max_attempts:
        return Decision(Step.DONE, OutcomeKind.EXHAUSTED)
    return _again(0.0, spent.seconds, policy)


def decide_check(answer: Answer, attempts: int, draw: float) -> Decision:
    """Decide what to do after the answer to ``GET /user``, the ``attempts``-th in a row.

    ``DONE`` means that the credentials are good. The check is repeated while nothing can be sent or the API fails. The
    caller gives up when the repetitions have taken too long. Any other answer stops the account: a server without a
    usable ``/user`` is not the API.
    """
    match answer:
        case Answer.ACCEPTED:
            return Decision(Step.DONE)
        case Answer.THROTTLED:
            return Decision(Step.AGAIN)
        case Answer.NOT_SENT | Answer.AMBIGUOUS:
            return Decision(Step.AGAIN, after_s=backoff(attempts, draw))
        case _:
            return Decision(Step.STOP_ACCOUNT)


def _again(after_s: float, seconds: float, policy: RetryPolicy) -> Decision:
    if seconds + after_s >= policy.deadline_s:
        return Decision(Step.DONE, OutcomeKind.EXHAUSTED)
    return Decision(Step.AGAIN, after_s=after_s)


def backoff(attempts: int, draw: float) -> float:
    """Return the seconds to wait after the ``attempts``-th attempt (from 1).

    ``b/2 + b/2 · draw`` with ``b = min(30, 0.5 · 2^(attempts - 1))``. Half is fixed, because full jitter often draws a
    wait of almost 0.
    """
    longest = min(BACKOFF_LONGEST_S, BACKOFF_FIRST_S * 2.0 ** min(attempts - 1, 20))
    return longest / 2 + longest / 2 * draw


_FAULT_KINDS = {
    Fault.CONNECT_TIMEOUT: ErrorKind.TIMEOUT,
    Fault.READ_TIMEOUT: ErrorKind.TIMEOUT,
    Fault.MALFORMED: ErrorKind.PROTOCOL,
    Fault.INTERRUPTED: ErrorKind.INTERRUPTED,
}

_ANSWER_KINDS = {
    Answer.UNREADABLE: ErrorKind.PROTOCOL,
    Answer.THROTTLED: ErrorKind.THROTTLED,
    Answer.QUOTA: ErrorKind.QUOTA,
    Answer.CREDENTIALS: ErrorKind.CREDENTIALS,
    Answer.AMBIGUOUS: ErrorKind.UNAVAILABLE,
}


def error_kind(answer: Answer, result: AttemptResult) -> ErrorKind:
    """Return the ``error.kind`` that the report gives to ``result``, whose class is ``answer``."""
    if result.status is None:
        return _FAULT_KINDS.get(result.fault or Fault.DISCONNECTED, ErrorKind.NETWORK)
    if answer is Answer.PERMANENT:
        is_redirect = result.status < 400  # noqa: PLR2004 - where client errors begin
        return ErrorKind.PROTOCOL if is_redirect else ErrorKind.REJECTED
    return _ANSWER_KINDS.get(answer, ErrorKind.PROTOCOL)


def error_info(kind: ErrorKind, result: AttemptResult, message: str | None = None) -> ErrorInfo:
    """Return the report's error for ``result``. A given ``message`` replaces that of the result."""
    return ErrorInfo(
        kind=kind,
        message=result.message if message is None else message,
        status=result.status,
        documentation_url=result.documentation_url,
        errors=result.errors,
        request_id=result.request_id,
        retry_after_s=result.retry_after_s,
    )
