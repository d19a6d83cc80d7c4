"""Holds out a stratified part of the train split, so that no choice is made on the test set."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cpsam.data.dataset import Dataset
from cpsam.data.split import Indices
from cpsam.errors import UserError
from cpsam.files import hash_json
from cpsam.seeds import generator


def quotas(class_counts: Sequence[int], count: int) -> list[int]:
    """Returns how many images of each class make a sample of `count`.

    The numbers are in proportion, by largest remainder. The last image of a class is never taken.

    Args:
        class_counts: Images in each class.
        count: Images wanted, at least 1 and fewer than there are.

    Raises:
        UserError: If `count` is out of range, or so large that a class would be left without an
            image.

    Example:
        >>> quotas([50, 30, 21], 10)
        [5, 3, 2]
    """
    total = sum(class_counts)
    if not 1 <= count < total:
        raise UserError(
            f"cannot hold out {count} of {total} images: at least one must be on each side"
        )
    fractions = [divmod(count * size, total) for size in class_counts]
    taken = [whole for whole, _ in fractions]
    for index in sorted(range(len(taken)), key=lambda index: -fractions[index][1]):
        if sum(taken) < count and taken[index] + 1 < class_counts[index]:
            taken[index] += 1
    if sum(taken) < count:
        raise UserError(
            f"cannot hold out {count} of {total} images in proportion: a class would be left"
            " without any"
        )
    return taken


def stratified(labels: Indices, count: int, seed: int) -> tuple[Indices, Indices]:
    """Splits samples into two parts with every class in proportion.

    Args:
        labels: (N,).
        count: Samples in the second part.
        seed: Decides which ones.

    Returns:
        The samples of the first part and of the second, each ascending.

    Raises:
        UserError: As :func:`quotas`.
    """
    present, class_counts = np.unique(labels, return_counts=True)
    second = []
    for label, quota in zip(present.tolist(), quotas(class_counts.tolist(), count), strict=True):
        second.append(
            generator(seed, "split", label).permutation(np.flatnonzero(labels == label))[:quota]
        )
    chosen = np.zeros(len(labels), np.bool_)
    chosen[np.concatenate(second)] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def hold_out(dataset: Dataset, count_or_fraction: float, seed: int) -> Dataset:
    """Returns the data set to make choices on.

    A stratified part of the train split becomes `evaluation`, and the test split is out of reach.

    The normalisation remains that of the whole train split, and no pixel is copied.

    Args:
        dataset: The data set to take from.
        count_or_fraction: Images to hold out, an int, or their fraction, a float between 0 and 1.
        seed: Decides which ones.

    Raises:
        UserError: If that many cannot be held out.

    Example:
        >>> from cpsam.data import load_dataset
        >>> part = hold_out(load_dataset("digits"), 0.1, seed=0)
        >>> len(part.train), len(part.evaluation)
        (1294, 144)
    """
    if isinstance(count_or_fraction, int):
        count = count_or_fraction
    elif 0 < count_or_fraction < 1:
        count = round(count_or_fraction * len(dataset.train))
    else:
        raise UserError(f"a fraction to hold out must be between 0 and 1, not {count_or_fraction}")
    kept, held = stratified(dataset.train.labels.numpy(), count, seed)
    name = hash_json(["cpsam hold-out 1", dataset.fingerprint, held.tolist()])
    return replace(
        dataset,
        train=dataset.train.subset(kept),
        evaluation=dataset.train.subset(held),
        evaluation_name="validation split",
        fingerprint=name,
    )
