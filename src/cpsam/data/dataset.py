"""What a data set is: two splits of uint8 images with labels, and what a reader or a training loop has to know about them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from cpsam.data.stream import StreamedSplit

Pixels = NDArray[np.uint8]  # (N, H, W, C): a row of an image is one run of bytes
Indices = NDArray[np.int64]
Progress = Callable[[str, int, int], None]  # what is being done, images done, images in all


class Split:
    """Images with their labels.

    Args:
        images: uint8, (N, C, H, W), in any memory format; channels_last is the fastest to batch. May be memory-mapped.
        labels: int64, (N,).
        rows: int64, (M,). Sample i is then ``images[rows[i]]``: a part shares the pixels of the whole, which may be larger than memory.

    Raises:
        ValueError: If dtypes or sizes do not fit.

    Example:
        >>> whole = Split(torch.zeros(5, 3, 4, 6, dtype=torch.uint8), torch.arange(5))
        >>> part = whole.subset(np.array([4, 1]))
        >>> part, part.labels
        (Split(2 images of 3x4x6), tensor([4, 1]))
    """

    __slots__ = ("_images", "_rows", "labels")

    def __init__(self, images: Tensor, labels: Tensor, rows: Tensor | None = None) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(f"images must be uint8 of shape (N, C, H, W), not {images.dtype} of shape {tuple(images.shape)}")
        count = len(images) if rows is None else len(rows)
        if labels.dtype != torch.int64 or labels.shape != (count,):
            raise ValueError(f"labels must be int64 of shape ({count},), not {labels.dtype} of shape {tuple(labels.shape)}")
        self._images, self._rows, self.labels = images, rows, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({len(self)} images of {'x'.join(map(str, self.image_shape))})"

    @property
    def images(self) -> Tensor:
        """All images, uint8, (N, C, H, W); for a part of a larger split this copies them, so take :meth:`pixels` of the few needed."""
        return self._images if self._rows is None else self._images[self._rows]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self._images.shape[1:]
        return channels, height, width

    def pixels(self, samples: Indices | slice) -> Pixels:
        """The images of some samples, (B, H, W, C)."""
        if self._rows is not None:
            samples = self._rows.numpy()[samples]
        return self._images.permute(0, 2, 3, 1).numpy()[samples]

    def subset(self, samples: Indices) -> "Split":
        """The split of these samples, in this order; no pixel is copied."""
        chosen = torch.from_numpy(samples)
        return Split(self._images, self.labels[chosen], chosen if self._rows is None else self._rows[chosen])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, ready to be batched.

    Args:
        name: One of `DATASETS`.
        train: What is trained on; a :class:`cpsam.data.StreamedSplit` where the images are read while they are needed.
        test: What is measured on; after :func:`hold_out`, the validation part.
        classes: Names of the classes, in the order of the labels.
        mean: Mean of ``pixels / 255`` over the train split, one number a channel.
        std: Its standard deviation, likewise, at least 1/255.
        padding: Pixels of zeros around an image that is then cropped back to its size at random.
        flip: Whether a mirror image still shows the same class: not so for digits.
        fingerprint: SHA-256 of what a run depends on: pixels, labels, their order, class names.
        note: A line that a reader of results must know, or "".
        skipped: Bad images that were left out, as :func:`cpsam.data.verify.verify` names them.
    """

    name: str
    train: "Split | StreamedSplit"
    test: "Split | StreamedSplit"
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    padding: int
    flip: bool
    fingerprint: str
    note: str = ""
    skipped: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        return self.train.image_shape[0]

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.train.image_shape[1:]

    def unaugmented(self) -> "Dataset":
        """The data set whose train split is batched as it is measured."""
        train = self.train if isinstance(self.train, Split) else replace(self.train, augment=False)
        return replace(self, train=train, padding=0, flip=False)
