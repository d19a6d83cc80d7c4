"""Turns anybody's torch Dataset into a data set of ours: two map-style sets of (image, label).

Every image is read once, into memory. What becomes of it depends on what it is:

- A PIL image, and an array or a tensor of uint8, is kept as bytes. Batches of it are augmented
  (where that is asked for) and normalised by the statistics of the train split.
- A tensor of floats is taken as it is: not normalised again, and not augmented.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cpsam.data.dataset import Dataset
from cpsam.data.fingerprint import fingerprint
from cpsam.data.moments import Moments
from cpsam.data.split import OnProgress, Split
from cpsam.errors import DataError, UserError
from cpsam.files import hash_json

HASHED_BYTES = 4 << 30  # of both splits; more takes longer to hash than a person waits
KINDS = "a PIL image, an array or a tensor of uint8, or a tensor of floats"


def from_torch(
    train: Any,
    evaluation: Any,
    *,
    augment: bool = True,
    version: str | None = None,
    on_progress: OnProgress | None = None,
) -> Dataset:
    """Returns a data set of all samples of two torch Datasets.

    Args:
        train: What to train on: has a length, and gives (image, label) for an index. An image is
            (H, W, C) or (H, W) as an array, (C, H, W) or (H, W) as a tensor. A label is a whole
            number from 0.
        evaluation: What to measure on, likewise.
        augment: Shift bytes at random, and mirror them.
        version: A text that identifies the samples in place of their hash. It is needed above
            4 GiB.
        on_progress: Told how many samples are read.

    Raises:
        UserError: If one of the two is not a map-style data set, or has random transforms.
        DataError: If a sample is not an image with a label, or has another size.
    """
    names = ("train data", "test data")
    splits = [
        read_samples(source, name, on_progress)
        for source, name in zip((train, evaluation), names, strict=True)
    ]
    (pixels, labels), (other, other_labels) = splits
    if pixels.dtype != other.dtype or pixels.shape[1:] != other.shape[1:]:
        raise DataError(
            f"the train data has images of {shown(pixels)}, and the test data of {shown(other)}"
        )
    classes = class_names(train, int(max(labels.max(), other_labels.max())) + 1)
    if version is not None:
        name = hash_json(["cpsam version 1", version])
    elif pixels.nbytes + other.nbytes > HASHED_BYTES:
        raise UserError(
            f"the data has more than {HASHED_BYTES >> 30} GiB, which is not hashed; give"
            " cpsam.Versioned((train, test), version) with a text that you change with the data"
        )
    else:
        name = fingerprint(classes, splits)
    is_bytes, channels = pixels.dtype == np.uint8, pixels.shape[-1]
    # With these, the normalisation of a batch is the identity.
    mean, std = (0.0,) * channels, (1 / 255,) * channels
    if is_bytes:
        moments = Moments(channels)
        moments.add(pixels)
        mean, std = moments.mean, moments.std
        # The augmentation of a set by name follows from its name.
        name = name if augment else unaugmented(name)
    parts = [
        Split(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(values))
        for images, values in splits
    ]
    return Dataset(
        type(train).__name__,
        parts[0],
        parts[1],
        classes,
        mean,
        std,
        padding=min(pixels.shape[1:3]) // 8 if is_bytes and augment else 0,
        flip=is_bytes and augment,
        fingerprint=name,
    )


def unaugmented(fingerprint: str) -> str:
    """Returns the fingerprint of the same samples where they are not augmented."""
    return hash_json(["not augmented", fingerprint])


def read_samples(
    source: Any, name: str, on_progress: OnProgress | None
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Returns the images of a torch Dataset, (N, H, W, C), and its labels, (N,)."""
    try:
        count = len(source)
        source.__getitem__  # noqa: B018
    except (TypeError, AttributeError, NotImplementedError):
        raise UserError(
            f"the {name} must be a data set with a length and an index, as a map-style torch"
            f" Dataset; got {type(source).__name__}"
        ) from None
    if not count:
        raise DataError(f"the {name} has no samples")
    first, _ = read_sample(source, 0, name)
    if not np.array_equal(first, read_sample(source, 0, name)[0], equal_nan=True):
        raise UserError(
            f"the {name} gives another image for the same index: leave its random transforms out,"
            " because each image is read once, and augmented here"
        )
    images = np.empty((count, *first.shape), first.dtype)
    labels = np.empty(count, np.int64)
    for index in range(count):
        image, labels[index] = read_sample(source, index, name)
        if image.shape != first.shape or image.dtype != first.dtype:
            raise DataError(
                f"sample {index} of the {name} is {shown(image)}, and the first is {shown(first)};"
                " give all images one size in the transform of the data set"
            )
        images[index] = image
        if on_progress is not None and (index % 1000 == 0 or index + 1 == count):
            on_progress(f"reading the {name}", index + 1, count)
    return images, labels


def read_sample(source: Any, index: int, name: str) -> tuple[NDArray[Any], int]:
    """Returns an image, (H, W, C), as uint8 or float32, and its label."""
    sample = source[index]
    if not isinstance(sample, Sequence) or len(sample) != 2:
        raise DataError(
            f"sample {index} of the {name} must be (image, label); got {described(sample)}"
        )
    image, label = sample
    if isinstance(label, Tensor | np.ndarray | np.integer) and np.ndim(label) == 0:
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, int) or label < 0:
        raise DataError(
            f"the label of sample {index} of the {name} must be a whole number from 0; got"
            f" {type(label).__name__} {label!r}"
        )
    array = as_array(image)
    if array is None:
        raise DataError(
            f"the image of sample {index} of the {name} must be {KINDS}; got {described(image)}"
        )
    return array, label


def as_array(image: Any) -> NDArray[Any] | None:
    """Returns an image as (H, W, C); None if it is not an image."""
    if isinstance(image, Image.Image):
        image = np.asarray(image if image.mode == "L" else image.convert("RGB"))
    if isinstance(image, Tensor):
        floats = image.is_floating_point()
        if not floats and image.dtype != torch.uint8:
            return None
        image = image.detach().cpu().to(torch.float32 if floats else torch.uint8)
        array = (image if image.ndim < 3 else image.movedim(0, -1)).numpy()
    elif isinstance(image, np.ndarray) and image.dtype == np.uint8:
        array = image
    else:
        return None
    if array.ndim == 2:
        array = array[..., None]
    return array if array.ndim == 3 and array.size else None


def class_names(source: Any, count: int) -> tuple[str, ...]:
    """Returns the names that a data set gives its classes; numbers if it gives none."""
    names = getattr(source, "classes", None)
    if isinstance(names, Sequence) and len(names) >= count and not isinstance(names, str):
        return tuple(map(str, names))
    return tuple(map(str, range(count)))


def described(image: Any) -> str:
    kind = type(image).__name__
    return f"{kind} of {image.dtype}" if hasattr(image, "dtype") else kind


def shown(images: NDArray[Any]) -> str:
    height, width, channels = images.shape[-3:]
    return f"{channels}x{height}x{width} {images.dtype}"
