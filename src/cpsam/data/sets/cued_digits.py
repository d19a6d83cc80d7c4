"""Makes strips whose label needs context: a cue at one end says which of two digits is asked.

One digit has bright strokes on grey, the other dark strokes. A bright cue asks for the bright
digit, a dark cue for the dark one. The label is the class of that digit.

Each pair of digits appears four times: with both polarities and with both cues. So the digits
without the cue leave two classes equally likely, and the cue without the digits leaves ten.
"""

from itertools import permutations
from pathlib import Path

import numpy as np
import torch

from cpsam.data.dataset import Dataset
from cpsam.data.fingerprint import fingerprint
from cpsam.data.load_options import LoadOptions
from cpsam.data.moments import Moments
from cpsam.data.sets.digits import read_digits
from cpsam.data.split import Indices, Pixels, Split

HEIGHT, WIDTH = 8, 60
GREY, CONTRAST = 128, 127  # bright is 255, dark is 1
DIGIT = 8  # height and width
CUE = 5  # height and width
CUE_COLUMN = 1  # of the cue's first pixel

MINIMAL_DISTANCE = 28
"""Columns from the last one of the cue to the first one of a digit, at least."""

FIRST_DIGIT = CUE_COLUMN + CUE - 1 + MINIMAL_DISTANCE
SLOTS = (FIRST_DIGIT, FIRST_DIGIT + 13)  # first columns of the two digits, before they are shifted
SHIFTS = 6  # 0 to 5 columns

PAIRS = np.array(list(permutations(range(10), 2)))  # classes of the near and of the far digit
TRAIN_ROUNDS, TEST_ROUNDS = 17, 3  # how often each pair of classes is drawn
POLARITIES = ((1, 1), (1, -1), (-1, 1), (-1, -1))  # of the cue and of the near digit

NOTE = (
    f"Made to need context: every digit is {MINIMAL_DISTANCE} pixels or more from the cue. It tests"
    " whether context is used where it is needed; natural images rarely need it"
)


def load_cued_digits(root: Path | None, options: LoadOptions) -> Dataset:
    """Loads 6,120 strips to train on and 1,080 to measure on, made of disjoint digits."""
    options.refuse_all("cued-digits")
    images, labels, held = read_digits()
    parts = [
        make_strips(images[~held], labels[~held], TRAIN_ROUNDS, seed=0),
        make_strips(images[held], labels[held], TEST_ROUNDS, seed=1),
    ]
    moments = Moments(1)
    moments.add(parts[0][0])
    train, test = (
        Split(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(values))
        for pixels, values in parts
    )
    classes = tuple(map(str, range(10)))
    return Dataset(
        "cued-digits",
        train,
        test,
        classes,
        moments.mean,
        moments.std,
        padding=0,
        flip=False,
        fingerprint=fingerprint(classes, parts),
        note=NOTE,
    )


def make_strips(images: Pixels, labels: Indices, rounds: int, seed: int) -> tuple[Pixels, Indices]:
    """Makes four strips of each drawn pair of digits.

    Args:
        images: (N, 8, 8), values 0 to 16.
        labels: (N,).
        rounds: How often each of the 90 ordered pairs of classes is drawn.
        seed: Of what is drawn: the images, and where they and the cue are.

    Returns:
        Strips (360 * rounds, H, W, 1), and their labels.
    """
    members = [np.flatnonzero(labels == digit) for digit in range(10)]
    strokes = (images.astype(np.int64) * CONTRAST + 8) // 16
    pairs = np.tile(PAIRS, (rounds, 1))
    # Raw bits, because the other random numbers of numpy may change with its version.
    draws = (np.random.PCG64(seed).random_raw(7 * len(pairs)) >> 32).reshape(-1, 7).astype(np.int64)
    strips = np.full((len(pairs), len(POLARITIES), HEIGHT, WIDTH), GREY, np.int64)
    answers = np.empty((len(pairs), len(POLARITIES)), np.int64)
    for pair, draw, group, answer in zip(pairs, draws, strips, answers, strict=True):
        row = draw[0] % (HEIGHT - CUE + 1)
        for strip, (cue, _) in zip(group, POLARITIES, strict=True):
            strip[row : row + CUE, CUE_COLUMN : CUE_COLUMN + CUE] += cue * CONTRAST
        for side, sign, slot in zip((0, 1), (1, -1), SLOTS, strict=True):
            choice, down, right = draw[1 + 3 * side : 4 + 3 * side]
            drawn = strokes[members[pair[side]][choice % len(members[pair[side]])]]
            row, column = down % (HEIGHT - DIGIT + 1), slot + right % SHIFTS
            for strip, (_, near) in zip(group, POLARITIES, strict=True):
                strip[row : row + DIGIT, column : column + DIGIT] += sign * near * drawn
        answer[:] = [pair[0] if cue == near else pair[1] for cue, near in POLARITIES]
    return strips.reshape(-1, HEIGHT, WIDTH, 1).astype(np.uint8), answers.reshape(-1)
