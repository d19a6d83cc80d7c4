"""The files of a study as typed records, as far as they are read again."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Ended:
    """`diverged.json` or `failed.json`: why a run has no summary. Older files do not name their
    run.
    """

    error: str
    run: str | None = None


@dataclass(frozen=True)
class Attempt:
    """`.attempts`: how often in a row the process of a run died after it had begun at this
    checkpoint.
    """

    deaths: int
    checkpoint: str


@dataclass(frozen=True)
class Environment:
    """`environment.json`: of all that is in it, what a report reads."""

    versions: dict[str, str | None] = field(default_factory=dict)
    processor: str | None = None
    device: str | None = None
    precision: str | None = None
    threads: int | None = None
    commit: str | None = None
    resumed: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class PlannedBlock:
    """In a plan: what an arm is."""

    attention: str
    arguments: dict[str, Any]
    recipe: dict[str, Any]


@dataclass(frozen=True)
class PlanEntry:
    """In `plans.json`: what a plan said, and how many of its runs had ended before."""

    primary: tuple[str, str, str]
    contrasts: list[tuple[str, str, str]]
    seeds: list[int]
    budget: str
    runs: list[str]
    ended_before: int = 0
    recipe: dict[str, Any] = field(default_factory=dict)
    arms: dict[str, PlannedBlock] = field(default_factory=dict)


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
