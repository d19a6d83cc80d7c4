"""Batches of normalised float32 images on a device.

The order of an epoch comes from (seed, epoch), its augmentation from (seed, epoch, sample); no state is carried from one epoch to the
next, so any epoch can be had at once, and a batch costs the same in every one.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from cpsam.data.augment import Augmentation
from cpsam.data.dataset import Dataset, Indices, Pixels, Split
from cpsam.errors import UserError
from cpsam.randomness import generator

Batch = tuple[Tensor, Tensor]


def train_indices(count: int, *, batch_size: int, seed: int, epoch: int) -> list[Indices]:
    """The samples of every batch of an epoch: each sample once.

    The last batch may be smaller. Where it would be a single image it is left out, because BatchNorm cannot train on one.

    Args:
        count: Samples in the split, at least 2.
        batch_size: Samples a batch, at least 2.
        seed: The run's seed.
        epoch: Counted from 0.

    Raises:
        UserError: If `count` or `batch_size` is below 2.

    Example:
        >>> [len(batch) for batch in train_indices(7, batch_size=3, seed=0, epoch=0)]
        [3, 3]
    """
    if batch_size < 2:
        raise UserError(f"batch_size must be at least 2, because BatchNorm cannot train on a single image; it is {batch_size}")
    if count < 2:
        raise UserError(f"training needs at least 2 images, not {count}")
    order = generator(seed, "order", epoch).permutation(count)
    return [order[start : start + batch_size] for start in range(0, count, batch_size) if count - start > 1]


def normalise(images: Pixels, dataset: Dataset, *, device: torch.device | str = "cpu", channels_last: bool = True) -> Tensor:
    """``(images / 255 - mean) / std`` as float32 on `device`.

    Args:
        images: (B, H, W, C). They travel to the device as bytes, a quarter of the size.
        dataset: Whose mean and std to use.
        device: Where the batch is wanted.
        channels_last: Memory format of the result; the shape is the same either way.

    Shape:
        - Output: (B, C, H, W).
    """
    target = torch.device(device)
    batch, height, width, channels = images.shape
    std = np.array(dataset.std)
    scale = np.tile((1 / (255 * std)).astype(np.float32), width)  # one number for each of the W * C values of a row
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
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    # Only a copy from pinned memory runs beside the computation.
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def train_batches(
    dataset: Dataset, *, batch_size: int, seed: int, epoch: int, device: torch.device | str = "cpu", channels_last: bool = True
) -> Iterator[Batch]:
    """One epoch over the train split, shuffled, cropped and mirrored.

    The samples of the batches are those of :func:`train_indices`, in its order.

    Args:
        dataset: What to train on.
        batch_size: Images a batch, at least 2.
        seed: The run's seed.
        epoch: Counted from 0.
        device: Where the batches are wanted.
        channels_last: Memory format of the images.

    Yields:
        Images, float32, (B, C, H, W), and labels, int64, (B,).

    Raises:
        UserError: If `batch_size` is below 2 or there is only one image.
    """
    split, target = dataset.train, torch.device(device)
    batches = train_indices(len(split), batch_size=batch_size, seed=seed, epoch=epoch)
    table = Augmentation.draw(len(split), padding=dataset.padding, flip=dataset.flip, seed=seed, epoch=epoch)

    def batch(samples: Indices) -> Batch:
        images = table.apply(split.pixels(samples), samples)
        return normalise(images, dataset, device=target, channels_last=channels_last), take_labels(split, samples, target)

    return map(batch, batches)


def eval_batches(
    split: Split, dataset: Dataset, *, batch_size: int, device: torch.device | str = "cpu", channels_last: bool = True
) -> Iterator[Batch]:
    """Every image of `split` once, in order and unchanged but for the normalisation of `dataset`; the last batch may be smaller.

    Yields:
        Images, float32, (B, C, H, W), and labels, int64, (B,).

    Raises:
        UserError: If `batch_size` is below 1.
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, not {batch_size}")
    target = torch.device(device)

    def batch(start: int) -> Batch:
        samples = np.arange(start, min(start + batch_size, len(split)))
        images = normalise(split.pixels(samples), dataset, device=target, channels_last=channels_last)
        return images, take_labels(split, samples, target)

    return map(batch, range(0, len(split), batch_size))


def take_labels(split: Split, samples: Indices, device: torch.device) -> Tensor:
    return to_device(split.labels[torch.from_numpy(samples)], device)
