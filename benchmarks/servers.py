"""The servers that the limiter is measured against: one data file each in ``servers/``, and what is ideal there.

A data file holds a scenario of the stand-in (``orchestrator/simulator/scenario.py``), the batch and the policy to meet
it with, and bands: what the server must see, and what the limiter must believe afterwards. ``limiter.py`` runs them
in virtual time; those with ``figures`` are the rows of the table in the documents, which the end-to-end benchmark
runs as well: figures are what was asked for, bands what was reached.

**Bands may only ever be tightened.** A widened band hides what broke; a figure that leaves its band is a finding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from orchestrator.simulator.limits import Limits
from orchestrator.simulator.scenario import Bucket, InFlight, Scenario

if TYPE_CHECKING:
    from collections.abc import Mapping

DIRECTORY = Path(__file__).parent / "servers"

FIGURES = {
    "time_over_ideal": "seconds from the first start until every answer is there and every backup made, over the ideal",
    "time_over_first": "of a second run: its seconds over those of the first, to two decimals (chance differs)",
    "capacity_used": "the ideal seconds over those that it took",
    "rejected": "429s",
    "rejected_share": "429s over requests",
    "failed_share": "504s over requests",
    "time_to_95_s": "seconds until what was accepted within 2 s first reached 95% of the limit",
    "longest_run_of_429s": "requests in a row, as they reached the server, that it rejected",
    "early": "requests that started before the latest moment that a Retry-After had named",
    "learned_rate": "requests per second that the next run would begin from",
}
"""What a band may be about."""

LONGEST_IDEAL_S = 1e6

Band = tuple[float, float]


def _in_order(band: Band) -> Band:
    if band[0] > band[1]:
        message = "a band is the least and the most, in this order"
        raise ValueError(message)
    return band


Bands = dict[str, Annotated[Band, AfterValidator(_in_order)]]


@dataclass(frozen=True, slots=True)
class Server:
    """One server, and the batch that meets it.

    ``batch`` counts installs; ``ceiling`` and ``start_rate`` are requests per second. ``bands`` are the least and the
    most of each figure (``FIGURES``) that a run may show in virtual time, ``warm_bands`` those of a second run that
    knows what the first one learned. ``figures`` and ``warm_figures`` are what the real command is to reach.
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
        """Tell whether the end-to-end benchmark runs it."""
        return bool(self.figures)


class _File(BaseModel):
    """A data file as it is written."""

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
    """Return the server that ``path`` describes, named after the file; raise pydantic's ``ValidationError``."""
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
    """Return every server, the rows of the table first, else by name."""
    servers = [load(path) for path in DIRECTORY.glob("*.yaml")]
    return sorted(servers, key=lambda server: (not server.is_row, server.name))


def ideal_s(server: Server, accepted: int) -> float:
    """Return the seconds that a client which knows the limits needs to have ``accepted`` requests accepted.

    Rates and windows: each request goes at the very moment at which it may enter, so that a bucket gives
    ``(accepted - burst) / rate``; the schedule of changes is followed. Limits in flight and slots of a backend: as
    many workers flat out, each with the mean time of a request; more workers than slots can be a little faster, as
    a slot is not busy while an answer is under way. Where both kinds are there, the slower one. For rates and windows
    the time that an answer takes is left out, and so is the client's own ceiling. Raise ``ValueError`` where nobody is
    ever let in.
    """
    return max(_paced_s(server.scenario, accepted), _flat_out_s(server.scenario, accepted))


def limit_per_s(scenario: Scenario) -> float:
    """Return the requests per second that ``scenario`` sustains before any change, infinite without a limit."""
    rates = [
        limit.rate if isinstance(limit, Bucket) else limit.requests / limit.per
        for limit in scenario.limits
        if not isinstance(limit, InFlight)
    ]
    workers = _workers(scenario)
    if workers is not None:
        rates.append(workers / _mean_request_s(scenario))
    return min(rates, default=math.inf)


def _paced_s(scenario: Scenario, accepted: int) -> float:
    """Return when the last of ``accepted`` requests enters that knock exactly when they may."""
    limits = Limits(scenario)
    changes = sorted(change.at for change in scenario.schedule)
    now = 0.0
    for _ in range(accepted):
        while (wait_s := limits.enter(now)) > 0:
            if now > LONGEST_IDEAL_S:
                message = "nobody is ever let in"
                raise ValueError(message)
            after_change = min((at for at in changes if at > now), default=math.inf)
            now = max(math.nextafter(now, math.inf), min(now + wait_s, after_change))
        limits.leave()  # at once, so that no limit in flight binds here
    return now


def _flat_out_s(scenario: Scenario, accepted: int) -> float:
    workers = _workers(scenario)
    return 0.0 if workers is None else math.ceil(accepted / workers) * _mean_request_s(scenario)


def _workers(scenario: Scenario) -> int | None:
    """Return how many requests the server bears at once, ``None`` for any number."""
    bounds = [limit.requests for limit in scenario.limits if isinstance(limit, InFlight)]
    if scenario.backend is not None:
        bounds.append(scenario.backend.slots)
    return min(bounds, default=None)


def _mean_request_s(scenario: Scenario) -> float:
    return fmean(scenario.latency) + (fmean(scenario.backend.takes) if scenario.backend else 0.0)
