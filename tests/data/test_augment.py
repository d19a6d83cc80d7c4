"""Random crop and mirror against their definition, one image at a time."""

import numpy as np
import pytest
from support.image_samples import noise

from cpsam.data.augment import Augmentation


def by_definition(
    image: np.ndarray, padding: int, top: int, left: int, mirrored: bool
) -> np.ndarray:
    height, width = image.shape[:2]
    out = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            row, column = y + top - padding, (width - 1 - x if mirrored else x) + left - padding
            if 0 <= row < height and 0 <= column < width:
                out[y, x] = image[row, column]
    return out


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("padding", [0, 1, 3])
def test_each_result_is_a_window_of_the_padded_image_perhaps_mirrored(
    channels: int, padding: int
) -> None:
    images = noise(40, 7, 5, channels)
    original = images.copy()
    table = Augmentation.draw(40, padding=padding, flip=True, seed=3, epoch=1)
    samples = np.array([17, 2, 39, 2, 0, 25])
    out = table.apply(images[samples], samples)
    expected = [
        by_definition(images[i], padding, table.top[i], table.left[i], bool(table.mirrored[i]))
        for i in samples
    ]
    assert out.dtype == np.uint8 and np.array_equal(out, np.stack(expected))
    assert len({bool(table.mirrored[i]) for i in samples}) == 2
    assert np.array_equal(images, original)


def test_the_images_given_are_not_changed_even_without_padding() -> None:
    images = noise(4, 3, 5, 1)
    original, samples = images.copy(), np.arange(4)
    Augmentation(0, np.zeros(4, np.int64), np.zeros(4, np.int64), np.ones(4, np.bool_)).apply(
        images, samples
    )
    assert np.array_equal(images, original)


def test_offsets_are_uniform_and_half_of_the_images_are_mirrored() -> None:
    count, padding = 45_000, 2
    table = Augmentation.draw(count, padding=padding, flip=True, seed=0, epoch=0)
    cells = np.bincount(table.top * 5 + table.left + 25 * table.mirrored, minlength=50)
    assert len(cells) == 50  # every offset from 0 to 2 * padding, on both axes, and no other
    # Five standard deviations of a binomial count: independent offsets and mirrors fill all cells
    # alike.
    assert abs(cells - count / 50).max() < 5 * np.sqrt(count / 50)


def test_no_flip_means_none() -> None:
    assert not Augmentation.draw(99, padding=2, flip=False, seed=0, epoch=0).mirrored.any()


def test_a_sample_is_treated_alike_whatever_the_size_of_the_data_set() -> None:
    few, many = (
        Augmentation.draw(count, padding=4, flip=True, seed=5, epoch=7) for count in (10, 1000)
    )
    for field in ("top", "left", "mirrored"):
        assert np.array_equal(getattr(few, field), getattr(many, field)[:10])


def test_epochs_and_seeds_differ() -> None:
    tables = [
        Augmentation.draw(200, padding=4, flip=True, seed=seed, epoch=epoch).top.tobytes()
        for seed, epoch in ((0, 1), (1, 0), (0, 0))
    ]
    assert len(set(tables)) == 3
