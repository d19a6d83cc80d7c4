"""Splits, digests and moments."""

import numpy as np
import pytest
import torch
from support.image_samples import noise

from cpsam.data import DATASETS, Split, load_dataset
from cpsam.data.fingerprint import BLOCK_BYTES, fingerprint, hash_array
from cpsam.data.moments import Moments
from cpsam.errors import DataError, UserError


def split_of(count: int) -> Split:
    return Split(torch.from_numpy(noise(count, 3, 7, 5)), torch.arange(count))


def test_pixels_are_the_images_with_channels_last() -> None:
    split = split_of(6)
    chosen = np.array([5, 0, 5])
    assert np.array_equal(split.pixels(chosen), split.images[chosen].permute(0, 2, 3, 1).numpy())


def test_a_subset_of_a_subset_shares_the_pixels_and_keeps_images_and_labels_together() -> None:
    whole = split_of(9)
    part = whole.subset(np.array([8, 1, 4, 6])).subset(np.array([2, 0]))
    assert len(part) == 2 and part.labels.tolist() == [4, 8]
    assert torch.equal(part.images, whole.images[[4, 8]])
    assert np.array_equal(part.pixels(np.array([1])), whole.pixels(np.array([8])))
    assert part._images is whole._images
    assert part.image_shape == (3, 7, 5)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 4, 4).double(), torch.zeros(2).long(), "images must be uint8"),
        (
            torch.zeros(2, 4, 4, dtype=torch.uint8),
            torch.zeros(2, dtype=torch.int64),
            r"shape \(2, 4, 4\)",
        ),
        (
            torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
            torch.zeros(3, dtype=torch.int64),
            r"labels must be int64 of shape \(2,\)",
        ),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2), "not torch.float32"),
    ],
)
def test_a_split_refuses_what_does_not_fit(
    images: torch.Tensor, labels: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Split(images, labels)


def test_fingerprint_changes_with_a_pixel_a_label_the_order_a_name_and_the_side_of_the_split() -> (
    None
):
    images, labels = noise(6, 3, 2, 1), np.array([0, 1, 1, 0, 1, 0])
    one_pixel, one_label = images.copy(), labels.copy()
    one_pixel[5, 2, 1, 0] ^= 1
    one_label[3] = 1
    order = np.array([0, 1, 2, 3, 5, 4])
    train, test = (images[:4], labels[:4]), (images[4:], labels[4:])
    names = ["a", "b"]
    prints = {
        fingerprint(names, [train, test]),
        fingerprint(names, [train, (one_pixel[4:], labels[4:])]),
        fingerprint(names, [(images[:4], one_label[:4]), test]),
        fingerprint(names, [train, (images[order][4:], labels[order][4:])]),
        fingerprint(["a", "c"], [train, test]),
        fingerprint(names, [test, train]),
        fingerprint(names, [(images, labels), (images[:0], labels[:0])]),
    }
    assert len(prints) == 7
    assert fingerprint(names, [(images[:4].copy(), labels[:4].astype(np.int32)), test]) in prints


def test_every_byte_of_an_array_longer_than_a_block_counts() -> None:
    array = np.zeros(BLOCK_BYTES + 3, np.uint8)
    hashes = {hash_array(array)}
    for position in (0, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 2):
        array[position] = 1
        hashes.add(hash_array(array))
    assert len(hashes) == 5


def test_moments_are_those_of_the_pixels_however_they_are_cut_up() -> None:
    images = noise(11, 5, 3, 3)
    images[..., 2] = 9
    whole, parts = Moments(3), Moments(3)
    whole.add(images)
    for part in (images[:4], images[4:5], images[5:]):
        parts.add(part)
    assert (whole.mean, whole.std) == (parts.mean, parts.std)
    assert whole.mean == pytest.approx((images / 255).mean((0, 1, 2)))
    assert whole.std[:2] == pytest.approx((images / 255).std((0, 1, 2))[:2])
    assert whole.std[2] == 1 / 255  # never varies


def test_names_are_checked() -> None:
    with pytest.raises(UserError, match=r"unknown data set 'cifar1OO': did you mean 'cifar10"):
        load_dataset("cifar1OO")
    for name in set(DATASETS) - {"folder", "imagenet"}:
        with pytest.raises(UserError, match=f"{name} has a size of its own; given 64"):
            load_dataset(name, image_size=64)
    with pytest.raises(
        DataError, match="no folder of images given; name it with `root` or CPSAM_DATA"
    ):
        load_dataset("folder")
