"""The files of one run as typed records, and the folder of a run, read once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cpsam.errors import DataError
from cpsam.files import read_json
from cpsam.run.spec import is_named_by
from cpsam.train.metrics import SUMMARY, read_metrics, read_summary
from cpsam.train.run_config import CONFIG
from cpsam.train.run_folder import ENVIRONMENT
from cpsam.typed import read_record

DIVERGED, FAILED = "diverged.json", "failed.json"


@dataclass(frozen=True)
class RunData:
    """The data of a run, in `config.json`. The fields of its task stand beside these."""

    name: str
    fingerprint: str
    mean: list[float]
    std: list[float]
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RunCompute:
    """What a run computes with, in `config.json`."""

    precision: str
    channels_last: bool
    threads: int


@dataclass(frozen=True)
class RunConfig:
    """The part of `config.json` from which a run is rebuilt."""

    data: RunData
    model: str
    settled: RunCompute
    attention: str = "none"


@dataclass(frozen=True)
class Failure:
    """`diverged.json` or `failed.json`: why a run has no summary.

    Older files do not name their run.
    """

    error: str
    run: str | None = None


@dataclass(frozen=True)
class RunEnvironment:
    """The part of `environment.json` that a report reads."""

    versions: dict[str, str | None] = field(default_factory=dict)
    processor: str | None = None
    device: str | None = None
    precision: str | None = None
    threads: int | None = None
    commit: str | None = None
    resumed: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        status: "done", "diverged" or "failed".
        error: Why it is not done.
        top1: Of the last epoch, like `top5` and `loss`; None unless the run is done.
        train_seconds: The time of training; None unless the run is done.
    """

    status: str
    error: str | None = None
    top1: float | None = None
    top5: float | None = None
    loss: float | None = None
    train_seconds: float | None = None


@dataclass(frozen=True)
class StoredRun:
    """What the folder of a run says. A command reads each folder once and passes this on.

    Attributes:
        folder: Where the run is.
        config: The content of `config.json`; None if the run was not begun.
        outcome: How the run ended; None if it has not.
    """

    folder: Path
    config: Mapping[str, Any] | None = None
    outcome: RunOutcome | None = None

    @property
    def done(self) -> bool:
        return self.outcome is not None and self.outcome.status == "done"

    @cached_property
    def curve(self) -> dict[str, list[float]]:
        """Top-1 and train loss after each epoch; a run that stopped early has fewer values."""
        epochs = [] if self.config is None else read_metrics(self.folder, self.config)
        return {key: [float(epoch[key]) for epoch in epochs] for key in ("top1", "train_loss")}

    @cached_property
    def environment(self) -> dict[str, Any] | None:
        """Where the run was made, as plain data; None if the run does not say."""
        found = read_record(RunEnvironment, self.folder / ENVIRONMENT)
        return None if found is None else found[1]


def read_run(folder: Path) -> StoredRun:
    """Reads the folder of a run. Its curve and its environment are read when they are first used.

    Raises:
        DataError: If a file is damaged or of another run; names it.
    """
    try:
        config = read_json(folder / CONFIG)
        if config is not None and not is_named_by(folder.name, config):
            raise DataError(
                f"{folder / CONFIG}: it is of another run: its content does not give the name of"
                " the folder"
            )
        return StoredRun(folder, config, read_outcome(folder, config))
    except DataError as error:
        raise DataError(f"{error}; remove the folder, and the run is made again") from error


def read_outcome(folder: Path, config: Mapping[str, Any] | None) -> RunOutcome | None:
    """Returns how the run of this configuration ended; None if it has not."""
    if config is None and (folder / SUMMARY).exists():
        raise DataError(
            f"{folder / SUMMARY}: {CONFIG} is missing beside it, so it may be of any run"
        )
    if config is not None and (summary := read_summary(folder, config)) is not None:
        top1, top5, loss = (summary[key] for key in ("top1", "top5", "loss"))
        return RunOutcome("done", None, top1, top5, loss, summary["timing"]["train_seconds"])
    for status, name in (("diverged", DIVERGED), ("failed", FAILED)):
        if (found := read_record(Failure, folder / name)) is not None:
            if found[0].run not in (None, folder.name):
                raise DataError(f"{folder / name}: it is of another run, {found[0].run}")
            return RunOutcome(status, found[0].error)
    return None
