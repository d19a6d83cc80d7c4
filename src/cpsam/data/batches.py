"""Makes batches of normalised float32 images on a device.

The order of an epoch depends on (seed, epoch), and its augmentation on (seed, epoch, sample). No
state passes from one epoch to the next, so any batch of any epoch can be made directly. Several
processes take one part of each batch. Together they see what one process would see.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from cpsam.data.augment import Augmentation
from cpsam.data.dataset import Dataset
from cpsam.data.split import Indices, Pixels, Split
from cpsam.data.streamed_split import StreamedSplit
from cpsam.errors import UserError
from cpsam.seeds import generator

Batch = tuple[Tensor, Tensor]


def train_indices(count: int, *, batch_size: int, seed: int, epoch: int) -> list[Indices]:
    """Returns the samples of every batch of an epoch: each sample once.

    The last batch may be smaller. If it were a single image, it is left out, because BatchNorm
    cannot train on one.

    Args:
        count: Samples in the split, at least 2.
        batch_size: Samples per batch, at least 2.
        seed: The run's seed.
        epoch: Counted from 0.

    Raises:
        UserError: If `count` or `batch_size` is below 2.

    Example:
        >>> [len(batch) for batch in train_indices(7, batch_size=3, seed=0, epoch=0)]
        [3, 3]
    """
    if batch_size < 2:
        raise UserError(
            "batch_size must be at least 2, because BatchNorm cannot train on a single image; it"
            f" is {batch_size}"
        )
    if count < 2:
        raise UserError(f"training needs at least 2 images, not {count}")
    order = generator(seed, "order", epoch).permutation(count)
    return [
        order[start : start + batch_size]
        for start in range(0, count, batch_size)
        if count - start > 1
    ]


def rank_slice(samples: Indices, rank: int, world_size: int) -> Indices:
    """Returns the part of a batch that one of several processes takes.

    A part consists of mirrored pairs: positions i and B - 1 - i are always together. So if each
    part is mixed with its own reverse, the whole batch is mixed with its reverse. The sample in the
    middle of an odd batch goes to the first process, whose part is never larger than others.

    Args:
        samples: (B,), the batch of all processes together.
        rank: Which process, from 0.
        world_size: How many there are.

    Returns:
        Samples in the order of the batch. Together the parts are the batch. Two parts differ by at
        most two samples.

    Raises:
        UserError: If a process would get fewer than two samples. BatchNorm cannot train on one,
            and without any there is no gradient.

    Example:
        >>> [rank_slice(np.arange(7), rank, 2).tolist() for rank in (0, 1)]
        [[0, 3, 6], [1, 2, 4, 5]]
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be from 0 to below world_size ({world_size}), not {rank}")
    count, pairs = len(samples), len(samples) // 2
    if pairs < world_size:
        raise UserError(
            f"a batch of {count} images is too small for {world_size} processes of at least 2"
            " images each; if it is the last batch of an epoch, choose another batch_size"
        )
    low, high = rank * pairs // world_size, (rank + 1) * pairs // world_size
    middle = samples[pairs : count - pairs] if rank == 0 else samples[:0]
    return np.concatenate([samples[low:high], middle, samples[count - high : count - low]])


def normalise(
    images: Pixels,
    dataset: Dataset,
    *,
    device: torch.device | str = "cpu",
    channels_last: bool = True,
) -> Tensor:
    """Returns ``(images / 255 - mean) / std`` as float32 on `device`.

    Args:
        images: (B, H, W, C). They travel to the device as bytes, a quarter of the size.
        dataset: Whose mean and std to use.
        device: The device of the result.
        channels_last: Memory format of the result; the shape is the same either way.

    Shape:
        - Output: (B, C, H, W).
    """
    target = torch.device(device)
    batch, height, width, channels = images.shape
    std = np.array(dataset.std)
    # One number for each of the W * C values of a row.
    scale = np.tile((1 / (255 * std)).astype(np.float32), width)
    shift = np.tile((-np.array(dataset.mean) / std).astype(np.float32), width)
    rows = images.reshape(batch, height, width * channels)
    if target.type == "cpu":
        values = rows.astype(np.float32)
        values *= scale
        values += shift
        x = torch.from_numpy(values)
    else:
        x = to_device(torch.from_numpy(rows), target).to(torch.float32)
        x = x.mul_(torch.from_numpy(scale).to(target)).add_(torch.from_numpy(shift).to(target))
    x = x.view(batch, height, width, channels).permute(0, 3, 1, 2)  # (B, C, H, W)
    return x.contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    # Only a copy from pinned memory runs at the same time as the computation.
    return (
        tensor.pin_memory().to(device, non_blocking=True)
        if device.type == "cuda"
        else tensor.to(device)
    )


