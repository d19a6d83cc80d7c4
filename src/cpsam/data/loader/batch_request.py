"""Describes the batch that a loading process is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from cpsam.config.transform import Transform
from cpsam.data.decode import open_image
from cpsam.data.image_transforms import eval_pixels, seed_sample, train_pixels
from cpsam.data.loader.image_source import Location, read
from cpsam.data.split import Pixels


@dataclass(frozen=True)
class BatchRequest:
    """Describes one batch, as plain data that can be sent.

    Args:
        locations: Where its images are.
        samples: Their numbers in the split, which seed the draws.
        transform: How they are augmented and cropped.
        size: Height and width of what comes out.
        draw: Seed and epoch of the augmentation; None for evaluation.
    """

    locations: Sequence[Location]
    samples: Sequence[int]
    transform: Transform
    size: int
    draw: tuple[int, int] | None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.locations), self.size, self.size, 3

    def make(self, out: Pixels) -> None:
        """Writes the batch into `out`, (B, size, size, 3).

        Raises:
            DataError: If an image is bad.
        """
        for index, (location, sample) in enumerate(zip(self.locations, self.samples, strict=True)):
            data, where = read(location)
            with open_image(data, where) as image:
                if self.draw is None:
                    out[index] = eval_pixels(image, self.transform, self.size, where)
                else:
                    seed_sample(*self.draw, sample)
                    out[index] = train_pixels(image, self.transform, self.size, where)
