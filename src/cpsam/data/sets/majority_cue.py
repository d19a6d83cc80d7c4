"""Makes grids whose label needs the mean of many cells: most cues say which digit is asked.

One digit has bright strokes on grey, the other dark strokes. Ten cells hold a cue, a bright or a
dark square. If most are bright, the bright digit is asked for, else the dark one. The label is the
class of that digit.

Each grid appears four times: with both polarities of the digits and of the cues. So the digits
without the cues leave two classes equally likely, and the cues without the digits leave ten.
"""

from itertools import permutations, product
from pathlib import Path

import numpy as np

from cpsam.data.dataset import Dataset
from cpsam.data.load_options import LoadOptions
from cpsam.data.sets.cells import (
    CONTRAST,
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

ROWS, COLUMNS = 3, 4
CELLS = ROWS * COLUMNS
CUES = CELLS - 2
MOST = 6  # cues that agree with the rule
PAIRS = np.array(list(permutations(range(10), 2)))  # classes of the first and the second digit
ROUNDS = 28, 5  # how often each pair of classes is drawn, to train and to measure
MIDDLE = slice((WIDTH - DIGIT) // 2, (WIDTH + DIGIT) // 2)
SQUARE = slice(2, 6), slice(6, 10)

NOTE = (
    f"Made to need the mean of many cells: {MOST} of {CUES} cues are of one kind. Without them, a"
    " reader is right in 50 % of the images, and with one cue in"
    f" {100 * MOST // CUES} %"
)


def load_majority_cue(root: Path | None, options: LoadOptions) -> Dataset:
    """Loads 10,080 grids to train on and 1,800 to measure on, made of disjoint digits."""
    options.refuse_all("majority-cue")
    return cell_dataset("majority-cue", make_grids, ROUNDS, tuple(map(str, range(10))), NOTE)


def make_grids(digits: DigitStrokes, rounds: int, seed: int) -> tuple[Pixels, Indices]:
    """Makes four grids of each drawn pair of digits.

    Returns:
        Grids (360 * rounds, H, W, 1), and their labels.
    """
    pairs = np.tile(PAIRS, (rounds, 1))
    draws = draw(seed, len(pairs), CELLS + 2)
    places = shuffled(draws[:, :CELLS])  # of the two digits, then of the cues
    chosen = digits.choose(pairs, draws[:, CELLS:])  # (pairs, 2, 8, 8)
    levels = np.zeros((len(pairs), 4, CELLS, HEIGHT, WIDTH), np.int64)
    labels = np.empty((len(pairs), 4), np.int64)
    rows = np.arange(len(pairs))
    for form, (first, cue) in enumerate(product((1, -1), repeat=2)):
        for digit, sign in enumerate((first, -first)):
            levels[rows, form, places[:, digit], :, MIDDLE] = sign * chosen[:, digit]
        for index in range(CUES):
            sign = cue if index < MOST else -cue
            levels[rows, form, places[:, 2 + index], *SQUARE] = sign * CONTRAST
        labels[:, form] = pairs[:, 0 if first == cue else 1]
    return as_images(levels.reshape(-1, CELLS, HEIGHT, WIDTH), COLUMNS), labels.reshape(-1)
