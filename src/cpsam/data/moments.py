"""Computes mean and standard deviation per channel.

The sums are whole numbers, so the result has the same bits however the images are divided.
"""

from math import sqrt

import numpy as np

from cpsam.data.split import Pixels


class Moments:
    """Sums up images.

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
        """Adds images, (N, H, W, C)."""
        self.count += pixels[..., 0].size
        for channel in range(len(self.sums)):
            values = pixels[..., channel]
            self.sums[channel] += int(values.sum(dtype=np.int64))
            # The square of a byte fits 16 bits.
            self.squares[channel] += int(np.square(values, dtype=np.uint16).sum(dtype=np.int64))

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of ``pixels / 255``, one number per channel."""
        return tuple(total / (255 * self.count) for total in self.sums)

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of ``pixels / 255``.

        It is at least one grey level, so that a constant channel is not divided by zero.
        """
        spread = (
            square * self.count - total * total
            for total, square in zip(self.sums, self.squares, strict=True)
        )
        return tuple(max(sqrt(variance) / self.count, 1.0) / 255 for variance in spread)
