"""CIFAR from parquet: what comes out, and what is said about every kind of bad file."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.image_samples import noise, png, png_header_of

from cpsam.data import load_dataset
from cpsam.data.sets.cifar import find_files
from cpsam.data.storage.parquet import read_labels
from cpsam.errors import DataError

Write = Callable[..., Path]
GIVEN = os.environ.get("CPSAM_DATA")
BESIDE = Path(__file__).parents[3] / "shared" / "data"
REAL = next(
    (path for path in (Path(GIVEN or "nowhere"), BESIDE) if (path / "cifar100").is_dir()), None
)
TRAIN = "cifar100/train-00000-of-00001.parquet"


def test_images_labels_and_names_are_those_of_the_files(small_cifar: Path) -> None:
    dataset = load_dataset("cifar100", small_cifar)
    images = noise(16, 32, 32, 3)
    assert np.array_equal(dataset.train.pixels(slice(None)), images[:11]) and np.array_equal(
        dataset.evaluation.pixels(slice(None)), images[11:]
    )
    assert (
        dataset.train.labels.tolist() == [0, 7, 14, 21, 28, 35, 42, 49, 56, 63, 70]
        and dataset.evaluation.labels[0] == 77
    )
    assert dataset.classes[99] == "class 99" and dataset.num_classes == 100
    assert (dataset.name, dataset.padding, dataset.flip, dataset.note, dataset.image_size) == (
        "cifar100",
        4,
        True,
        "",
        (32, 32),
    )
    assert dataset.mean == pytest.approx((images[:11] / 255).mean((0, 1, 2)))


def test_a_second_load_reads_the_cache_and_changed_files_do_not(
    small_cifar: Path, own_cache: Path, write_parquet: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_dataset("cifar100", str(small_cifar))
    monkeypatch.setenv("CPSAM_DATA", str(small_cifar))
    with monkeypatch.context() as patch:
        patch.setattr("cpsam.data.sets.cifar.undecoded_parquet", None)
        assert load_dataset("cifar100").fingerprint == first.fingerprint
    write_parquet(
        small_cifar / TRAIN, [png(image) for image in noise(4, 32, 32, 3, seed=5)], [0, 1, 2, 3]
    )
    again = load_dataset("cifar100", small_cifar)
    assert len(again.train) == 4 and again.fingerprint != first.fingerprint
    assert len(list(own_cache.iterdir())) == 2


def test_one_label_changes_the_fingerprint(small_cifar: Path, write_parquet: Write) -> None:
    prints = set()
    for label in (3, 4):
        write_parquet(small_cifar / TRAIN, [png(noise(32, 32, 3))], [label])
        prints.add(load_dataset("cifar100", small_cifar).fingerprint)
    assert len(prints) == 2


def test_cifar10_as_the_hub_lays_it_out_in_several_files_without_names(
    tmp_path: Path, write_parquet: Write
) -> None:
    images = noise(7, 32, 32, 3)
    for index, rows in enumerate(([0, 1, 2, 3], [4, 5])):
        path = tmp_path / f"cifar10/plain_text/train-0000{index}-of-00002.parquet"
        write_parquet(path, [png(images[row]) for row in rows], rows, column="label")
    write_parquet(
        tmp_path / "cifar10/plain_text/test-00000-of-00001.parquet",
        [png(images[6])],
        [9],
        column="label",
    )
    dataset = load_dataset("cifar10", tmp_path)
    assert np.array_equal(
        dataset.train.pixels(slice(None)), images[:6]
    ) and dataset.train.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert dataset.classes == tuple("0123456789")
    (tmp_path / "cifar10/plain_text/train-00000-of-00002.parquet").unlink()
    with pytest.raises(
        DataError,
        match=r"train-00001-of-00002.parquet: one of 2 files by its name, but 1 train files are in",
    ):
        load_dataset("cifar10", tmp_path)


def test_grey_and_palette_images_become_rgb(small_cifar: Path, write_parquet: Write) -> None:
    write_parquet(small_cifar / TRAIN, [png(noise(32, 32))], [0])
    pixels = load_dataset("cifar100", small_cifar).train.pixels(slice(None))
    assert np.array_equal(pixels[0], np.repeat(noise(32, 32)[..., None], 3, 2))


def test_a_missing_folder_says_what_was_looked_for_and_how_to_name_it(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=(
            r"no train-\*\.parquet in .*/cifar100 or .*/cifar100/cifar100; name the"
            r" folder.*CPSAM_DATA"
        ),
    ):
        load_dataset("cifar100", tmp_path)


def test_a_missing_split_is_named(small_cifar: Path) -> None:
    (small_cifar / "cifar100/test-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"no test-\*\.parquet in"):
        load_dataset("cifar100", small_cifar)


@pytest.mark.parametrize("kept", [0, 3, 100, 0.5, -1])
def test_a_file_cut_short_is_named(small_cifar: Path, kept: float) -> None:
    path = small_cifar / TRAIN
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(
        DataError,
        match=r"train-00000-of-00001\.parquet: cannot be read as parquet, it may be cut short",
    ):
        load_dataset("cifar100", small_cifar)


def test_a_file_that_is_no_file_is_named(small_cifar: Path) -> None:
    (small_cifar / TRAIN).unlink()
    (small_cifar / TRAIN).mkdir()
    with pytest.raises(
        DataError, match=r"train-00000-of-00001\.parquet: must be a regular file; it is a folder"
    ):
        load_dataset("cifar100", small_cifar)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"image": pa.array([b""]), "fine_label": pa.array([0])},
            "no column 'img'; it has image, fine_label",
        ),
        (
            {"img": pa.array([{"bytes": b""}]), "label": pa.array([0])},
            "no column 'fine_label'; it has img, label",
        ),
        (
            {"img": pa.array([b""]), "fine_label": pa.array([0])},
            "column 'img' is binary, not a struct with the field 'bytes'",
        ),
        (
            {"img": pa.array([{"bytes": b""}]), "fine_label": pa.array([0.5])},
            "column 'fine_label' is double, not whole numbers",
        ),
    ],
)
def test_columns_that_are_missing_or_of_another_type(
    small_cifar: Path, columns: dict[str, pa.Array], message: str
) -> None:
    pq.write_table(pa.table(columns), small_cifar / TRAIN)
    with pytest.raises(DataError, match=rf"train-00000-of-00001\.parquet: {message}"):
        load_dataset("cifar100", small_cifar)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (100, "label 100 is out of range, it must be 0 to 99"),
        (-1, "label -1 is out of range"),
        (None, "no label in column 'fine_label'"),
    ],
)
def test_labels_out_of_range_are_named_with_their_row(
    small_cifar: Path, write_parquet: Write, label: int | None, message: str
) -> None:
    write_parquet(small_cifar / TRAIN, [png(noise(32, 32, 3))] * 6, [0, 1, 2, 3, label, 5])
    with pytest.raises(DataError, match=rf"train-00000-of-00001\.parquet, row 4: {message}"):
        load_dataset("cifar100", small_cifar)


def test_as_many_names_as_classes(small_cifar: Path, write_parquet: Write) -> None:
    write_parquet(small_cifar / TRAIN, [png(noise(32, 32, 3))], [0], names=["a", "b"])
    with pytest.raises(DataError, match="its metadata names 2 classes, not 100"):
        load_dataset("cifar100", small_cifar)
    write_parquet(
        small_cifar / TRAIN,
        [png(noise(32, 32, 3))],
        [0],
        names=[f"other {index}" for index in range(100)],
    )
    with pytest.raises(DataError, match="the files name different classes"):
        load_dataset("cifar100", small_cifar)


def test_no_rows(small_cifar: Path, write_parquet: Write) -> None:
    write_parquet(small_cifar / TRAIN, [], [])
    with pytest.raises(DataError, match=r"train-00000-of-00001\.parquet: no rows"):
        load_dataset("cifar100", small_cifar)


BAD_IMAGES = {
    "no image in column 'img'": None,
    "not an image that can be decoded": b"not an image at all",
    "not an image that can be decoded .*truncated": png(noise(32, 32, 3))[:-500],
    "image is 31x32, not 32x32": png(noise(31, 32, 3)),
    "image is 40000x50000, not 32x32|not an image .*decompression bomb": png_header_of(
        50_000, 40_000
    ),
    "image has mode 'I;16', more than 8 bits per channel": png(noise(32, 32).astype(np.uint16)),
}


@pytest.mark.parametrize("message", BAD_IMAGES)
@pytest.mark.parametrize("row", [0, 5, 600])
def test_bad_images_are_named_with_their_row(
    small_cifar: Path, write_parquet: Write, row: int, message: str
) -> None:
    images: list[bytes | None] = [png(noise(32, 32, 3))] * (row + 2)
    images[row] = BAD_IMAGES[message]
    write_parquet(small_cifar / "cifar100/test-00000-of-00001.parquet", images, [0] * (row + 2))
    with pytest.raises(
        DataError, match=rf"test-00000-of-00001\.parquet, row {row}: ({message})"
    ) as caught:
        load_dataset("cifar100", small_cifar)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(
    REAL is None, reason="no CIFAR-100 on this machine; CPSAM_DATA can name a folder with it"
)
def test_the_real_cifar100(tmp_path: Path) -> None:
    train, test = (
        find_files(REAL / "cifar100", "cifar100")[split][0] for split in ("train", "test")
    )
    for path, each in ((train, 500), (test, 100)):
        labels, names = read_labels(path, "img", "fine_label", 100)
        assert np.bincount(labels).tolist() == [each] * 100
        assert (
            names is not None
            and names[:2] == ("apple", "aquarium_fish")
            and list(names) == sorted(names)
        )
    # The larger file takes ten seconds to decode: the smaller one stands for it.
    folder = tmp_path / "cifar100"
    folder.mkdir()
    for split in ("train", "test"):
        (folder / f"{split}-00000-of-00001.parquet").symlink_to(test)
    dataset = load_dataset("cifar100", tmp_path)
    assert len(dataset.train) == 10_000 and torch.equal(
        dataset.train.images, dataset.evaluation.images
    )
    # Near the constants that the field uses for the train split.
    assert dataset.mean == pytest.approx((0.5071, 0.4865, 0.4409), abs=3e-3)
    assert dataset.std == pytest.approx((0.2673, 0.2564, 0.2762), abs=3e-3)
