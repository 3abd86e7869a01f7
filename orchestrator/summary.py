"""The result of a run: the tally of its outcomes, the summary, the exit code. Pure."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.errors import ExitCode
from orchestrator.model import OutcomeKind
from orchestrator.value import value

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from orchestrator.model import Learned

FAILURES_KEPT = 5
"""The most failures that a run shows at its end: as many as a person reads before opening the report."""

LEAST_FOR_A_SHARE = 20
"""The fewest outcomes for which a percentage of failures is judged."""


@value
class FailureLimit:
    """How many failures are too many to go on: ``failures`` of them, or ``percent`` of all outcomes so far.

    ``option`` is the limit's name for messages. ``is_first`` tells that the first failure is too many; then a message
    shows the name without a number.
    """

    failures: int | None = None
    percent: float | None = None
    option: str = "failure_limit"
    is_first: bool = False

    def holds(self, failed: int, settled: int) -> bool:
        """Tell whether ``failed`` of ``settled`` outcomes are too many."""
        if self.failures is not None:
            return failed >= self.failures
        if self.percent is None or settled < LEAST_FOR_A_SHARE:
            return False
        return failed * 100 >= self.percent * settled

    def __str__(self) -> str:
        """Return the limit as it was set."""
        if self.is_first:
            return self.option
        limit = self.failures if self.percent is None else f"{self.percent:g}%"
        return f"{self.option} {limit}"


@value
class Line:
    """The line of one outcome, as the journal and the report store it. ``data`` is its JSON with a line end.

    ``retries`` counts the POSTs after the first. ``account`` is the account whose credentials were used.
    """

    position: int
    kind: OutcomeKind
    retries: int
    reconciled: bool
    data: bytes
    account: str = ""

    def fields(self) -> dict[str, Any]:
        """Return the line as an object."""
        fields: dict[str, Any] = json.loads(self.data)
        return fields


@dataclass(slots=True)
class Tally:
    """Count outcomes, and keep a few failures to show at the end."""

    outcomes: Counter[OutcomeKind] = field(default_factory=Counter)
    by_account: defaultdict[str, Counter[OutcomeKind]] = field(default_factory=lambda: defaultdict(Counter))
    retries: int = 0
    reconciled: int = 0
    _tried: list[Line] = field(default_factory=list)
    _cancelled: dict[tuple[object, object], dict[str, Any]] = field(default_factory=dict)

    def add(self, line: Line) -> None:
        """Count the outcome of ``line``."""
        self.outcomes[line.kind] += 1
        self.by_account[line.account][line.kind] += 1
        self.retries += line.retries
        self.reconciled += line.reconciled
        if line.kind is OutcomeKind.CANCELLED and len(self._cancelled) < FAILURES_KEPT:
            fields = line.fields()
            self._cancelled.setdefault((fields["account"], (fields["error"] or {}).get("message")), fields)
        elif not line.kind.is_success and len(self._tried) < FAILURES_KEPT:
            self._tried.append(line)

    def first_failures(self) -> tuple[dict[str, Any], ...]:
        """Return the lines of a few failures: the first that were tried, then one for each reason of a cancellation."""
        return (*(line.fields() for line in self._tried), *self._cancelled.values())[:FAILURES_KEPT]

    @property
    def failed(self) -> int:
        """Return how many outcomes are not a success."""
        return sum(count for kind, count in self.outcomes.items() if not kind.is_success)


@value
class AccountTotals:
    """The requests of one account, and the limits that its budget learned. Rates are per second.

    ``rate`` is the last rate, 0 if there was no request. ``outcomes`` count its installs. ``limit`` is the server's
    estimated limit, ``None`` if no limit was met. ``refused_rates`` are the lowest and the highest rate that met a 429.
    ``named_moments`` counts the 429s with a usable ``Retry-After``. ``headers`` are other headers about rates.
    """

    requests: int
    throttled: int
    rate: float
    limit: Learned | None = None
    refused_rates: tuple[float, float] | None = None
    named_moments: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    outcomes: Mapping[OutcomeKind, int] = field(default_factory=dict)


@value
class Summary:
    """The last line of the report.

    ``failed_sources`` are the parts of the inventory that could not be read, ``empty_sources`` those without an
    install. ``selection`` is the run's selection from the inventory, ``None`` if the run did not select from it.
    """

    run_id: str
    started_at: datetime
    finished_at: datetime
    duration_s: float
    planned: int
    disabled: int
    outcomes: dict[OutcomeKind, int]
    retries: int
    reconciled: int
    accounts: dict[str, AccountTotals]
    exit_code: int
    config: str
    report: str
    version: str
    failed_sources: tuple[dict[str, Any], ...] = ()
    empty_sources: tuple[dict[str, Any], ...] = ()
    selection: dict[str, Any] | None = None

    @property
    def requests(self) -> int:
        """Return the number of requests that were sent, including reads."""
        return sum(account.requests for account in self.accounts.values())

    @property
    def throttled(self) -> int:
        """Return the number of 429s."""
        return sum(account.throttled for account in self.accounts.values())


@value
class Ending:
    """How a run ended: what decides its exit code.

    ``signum`` is the number of the signal that stopped it, if any. ``failed`` counts installs and sources of installs.
    """

    crashed: bool = False
    unwritten: bool = False
    signum: int | None = None
    credentials_refused: bool = False
    deadline_passed: bool = False
    failed: int = 0


def exit_code(ending: Ending) -> int:
    """Return the first code that applies, in the order 1, 4, 128 + signal, 12, 10, 3, 0."""
    for applies, code in (
        (ending.crashed, ExitCode.BUG),
        (ending.unwritten, ExitCode.STORAGE),
        (ending.signum is not None, ExitCode.of_signal(ending.signum or 0)),
        (ending.credentials_refused, ExitCode.CREDENTIALS),
        (ending.deadline_passed, ExitCode.DEADLINE),
        (ending.failed > 0, ExitCode.FAILED),
    ):
        if applies:
            return code
    return ExitCode.OK


def exit_code_now(before: int, outcomes: Counter[OutcomeKind], failed_sources: int = 0) -> int:
    """Return the exit code of a run that ended with ``before``, now that its outcomes are ``outcomes``.

    ``failed_sources`` counts the parts of its inventory that could not be read. A crash keeps its code. A run that was
    cut short keeps its code while an outcome is cancelled or incomplete.
    """
    failed = sum(count for kind, count in outcomes.items() if not kind.is_success)
    is_open = outcomes[OutcomeKind.CANCELLED] + outcomes[OutcomeKind.INCOMPLETE] > 0
    is_final = before in {ExitCode.OK, ExitCode.FAILED} or (before != ExitCode.BUG and not is_open)
    return exit_code(Ending(failed=failed + failed_sources)) if is_final else before
