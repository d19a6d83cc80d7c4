"""What results consist of, as typed records. The fields have the names of the JSON keys."""

from dataclasses import dataclass, field
from typing import Any

from cpsam.report.field import TheoreticalFields
from cpsam.statistics import PairedDifference, Summary


@dataclass(frozen=True, kw_only=True)
class DatasetRecord:
    """The data of a setting.

    Attributes:
        name: Of the data set.
        note: What a reader must know of it; "" if nothing.
        measured_on: The images that top-1 is measured on, such as "test split".
        train_images: How many images there are to train on.
        test_images: How many images there are to measure on.
        classes: How many classes there are.
        fingerprint: A hash of the images and labels.
    """

    name: str
    note: str = ""
    measured_on: str = "test split"
    train_images: int
    test_images: int
    classes: int
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class SettingRecord:
    """Where a study compares its arms: a network, data, and the places of the blocks.

    The only setting of a comparison has the name "".

    Attributes:
        receptive_fields: What the bare network sees at the places; None in older results, and where
            no arm has a block.
    """

    name: str
    data: DatasetRecord
    model: str
    at: tuple[str, ...]
    receptive_fields: TheoreticalFields | None = None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Values after each epoch of a run; a run that stopped early has fewer."""

    top1: tuple[float, ...] = ()
    train_loss: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One seed of one arm.

    Attributes:
        seed: Of all that is drawn at random.
        folder: The name of its folder.
        status: "done", "diverged", "failed" or "missing".
        error: Why it is not done.
        top1: Of the last epoch, in [0, 1]; None unless the run is done. `top5` and `loss` likewise.
        curve: Values after each epoch.
    """

    seed: int
    folder: str
    status: str
    error: str | None = None
    top1: float | None = None
    top5: float | None = None
    loss: float | None = None
    curve: Curve = Curve()

    @property
    def done(self) -> bool:
        return self.status == "done"


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """One arm of one setting.

    Attributes:
        name: The name of the arm, unique in the study; of several settings, "ARM @ SETTING".
        arm: Its name within its setting.
        setting: The name of its setting.
        attention: The name of its block.
        arguments: What was set of the block.
        recipe: What differs from the recipe of the study.
        places: The modules that the block hangs on.
        parameters: Of the network with its blocks; `parameters_added` without the bare network's.
        macs: Multiply-adds of one image; `macs_added` without those of the bare network.
        runs: One per seed.
        top1: Mean and spread over the finished runs.
        difference: Name of a reference arm -> top-1 minus that of the reference, paired by seed;
            None without a pair.
    """

    name: str
    arm: str = ""
    setting: str = ""
    attention: str
    arguments: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    places: tuple[str, ...]
    parameters: int
    parameters_added: int
    macs: int
    macs_added: int
    runs: tuple[RunRecord, ...]
    top1: Summary
    difference: dict[str, PairedDifference | None]

    @property
    def finished(self) -> tuple[RunRecord, ...]:
        """The runs that are done."""
        return tuple(run for run in self.runs if run.done)

    @property
    def top1_by_seed(self) -> dict[int, float]:
        """Seed -> top-1 of each run that is done."""
        return {run.seed: run.top1 for run in self.finished if run.top1 is not None}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The paired difference of two arms; without a pair, `n` is 0 and the rest is None.

    The fields are those of :class:`cpsam.statistics.PairedDifference`.
    """

    n: int
    mean: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class ContrastResult(Difference):
    """The answer to one question of the plan: top-1 of `arm` minus that of `reference`.

    Attributes:
        p_holm: The p of a secondary contrast, adjusted for the number of them; None for the primary
            one.
        p_sign_flip: See :class:`cpsam.statistics.Evidence`, like `detectable`.
    """

    arm: str
    reference: str
    setting: str = ""
    primary: bool
    p_holm: float | None = None
    p_sign_flip: float | None = None
    detectable: float | None = None


@dataclass(frozen=True, kw_only=True)
class ControlResult(Difference):
    """Top-1 of the primary arm minus that of the best control.

    Attributes:
        arm: The control.
        of: How many controls were compared.
        fewer: Controls that were left out because they have fewer seeds.
    """

    arm: str
    of: int
    fewer: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where something was made; None is unknown. See :mod:`cpsam.train.environment`."""

    versions: dict[str, str | None] = field(default_factory=dict)
    system: str | None = None
    processor: str | None = None
    cores: int | None = None
    threads: int | None = None
    device: str | None = None
    precision: str | None = None
    channels_last: bool | None = None
    commit: str | None = None
    processes: int | None = None


@dataclass(frozen=True, kw_only=True)
class MadeBy(Environment):
    """An environment in which runs were begun.

    Attributes:
        runs: How many runs were begun there.
        resumed: How many of these were resumed in another environment.
    """

    runs: int
    resumed: int = 0


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds per batch: the median of `n` and its quartiles."""

    median: float
    q1: float
    q3: float
    n: int


@dataclass(frozen=True, kw_only=True)
class ArmTiming:
    """Time and memory of an arm on the machine that wrote the report."""

    latency_ms: Latency | None = None
    peak_memory_bytes: int | None = None
    train_seconds: list[float | None] = field(default_factory=list)

    @property
    def median_ms(self) -> float | None:
        return None if self.latency_ms is None else self.latency_ms.median

    @property
    def peak_memory_mib(self) -> float | None:
        return None if self.peak_memory_bytes is None else self.peak_memory_bytes / 2**20


@dataclass(frozen=True, kw_only=True)
class Timing:
    """All that depends on the clock: name of an arm -> its times."""

    arms: dict[str, ArmTiming] = field(default_factory=dict)
    batch_size: int | None = None
    memory_batch_size: int | None = None
    total_seconds: float | None = None
    runs_at_once: int | None = None


@dataclass(frozen=True, kw_only=True)
class PlannedBlock:
    """What an arm is in a plan."""

    attention: str
    arguments: dict[str, Any]
    recipe: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class PlanEntry:
    """What a plan said at a time. Older entries name no recipe and no arms.

    Attributes:
        ended_before: How many runs of the plan before had ended by then.
    """

    primary: tuple[str, str, str]
    contrasts: tuple[tuple[str, str, str], ...]
    seeds: tuple[int, ...]
    budget: str
    recipe: dict[str, Any] | None = None
    arms: dict[str, PlannedBlock] | None = None
    runs: tuple[str, ...]
    ended_before: int = 0
