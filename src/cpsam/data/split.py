"""Holds images with their labels in memory, and names the types of arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Pixels = NDArray[np.uint8]  # (N, H, W, C): a row of an image is one run of bytes
Indices = NDArray[np.int64]
OnProgress = Callable[[str, int, int], None]  # what is being done, images done, images in all


class Split:
    """Holds images with their labels.

    Args:
        images: uint8, or float32 for values that are not bytes, (N, C, H, W), in any memory format;
            channels_last is the fastest to batch. May be memory-mapped.
        labels: int64, (N,).
        rows: int64, (M,). Sample i is then ``images[rows[i]]``: a part shares the pixels of the
            whole, which may be larger than memory.

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
        if images.dtype not in (torch.uint8, torch.float32) or images.ndim != 4:
            raise ValueError(
                "images must be uint8 or float32 of shape (N, C, H, W), not"
                f" {images.dtype} of shape {tuple(images.shape)}"
            )
        count = len(images) if rows is None else len(rows)
        if labels.dtype != torch.int64 or labels.shape != (count,):
            raise ValueError(
                f"labels must be int64 of shape ({count},), not {labels.dtype} of shape"
                f" {tuple(labels.shape)}"
            )
        self._images, self._rows, self.labels = images, rows, labels

    def __reduce__(self) -> tuple[Any, ...]:
        # An array can be pickled beside the pickle, so that processes share it. A tensor cannot.
        rows = None if self._rows is None else self._rows.numpy()
        pixels = self._images.permute(0, 2, 3, 1).numpy()
        return from_arrays, (pixels, self.labels.numpy(), rows)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({len(self)} images of {'x'.join(map(str, self.image_shape))})"

    @property
    def images(self) -> Tensor:
        """All images, (N, C, H, W).

        For a part of a larger split, this copies them. :meth:`pixels` copies only those needed.
        """
        return self._images if self._rows is None else self._images[self._rows]

    @property
    def dtype(self) -> torch.dtype:
        """Of the images: uint8, or float32."""
        return self._images.dtype

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self._images.shape[1:]
        return channels, height, width

    def pixels(self, samples: Indices | slice) -> Pixels:
        """Returns the images of some samples, (B, H, W, C)."""
        if self._rows is not None:
            samples = self._rows.numpy()[samples]
        return self._images.permute(0, 2, 3, 1).numpy()[samples]

    def subset(self, samples: Indices) -> "Split":
        """Returns the split of these samples, in this order; no pixel is copied."""
        chosen = torch.from_numpy(samples)
        return Split(
            self._images, self.labels[chosen], chosen if self._rows is None else self._rows[chosen]
        )


def from_arrays(
    pixels: NDArray[Any], labels: NDArray[np.int64], rows: NDArray[np.int64] | None
) -> Split:
    """Returns the split of images, (N, H, W, C)."""
    chosen = None if rows is None else torch.from_numpy(rows)
    return Split(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(labels), chosen)
