"""Makes grids whose label takes one answer per query: how many dark digits are also bright.

Each of six cells holds one digit. Three are bright, and their classes are the memory. Three are
dark, and each asks whether its class is in the memory. The label is the number of yes, 0 to 3.

A draw puts the classes 0 to 5 in a circle. Memory and queries are arcs of three neighbours, and the
queries begin 0, 1, 2 or 3 steps after the memory. So each of the six memories occurs once with each
label, and so does each set of queries. Bright digits alone, or dark ones, leave all labels equally
likely.
"""

from pathlib import Path

import numpy as np

from cpsam.data.dataset import Dataset
from cpsam.data.load_options import LoadOptions
from cpsam.data.sets.cells import (
    DIGIT,
    HEIGHT,
    WIDTH,
    DigitStrokes,
    as_images,
    cell_dataset,
    draw,
    shuffled,
)
from cpsam.data.split import Indices, Pixels

ARC = 3  # digits in the memory, and queries
CLASSES = 2 * ARC
LABELS = ARC + 1
CELLS = 2 * ARC
LEFT = (WIDTH - DIGIT) // 2  # of the digit in its cell
ROUNDS = 750, 83  # draws of CLASSES * LABELS grids, to train and to measure

NOTE = (
    "Made to need one answer per query: a reader that sees the bright digits or the dark ones"
    f" alone is right in {100 // LABELS} % of the images"
)


def load_recall(root: Path | None, options: LoadOptions) -> Dataset:
    """Loads 18,000 grids to train on and 1,992 to measure on, made of disjoint digits."""
    options.refuse_all("recall")
    return cell_dataset("recall", make_grids, ROUNDS, tuple(map(str, range(LABELS))), NOTE)


def make_grids(digits: DigitStrokes, rounds: int, seed: int) -> tuple[Pixels, Indices]:
    """Makes 24 grids of each draw.

    Returns:
        Grids (24 * rounds, H, W, 1), and their labels.
    """
    draws = np.split(
        draw(seed, rounds, CELLS + 3 * CLASSES), CELLS + np.arange(3) * CLASSES, axis=1
    )
    places = shuffled(draws[0])  # of the memory, then of the queries
    circle = shuffled(draws[1])  # the class at each point
    bright, dark = (digits.choose(circle, each) for each in draws[2:])  # (rounds, CLASSES, 8, 8)
    levels = np.zeros((rounds, CLASSES, LABELS, CELLS, HEIGHT, WIDTH), np.int64)
    rows = np.arange(rounds)
    for start in range(CLASSES):
        for label in range(LABELS):
            for step in range(ARC):
                point = (start + step) % CLASSES
                asked = (point + ARC - label) % CLASSES
                for sign, shown, at, first in (1, bright, point, 0), (-1, dark, asked, ARC):
                    place = places[:, first + at % ARC]
                    levels[rows, start, label, place, :, LEFT : LEFT + DIGIT] = sign * shown[:, at]
    labels = np.tile(np.arange(LABELS), rounds * CLASSES)
    return as_images(levels.reshape(-1, CELLS, HEIGHT, WIDTH), CELLS), labels
