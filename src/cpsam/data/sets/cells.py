"""Puts handwritten digits into the cells of a grid, for data sets whose labels need context."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from cpsam.data.dataset import Dataset
from cpsam.data.fingerprint import fingerprint
from cpsam.data.moments import Moments
from cpsam.data.sets.digits import read_digits
from cpsam.data.split import Indices, Pixels, Split

Numbers = NDArray[np.int64]

HEIGHT, WIDTH = 8, 16  # of a cell
DIGIT = 8  # height and width
GREY, CONTRAST = 128, 127  # bright is 255, dark is 1


def draw(seed: int, rounds: int, count: int) -> Numbers:
    """Draws whole numbers below 2^32, (rounds, count).

    They are raw bits, because the other random numbers of numpy may change with its version.
    """
    raw = np.random.PCG64(seed).random_raw(rounds * count) >> 32
    return raw.reshape(rounds, count).astype(np.int64)


def shuffled(numbers: Numbers) -> Numbers:
    """Returns a permutation for each row of drawn numbers."""
    return numbers.argsort(1, kind="stable")


class DigitStrokes:
    """Holds the strokes of the digits of one split, by class.

    Args:
        held: Whether to take the digits of the test split.
    """

    def __init__(self, held: bool) -> None:
        images, labels, test = read_digits()
        self.strokes = (images[test == held].astype(np.int64) * CONTRAST + 8) // 16
        self.members = [np.flatnonzero(labels[test == held] == digit) for digit in range(10)]

    def choose(self, classes: Numbers, numbers: Numbers) -> Numbers:
        """Returns a digit per class, (..., 8, 8), which a drawn number chooses."""
        chosen = np.empty(numbers.shape, np.int64)
        for digit, members in enumerate(self.members):
            here = classes == digit
            chosen[here] = members[numbers[here] % len(members)]
        return self.strokes[chosen]


def as_images(levels: Numbers, columns: int) -> Pixels:
    """Lays cells out as images.

    Args:
        levels: Differences from grey, (N, cells, 8, 16).
        columns: Cells per row.

    Returns:
        (N, H, W, 1).
    """
    grid = levels.reshape(len(levels), -1, columns, HEIGHT, WIDTH).transpose(0, 1, 3, 2, 4)
    return (grid.reshape(len(levels), -1, columns * WIDTH, 1) + GREY).astype(np.uint8)


def cell_dataset(
    name: str,
    make: Callable[[DigitStrokes, int, int], tuple[Pixels, Indices]],
    rounds: tuple[int, int],
    classes: tuple[str, ...],
    note: str,
) -> Dataset:
    """Returns a data set whose splits are made of disjoint digits.

    Args:
        name: Of the data set.
        make: Makes images and labels from digits, a number of rounds and a seed.
        rounds: Of the train and of the test split.
        classes: Names of the classes.
        note: A line that a reader of results must know.
    """
    parts = [make(DigitStrokes(held), rounds[held], int(held)) for held in (False, True)]
    moments = Moments(1)
    moments.add(parts[0][0])
    train, test = (
        Split(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(labels))
        for pixels, labels in parts
    )
    return Dataset(
        name,
        train,
        test,
        classes,
        moments.mean,
        moments.std,
        padding=0,
        flip=False,
        fingerprint=fingerprint(classes, parts),
        note=note,
    )
