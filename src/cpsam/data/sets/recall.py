"""Makes grids whose label is found in another cell: the value of the key that is asked for.

Each of three cells holds a pair of digits in bright strokes, a key (0, 1 or 2) and a value (7, 8 or
9). The fourth cell holds a key alone, in dark strokes. The label is the value of that key.

Keys and values are all different, and each grid appears nine times: the keys move on by 0, 1 and 2
pairs, and each pair is asked for. So the pairs without the query leave three values equally
likely, and so does the query without the pairs.
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

PAIRS = 3
KEYS, VALUES = np.arange(PAIRS), np.arange(10 - PAIRS, 10)
CELLS, COLUMNS = PAIRS + 1, 2
ROUNDS = 2000, 220  # draws of PAIRS^2 grids, to train and to measure

NOTE = (
    f"Made to need one cell of {PAIRS}: a reader that does not see the query together with the"
    f" pairs is right in 1/{PAIRS} of the images"
)


def load_recall(root: Path | None, options: LoadOptions) -> Dataset:
    """Loads 18,000 grids to train on and 1,980 to measure on, made of disjoint digits."""
    options.refuse_all("recall")
    return cell_dataset("recall", make_grids, ROUNDS, tuple(map(str, VALUES)), NOTE)


def make_grids(digits: DigitStrokes, rounds: int, seed: int) -> tuple[Pixels, Indices]:
    """Makes nine grids of each draw.

    Returns:
        Grids (9 * rounds, H, W, 1), and their labels.
    """
    draws = np.split(draw(seed, rounds, CELLS + 4 * PAIRS), CELLS + np.arange(4) * PAIRS, axis=1)
    places = shuffled(draws[0])  # of the pairs, then of the query
    answers = shuffled(draws[1])  # the value of each pair, as a label
    keys = digits.choose(np.tile(KEYS, (rounds, 1)), draws[2])  # (rounds, PAIRS, 8, 8)
    queries = digits.choose(np.tile(KEYS, (rounds, 1)), draws[3])
    values = digits.choose(VALUES[answers], draws[4])
    levels = np.zeros((rounds, PAIRS, PAIRS, CELLS, HEIGHT, WIDTH), np.int64)
    rows = np.arange(rounds)
    for shift in range(PAIRS):
        for pair in range(PAIRS):
            key = (pair + shift) % PAIRS
            cell = places[:, pair]
            levels[rows, shift, :, cell, :, :DIGIT] = keys[:, key, np.newaxis]
            levels[rows, shift, :, cell, :, DIGIT:] = values[:, pair, np.newaxis]
            levels[rows, shift, pair, places[:, PAIRS], :, :DIGIT] = -queries[:, key]
    labels = np.broadcast_to(answers[:, np.newaxis], (rounds, PAIRS, PAIRS)).reshape(-1)
    return as_images(levels.reshape(-1, CELLS, HEIGHT, WIDTH), COLUMNS), labels.copy()
