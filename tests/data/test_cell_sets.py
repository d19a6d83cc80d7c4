"""The two data sets of cells: the label needs most of the cues, or one answer per query."""

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from cpsam import create_model, receptive_field
from cpsam.data import Dataset, load_dataset
from cpsam.data.sets.cells import DigitStrokes
from cpsam.data.sets.majority_cue import CUES, MOST
from cpsam.data.split import Split
from cpsam.models.pointwise import CELL

Numbers = NDArray[np.int64]

GREY = 128
MAJORITY, RECALL = load_dataset("majority-cue"), load_dataset("recall")
SPLITS = pytest.mark.parametrize("held", [False, True], ids=["train", "test"])
FACTORS = np.random.default_rng(0).integers(-(2**40), 2**40, 2048)


def code(pixels: Numbers) -> Numbers:
    """Returns a number for what each row shows, (N,)."""
    rows = pixels.reshape(len(pixels), -1)
    return rows @ FACTORS[: rows.shape[1]]


def counts(seen: Numbers, labels: Numbers) -> Numbers:
    """Returns how often each label goes with each thing that is seen, (things, labels)."""
    things, index = np.unique(seen, return_inverse=True)
    table = np.zeros((len(things), labels.max() + 1), np.int64)
    np.add.at(table, (index, labels), 1)
    return table


def best(seen: Numbers, labels: Numbers) -> float:
    """Returns the share of images in which the best reader is right, who sees only `seen`.

    It answers with the most frequent label.
    """
    return counts(seen, labels).max(1).sum() / len(labels)


def known(held: bool) -> dict[int, int]:
    """Returns the class of each digit of a split, by its code."""
    digits = DigitStrokes(held)
    codes = code(digits.strokes)
    return {int(codes[one]): label for label, own in enumerate(digits.members) for one in own}


def classes_of(digits: Numbers, held: bool) -> Numbers:
    """Returns the classes of strokes (..., 8, 8), which must be digits of the split."""
    found = known(held)
    codes = code(digits.reshape(-1, 64)).tolist()
    return np.array([found[each] for each in codes]).reshape(digits.shape[:-2])


