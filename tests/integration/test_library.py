"""The library, which offers the command's work to programs; its promises are checked against the stand-in."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import signal
import sys
import types
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from command import PASSWORD, USER, fleet, install_ids, stand_in, until

import orchestrator
from orchestrator import (
    ConfigError,
    ExitCode,
    LockedError,
    Outcome,
    RunOptions,
    Selection,
    StorageError,
    UsageError,
    back_up,
    load_config,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator import Config, RunResult

ROOT = Path(__file__).parents[2]
CREDENTIALS = {"WPE_API_USER_ID": USER, "WPE_API_PASSWORD": PASSWORD}
COUNT = 6
SLOW = "latency: 300ms\n"


def config_of(folder: Path, base_url: str, count: int = COUNT, more: str = "") -> Config:
    (folder / "fleet.yaml").write_text(fleet(base_url, count, more))
    return load_config(folder / "fleet.yaml", CREDENTIALS)


def options(folder: Path, **fields: Any) -> RunOptions:
    return RunOptions(state_dir=folder / "state", report=str(folder / "report.jsonl"), **fields)


def reported(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "report.jsonl").read_text().splitlines()]


@contextmanager
def slow_stand_in(folder: Path) -> Iterator[str]:
    """Serve slow answers, one install after the other."""
    (folder / "slow.yaml").write_text(SLOW)
    with stand_in("--scenario", str(folder / "slow.yaml")) as api:
        yield api.base_url


ONE_AT_A_TIME = "throttle: {concurrency: 1}"


def test_a_run_returns_the_commands_result_and_reports_each_outcome_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    handlers = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    seen: list[Outcome] = []
    with stand_in() as api:
        config = config_of(tmp_path, api.base_url)
        result = asyncio.run(back_up(config, options(tmp_path), on_outcome=seen.append))
        made = api.stats()["backups_made"]
    assert (result.exit_code, result.error) == (ExitCode.OK, None)
    *lines, summary = reported(tmp_path)
    assert (result.run_id, result.summary) == (summary["run_id"], summary)
    assert made == len(lines) == COUNT
    told = [
        (each.install_id, each.name, each.account, each.kind.value, each.backup and each.backup.id) for each in seen
    ]
    assert told == [
        (line["install_id"], line["name"], line["account"], line["outcome"], line["backup"]["id"]) for line in lines
    ]
    assert {each.install_id for each in seen} == set(install_ids(COUNT))
    assert capfd.readouterr() == ("", "")
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers


def test_every_problem_of_a_configuration_has_its_place(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text("version: 1\ndefaults: {notification_emails: []}\ninstalls:\n  - id: 7\n")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "fleet.yaml", CREDENTIALS)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.path) == (str(tmp_path / "fleet.yaml"), 4, "installs[0].id")
    assert problem.message
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        load_config(tmp_path / "nowhere.yaml", CREDENTIALS)


def test_a_run_that_cannot_begin_raises_and_sends_nothing(tmp_path: Path) -> None:
    with stand_in() as api:
        config = config_of(tmp_path, api.base_url)
        with pytest.raises(UsageError, match="client-b"):
            asyncio.run(back_up(config, options(tmp_path, selection=Selection(tags=("client-b",)))))
        (tmp_path / "state").write_text("no directory")
        with pytest.raises(StorageError):
            asyncio.run(back_up(config, options(tmp_path)))
        assert api.stats()["requests"] == 0


def test_one_configuration_has_one_run_at_a_time_and_two_run_side_by_side(tmp_path: Path) -> None:
    async def main(config: Config, other: Config) -> list[RunResult | BaseException]:
        runs = [(config, options(tmp_path)), (config, options(tmp_path)), (other, options(tmp_path / "other"))]
        return await asyncio.gather(*(back_up(*run) for run in runs), return_exceptions=True)

    (tmp_path / "other").mkdir()
    with slow_stand_in(tmp_path) as base_url:
        ended = asyncio.run(main(config_of(tmp_path, base_url), config_of(tmp_path / "other", base_url)))
    assert sorted(type(each).__name__ for each in ended) == ["LockedError", "RunResult", "RunResult"]
    assert any(isinstance(each, LockedError) for each in ended[:2])


@pytest.mark.parametrize("times", [1, 2])
def test_a_cancelled_run_completes_its_report_and_can_be_resumed(tmp_path: Path, times: int) -> None:
    async def cancelled(config: Config) -> None:
        first = asyncio.Event()
        task = asyncio.create_task(back_up(config, options(tmp_path), on_outcome=lambda _: first.set()))
        await first.wait()
        await asyncio.sleep(0.1)  # the next request is in flight
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task

    with slow_stand_in(tmp_path) as base_url:
        config = config_of(tmp_path, base_url, more=ONE_AT_A_TIME)
        asyncio.run(cancelled(config))
        *lines, summary = reported(tmp_path)
        assert summary["exit_code"] == ExitCode.of_signal(signal.SIGTERM)
        assert len(lines) == COUNT
        assert summary["outcomes"]["cancelled"] > 0
        assert summary["outcomes"]["unconfirmed"] == (times == 2)
        resumed = asyncio.run(back_up(config, options(tmp_path, resume="latest")))
    assert (resumed.run_id, resumed.exit_code) == (summary["run_id"], ExitCode.OK)
    assert resumed.summary["outcomes"]["accepted"] == COUNT


def test_a_run_that_is_cancelled_before_it_begins_sends_nothing(tmp_path: Path) -> None:
    async def main(config: Config) -> None:
        task = asyncio.create_task(back_up(config, options(tmp_path)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with stand_in() as api:
        asyncio.run(main(config_of(tmp_path, api.base_url)))
        assert api.stats()["requests"] == 0


def test_a_callback_that_raises_fails_no_install_and_its_exception_comes_at_the_end(tmp_path: Path) -> None:
    def fail(outcome: Outcome) -> None:
        raise KeyError(outcome.name)

    with stand_in() as api:
        with pytest.raises(KeyError, match="shop"):
            asyncio.run(back_up(config_of(tmp_path, api.base_url), options(tmp_path), on_outcome=fail))
        assert api.stats()["backups_made"] == COUNT
    assert reported(tmp_path)[-1]["outcomes"]["accepted"] == COUNT


def test_the_log_goes_to_the_given_logger_and_holds_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG, "backups")
    events: list[dict[str, Any]] = []

    def keep(_logger: object, _method: str, event: Any) -> Any:
        events.append(dict(event))
        raise structlog.DropEvent

    with stand_in() as api:
        config = config_of(tmp_path, api.base_url)
        asyncio.run(back_up(config, options(tmp_path), log=logging.getLogger("backups")))
        ours = structlog.wrap_logger(structlog.ReturnLogger(), processors=[keep], wrapper_class=structlog.BoundLogger)
        asyncio.run(back_up(config, options(tmp_path), log=ours.bind(job="nightly")))
    texts = [record.getMessage() for record in caplog.records if record.name == "backups"]
    assert any(text.startswith("run.started ") and f" installs={COUNT} " in text for text in texts)
    assert sum(text.startswith("backup.accepted ") for text in texts) == COUNT
    (started,) = [each for each in events if each["event"] == "run.started"]
    assert (started["installs"], started["job"]) == (COUNT, "nightly")
    assert not any(secret in f"{texts}{events}" for secret in CREDENTIALS.values())
    assert capfd.readouterr() == ("", "")


def test_only_public_names_can_be_imported() -> None:
    for name in orchestrator.__all__:
        assert getattr(orchestrator, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        _ = orchestrator.nothing_of_ours


# -- the examples of docs/library.md -----------------------------------------------------------------------------------


def examples(word: str) -> str:
    """Return the code of the only example that contains ``word``."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/library.md").read_text(encoding="utf-8"), re.DOTALL)
    (found,) = (block for block in blocks if word in block)
    return str(found)


