"""Random crop and mirror, for a whole batch of uint8 images at once.

One table of random numbers an epoch, with a row for every sample: what happens to a sample depends
on (seed, epoch, sample) alone, not on the batch or the process that it lands in. The operations are
numpy's on one thread: a batch of 128 CIFAR images takes a fraction of a millisecond, less than it
takes to wake the threads of a tensor library when other processes want the processor as well.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from cpsam.data.split import Indices, Pixels
from cpsam.seeds import generator


@dataclass(frozen=True)
class Augmentation:
    """What is done to every sample in one epoch.

    Args:
        padding: Pixels of zeros on each side.
        top: (N,), row of the padded image at which the crop starts, 0 to ``2 * padding``.
        left: (N,), its column.
        mirrored: (N,), whether left and right change places.
    """

    padding: int
    top: Indices
    left: Indices
    mirrored: NDArray[np.bool_]

    @classmethod
    def draw(cls, count: int, *, padding: int, flip: bool, seed: int, epoch: int) -> "Augmentation":
        """The table of an epoch. Row i is the same for every `count`.

        Example:
            >>> Augmentation.draw(3, padding=4, flip=True, seed=0, epoch=2).top.shape
            (3,)
        """
        draws = generator(seed, "augment", epoch).random((count, 3))
        top, left = (
            np.floor(draws[:, axis] * (2 * padding + 1)).astype(np.int64) for axis in (0, 1)
        )
        return cls(padding, top, left, (draws[:, 2] < 0.5) & flip)

    def apply(self, images: Pixels, samples: Indices) -> Pixels:
        """Crop and mirror.

        Args:
            images: (B, H, W, C), the images of `samples`.
            samples: (B,), their rows in the table.

        Returns:
            (B, H, W, C), newly allocated.
        """
        batch, height, width, channels = images.shape
        pad = self.padding
        padded = np.zeros((batch, height + 2 * pad, width + 2 * pad, channels), images.dtype)
        padded[:, pad : pad + height, pad : pad + width] = images
        # Columns and channels as one axis, so that a row of a crop is copied as one run of bytes.
        windows = sliding_window_view(
            padded.reshape(batch, height + 2 * pad, -1), (height, width * channels), axis=(1, 2)
        )
        crops = windows[np.arange(batch), self.top[samples], self.left[samples] * channels].reshape(
            images.shape
        )
        mirrored = np.flatnonzero(self.mirrored[samples])
        flipped = crops[mirrored]
        # one channel at a time is four times as fast as runs of three bytes
        for channel in range(channels):
            crops[mirrored, :, :, channel] = flipped[:, :, ::-1, channel]
        return crops