def cells_of(split: Split) -> Numbers:
    """Returns the cells of each image as differences from grey, (N, cells, 8, 16)."""
    levels = split.images[:, 0].long().numpy() - GREY
    count, height, width = levels.shape
    grid = levels.reshape(count, height // CELL[0], CELL[0], width // CELL[1], CELL[1])
    return grid.transpose(0, 1, 3, 2, 4).reshape(count, -1, *CELL)


class Majority(NamedTuple):
    """What `majority-cue` shows: cells, which are cues, their signs, and two digits."""

    cells: Numbers
    cues: NDArray[np.bool_]
    signs: Numbers
    bright: Numbers
    dark: Numbers
    labels: Numbers


def read_majority(held: bool) -> Majority:
    split = MAJORITY.evaluation if held else MAJORITY.train
    cells = cells_of(split)
    signs = np.sign(cells.sum((2, 3)))
    cues = np.abs(cells).sum((2, 3)) == np.abs(cells[:, :, 2:6, 6:10]).sum((2, 3))
    bright, dark = (
        classes_of(sign * cells[~cues & (signs == sign)][..., 4:12], held) for sign in (1, -1)
    )
    return Majority(cells, cues, signs, bright, dark, split.labels.numpy())


class Recall(NamedTuple):
    """What `recall` shows: cells, which are dark, the classes of bright and of dark digits."""

    cells: Numbers
    dark: NDArray[np.bool_]
    memory: Numbers
    queries: Numbers
    labels: Numbers


def read_recall(held: bool) -> Recall:
    split = RECALL.evaluation if held else RECALL.train
    cells = cells_of(split)
    dark = cells.sum((2, 3)) < 0
    classes = classes_of(np.abs(cells[..., 4:12]), held)
    memory, queries = (classes[chosen].reshape(-1, 3) for chosen in (~dark, dark))
    return Recall(cells, dark, memory, queries, split.labels.numpy())


@pytest.mark.parametrize(
    ("data", "sizes", "shape", "classes", "fingerprint"),
    [
        (MAJORITY, (10080, 1800), (24, 64), "0123456789", "1cc14d26c75d8e46"),
        (RECALL, (18000, 1992), (8, 96), "0123", "ae270eb90dda9b3d"),
    ],
    ids=["majority-cue", "recall"],
)
def test_everybody_gets_the_same_grids(
    data: Dataset, sizes: tuple[int, int], shape: tuple[int, int], classes: str, fingerprint: str
) -> None:
    assert data.fingerprint == load_dataset(data.name).fingerprint
    assert data.fingerprint.startswith(fingerprint)
    assert (len(data.train), len(data.evaluation)) == sizes
    assert (data.in_channels, data.image_size, data.classes) == (1, shape, tuple(classes))
    assert (data.padding, data.flip) == (0, False)


def test_no_digit_is_in_both_splits() -> None:
    """The readers find each digit among those of its own split."""
    assert not set(known(False)) & set(known(True))


@SPLITS
def test_most_of_the_cues_say_which_digit_is_asked_for(held: bool) -> None:
    seen = read_majority(held)
    lights = (seen.cues & (seen.signs > 0)).sum(1)
    assert set(lights) == {MOST, CUES - MOST}
    assert (seen.cues.sum(1) == CUES).all()
    assert (seen.bright != seen.dark).all()
    assert (seen.labels == np.where(lights == MOST, seen.bright, seen.dark)).all()


@SPLITS
def test_readers_without_the_majority_are_right_as_often_as_the_note_says(held: bool) -> None:
    seen = read_majority(held)
    digits = np.where(seen.cues[..., np.newaxis, np.newaxis], 0, seen.cells)
    cues = np.where(seen.cues, seen.signs, 0)
    most = np.sign(cues.sum(1, keepdims=True))
    assert best(code(digits), seen.labels) == 0.5
    assert (cues == most).sum() / (cues != 0).sum() == 0.6
    assert (counts(most[:, 0], seen.labels) == len(most) // 20).all()
    assert "50 %" in MAJORITY.note
    assert "60 %" in MAJORITY.note


@SPLITS
def test_cues_and_polarity_change_sign_independently(held: bool) -> None:
    """So a reader that adds up what it sees in single cells has its lowest loss at ln 2."""
    seen = read_majority(held)
    most = np.sign(np.where(seen.cues, seen.signs, 0).sum(1))
    first = seen.signs[np.arange(len(most)), (~seen.cues).argmax(1)]
    factor = np.where(seen.cues, most[:, np.newaxis], first[:, np.newaxis])
    same = code(factor[..., np.newaxis, np.newaxis] * seen.cells)
    assert (counts(same, (most + 1) + (first + 1) // 2) == 1).all()


@SPLITS
def test_the_label_is_the_number_of_dark_digits_whose_class_is_bright_too(held: bool) -> None:
    seen = read_recall(held)
    assert (seen.dark.sum(1) == 3).all()
    for classes in (seen.memory, seen.queries):
        assert (np.diff(np.sort(classes)) > 0).all()
        assert set(classes.flat) == set(range(6))
    found = seen.queries[:, :, np.newaxis] == seen.memory[:, np.newaxis]
    assert (found.sum((1, 2)) == seen.labels).all()


@SPLITS
def test_readers_of_a_part_of_recall_are_right_in_a_quarter(held: bool) -> None:
    """So a reader that adds up what it sees in single cells has its lowest loss at ln 4."""
    seen = read_recall(held)
    dark = seen.dark[..., np.newaxis, np.newaxis]
    for part in (np.where(dark, 0, seen.cells), np.where(dark, seen.cells, 0)):
        table = counts(code(part), seen.labels)
        assert (np.ptp(table, 1) == 0).all()
        assert best(code(part), seen.labels) == 0.25
    assert "25 %" in RECALL.note


@SPLITS
def test_a_reader_of_one_answer_of_recall_is_right_in_half(held: bool) -> None:
    """So passing a single query on to all cells does not suffice."""
    seen = read_recall(held)
    found = (seen.queries[:, :, np.newaxis] == seen.memory[:, np.newaxis]).any(2)
    assert best(found.ravel(), seen.labels.repeat(3)) == 0.5


@pytest.mark.parametrize("data", [MAJORITY, RECALL], ids=lambda data: data.name)
def test_everything_outside_a_cell_is_remote_for_the_network(data: Dataset) -> None:
    model = create_model("pointwise8", data.num_classes, in_channels=1)
    for field in receptive_field(model, at=["stage1", "stage2"], image_size=data.image_size).places:
        assert (field.theoretical, field.remote) == (CELL, True)
