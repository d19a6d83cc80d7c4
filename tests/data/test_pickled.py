"""The original CIFAR files are read, and nothing in them is run."""

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.image_samples import noise

from cpsam.data import load_dataset
from cpsam.data.verify import verify
from cpsam.errors import DataError

NAMES = [f"class {index}" for index in range(100)]


def planes(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(len(images), -1))


def dump(path: Path, content: dict[bytes, Any], protocol: int = 2) -> None:
    """As numpy 1 and Python 2 wrote them: another module, and texts of bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = pickle.dumps(content, protocol)
    path.write_bytes(
        data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray") if protocol < 4 else data
    )


def write(root: Path, images: np.ndarray, protocol: int = 2) -> Path:
    folder = root / "cifar-100-python"
    for split, rows in {"train": range(11), "test": range(11, 16)}.items():
        labels = [row * 7 % 100 for row in rows]
        dump(
            folder / split,
            {
                b"data": planes(images[list(rows)]),
                b"fine_labels": labels,
                b"filenames": [b"x.png"] * len(rows),
            },
            protocol,
        )
    dump(folder / "meta", {b"fine_label_names": [name.encode() for name in NAMES]}, protocol)
    return folder


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_the_original_files_are_the_same_data_set_as_the_parquet_files(
    tmp_path: Path, small_cifar: Path, protocol: int
) -> None:
    folder = write(tmp_path / "original", noise(16, 32, 32, 3), protocol)
    wanted = load_dataset("cifar100", small_cifar)
    for root in (tmp_path / "original", folder):
        assert load_dataset("cifar100", root).fingerprint == wanted.fingerprint
    found = verify(folder)
    assert found.faults == [] and found.counts["train"][:15] == [1, *[0] * 6, 1, *[0] * 6, 1]


def test_cifar10_has_five_files(tmp_path: Path) -> None:
    images = noise(12, 32, 32, 3)
    folder = tmp_path / "cifar-10-batches-py"
    for index in range(5):
        dump(
            folder / f"data_batch_{index + 1}",
            {b"data": planes(images[2 * index :][:2]), b"labels": [index, 9]},
        )
    dump(
        tmp_path / "cifar-10-batches-py/test_batch",
        {b"data": planes(images[10:]), b"labels": [3, 4]},
    )
    dump(
        tmp_path / "cifar-10-batches-py/batches.meta",
        {b"label_names": [f"n{index}".encode() for index in range(10)]},
    )
    dataset = load_dataset("cifar10", tmp_path)
    assert np.array_equal(dataset.train.pixels(slice(None)), images[:10])
    assert dataset.train.labels.tolist() == [
        0,
        9,
        1,
        9,
        2,
        9,
        3,
        9,
        4,
        9,
    ]
    assert dataset.classes[3] == "n3"


class Run:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("/tmp/must-not-be-there",)


def nested(depth: int) -> bytes:
    return b"]" * depth + b"a" * (depth - 1) + b"."


BAD: dict[str, tuple[object, str]] = {
    "code": ({b"data": Run(), b"fine_labels": []}, r"it asks for posix\.mkdir"),
    "objects": (
        {b"data": np.array([[None] * 3072]), b"fine_labels": [0]},
        "an array of other values than bytes",
    ),
    "floats": (
        {b"data": np.zeros((1, 3072)), b"fine_labels": [0]},
        "an array of other values than bytes",
    ),
    "shape": (
        {b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [0]},
        "must hold 3,072 bytes per label",
    ),
    "flat": (
        {b"data": np.zeros(3072, np.uint8), b"fine_labels": [0]},
        "must hold 3,072 bytes per label",
    ),
    "label": (
        {b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": [100]},
        "row 0: label 100 is out of range, it must be 0 to 99",
    ),
    "true": (
        {b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": [True]},
        "row 0: label True is out of range",
    ),
    "no labels": ({b"data": np.zeros((1, 3072), np.uint8)}, "it lacks data or fine_labels"),
    "a list": ([1], "has no attribute 'items'"),
    "text": (b"hello", "not one of the original CIFAR files"),
    "empty": (b"", "not one of the original CIFAR files"),
    "builtins": (b"cbuiltins\neval\n(S'1'\ntR.", r"it asks for builtins\.eval"),
    "attributes": (
        b"\x80\x04\x8c\x05numpy\x8c\x10load.__globals__\x93.",
        "it asks for numpy.load.__globals__",
    ),
    "memory": (b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b".", "it lacks"),
    "huge": (
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
        "not one of the original CIFAR files",
    ),
    "deep": (nested(1000), "has no attribute 'items'"),
    "own class": (b"cnumpy\ndtype\n}S'name'\nS'u1'\nsb.", "not one of the original CIFAR files"),
}


@pytest.mark.parametrize("kind", BAD)
def test_nothing_is_run_and_everything_is_checked(tmp_path: Path, kind: str) -> None:
    folder = write(tmp_path, noise(16, 32, 32, 3))
    content, message = BAD[kind]
    (folder / "train").write_bytes(
        content if isinstance(content, bytes) else pickle.dumps(content, 2)
    )
    for look in (lambda: load_dataset("cifar100", tmp_path), lambda: verify(folder)):
        with pytest.raises(DataError, match=rf"cifar-100-python/train.*{message}") as caught:
            look()
        assert "\n" not in str(caught.value)
    assert not Path("/tmp/must-not-be-there").exists()


def test_files_that_are_missing_or_special_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path, noise(16, 32, 32, 3))
    (folder / "train").unlink()
    with pytest.raises(DataError, match=r"cifar-100-python/train: cannot be read \(No such file"):
        load_dataset("cifar100", tmp_path)
    os.mkfifo(folder / "train")
    with pytest.raises(
        DataError, match=r"cifar-100-python/train: must be a regular file; it is a FIFO"
    ):
        load_dataset("cifar100", tmp_path)


def test_parquet_files_come_first(tmp_path: Path, small_cifar: Path) -> None:
    write(small_cifar, noise(16, 32, 32, 3, seed=9))
    assert np.array_equal(
        load_dataset("cifar100", small_cifar).evaluation.pixels(slice(None)),
        noise(16, 32, 32, 3)[11:],
    )
