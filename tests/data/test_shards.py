"""Parquet shards: what common tools write is read, and whatever cannot be is named with file and
row, before training and by verify.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.image_samples import noise, png

from cpsam.data import Dataset, eval_batches, load_dataset
from cpsam.data.storage.unpacked_shard import open_table
from cpsam.data.verify import verify
from cpsam.errors import DataError, UserError

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def images(count: int, seed: int = 0, kind: pa.DataType = IMAGE_TYPE) -> pa.Array:
    return pa.array(
        [{"bytes": png(noise(8, 9, 3, seed=seed + row)), "path": None} for row in range(count)],
        kind,
    )


def write(
    path: Path,
    labels: pa.Array,
    *,
    seed: int = 0,
    image: str = "image",
    label: str = "label",
    **options: Any,
) -> Path:
    cells = options.get("cells", images(len(labels), seed))
    table = pa.table({image: cells, label: labels})
    if (names := options.get("names")) is not None:
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": {label: {"names": names}}}})}
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def pair(root: Path, labels: pa.Array, tested: pa.Array | None = None, **options: Any) -> Path:
    """A data set of one train and one validation shard."""
    write(root / "train-00000-of-00001.parquet", labels, **options)
    write(
        root / "validation-00000-of-00001.parquet",
        labels if tested is None else tested,
        seed=1000,
        **{**options, "cells": images(len(labels if tested is None else tested), 1000)},
    )
    return root


def load(root: Path, name: str = "folder", **options: Any) -> Dataset:
    dataset = load_dataset(name, root, image_size=8, workers=0, **options)
    assert (
        sum(
            len(y)
            for split in (dataset.train, dataset.evaluation)
            for _, y in eval_batches(split, dataset, batch_size=4)
        )
        > 0
    )
    return dataset


def refused(root: Path, message: str, **options: Any) -> None:
    """Training refuses the set with this message, and verify says the same."""
    with pytest.raises(DataError, match=message) as caught:
        load(root, **options)
    assert "\n" not in str(caught.value)
    try:
        assert str(caught.value) in map(str, verify(root).faults)
    except DataError as error:
        assert str(error) == str(caught.value)


INTEGERS = [
    pa.int8(),
    pa.int16(),
    pa.int32(),
    pa.int64(),
    pa.uint8(),
    pa.uint16(),
    pa.uint32(),
    pa.uint64(),
    pa.bool_(),
]
OTHERS = [
    pa.dictionary(pa.int8(), pa.int64()),
    pa.string(),
    pa.large_string(),
    pa.dictionary(pa.int32(), pa.string()),
]


@pytest.mark.parametrize("kind", [*INTEGERS, *OTHERS], ids=str)
def test_labels_of_every_kind_that_names_a_class(tmp_path: Path, kind: pa.DataType) -> None:
    plain = pa.array([0, 1, 1, 0, 1])
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    values = plain.cast(inner)
    root = pair(tmp_path, values.dictionary_encode() if pa.types.is_dictionary(kind) else values)
    dataset = load(root)
    assert (
        dataset.train.labels.tolist() == [0, 1, 1, 0, 1]
        and dataset.classes == ("0", "1")
        and dataset.notes == ()
    )
    found = verify(root)
    assert found.faults == [] and found.counts == {"train": [2, 3], "test": [2, 3]}


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (pa.array([0.0, 1.0]), "column 'label' is double, not whole numbers or texts"),
        (pa.array([[0], [1]]), "column 'label' is list<.*>, not whole numbers or texts"),
        (pa.array([b"a", b"b"]), "column 'label' is binary, not whole numbers or texts"),
        (pa.array([None, None], pa.null()), "column 'label' is null, not whole numbers or texts"),
        (
            pa.array([0, 2**64 - 1], pa.uint64()),
            r"has labels that are out of range .*18446744073709551615",
        ),
        (pa.array([1, 1, 1]), "1 classes with images to train on; there must be at least two"),
        (pa.array([0, 1, -1]), "row 2: label -1 is out of range, it must be at least 0"),
        (pa.array([0, None, 1]), "row 1: no label"),
        (pa.array(["a", "", "b"]), "row 1: no label"),
        (pa.array([], pa.int64()), "no rows"),
    ],
    ids=str,
)
def test_labels_that_name_no_class(tmp_path: Path, labels: pa.Array, reason: str) -> None:
    refused(pair(tmp_path, labels), reason)


def test_numbers_with_gaps_become_classes_in_their_order_and_a_line_says_so(tmp_path: Path) -> None:
    root = pair(tmp_path, pa.array([1, 3, 10**9, 3]), pa.array([10**9, 1]))
    dataset = load(root)
    assert dataset.classes == ("1", "3", "1000000000") and dataset.train.labels.tolist() == [
        0,
        1,
        2,
        1,
    ]
    assert dataset.evaluation.labels.tolist() == [2, 0]
    assert dataset.notes == (
        (
            "labels are 3 different numbers from 1 to 1,000,000,000; they become classes 0 to 2 in"
            " their order"
        ),
        "1 of 3 classes have no images to measure on: 3",
    )
    assert verify(root).notes == dataset.notes


def test_texts_are_classes_in_their_order(tmp_path: Path) -> None:
    root = pair(tmp_path, pa.array(["dog", "cat", "emu", "cat"]), pa.array(["emu", "dog", "cat"]))
    assert load(root).classes == ("cat", "dog", "emu")
    assert load(root).evaluation.labels.tolist() == [2, 1, 0]
    refused(
        pair(tmp_path, pa.array(["dog", "cat"]), pa.array(["yak"])),
        "validation-.*, row 0: label 'yak' is not in the train split",
    )


def test_names_of_classes(tmp_path: Path) -> None:
    root = pair(tmp_path, pa.array([0, 2, 0]), names=["a", "b", "c"])
    assert (
        load(root).classes == ("a", "b", "c")
        and load(root).notes[0] == "1 of 3 classes have no images to train on: b"
    )
    refused(
        pair(tmp_path, pa.array([0, 1]), names=["a", "a"]), "its metadata names class 'a' twice"
    )
    refused(
        pair(tmp_path, pa.array([0, 2]), names=["a", "b"]),
        "row 1: label 2 is out of range, it must be 0 to 1",
    )
    write(
        tmp_path / "validation-00000-of-00001.parquet", pa.array([0, 1]), seed=99, names=["b", "a"]
    )
    refused(root, "validation-.*: its metadata names other classes than the first shard's")


@pytest.mark.parametrize(
    "metadata",
    ["[" * 100_000, "null", '{"info": {"features": {"label": {"names": "ab"}}}}', "\\ud800"],
)
def test_metadata_that_names_nothing_is_no_fault(tmp_path: Path, metadata: str) -> None:
    root = pair(tmp_path, pa.array([0, 1]))
    path = root / "train-00000-of-00001.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata({"huggingface": metadata}), path)
    assert load(root).classes == ("0", "1")


@pytest.mark.parametrize("inner", [pa.large_binary(), pa.binary()], ids=str)
def test_images_are_bytes(tmp_path: Path, inner: pa.DataType) -> None:
    root = pair(tmp_path, pa.array([0, 1]))
    kind = pa.struct([("bytes", inner)])
    write(
        root / "train-00000-of-00001.parquet",
        pa.array([0, 1]),
        cells=pa.array([{"bytes": png(noise(8, 8, 3, seed=s))} for s in (5, 6)], kind),
    )
    assert len(load(root).train) == 2 and verify(root).faults == []


def test_a_text_in_place_of_bytes_is_never_opened_as_a_path(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(png(noise(8, 8, 3)))
    root = pair(tmp_path / "p", pa.array([0, 1]))
    path = root / "train-00000-of-00001.parquet"
    text = pa.struct([("bytes", pa.string()), ("path", pa.string())])
    write(path, pa.array([0, 1]), cells=pa.array([{"bytes": str(picture), "path": None}] * 2, text))
    refused(
        root, "column 'image' is struct<.*>, not a struct with the field 'bytes' of binary data"
    )
    write(
        path,
        pa.array([0, 1]),
        cells=pa.array([{"bytes": None, "path": str(picture)}] * 2, IMAGE_TYPE),
    )
    refused(root, "train-00000-of-00001.parquet, row 0: no image")


def test_errors_name_file_and_row(tmp_path: Path) -> None:
    cells = images(3).to_pylist()
    cells[1] = {"bytes": b"no picture", "path": None}
    root = pair(tmp_path, pa.array([0, 1, 1]))
    write(
        root / "train-00000-of-00001.parquet",
        pa.array([0, 1, 1]),
        cells=pa.array(cells, IMAGE_TYPE),
    )
    refused(
        root,
        r"train-00000-of-00001\.parquet, row 1: not an image that can be decoded \(cannot identify"
        r" it as one of PNG",
    )
    assert len(load(root, skip={"train-00000-of-00001.parquet, row 1"}).train) == 2


LAYOUTS: dict[str, tuple[str, str]] = {
    "hub": ("data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"),
    "hash": ("train-00000-of-00001-0a1b.parquet", "valid-00000-of-00001-0a1b.parquet"),
    "single": ("train.parquet", "val.parquet"),
    "folders": ("train/0000.parquet", "validation/0000.parquet"),
    "test": ("training-0.parquet", "test-0.parquet"),
    "dev": ("data/train/0.parquet", "data/dev/0.parquet"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["folder", "imagenet"])
def test_layouts_of_the_hub(tmp_path: Path, layout: str, name: str) -> None:
    train, test = LAYOUTS[layout]
    write(tmp_path / train, pa.array([0, 1, 1]))
    write(tmp_path / test, pa.array([0, 1]), seed=50)
    dataset = load(tmp_path, name)
    assert (len(dataset.train), len(dataset.evaluation), dataset.name, dataset.notes) == (
        3,
        2,
        name,
        (),
    )
    assert verify(tmp_path).faults == []


def test_what_is_not_used_is_named(tmp_path: Path) -> None:
    root = pair(tmp_path, pa.array([0, 1]))
    write(root / "test-00000-of-00001.parquet", pa.array([-1]))
    write(root / "extra.parquet", pa.array([-1]))
    (root / "README.md").write_text("text")
    (root / "._train-00000-of-00001.parquet").write_text("of macOS")
    assert load(root).notes == (
        "not used: 1 file in 1 folder, parquet files of no split by their names: extra.parquet",
        (
            "not used: 1 file in 1 folder, test shards beside validation shards:"
            " test-00000-of-00001.parquet"
        ),
        "not used: 1 file in 1 folder, not parquet: README.md",
    )


TRAIN, VALIDATION = "train-00000-of-00001.parquet", "validation-00000-of-00001.parquet"


def replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def rename(root: Path, *names: str) -> None:
    table = pq.read_table(root / TRAIN)
    pq.write_table(
        pa.Table.from_arrays([*table.columns, table.column(1)][: len(names)], names), root / TRAIN
    )


ONE = pa.array([0])
TWO_WAYS: dict[str, tuple[Callable[[Path], object], str]] = {
    "two to measure on": (
        lambda root: write(root / "valid-0.parquet", ONE),
        "both validation and valid shards may be the test split",
    ),
    "two places": (
        lambda root: write(root / "data/train-0.parquet", ONE),
        "train shards are in .* and in .*/data; move one",
    ),
    "tree": (
        lambda root: (root / "train/a").mkdir(parents=True),
        "both train/a/ and parquet shards are there",
    ),
    "one missing": (
        lambda root: (root / TRAIN).rename(root / "train-00000-of-00002.parquet"),
        "one of 2 files by its name, but 1",
    ),
    "no train": (lambda root: (root / TRAIN).unlink(), r"no train-\*\.parquet in"),
    "FIFO": (lambda root: replace(root / TRAIN, os.mkfifo), "must be a regular file; it is a FIFO"),
    "device": (
        lambda root: replace(root / TRAIN, lambda path: path.symlink_to("/dev/zero")),
        "must be a regular file; it is a device",
    ),
    "other types": (
        lambda root: write(root / VALIDATION, pa.array(["a", "b"])),
        "row 0: label 'a' is not in the train split",
    ),
    "two labels": (
        lambda root: rename(root, "image", "label", "fine_label"),
        "both 'label' and 'fine_label' may be the label column",
    ),
    "no label": (
        lambda root: rename(root, "image", "kind"),
        "none of label, .* is the label column of image, kind; name it with",
    ),
    "twice": (lambda root: rename(root, "image", "label", "label"), "more than one column 'label'"),
}


@pytest.mark.parametrize("kind", TWO_WAYS)
def test_what_can_be_understood_in_two_ways_is_refused(tmp_path: Path, kind: str) -> None:
    root = pair(tmp_path / "p", pa.array([0, 1]))
    change, message = TWO_WAYS[kind]
    change(root)
    refused(root, message)


def test_columns_can_be_named(tmp_path: Path) -> None:
    root = pair(tmp_path, pa.array([0, 1, 0]), image="photo", label="kind of it")
    columns = {"image_column": "photo", "label_column": "kind of it"}
    assert load(root, **columns).train.labels.tolist() == [0, 1, 0]
    assert verify(root, image_column="photo", label_column="kind of it").faults == []
    with pytest.raises(DataError, match="no column 'knd'; it has photo, kind of it"):
        load(root, image_column="photo", label_column="knd")
    with pytest.raises(
        UserError,
        match="label_column is for folder and imagenet, digits has columns of its own; given x",
    ):
        load_dataset("digits", label_column="x")
    with pytest.raises(UserError, match="label_column is for parquet shards"):
        load_dataset("folder", tmp_path.parent, label_column="x")


def test_a_table_of_the_cache_that_was_changed_is_noticed(tmp_path: Path, own_cache: Path) -> None:
    root = pair(tmp_path / "p", pa.array([0, 1, 0]))
    load(root)
    (table,) = own_cache.rglob("train-*.arrow")
    whole = pa.ipc.open_file(pa.memory_map(str(table))).read_all()
    for changed in (
        whole.take([2, 1, 0]),
        whole.slice(0, 2),
        whole.set_column(0, "bytes", whole.column(0).take([2, 1, 0])),
    ):
        keep = table.read_bytes()
        other = table.with_suffix(".new")
        with pa.ipc.new_file(str(other), whole.schema) as writer:
            writer.write_table(changed)
        other.replace(table)
        open_table.cache_clear()
        with pytest.raises(
            DataError,
            match=r"\.arrow: row \d is not what was written; delete it, and it is made again",
        ):
            load(root)
        other.write_bytes(keep)
        other.replace(table)
        open_table.cache_clear()
    assert len(load(root).train) == 3


def test_tables_whose_names_were_exchanged_are_noticed(tmp_path: Path, own_cache: Path) -> None:
    root = pair(tmp_path / "p", pa.array([0, 1, 0]))
    load(root)
    (one,), (other,) = own_cache.rglob("train-*.arrow"), own_cache.rglob("validation-*.arrow")
    shutil.copyfile(other, one.with_suffix(".new"))
    one.with_suffix(".new").replace(one)
    open_table.cache_clear()
    with pytest.raises(DataError, match="is not what was written"):
        load(root)


def test_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"\xff\xfe")
    pair(tmp_path / "p", pa.array([0, 1])).rename(root)
    assert len(load(root).train) == 2 and verify(root).faults == []


def test_streaming_cannot_be_turned_off(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="parquet shards are always streamed"):
        load(pair(tmp_path, pa.array([0, 1])), stream=False)
