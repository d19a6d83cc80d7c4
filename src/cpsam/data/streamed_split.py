"""Splits whose images are read while they are needed, never held in memory as a whole."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cpsam.config.transform import Transform
from cpsam.data.image_transforms import generators_kept
from cpsam.data.loader.batch_request import BatchRequest
from cpsam.data.loader.image_source import ImageSource
from cpsam.data.loader.workers import workers
from cpsam.data.split import Indices, Pixels


@dataclass(frozen=True, eq=False)
class StreamedSplit:
    """Images with their labels, as :class:`cpsam.data.Split`, but for the pixels, which there are
    only in batches.

    Args:
        source: The image files.
        labels: int64, (N,).
        rows: (N,). Sample i is file ``rows[i]`` of the source.
        size: Height and width that images get.
        transform: How they get there.
        augment: Whether training differs from evaluation.
        workers: Processes that make batches; 0: the one that trains. The bits do not depend on it.
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
        """The split of these samples, in this order."""
        return replace(self, labels=self.labels[torch.from_numpy(samples)], rows=self.rows[samples])

    def batches(self, parts: Sequence[Indices], draw: tuple[int, int] | None) -> Iterator[Pixels]:
        """The images of each part, (B, size, size, 3), good until the next is asked for.

        Args:
            parts: The samples of each batch.
            draw: Seed and epoch of the augmentation; None for evaluation.

        Raises:
            DataError: If an image is bad, when its batch is due, or a process that makes batches
                has ended.
        """
        draw = draw if self.augment else None

        def job(samples: Indices) -> BatchRequest:
            locations = [self.source.locate(row) for row in self.rows[samples].tolist()]
            return BatchRequest(locations, samples.tolist(), self.transform, self.size, draw)

        if self.workers and parts:
            with workers(self.workers) as pool:
                yield from pool.make(map(job, parts), max(map(len, parts)) * 3 * self.size**2)
            return
        for samples in parts:
            wanted = job(samples)
            out = np.empty(wanted.shape, np.uint8)
            with generators_kept():
                wanted.make(out)
            yield out
