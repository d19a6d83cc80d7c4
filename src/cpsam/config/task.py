"""Says what a run trains on, and which network, as plain data."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cpsam.config.ranges import MOST_THREADS, Fraction
from cpsam.config.transform import Transform
from cpsam.typed import Range, check


@dataclass(frozen=True, kw_only=True)
class Task:
    """The data, the network, and the places in it.

    A new field is a flag, a key of ``[task]`` and ``[[setting]]`` in a plan, and, at another value
    than its default, a key in `config.json` of a run.

    Raises:
        UserError: If a value breaks its rule.
    """

    data: str = "digits"
    """Data set: digits, cued-digits, majority-cue or recall (embedded), cifar10, cifar100,
    imagenet, or folder (a tree of images).
    """
    data_root: Path | None = None
    """Folder of data sets; if `data` is folder, the tree itself. Default: the environment variable
    CPSAM_DATA.
    """
    image_size: Annotated[int | None, Range(least=8, most=4096)] = None
    """Side of the square crop of images of a folder or of ImageNet, in pixels. Default: 224."""
    validation: Fraction = 0.0
    """Hold out this fraction of the train split, stratified, and measure on it instead of the test
    split; 0 measures on the test split.
    """
    model: str = "resnet20"
    """Network: resnet8, 20, 32, 44, 56, 110, resnet18, 34, 50 (3x3 stem), pointwise8, 16, 32,
    64 (without context), timm/NAME or torchvision/NAME.
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
    """Read the images of a folder when they are needed, with the transforms below. Default: only if
    there are many; ImageNet always.
    """
    transform: Transform = field(default_factory=Transform)
    workers: Annotated[int | None, Range(least=0, most=MOST_THREADS)] = None
    """Processes that load streamed images; 0 loads them in the process that trains. No result
    depends on it. Default: the number of processors.
    """
    skip_bad: Path | None = None
    """Leave out the bad images of a folder or of ImageNet that this file names, as cpsam data
    verify --json writes it.
    """
    image_column: str | None = None
    """The column of image files in parquet shards. Default: image or img."""
    label_column: str | None = None
    """The column of labels in parquet shards, whole numbers or texts. Default: label, labels,
    fine_label, class or target.
    """

    def __post_init__(self) -> None:
        check(self)
