"""Many questions at the same time: two accounts of one stand-in, in this process."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from command import PASSWORD, USER, install_ids
from fakes import ListLog

from orchestrator.engine.stop import StopSwitch
from orchestrator.model import Account, Config, ErrorInfo, ErrorKind
from orchestrator.policies import ThrottlePolicy
from orchestrator.session.connections import Connections
from orchestrator.session.queries import NOT_ASKED, Question, Subject, _progress, answers_to, are_credentials_refused
from orchestrator.simulator.scenario import Scenario
from orchestrator.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.session.queries import Answers, Queries

    Result = tuple[Answers[int], int, bool, dict[str, object]]

SCENARIO = Scenario.model_validate(
    {"latency": "1ms", "listing": {"nightly": 3}, "credentials": {"user_id": USER}, "pages": {"size": 2}}
)


class Survey:
    """Read ``of_a`` listings of account a and ``of_b`` of account b; ``on_answer`` gets the count of answers."""

    def __init__(self, of_a: int, of_b: int, on_answer: Callable[[StopSwitch, int], None] = lambda *_: None) -> None:
        self.log, self.stop, self._on_answer = ListLog(), StopSwitch(), on_answer
        self._asked = ["b"] * of_b + ["a"] * of_a
        self.answered = 0

    async def _ask(self, number: int, account: str, queries: Queries) -> int | ErrorInfo:
        found = await queries.backups(account, install_ids(number + 1)[-1])
        self.answered += 1
        self._on_answer(self.stop, self.answered)
        return found if isinstance(found, ErrorInfo) else len(found)

    def run(self) -> Result:
        async def main() -> Result:
            async with Simulator(SCENARIO) as simulator, AsyncExitStack() as stack:
                accounts = {
                    name: Account(name, simulator.base_url, user, PASSWORD)
                    for name, user in (("a", USER), ("b", "a-stranger"))
                }
                policy = ThrottlePolicy(fixed_rate=100.0, ceiling=100.0)
                connections = Connections(Config("f.yaml", accounts, (), policy), None, self.log, stack)
                questions = [
                    Question(account, partial(self._ask, number, account)) for number, account in enumerate(self._asked)
                ]
                answers = await answers_to(Subject("audit", "installs"), questions, connections, self.stop)
                progress = _progress(connections, {0: NOT_ASKED}, len(questions))
                return answers, simulator.stats()["requests"], are_credentials_refused(connections), progress

        return asyncio.run(main())


def test_a_refused_account_does_not_affect_others_and_the_expected_time_is_logged() -> None:
    survey = Survey(of_a=4, of_b=300)
    answers, requests, is_refused, progress = survey.run()
    *of_b, a1, a2, a3, a4 = answers.answers
    assert [a1, a2, a3, a4] == [3, 3, 3, 3]
    assert {answer.kind for answer in of_b if isinstance(answer, ErrorInfo)} == {ErrorKind.CREDENTIALS}
    assert (len(of_b), answers.signum, is_refused) == (300, None, True)
    assert requests == 1 + 1 + 4 * 2
    assert ("audit.asking", {"installs": 304, "requests": 306, "takes": "about 3s at 200/s"}) in survey.log.events
    assert progress == {"done": 1, "failed": 1, "throttled": 0, "rate": 200.0, "left_s": 2}


def test_answers_from_before_a_signal_are_kept() -> None:
    def press(stop: StopSwitch, answered: int) -> None:
        if answered == 2:
            stop.press(signal.SIGTERM)

    survey = Survey(of_a=50, of_b=0, on_answer=press)
    answers, _, is_refused, _ = survey.run()
    known = [answer for answer in answers.answers if answer is not NOT_ASKED]
    assert (set(known), answers.signum, is_refused) == ({3}, signal.SIGTERM, False)
    assert 2 <= len(known) < 50
    assert survey.log.events[-1] == ("audit.stopped", {"by": "SIGTERM", "answered": len(known), "installs": 50})


def test_no_question_sends_no_request() -> None:
    survey = Survey(0, 0)
    answers, requests, *_ = survey.run()
    assert (answers.answers, answers.signum, survey.log.events, requests) == ((), None, [], 0)
