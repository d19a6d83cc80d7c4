"""Loads handwritten digits from the package, so that there is real data without a network.

The test part of "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, UCI Machine
Learning Repository, 1998, https://doi.org/10.24432/C50P49, licence CC BY 4.0, as scikit-learn ships
it: 1,797 images of 8x8 by 13 writers, values 0 to 16. Changed here: doubled to 16x16, values 0 to
255.
"""

from importlib.resources import files
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cpsam.data.dataset import Dataset
from cpsam.data.fingerprint import fingerprint
from cpsam.data.load_options import LoadOptions
from cpsam.data.moments import Moments
from cpsam.data.split import Indices, Pixels, Split

FILE = "digits.npz"
TEST_EVERY = 5
NOTE = "Real handwriting, but easy and near its ceiling: 1,797 images, upsampled from 8x8 to 16x16"


def load_digits(root: Path | None, options: LoadOptions) -> Dataset:
    """Loads 1,797 handwritten digits of 16x16, which travel with the package.

    Every fifth image of each class is in the test split: 1,438 to train on, 359 to measure on.
    """
    options.refuse_all("digits")
    images, labels, held = read_digits()
    doubled = upsample(images)[..., None]  # (N, 16, 16, 1)
    parts = [(doubled[~held], labels[~held]), (doubled[held], labels[held])]
    moments = Moments(1)
    moments.add(parts[0][0])
    train, test = (
        Split(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(values))
        for pixels, values in parts
    )
    classes = tuple(map(str, range(10)))
    name = fingerprint(classes, parts)
    return Dataset(
        "digits",
        train,
        test,
        classes,
        moments.mean,
        moments.std,
        padding=2,
        flip=False,
        fingerprint=name,
        note=NOTE,
    )


def read_digits() -> tuple[Pixels, Indices, NDArray[np.bool_]]:
    """Reads the digits from the package.

    Returns:
        Images (N, 8, 8) with values 0 to 16, labels (N,), and whether each is in the test split.
    """
    with np.load(
        BytesIO(files("cpsam.data.sets").joinpath(FILE).read_bytes()), allow_pickle=False
    ) as archive:
        images, labels = archive["images"], archive["labels"].astype(np.int64)
    held = np.zeros(len(labels), np.bool_)
    for digit in range(10):
        # By position, because random numbers of numpy may change with its version.
        held[np.flatnonzero(labels == digit)[TEST_EVERY // 2 :: TEST_EVERY]] = True
    return images, labels, held


def upsample(images: Pixels) -> Pixels:
    """Doubles height and width by bilinear interpolation, and stretches 0..16 to 0..255.

    Pixels are aligned at their centres, without antialiasing. The arithmetic uses whole numbers, in
    sixteenths of a grey level, so that every machine gets the same bytes.

    Args:
        images: (N, H, W), values 0 to 16.

    Returns:
        (N, 2H, 2W), rounded to nearest.
    """
    values = images.astype(np.int64)
    for axis in (1, 2):
        # Each new sample is a quarter of the way to the neighbour on its side.
        before = np.concatenate(
            [values.take([0], axis), values.take(range(values.shape[axis] - 1), axis)], axis
        )
        after = np.concatenate(
            [values.take(range(1, values.shape[axis]), axis), values.take([-1], axis)], axis
        )
        pair = np.stack([3 * values + before, 3 * values + after], axis + 1)
        values = pair.reshape(*values.shape[:axis], -1, *values.shape[axis + 1 :])
    return ((values * 255 + 128) // 256).astype(np.uint8)  # values hold 16 * 16 for white
