"""The strips on which a cue at one end says which of two digits is asked."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cpsam.data import load_dataset
from cpsam.data.sets.cued_digits import MINIMAL_DISTANCE
from cpsam.data.sets.digits import read_digits
from cpsam.data.split import Split
from cpsam.models import cifar_resnet

STRIPS = load_dataset("cued-digits")
GREY = 128
MIDDLE = 18  # the cue lies left of this column, the digits right of it
SPLITS = pytest.mark.parametrize("split", [STRIPS.train, STRIPS.evaluation], ids=["train", "test"])


def read(images: Tensor) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Returns the signs of the cues, and per strip its bright and its dark digit, cut out."""
    levels = images[:, 0].long().numpy() - GREY
    found = []
    for strip in levels:
        digits = strip.copy()
        digits[:, :MIDDLE] = 0
        found.append(tuple(cut(np.maximum(sign * digits, 0)) for sign in (1, -1)))
    return np.sign(levels[:, :, :MIDDLE].sum((1, 2))), found


def cut(strokes: np.ndarray) -> np.ndarray:
    """Cuts away what is empty around a digit."""
    rows, columns = strokes.any(1).nonzero()[0], strokes.any(0).nonzero()[0]
    return strokes[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def known(held: bool) -> dict[bytes, set[int]]:
    """Returns the labels of the package's digits of one split, by what `cut` leaves of them."""
    images, labels, test = read_digits()
    strokes = np.rint(images[test == held] * (127 / 16) + 1e-6).astype(np.int64)
    found: dict[bytes, set[int]] = {}
    for digit, label in zip(strokes, labels[test == held], strict=True):
        found.setdefault(key(cut(digit)), set()).add(int(label))
    return found


def key(digit: np.ndarray) -> bytes:
    return repr(digit.shape).encode() + digit.tobytes()


def closest(images: Tensor) -> int:
    """Returns the fewest columns from a pixel of a cue to one of a digit."""
    marked = (images[:, 0] != GREY).any(1).numpy()
    return min(
        (MIDDLE + row[MIDDLE:].nonzero()[0][0]) - row[:MIDDLE].nonzero()[0][-1] for row in marked
    )


def receptive_field(model: nn.Module, place: str, size: tuple[int, int]) -> int:
    """Returns the widest span of columns that one position of a place sees.

    Weights are positive and norms are the identity, so that no gradient is zero by chance.
    """
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.01)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            model.set_submodule(name, nn.Identity())
    seen = []
    model.get_submodule(place).register_forward_hook(lambda _, __, output: seen.append(output))
    image = torch.ones(1, 1, *size, requires_grad=True)
    model.double()(image.double())
    widest = 0
    for column in range(seen[0].shape[3]):
        (gradient,) = torch.autograd.grad(
            seen[0][0, 0, seen[0].shape[2] // 2, column], image, retain_graph=True
        )
        columns = gradient[0, 0].any(0).nonzero()
        widest = max(widest, int(columns[-1] - columns[0]) + 1)
    return widest


def test_everybody_gets_the_same_strips() -> None:
    assert (
        STRIPS.fingerprint
        == load_dataset("cued-digits").fingerprint
        == "df1b25c188c202e9de1610a85001b6f990d44ac01116f6467ad8b2f4f9b1a3f1"
    )
    assert (len(STRIPS.train), len(STRIPS.evaluation)) == (6120, 1080)
    assert (STRIPS.in_channels, STRIPS.image_size, STRIPS.num_classes) == (1, (8, 60), 10)
    assert (STRIPS.padding, STRIPS.flip) == (0, False)


@pytest.mark.parametrize(("split", "held"), [(STRIPS.train, False), (STRIPS.evaluation, True)])
def test_the_label_is_the_class_of_the_digit_that_the_cue_names(split: Split, held: bool) -> None:
    own, other = known(held), known(not held)
    cues, digits = read(split.images)
    assert set(cues) == {-1, 1}
    for cue, (bright, dark), label in zip(cues, digits, split.labels.tolist(), strict=True):
        classes = [own[key(digit)] for digit in (bright, dark)]
        assert not {key(bright), key(dark)} & set(other)  # no image is in both splits
        asked, ignored = classes if cue > 0 else classes[::-1]
        assert asked == {label}
        assert label not in ignored


@SPLITS
def test_cue_class_and_order_are_balanced(split: Split) -> None:
    levels = split.images[:, 0].long() - GREY
    cue = levels[:, :, :MIDDLE].sum((1, 2)).sign()
    columns = torch.arange(levels.shape[2], dtype=torch.float)
    weights = levels[:, :, MIDDLE:].abs().float()
    bright = levels[:, :, MIDDLE:].clamp(min=0).float()
    centre = (weights.sum(1) @ columns[MIDDLE:]) / weights.sum((1, 2))
    order = ((bright.sum(1) @ columns[MIDDLE:]) / bright.sum((1, 2)) < centre).long()
    counts = torch.zeros(2, 10, 2, dtype=torch.long)
    for here, label, near in zip(((cue + 1) // 2).tolist(), split.labels, order, strict=True):
        counts[here, label, near] += 1
    assert (counts == len(split) // 40).all()


@SPLITS
def test_no_reader_of_one_part_knows_the_label(split: Split) -> None:
    """The best possible reader of a part answers with the most frequent label of its pixels."""
    for part, most in ((slice(MIDDLE), 0.3), (slice(MIDDLE, None), 0.5)):
        labels: dict[bytes, list[int]] = {}
        for image, label in zip(split.images[..., part].numpy(), split.labels, strict=True):
            labels.setdefault(image.tobytes(), [0] * 10)[int(label)] += 1
        assert sum(map(max, labels.values())) / len(split) <= most


def test_no_position_of_the_network_sees_the_cue_and_a_digit() -> None:
    field = receptive_field(cifar_resnet("resnet8", 10, in_channels=1), "layer3", (8, 128))
    assert field == 25
    both = torch.cat([STRIPS.train.images, STRIPS.evaluation.images])
    assert closest(both) == MINIMAL_DISTANCE > field
    assert f"{MINIMAL_DISTANCE} pixels" in STRIPS.note