def train_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | str = "cpu",
    channels_last: bool = True,
) -> Iterator[Batch]:
    """Yields one epoch of the train split, shuffled and augmented.

    The batches have the samples of :func:`train_indices`. Each process gets its
    :func:`rank_slice` of every batch.

    Args:
        dataset: What to train on.
        batch_size: Images per batch of all processes together, at least 2 per process.
        seed: The run's seed.
        epoch: Counted from 0.
        start: Number of batches to skip; they cost nothing.
        rank: Which process this is, from 0.
        world_size: How many there are.
        device: The device of the batches.
        channels_last: Memory format of the images.

    Yields:
        Images, float32, (B, C, H, W), and labels, int64, (B,).

    Raises:
        UserError: If `batch_size` is below 2, there is only one image, or a batch is too small for
            the processes.
        DataError: If a streamed image is bad, when its batch is due.
    """
    split, target = dataset.train, torch.device(device)
    batches = train_indices(len(split), batch_size=batch_size, seed=seed, epoch=epoch)[start:]
    parts = [rank_slice(samples, rank, world_size) for samples in batches]
    if isinstance(split, StreamedSplit):
        images = split.batches(parts, (seed, epoch))
    else:
        table = Augmentation.draw(
            len(split), padding=dataset.padding, flip=dataset.flip, seed=seed, epoch=epoch
        )
        images = (table.apply(split.pixels(samples), samples) for samples in parts)
    return finish(images, parts, split, dataset, target, channels_last)


def eval_batches(
    split: Split | StreamedSplit,
    dataset: Dataset,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | str = "cpu",
    channels_last: bool = True,
) -> Iterator[Batch]:
    """Yields every image of `split` once, in order, normalised and otherwise unchanged.

    The last batch may be smaller. Several processes take whole batches in turn, so the batches are
    the same for any number of processes. If there are fewer batches, some processes get none.

    Args:
        split: What to read.
        dataset: Whose normalisation to use.
        batch_size: Images per batch.
        rank: Which process this is, from 0.
        world_size: How many there are.
        device: The device of the batches.
        channels_last: Memory format of the images.

    Yields:
        Images, float32, (B, C, H, W), and labels, int64, (B,).

    Raises:
        UserError: If `batch_size` is below 1.
        DataError: As :func:`train_batches`.
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, not {batch_size}")
    starts = range(rank * batch_size, len(split), world_size * batch_size)
    parts = [np.arange(start, min(start + batch_size, len(split))) for start in starts]
    images = (
        split.batches(parts, None) if isinstance(split, StreamedSplit) else map(split.pixels, parts)
    )
    return finish(images, parts, split, dataset, torch.device(device), channels_last)


def finish(
    images: Iterable[Pixels],
    parts: Sequence[Indices],
    split: Split | StreamedSplit,
    dataset: Dataset,
    device: torch.device,
    channels_last: bool,
) -> Iterator[Batch]:
    """Yields the normalised images of each part with their labels."""
    for pixels, samples in zip(images, parts, strict=True):
        yield (
            normalise(pixels, dataset, device=device, channels_last=channels_last),
            take_labels(split, samples, device),
        )


def take_labels(split: Split | StreamedSplit, samples: Indices, device: torch.device) -> Tensor:
    return to_device(split.labels[torch.from_numpy(samples)], device)
