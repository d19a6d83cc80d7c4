"""Derives every random draw from the seed and its purpose, so a resumed run needs no state."""

import zlib

import numpy as np


def derive_seed(seed: int, *purpose: int | str) -> int:
    """Returns a 63-bit seed for one purpose, statistically independent of all other purposes.

    :class:`numpy.random.SeedSequence` mixes the words and numbers. They are not added, so (seed 1,
    epoch 2) and (seed 2, epoch 1) differ.

    Args:
        seed: The seed of the run, at least 0.
        purpose: What the draw is for, for example ``"order", epoch``.

    Raises:
        ValueError: If a number is negative.

    Example:
        >>> derive_seed(1, "order", 2) == derive_seed(1, "order", 2)
        True
        >>> derive_seed(1, "order", 2) == derive_seed(2, "order", 1)
        False
    """
    # The mark before each part gives its type and length. It is never zero, because numpy pads
    # short keys with zeros.
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
    """Returns a numpy generator for one purpose; see :func:`derive_seed`."""
    return np.random.Generator(np.random.Philox(derive_seed(seed, *purpose)))
