"""What a person asks for, as frozen dataclasses that import nothing heavy: the command line makes its flags and help from them."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from cpsam.errors import UserError
from cpsam.train.recipe import Recipe


@dataclass(frozen=True)
class Task:
    """The data, the network, and the places in it."""

    data: str = "digits"
    """Data set: digits (embedded), cifar10, cifar100, or folder (a tree of images)."""
    data_root: Path | None = None
    """Folder of data sets; for --data folder, the tree itself. Default: the environment variable CPSAM_DATA."""
    image_size: int | None = None
    """Side of the square that images of a folder are cropped to, in pixels. Default: 224."""
    validation: float = 0.0
    """Hold out this fraction of the train split, stratified, and measure on it instead of the test split; 0 measures on the test split."""
    model: str = "resnet20"
    """Network: resnet20, 32, 44, 56, 110, resnet18, 34, 50 (3x3 stem), timm/NAME or torchvision/NAME."""
    weights: Path | None = None
    """Pretrained weights of the bare network, a .safetensors file."""
    at: tuple[str, ...] = ("before-last",)
    """Places: names of placements (see: cpsam list placements), or module paths in which * is one segment."""

    def __post_init__(self) -> None:
        if not 0 <= self.validation < 1:
            raise UserError(f"validation must be a fraction, at least 0 and below 1; got {self.validation}")
        if self.image_size is not None and self.image_size < 8:
            raise UserError(f"image_size must be at least 8 pixels; got {self.image_size}")


@dataclass(frozen=True)
class Comparison:
    """Arms x seeds of one task under one recipe."""

    task: Task = field(default_factory=Task)
    attention: tuple[str, ...] = ("none", "conv_control", "non_local", "cpsam")
    """Arms: names of blocks (see: cpsam list), each with arguments of its own if wanted, as in cpsam:fusion=sum,reduction=8."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds, the same for every arm."""
    recipe: Recipe = field(default_factory=Recipe)
    out: Path = Path("runs")
    """Folder of results; finished runs in it are read, not repeated."""
    threads: int = 0
    """Threads of a run, part of its specification. 0: as many as torch takes."""

    def __post_init__(self) -> None:
        check_list("attention", self.attention)
        check_list("seeds", self.seeds)
        check_list("at", self.task.at)
        if any(seed < 0 for seed in self.seeds):
            raise UserError(f"seeds must be at least 0; got {min(self.seeds)}")
        if self.threads < 0:
            raise UserError(f"threads must be at least 0; got {self.threads}")

    @property
    def folder(self) -> Path:
        """Where the runs of this task, and the report on them, are."""
        return self.out / re.sub(r"[^A-Za-z0-9]+", "-", f"{self.task.data}-{self.task.model}").strip("-")


def check_list(name: str, values: tuple[object, ...]) -> None:
    if not values:
        raise UserError(f"{name} is empty: give at least one")
    repeated = sorted({str(value) for value in values if values.count(value) > 1})
    if repeated:
        raise UserError(f"{name} must not repeat; {', '.join(repeated)} is given more than once")
