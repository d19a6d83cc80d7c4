"""Randomness without state: every draw is a function of the seed and of what it is for, so that
nothing has to be saved to resume.
"""

import zlib

import numpy as np


def derive_seed(seed: int, *purpose: int | str) -> int:
    """A 63-bit seed for one purpose, statistically independent of every other purpose of the same
    `seed`.

    Words and numbers are mixed by :class:`numpy.random.SeedSequence`, never added, so that (seed 1,
    epoch 2) and (seed 2, epoch 1) differ.

    Args:
        seed: The run's seed, at least 0.
        purpose: What the draw is for, such as ``"order", epoch``.

    Raises:
        ValueError: If a number is negative.

    Example:
        >>> derive_seed(1, "order", 2) == derive_seed(1, "order", 2)
        True
        >>> derive_seed(1, "order", 2) == derive_seed(2, "order", 1)
        False
    """
    # The mark in front of each part says what it is and how long, and is never zero, because numpy
    # pads short keys with zeros.
    key: list[int] = []
    for part in (seed, *purpose):
        key += (
            [1, zlib.crc32(part.encode())]
            if isinstance(part, str)
            else [2 + max(part.bit_length() - 1, 0) // 32, part]
        )
    low, high = np.random.SeedSequence(key).generate_state(2, np.uint32)
    return (int(high) >> 1) << 32 | int(low)


def generator(seed: int, *purpose: int | str) -> np.random.Generator:
    """A numpy generator for one purpose; see :func:`derive_seed`."""
    return np.random.Generator(np.random.Philox(derive_seed(seed, *purpose)))
