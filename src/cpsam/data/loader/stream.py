"""Splits whose images are read while they are needed, never held in memory as a whole."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cpsam.config.transform import Transform
from cpsam.data.decode import open_image
from cpsam.data.loader.source import ImageSource, Location, read
from cpsam.data.loader.workers import workers
from cpsam.data.picture import eval_pixels, generators_kept, seed_sample, train_pixels
from cpsam.data.split import Indices, Pixels


@dataclass(frozen=True)
class BatchRequest:
    """One batch to make.

    Args:
        locations: Where its images lie.
        samples: Their numbers in the split, of which the draws are made.
        transform: What is done to them.
        size: Height and width of what comes out.
        draw: Seed and epoch of the augmentation; None for evaluation.
    """

    locations: Sequence[Location]
    samples: Sequence[int]
    transform: Transform
    size: int
    draw: tuple[int, int] | None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.locations), self.size, self.size, 3

    def make(self, out: Pixels) -> None:
        """Write the batch into `out`, (B, size, size, 3).

        Raises:
            DataError: If an image is bad.
        """
        for index, (location, sample) in enumerate(zip(self.locations, self.samples, strict=True)):
            data, where = read(location)
            with open_image(data, where) as image:
                if self.draw is None:
                    out[index] = eval_pixels(image, self.transform, self.size, where)
                else:
                    seed_sample(*self.draw, sample)
                    out[index] = train_pixels(image, self.transform, self.size, where)


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
