"""Held-out parts: in proportion, disjoint, complete, reproducible."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from cpsam.data import Dataset, hold_out
from cpsam.data.holdout import quotas, stratified
from cpsam.errors import UserError

Make = Callable[..., Dataset]
LABELS = np.repeat([0, 1, 2, 3], [50, 21, 7, 3])


@given(st.lists(st.integers(2, 60), min_size=1, max_size=12), st.floats(0, 1))
@example([2, 2, 20], 17 / 20)  # 18: two classes can give no more, and the third makes up for it
@example([2, 2, 21], 18 / 21)  # 19: it would have to make up for more than one
def test_quotas_add_up_and_are_proportional_to_within_one(sizes: list[int], share: float) -> None:
    total = sum(sizes)
    count = 1 + round(share * (total - len(sizes) - 1))
    # an image is left, and it is within one
    most = [min(size - 1, count * size // total + 1) for size in sizes]
    if sum(most) < count:
        with pytest.raises(
            UserError,
            match=(
                f"cannot hold out {count} of {total} images in proportion: a class would be left"
                " without any"
            ),
        ):
            quotas(sizes, count)
        return
    taken = quotas(sizes, count)
    assert sum(taken) == count
    for size, quota in zip(sizes, taken, strict=True):
        assert 0 <= quota < size and abs(quota * total - count * size) <= total


@pytest.mark.parametrize("count", [1, 10, 16, 40, 70])
def test_stratified_parts_are_disjoint_complete_and_ascending(count: int) -> None:
    order = np.random.default_rng(0).permutation(len(LABELS))
    labels = LABELS[order]
    first, second = stratified(labels, count, seed=2)
    assert len(second) == count
    assert sorted([*first, *second]) == list(range(len(labels)))
    assert all(a < b for part in (first, second) for a, b in pairwise(part))
    for label in range(4):
        assert abs((labels[second] == label).sum() - count * (labels == label).mean()) < 1


def test_the_last_image_of_a_class_is_never_taken() -> None:
    labels = np.array([0] * 9 + [1])
    for seed in range(5):
        first, _ = stratified(labels, 3, seed)
        assert 9 in first
    with pytest.raises(
        UserError,
        match="cannot hold out 9 of 10 images in proportion: a class would be left without any",
    ):
        stratified(labels, 9, 0)


def test_hold_out_divides_train_and_never_shows_the_test_split(make_dataset: Make) -> None:
    dataset = make_dataset()
    part = hold_out(dataset, 9, seed=0)
    assert (len(part.train), len(part.evaluation)) == (28, 9)
    pixels = [
        image.numpy().tobytes() for split in (part.train, part.evaluation) for image in split.images
    ]
    assert sorted(pixels) == sorted(image.numpy().tobytes() for image in dataset.train.images)
    for split in (part.train, part.evaluation):
        for image, label in zip(split.images, split.labels, strict=True):
            original = next(i for i in range(37) if torch.equal(dataset.train.images[i], image))
            assert dataset.train.labels[original] == label
    assert (part.name, part.classes, part.mean, part.std, part.padding) == (
        "noise",
        dataset.classes,
        dataset.mean,
        dataset.std,
        dataset.padding,
    )


def test_seed_and_size_decide_the_part_and_its_fingerprint(make_dataset: Make) -> None:
    dataset = make_dataset()
    assert hold_out(dataset, 9, 0).fingerprint == hold_out(dataset, 9, 0).fingerprint
    assert torch.equal(
        hold_out(dataset, 9, 0).evaluation.images, hold_out(dataset, 9, 0).evaluation.images
    )
    assert (
        len(
            {
                dataset.fingerprint,
                *(
                    hold_out(dataset, count, seed).fingerprint
                    for count in (8, 9)
                    for seed in (0, 1)
                ),
            }
        )
        == 5
    )


def test_a_fraction_is_rounded_to_images(make_dataset: Make) -> None:
    assert len(hold_out(make_dataset(), 0.25, 0).evaluation) == 9
    assert (
        hold_out(make_dataset(), 0.25, 0).fingerprint == hold_out(make_dataset(), 9, 0).fingerprint
    )


@pytest.mark.parametrize("amount", [0, 37, -3, 0.0, 1.0, 1.5, 0.001, float("nan")])
def test_impossible_amounts_are_refused(make_dataset: Make, amount: float) -> None:
    with pytest.raises(UserError, match="hold out"):
        hold_out(make_dataset(), amount, 0)
