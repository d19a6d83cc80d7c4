"""Mean and standard deviation of every channel, from sums of whole numbers: the same to the last
bit however the images are cut up.
"""

from math import sqrt

import numpy as np

from cpsam.data.split import Pixels


class Moments:
    """Running sums over images.

    Example:
        >>> moments = Moments(1)
        >>> moments.add(np.array([0, 255, 255, 0], np.uint8).reshape(2, 1, 2, 1))
        >>> moments.mean, moments.std
        ((0.5,), (0.5,))
    """

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.sums = [0] * channels
        self.squares = [0] * channels

    def add(self, pixels: Pixels) -> None:
        """Take in images, (N, H, W, C)."""
        self.count += pixels[..., 0].size
        for channel in range(len(self.sums)):
            values = pixels[..., channel]
            self.sums[channel] += int(values.sum(dtype=np.int64))
            # The square of a byte fits 16 bits.
            self.squares[channel] += int(np.square(values, dtype=np.uint16).sum(dtype=np.int64))

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of ``pixels / 255``, one number a channel."""
        return tuple(total / (255 * self.count) for total in self.sums)

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of ``pixels / 255``; at least one grey level, for a channel that never
        varies cannot be divided by zero.
        """
        spread = (
            square * self.count - total * total
            for total, square in zip(self.sums, self.squares, strict=True)
        )
        return tuple(max(sqrt(variance) / self.count, 1.0) / 255 for variance in spread)
