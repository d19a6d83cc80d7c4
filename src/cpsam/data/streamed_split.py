"""Holds labels and locations of images that are read when a batch needs them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cpsam.config.transform import Transform
from cpsam.data.image_transforms import generators_kept
from cpsam.data.loader.batch_request import BatchRequest
from cpsam.data.loader.image_source import ImageSource
from cpsam.data.loader.workers import borrow_pool
from cpsam.data.split import Indices, Pixels


@dataclass(frozen=True, eq=False)
class StreamedSplit:
    """Holds images with their labels, as :class:`cpsam.data.Split`; pixels exist only in batches.

    Args:
        source: The image files.
        labels: int64, (N,).
        rows: (N,). Sample i is file ``rows[i]`` of the source.
        size: Height and width of the images that come out.
        transform: How images are augmented and cropped.
        augment: Whether images are augmented in training.
        workers: Processes that make batches; 0 for the one that trains. No bit depends on it.
    """

    source: ImageSource
    labels: Tensor
    rows: Indices
    size: int
    transform: Transform
    augment: bool = True
    workers: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"StreamedSplit({len(self)} images of 3x{self.size}x{self.size})"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return 3, self.size, self.size

    def subset(self, samples: Indices) -> "StreamedSplit":
        """Returns the split of these samples, in this order."""
        return replace(self, labels=self.labels[torch.from_numpy(samples)], rows=self.rows[samples])

    def batches(self, parts: Sequence[Indices], draw: tuple[int, int] | None) -> Iterator[Pixels]:
        """Yields the images of each part, (B, size, size, 3); the next batch may overwrite them.

        Args:
            parts: The samples of each batch.
            draw: Seed and epoch of the augmentation; None for evaluation.

        Raises:
            DataError: If an image is bad, when its batch is due, or a process that makes batches
                has ended.
        """
        draw = draw if self.augment else None

        def request(samples: Indices) -> BatchRequest:
            locations = [self.source.locate(row) for row in self.rows[samples].tolist()]
            return BatchRequest(locations, samples.tolist(), self.transform, self.size, draw)

        if self.workers and parts:
            with borrow_pool(self.workers) as pool:
                yield from pool.make(map(request, parts), max(map(len, parts)) * 3 * self.size**2)
            return
        for samples in parts:
            wanted = request(samples)
            out = np.empty(wanted.shape, np.uint8)
            with generators_kept():
                wanted.make(out)
            yield out