def run_example(word: str, name: str = "example") -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": name}
    exec(compile(examples(word), "docs/library.md", "exec"), namespace)  # noqa: S102 - our own document
    return namespace


@contextmanager
def modules(**contents: dict[str, Any]) -> Iterator[None]:
    """Replace packages that the examples import and the project does not need; ``__`` means a dot."""
    names = {name.replace("__", "."): content for name, content in contents.items()}
    for name, content in names.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Serve the stand-in, and change to a directory with its fleet."""
    monkeypatch.chdir(tmp_path)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with stand_in() as api:
        text = fleet(api.base_url, 2) + f"  - {{id: {install_ids(3)[2]}, name: shop2, tags: [client-a]}}\n"
        (tmp_path / "fleet.yaml").write_text(text)
        yield api


def test_the_first_example_runs(served: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_example("def seen(", "__main__")
    assert ended.value.code == 0
    assert "shop2 accepted" in capsys.readouterr().out
    assert served.stats()["backups_made"] == 3


def test_the_other_short_examples_run(served: Any) -> None:
    assert len(run_example("error.problems")["config"].installs) == 3
    assert run_example("FailureLimit(percent=10)")["options"].waits
    assert served.stats()["requests"] == 0


def test_the_airflow_task_backs_up_the_fleet_and_fails_if_the_run_failed(served: Any, tmp_path: Path) -> None:
    class AirflowError(Exception):
        pass

    def dag(**_: Any) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
        return lambda build: build

    def task(*, retries: int) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
        assert retries == 0

        def decorated(work: Callable[[], Any]) -> Callable[[], Any]:
            tasks.append(work)
            return lambda: None  # a call adds the task to its graph and does not run it

        return decorated

    tasks: list[Callable[[], str]] = []
    fakes: dict[str, dict[str, Any]] = {
        "airflow": {},
        "airflow__decorators": {"dag": dag, "task": task},
        "airflow__exceptions": {"AirflowException": AirflowError},
    }
    with modules(**fakes):
        run_example("airflow")
        (backup_task,) = tasks
        yaml = "wait: {poll_interval: 1s}\n" + (tmp_path / "fleet.yaml").read_text()
        (tmp_path / "fleet.yaml").write_text(yaml)
        run_id = backup_task()
        assert (tmp_path / "state/runs" / run_id / "report.jsonl").exists()
        assert served.stats()["backups_made"] == 3
        (tmp_path / "fleet.yaml").write_text(yaml.replace("/v1", "/nowhere"))
        with pytest.raises(AirflowError, match="exit code"):
            backup_task()


def test_the_fastapi_job_backs_up_one_client_at_a_time(served: Any) -> None:
    class HttpError(Exception):
        def __init__(self, status: int, detail: str) -> None:
            super().__init__(f"{status} {detail}")

    class FastApi:
        def __init__(self) -> None:
            self.get = self.post = self._route

        def _route(self, path: str, **_: Any) -> Callable[[Any], Any]:
            assert path == "/clients/{tag}/backups"
            return lambda work: work

    async def main() -> dict[str, Any]:
        assert await module["start"]("client-a") == {"started": "client-a"}
        with pytest.raises(HttpError, match="409"):
            await module["start"]("client-a")
        for unknown in (module["start"]("../.."), module["progress"]("client-b")):
            with pytest.raises(HttpError, match="404"):
                await unknown
        while not (shown := await module["progress"]("client-a"))["is_done"]:  # noqa: ASYNC110 - as its caller would
            await asyncio.sleep(0.01)
        return dict(shown["summary"])

    with modules(fastapi={"FastAPI": FastApi, "HTTPException": HttpError}):
        module = run_example("fastapi")
        summary = asyncio.run(main())
    assert summary["outcomes"]["accepted"] == 1
    until(lambda: served.stats()["backups_made"] == 1)
