"""What a person asks for, as frozen dataclasses that import nothing heavy: the command line makes
its flags and help from them.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cpsam.config.recipe import Recipe
from cpsam.config.transform import Transform
from cpsam.errors import UserError, unknown
from cpsam.text import shorten

BUDGETS = ("epochs", "time")
MOST_RUNS = 100_000
MOST_SEED = 2**63 - 1
MOST_THREADS = 1024
MOST_PIXELS = 4096


@dataclass(frozen=True)
class Task:
    """The data, the network, and the places in it."""

    data: str = "digits"
    """Data set: digits (embedded), cifar10, cifar100, imagenet, or folder (a tree of images)."""
    data_root: Path | None = None
    """Folder of data sets; for --data folder, the tree itself. Default: the environment variable
    CPSAM_DATA.
    """
    image_size: int | None = None
    """Side of the square that images of a folder or of ImageNet are cropped to, in pixels. Default:
    224.
    """
    validation: float = 0.0
    """Hold out this fraction of the train split, stratified, and measure on it instead of the test
    split; 0 measures on the test split.
    """
    model: str = "resnet20"
    """Network: resnet20, 32, 44, 56, 110, resnet18, 34, 50 (3x3 stem), timm/NAME or
    torchvision/NAME.
    """
    weights: Path | None = None
    """Pretrained weights: a file of safetensors or torch, of which only tensors are read, or the
    folder of a finished run.
    """
    weights_key: str | None = None
    """Which weights to take where a file has several: a name in it (state_dict_ema) or a prefix
    (encoder_q). Default: the average.
    """
    at: tuple[str, ...] = ("before-last",)
    """Places: names of placements (see: cpsam list placements), or module paths in which * is one
    segment.
    """
    stream: bool | None = None
    """Read the images of a folder while they are needed, under the transforms below. Default: if
    they are many; ImageNet always.
    """
    transform: Transform = field(default_factory=Transform)
    workers: int | None = None
    """Streamed images: processes that load them, 0 for the one that trains; no result depends on
    it. Default: the processors.
    """
    skip_bad: Path | None = None
    """Leave out the bad images of a folder or of ImageNet that this file names, as cpsam data
    verify --json writes it.
    """

    image_column: str | None = None
    """Of parquet shards: the column of image files. Default: image or img."""
    label_column: str | None = None
    """Of parquet shards: the column of labels, whole numbers or texts. Default: label, labels,
    fine_label, class or target.
    """

    def __post_init__(self) -> None:
        if not 0 <= self.validation < 1:
            raise UserError(
                f"validation must be a fraction, at least 0 and below 1; got {self.validation}"
            )
        if self.workers is not None:
            check_range("workers", self.workers, 0, MOST_THREADS)
        if self.image_size is not None:
            check_range("image_size", self.image_size, 8, MOST_PIXELS)


@dataclass(frozen=True)
class NamedArm:
    """An arm under a name of its own, for what does not fit into ``cpsam:fusion=sum,reduction=8``.

    Attributes:
        name: What tables call it.
        attention: A name in ``ATTENTION``, or ``"none"``.
        arguments: Of the block's constructor.
        recipe: Fields of the recipe that this arm alone has otherwise; the report warns of it.
        block: A callable from channels to a block, in place of a name; `attention` then says what
            identifies it.
    """

    name: str
    attention: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    block: Callable[[int], Any] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Setting:
    """Where arms are compared: one network on one data set, with blocks at the same places.

    Attributes:
        name: What tables call it.
        task: The data, the network and the places.
        arms: The arms in their order: words, as on the command line, or :class:`NamedArm`.
    """

    name: str
    task: Task
    arms: tuple[str | NamedArm, ...]

    def __post_init__(self) -> None:
        check_list("at", self.task.at)
        check_list(
            "arms" if self.name else "attention",
            tuple(arm if isinstance(arm, str) else arm.name for arm in self.arms),
        )


@dataclass(frozen=True)
class Contrast:
    """A question: top-1 of `arm` minus that of `reference`, in the setting of this name."""

    arm: str
    reference: str
    setting: str

    def __post_init__(self) -> None:
        if self.arm == self.reference:
            raise UserError(f"a contrast needs two arms; got {self.arm} twice")


@dataclass(frozen=True)
class Study:
    """Arms x seeds x settings under one recipe, and the question, all of it fixed before anything
    runs.

    Attributes:
        name: Of its folder; "" for a comparison made on the command line, which has one setting of
            no name.
        settings: Where.
        seeds: The same for every arm.
        recipe: How every arm is trained.
        threads: Of a run, part of its specification. 0: as many as torch takes.
        primary: The question that the study is for. None: CPSAM against Non-Local where the first
            setting has both, else the last of its arms against the first.
        contrasts: The secondary questions, whose p Holm adjusts together. Empty: the primary arm
            against every other, wherever it is.
        budget: "epochs": every arm trains as many; "time": the number that comes nearest to the
            time of the bare network.
        control: Add the parameter-matched control to every setting that has both arms of the
            primary contrast and lacks it.
    """

    name: str
    settings: tuple[Setting, ...]
    seeds: tuple[int, ...]
    recipe: Recipe = field(default_factory=Recipe)
    threads: int = 1
    primary: Contrast | None = None
    contrasts: tuple[Contrast, ...] = ()
    budget: str = "epochs"
    control: bool = True

    def __post_init__(self) -> None:
        for seed in self.seeds:
            check_range("seeds", seed, 0, MOST_SEED)
        check_list("seeds", self.seeds)
        check_list("settings", tuple(setting.name for setting in self.settings))
        runs = len(self.seeds) * sum(len(setting.arms) for setting in self.settings)
        if runs > MOST_RUNS:
            raise UserError(
                f"a study has at most {MOST_RUNS:,} runs; seeds x arms x settings are {runs:,}"
            )
        check_range("threads", self.threads, 0, MOST_THREADS)
        if self.budget not in BUDGETS:
            raise unknown("budget", self.budget, BUDGETS)


@dataclass(frozen=True)
class Comparison:
    """Arms x seeds of one task under one recipe."""

    task: Task = field(default_factory=Task)
    attention: tuple[str, ...] = ("none", "conv_control", "non_local", "cpsam")
    """Arms: names of blocks (see: cpsam list), each with arguments of its own if wanted, as in
    cpsam:fusion=sum,reduction=8. The question is cpsam against non_local where both take part, else
    the last arm against the first.
    """
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds, the same for every arm."""
    recipe: Recipe = field(default_factory=Recipe)
    out: Path = Path("runs")
    """Folder of results; finished runs in it are read, not repeated."""
    threads: int = 0
    """Threads of a run, part of its specification. 0: as many as torch takes."""
    budget: str = "epochs"
    """Every arm trains for as many epochs, or, with time, for the number that comes nearest to the
    time of the bare network.
    """
    control: bool = True
    """Add the parameter-matched control where CPSAM and Non-Local are compared without it."""

    def __post_init__(self) -> None:
        self.study()

    def study(self) -> Study:
        """The same as a plan of one setting."""
        setting = Setting("", self.task, self.attention)
        return Study(
            "",
            (setting,),
            self.seeds,
            self.recipe,
            self.threads,
            budget=self.budget,
            control=self.control,
        )

    @property
    def folder(self) -> Path:
        """Where the runs of this task, and the report on them, are."""
        return self.out / re.sub(
            r"[^A-Za-z0-9]+", "-", f"{self.task.data}-{self.task.model}"
        ).strip("-")


def check_list(name: str, values: tuple[object, ...]) -> None:
    """Refuses a list that is empty or repeats a value.

    Raises:
        UserError: If it does; names the first few values that are repeated.
    """
    if not values:
        raise UserError(f"{name} is empty: give at least one")
    repeated = sorted(str(value) for value, count in Counter(values).items() if count > 1)
    if repeated:
        more = f" and {len(repeated) - 3:,} more" if len(repeated) > 3 else ""
        raise UserError(
            f"{name} must not repeat; {', '.join(repeated[:3])}{more} is given more than once"
        )


def check_range(name: str, value: object, least: int, most: int) -> None:
    """Refuses what is no whole number from `least` to `most`.

    Raises:
        UserError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UserError(
            f"{name} must be a whole number from {least} to {most:,}; got {shorten(value)}"
        )
