"""The digits that travel with the package."""

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits as sklearn_digits

from cpsam.data import load_dataset


def originals() -> tuple[np.ndarray, np.ndarray]:
    source = sklearn_digits()
    held = np.zeros(len(source.target), bool)
    for digit in range(10):
        held[np.flatnonzero(source.target == digit)[2::5]] = True
    order = np.concatenate([np.flatnonzero(~held), np.flatnonzero(held)])
    return source.images[order], source.target[order]


def test_they_are_scikit_learns_doubled_by_bilinear_interpolation() -> None:
    digits = load_dataset("digits")
    images, labels = originals()
    shipped = torch.cat([digits.train.images, digits.evaluation.images])
    assert torch.equal(
        torch.cat([digits.train.labels, digits.evaluation.labels]), torch.from_numpy(labels)
    )
    doubled = F.interpolate(
        torch.from_numpy(images)[:, None],
        scale_factor=2,
        mode="bilinear",
        align_corners=False,
        antialias=False,
    )
    assert shipped.shape == (1797, 1, 16, 16)
    assert (shipped - doubled * 255 / 16).abs().max() <= 0.5


def test_the_split_is_stratified_and_the_same_for_everybody() -> None:
    digits = load_dataset("digits")
    assert (len(digits.train), len(digits.evaluation)) == (1438, 359)
    counts = torch.bincount(torch.cat([digits.train.labels, digits.evaluation.labels]))
    assert ((torch.bincount(digits.evaluation.labels) - counts / 5).abs() < 1).all()
    assert (
        digits.fingerprint
        == load_dataset("digits").fingerprint
        == "f9075cce086731574e4349ff8b42dc317a4994d2bf235dbcb2624dee4a72ca16"
    )


def test_what_a_reader_must_know_is_said() -> None:
    digits = load_dataset("digits")
    assert "near its ceiling" in digits.note and "1,797" in digits.note and "8x8" in digits.note
    assert not digits.flip and digits.padding == 2
    assert (digits.in_channels, digits.image_size, digits.num_classes) == (1, (16, 16), 10)
    assert 0.2 < digits.mean[0] < 0.4 and 0.2 < digits.std[0] < 0.4
