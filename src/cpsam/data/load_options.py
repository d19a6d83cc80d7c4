"""Holds the arguments of `load_dataset` as one object."""

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from cpsam.config.transform import Transform
from cpsam.data.parallel import default_workers
from cpsam.data.split import OnProgress
from cpsam.errors import DataError, UserError

SIZE = 224


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """Says how a data set is loaded; :func:`cpsam.data.load_dataset` explains the arguments.

    Raises:
        UserError: If `image_size` or `workers` is out of range.
    """

    image_size: int | None = None
    stream: bool | None = None
    transform: Transform | None = None
    workers: int | None = None
    skip: Set[str] = frozenset()
    image_column: str | None = None
    label_column: str | None = None
    progress: OnProgress | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise UserError(f"workers must be at least 0; got {self.workers}")
        if self.image_size is not None and self.image_size < 1:
            raise UserError(f"image_size must be at least 1, not {self.image_size}")

    @property
    def size(self) -> int:
        """Height and width of the images of a folder or of ImageNet."""
        return SIZE if self.image_size is None else self.image_size

    @property
    def streaming(self) -> Transform:
        """The transform of streamed images."""
        return self.transform or Transform()

    @property
    def loaders(self) -> int:
        """Number of processes that load streamed images."""
        return default_workers() if self.workers is None else self.workers

    def refuse_transform(self, reason: str) -> None:
        """Refuses a transform where no image is streamed."""
        if self.streaming != Transform():
            raise UserError(reason)

    def refuse_columns(self, root: Path) -> None:
        """Refuses names of columns for a folder that has no parquet shards."""
        for argument in ("image_column", "label_column"):
            if (value := getattr(self, argument)) is not None:
                raise UserError(
                    f"{argument} is for parquet shards; {root} has none; given {value!r}"
                )

    def refuse_all(self, name: str) -> None:
        """Refuses all arguments that a data set of one size has no use for."""
        how = None if self.streaming == Transform() else self.transform
        given = {
            "image_size": (self.image_size, "has a size of its own"),
            "stream": (self.stream or None, "is held as bytes"),
            "transform": (how, "is held as bytes"),
            "skip": (self.skip or None, "is held as bytes"),
            "image_column": (self.image_column, "has columns of its own"),
            "label_column": (self.label_column, "has columns of its own"),
        }
        for argument, (value, reason) in given.items():
            if value is not None:
                raise UserError(
                    f"{argument} is for folder and imagenet, {name} {reason}; given {value}"
                )


def require_root(root: Path | None, what: str) -> Path:
    """Returns the folder of the data set.

    Raises:
        DataError: If none is given.
    """
    if root is None:
        raise DataError(f"no folder {what} given; name it with `root` or CPSAM_DATA")
    return root
