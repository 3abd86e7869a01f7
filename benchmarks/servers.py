"""The servers that the limiter is measured against: one data file each in ``servers/``, and the ideal time for each.

A data file holds a scenario of the stand-in (``orchestrator/simulator/scenario.py``), the batch and the policy of the
client, and bands: the figures that the server must see, and the limit that the limiter must have learned.
``limiter.py`` runs all servers in virtual time. Servers with ``figures`` are the rows of the table in the documents,
and the end-to-end benchmark runs them too. Figures are the goal, bands are what was reached.

**Bands may only ever be tightened.** A widened band hides a defect. A figure outside its band is a finding. The one
exception was the law of ADR 0020, whose bands were recorded anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from orchestrator.simulator.limit_keys import Bucket, InFlight
from orchestrator.simulator.limits import Limits
from orchestrator.simulator.scenario import Scenario  # noqa: TC001 - pydantic reads the annotation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.simulator.limit_keys import Window

DIRECTORY = Path(__file__).parent / "servers"

FIGURES = {
    "time_over_ideal": "seconds from the first start to the last answer and the last backup, divided by the ideal",
    "time_over_first": "seconds of a second run, divided by those of the first, to two decimals (chance differs)",
    "capacity_used": "ideal seconds, divided by the seconds that the run took",
    "rejected": "429s",
    "rejected_share": "429s, divided by requests",
    "failed_share": "504s, divided by requests",
    "time_to_95_s": "seconds until the requests accepted within 2 s first reached 95% of the limit",
    "longest_run_of_429s": "most requests in a row that the server rejected",
    "early": "requests that started before the latest moment that a Retry-After had named",
    "learned_rate": "requests per second with which the next run would begin",
}
"""The figures that a band can be about."""

LONGEST_IDEAL_S = 1e6

Band = tuple[float, float]


def _in_order(band: Band) -> Band:
    if band[0] > band[1]:
        message = "a band is the minimum and the maximum, in this order"
        raise ValueError(message)
    return band


Bands = dict[str, Annotated[Band, AfterValidator(_in_order)]]


@dataclass(frozen=True, slots=True)
class Server:
    """One server, and the batch of the client.

    ``batch`` counts installs. ``ceiling`` and ``start_rate`` are in requests per second. ``bands`` hold the minimum and
    the maximum of each figure (``FIGURES``) in virtual time, ``warm_bands`` those of a second run, which begins with
    the limit that the first one learned. ``figures`` and ``warm_figures`` are the goals of the real command.
    """

    name: str
    about: str
    scenario: Scenario
    batch: int
    ceiling: float
    concurrency: int
    start_rate: float
    bands: Mapping[str, Band]
    warm_bands: Mapping[str, Band]
    figures: Mapping[str, Band]
    warm_figures: Mapping[str, Band]

    @property
    def is_row(self) -> bool:
        """Tell whether the end-to-end benchmark runs this server."""
        return bool(self.figures)


class _File(BaseModel):
    """The content of a data file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str
    scenario: Scenario
    batch: Annotated[int, Field(ge=1)]
    ceiling: Annotated[float, Field(gt=0)]
    concurrency: Annotated[int, Field(ge=1)]
    start_rate: Annotated[float, Field(gt=0)]
    bands: Bands
    warm_bands: Bands = {}
    figures: Bands = {}
    warm_figures: Bands = {}

    @model_validator(mode="after")
    def _names_figures(self) -> Self:
        named = self.bands.keys() | self.warm_bands.keys() | self.figures.keys() | self.warm_figures.keys()
        if unknown := named - FIGURES.keys():
            message = f"no such figure: {', '.join(sorted(unknown))}"
            raise ValueError(message)
        return self


def load(path: Path) -> Server:
    """Return the server that ``path`` describes, named after the file. Raises pydantic's ``ValidationError``."""
    file = _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    return Server(
        name=path.stem,
        about=file.about,
        scenario=file.scenario,
        batch=file.batch,
        ceiling=file.ceiling,
        concurrency=file.concurrency,
        start_rate=file.start_rate,
        bands=file.bands,
        warm_bands=file.warm_bands,
        figures=file.figures,
        warm_figures=file.warm_figures,
    )


def all_servers() -> list[Server]:
    """Return every server, sorted by name, the rows of the table first."""
    servers = [load(path) for path in DIRECTORY.glob("*.yaml")]
    return sorted(servers, key=lambda server: (not server.is_row, server.name))


def ideal_s(server: Server, accepted: int) -> float:
    """Return the seconds after which ``accepted`` requests are accepted, if the client knows the limits.

    - Rates and windows: each request arrives at the first moment when it may enter, and the schedule of changes is
      followed. A bucket gives ``(accepted - burst) / rate``. Latency and the client's own ceiling are left out.
    - Limits in flight and slots of a backend: as many workers run without a pause, each with the mean time of a
      request that arrives at that moment. More workers than slots can be slightly faster, since a slot is free while an
      answer is under way.

    If a server has both kinds, the slower one counts. Limits that apply to GETs only do not count. Raises
    ``ValueError`` if the server never lets a request in.
    """
    return max(_paced_s(server.scenario, accepted), _flat_out_s(server.scenario, accepted))


def limit_per_s(scenario: Scenario) -> float:
    """Return the POSTs per second that ``scenario`` sustains before any change, infinity without a limit."""
    rates = [
        limit.rate if isinstance(limit, Bucket) else limit.requests / limit.per
        for limit in _limits_of_posts(scenario)
        if not isinstance(limit, InFlight)
    ]
    workers = _workers(scenario)
    if workers is not None:
        rates.append(workers / _mean_request_s(scenario, 0.0))
    return min(rates, default=math.inf)


def _paced_s(scenario: Scenario, accepted: int) -> float:
    """Return when the last of ``accepted`` requests enters, if each arrives exactly when it may enter."""
    limits = Limits(scenario)
    changes = sorted(change.at for change in scenario.schedule)
    now = 0.0
    for _ in range(accepted):
        while (wait_s := limits.enter(now)) > 0:
            if now > LONGEST_IDEAL_S:
                message = "the server never lets a request in"
                raise ValueError(message)
            after_change = min((at for at in changes if at > now), default=math.inf)
            now = max(math.nextafter(now, math.inf), min(now + wait_s, after_change))
        limits.leave()  # immediately, so that limits in flight do not count here
    return now


def _flat_out_s(scenario: Scenario, accepted: int) -> float:
    workers = _workers(scenario)
    if workers is None:
        return 0.0
    now = 0.0
    for _ in range(math.ceil(accepted / workers)):
        now += _mean_request_s(scenario, now)
    return now


def _workers(scenario: Scenario) -> int | None:
    """Return how many POSTs the server works on at a time, ``None`` for any number."""
    bounds = [limit.requests for limit in _limits_of_posts(scenario) if isinstance(limit, InFlight)]
    if scenario.backend is not None:
        bounds.append(scenario.backend.slots)
    return min(bounds, default=None)


def _limits_of_posts(scenario: Scenario) -> list[Bucket | Window | InFlight]:
    return [limit for limit in scenario.limits if limit.applies_to != "gets"]


def _mean_request_s(scenario: Scenario, at: float) -> float:
    return fmean(scenario.latency_at(at)) + (fmean(scenario.backend.takes) if scenario.backend else 0.0)
