"""The files of a study as typed records, as far as they are read again."""

from dataclasses import dataclass
from typing import Any

from cpsam.report.records import PlanEntry


@dataclass(frozen=True)
class Deaths:
    """`.attempts`: how often in a row the process of a run died after it began at a checkpoint."""

    deaths: int
    checkpoint: str


@dataclass(frozen=True)
class History:
    """`plans.json`."""

    plans: list[PlanEntry]


@dataclass(frozen=True)
class WrittenPlan:
    """`plan.json`, as far as it is compared with another."""

    primary: tuple[str, str, str]
    contrasts: list[tuple[str, str, str]]
    seeds: list[int]
    budget: str
    runs: dict[str, Any]


@dataclass(frozen=True)
class WrittenResults:
    """`results.json`, as far as it is read again: of which plan it is."""

    plan: str | None = None
