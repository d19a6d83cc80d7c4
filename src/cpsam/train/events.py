"""What a run reports while it trains. Each event is a dict whose "event" says which one it is."""

from collections.abc import Callable
from typing import Literal, TypedDict


class StartEvent(TypedDict):
    """A run begins or continues. It says what is trained, on which images, and with what."""

    event: Literal["start"]
    data: str
    train_images: int
    test_images: int
    measured_on: str  #: "test split" or "validation split"
    classes: int
    parameters: int
    places: list[str]  #: of the inserted blocks
    device: str
    precision: str
    channels_last: bool
    threads: int
    processes: int
    epochs: int
    steps: int


class ResumedEvent(TypedDict):
    """A run continues from a checkpoint."""

    event: Literal["resumed"]
    epoch: int  #: epochs finished before
    step: int  #: steps made before
    steps: int
    warnings: list[str]  #: about newer checkpoints that are damaged


class StepEvent(TypedDict):
    """An optimizer step was made. The first step is reported, then at most two per second."""

    event: Literal["step"]
    epoch: int
    epochs: int
    step: int
    steps: int
    lr: float
    loss: float  #: before the step
    images_per_s: float  #: since the last such event
    seconds_left: float


class SpikeEvent(TypedDict):
    """The loss of a step is far above the median of the steps before."""

    event: Literal["spike"]
    step: int
    loss: float
    median: float


class EvaluationEvent(TypedDict):
    """A batch of the evaluation after an epoch is next."""

    event: Literal["evaluation"]
    epoch: int
    epochs: int
    images: int  #: evaluated so far
    of: int


class Timing(TypedDict):
    """How long an epoch took."""

    train_seconds: float
    evaluation_seconds: float
    images_per_s: float


class EpochRecord(TypedDict):
    """The metrics of an epoch, a line of `metrics.jsonl`."""

    epoch: int
    step: int
    lr: float
    train_loss: float
    top1: float
    top5: float
    loss: float
    n: int
    timing: Timing


class EpochEvent(EpochRecord):
    """An epoch was trained and evaluated."""

    event: Literal["epoch"]
    epochs: int


Event = StartEvent | ResumedEvent | StepEvent | SpikeEvent | EvaluationEvent | EpochEvent
OnEvent = Callable[[Event], None]
