"""Layouts of other tasks and tools: each is read, or refused with what was found and what was
expected.
"""

from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.image_samples import noise, png

from cpsam.data import load_dataset
from cpsam.data.verify import verify
from cpsam.errors import DataError

EXPECTED = "images must be in a folder per class, as in train/CLASS/ and val/CLASS/, or CLASS/"
IMAGE = pa.struct([("bytes", pa.binary())])
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def fill(root: Path, *paths: str, data: bytes | None = None) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        pixels = noise(8, 9, 3, seed=crc32(path.encode()))
        (root / path).write_bytes(png(pixels) if data is None else data)


def splits(root: Path, prefix: str = "") -> None:
    fill(
        root,
        *(
            f"{prefix}{split}/{name}/{n}.png"
            for split, count in (("train", 3), ("val", 1))
            for name in "ab"
            for n in range(count)
        ),
    )


def shard(path: Path, labels: pa.Array, image: pa.DataType = IMAGE, **columns: pa.Array) -> Path:
    cells = [
        {"bytes": png(noise(8, 9, 3, seed=crc32(path.name.encode()) + row))}
        for row in range(len(labels))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": pa.array(cells, image), "label": labels, **columns}), path)
    return path


def shards(
    root: Path, train: str = "train-0.parquet", test: str = "test-0.parquet", **options: object
) -> None:
    shard(root / train, pa.array([0, 1, 0]), **options)
    shard(root / test, pa.array([0, 1]), **options)


def yolo(root: Path, order: str) -> None:
    for split in ("train", "val"):
        for kind, name in (("images", "1.png"), ("labels", "1.txt")):
            fill(root, f"{order.format(split=split, kind=kind)}/{name}")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "YOLO": (
        lambda root: yolo(root, "{kind}/{split}"),
        f"p: images/ and labels/ are the layout of detection or segmentation; {EXPECTED}",
    ),
    "YOLO by split": (
        lambda root: yolo(root, "{split}/{kind}"),
        "p/train: images/ and labels/ are the layout of detection",
    ),
    "COCO": (
        lambda root: fill(root, "images/train2017/1.png", "annotations/a.json"),
        "p: images/ and annotations/ are the layout",
    ),
    "VOC": (
        lambda root: fill(root, "JPEGImages/1.png", "Annotations/1.xml"),
        "p: JPEGImages/ and Annotations/ are the layout",
    ),
    "masks": (
        lambda root: fill(root, "images/1.png", "masks/1.png"),
        "p: images/ and masks/ are the layout",
    ),
    "table of labels": (
        lambda root: fill(root, "1.png", "labels.csv"),
        f"p: no class folders in it; it has 1.png, labels.csv; {EXPECTED}",
    ),
    "tars": (
        lambda root: fill(root, "train-0.tar", "val-0.tar"),
        "p: no class folders in it; it has train-0.tar, val-0.tar; images must",
    ),
    "nothing": (
        lambda root: root.mkdir(),
        "p: no class folders in it; it has nothing; images must",
    ),
    "flat val": (
        lambda root: [
            splits(root),
            fill(root, "test/1.png"),
            (root / "val").rename(root / "x"),
            fill(root, "val/1.png"),
        ],
        "p/val: no",
    ),
    "splits in classes": (
        lambda root: fill(root, *(f"train/{c}/{s}/1.png" for c in "ab" for s in ("train", "val"))),
        "p/train/a: holds splits",
    ),
    "several sets": (
        lambda root: [shards(root / "en"), shards(root / "fr")],
        "en.* has test-0.parquet, train-0.parquet",
    ),
    "file": (lambda root: root.write_bytes(b""), "p: not a folder; name one with train/CLASS/"),
    "pointer": (
        lambda root: [splits(root), fill(root, "train/a/x.jpg", data=POINTER)],
        "x.jpg: a pointer of Git LFS, not the file itself",
    ),
    "shard pointer": (
        lambda root: [shards(root), fill(root, "train-0.parquet", data=POINTER)],
        "train-0.parquet: a pointer of Git LFS",
    ),
    "shard copied": (
        lambda root: [
            shards(root, "train-00000-of-00002.parquet"),
            shard(root / "train-00000-of-00002 copy.parquet", pa.array([0, 1])),
        ],
        (
            "train-00000-of-00002 copy.parquet: has the same number as"
            " train-00000-of-00002.parquet, so another of 2 train files is missing"
        ),
    ),
    "no rows": (
        lambda root: [shards(root), shard(root / "train-0.parquet", pa.array([], pa.int64()))],
        "train-0.parquet: no rows with a label",
    ),
    "unknown number": (
        lambda root: [shards(root), shard(root / "test-0.parquet", pa.array([0, 7]))],
        "row 1: label 7 is not in the train",
    ),
    "times": (
        lambda root: [
            shards(root),
            shard(root / "train-0.parquet", pa.array([0], pa.timestamp("s"))),
        ],
        "is timestamp.*, not whole",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(tmp_path: Path, kind: str) -> None:
    make, message = REFUSED[kind]
    make(tmp_path / "p")
    with pytest.raises(DataError, match=message) as caught:
        load_dataset("folder", tmp_path / "p", image_size=8, workers=0)
    try:
        faults = [str(fault) for fault in verify(tmp_path / "p").faults]
    except DataError as error:
        faults = [str(error)]
    same = caught.value.args[0] in faults or "no images in any class folder" in faults[0]
    assert same and len(faults) == 1, "verify says this, and nothing that follows from it"


def test_a_class_whose_names_are_not_those_of_images_says_what_it_has(tmp_path: Path) -> None:
    splits(tmp_path)
    fill(tmp_path, "train/c/1.img", "val/c/1.png")
    with pytest.raises(DataError, match=r"train/c: no images in this class folder; it has 1\.img"):
        load_dataset("folder", tmp_path, image_size=8)
    fill(tmp_path, "train/c/1.png", "train/c/2.jpg?w=100", "train/c/3.jpg_original")
    notes = load_dataset("folder", tmp_path, image_size=8).notes
    assert notes == (
        (
            "not used: 3 files in 1 folder, not images by their names: train/c/1.img,"
            " train/c/2.jpg?w=100, train/c/3.jpg_original"
        ),
    )


def test_names_of_files_in_any_case(tmp_path: Path) -> None:
    shards(tmp_path, "TRAIN.PARQUET", "Test.Parquet")
    assert (
        len(load_dataset("folder", tmp_path, image_size=8, workers=0).train) == 3
        and verify(tmp_path).faults == []
    )


def test_what_lies_beside_shards_is_named(tmp_path: Path) -> None:
    shards(tmp_path)
    table = pq.read_table(tmp_path / "train-0.parquet")
    pq.write_table(
        table.append_column("coarse_label", table.column("label")), tmp_path / "train-0.parquet"
    )
    shard(tmp_path / "fr/train-0.parquet", pa.array([0, 1]))
    fill(tmp_path, "raw/a/1.png", "raw/b/1.png", ".cache/1.png")
    notes = load_dataset("folder", tmp_path, image_size=8, workers=0).notes
    assert notes == (
        "not used: 1 column beside 'image' and 'label': coarse_label",
        "not used: 1 file in 1 folder, parquet files in other folders: fr/train-0.parquet",
        "not used: 2 files in 2 folders, not parquet: raw/a/1.png, raw/b/1.png",
    )
    assert verify(tmp_path).notes == notes


def test_views_of_texts_and_of_bytes(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary_view())])
    for split in ("train", "test"):
        shard(tmp_path / f"{split}-0.parquet", pa.array(["cat", "dog"], pa.string_view()), kind)
    dataset = load_dataset("folder", tmp_path, image_size=8, workers=0)
    assert dataset.classes == ("cat", "dog") and verify(tmp_path).faults == []
    assert next(dataset.evaluation.batches([np.arange(2)], None)).shape == (2, 8, 8, 3)


def test_one_picture_in_two_classes_to_measure_on(tmp_path: Path) -> None:
    splits(tmp_path)
    fill(tmp_path, "val/a/same.png", "val/b/same.png", data=png(noise(8, 9, 3)))
    assert [(fault.image, fault.reason) for fault in verify(tmp_path).faults] == [
        ("val/b/same.png", "the same pixels as val/a/same.png, of another class")
    ]
