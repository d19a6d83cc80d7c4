"""The files of one run as typed records, as far as they are read again."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RunData:
    """In `config.json`: the data of a run."""

    name: str
    fingerprint: str
    mean: list[float]
    std: list[float]
    image_size: int | None
    validation: float
    stream: bool | None = None
    transform: dict[str, Any] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Settled:
    """In `config.json`: what a run computes with."""

    precision: str
    channels_last: bool
    threads: int


@dataclass(frozen=True)
class RunConfig:
    """`config.json`, as far as a run is measured again from it."""

    data: RunData
    model: str
    settled: Settled
