"""Reads the original CIFAR files, as torchvision unpacks them, without running their pickles.

A pickle may name any function of any module to be called. Here each name is looked up in a table of
stand-ins, which only keep their arguments. Any other name is refused. The array is made from the
bytes that were kept.
"""

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cpsam.data.split import Indices, Pixels
from cpsam.errors import DataError
from cpsam.files import read_file

MAX_BYTES = 1 << 30  # CIFAR-100's train split has 155 MB
SIDE = 32


@dataclass(frozen=True)
class Layout:
    """Holds the names of the files, and of the entries in them."""

    folder: str
    files: dict[str, tuple[str, ...]]
    labels: str
    meta: str
    names: str


LAYOUTS = {
    "cifar10": Layout(
        "cifar-10-batches-py",
        {"train": tuple(f"data_batch_{index}" for index in range(1, 6)), "test": ("test_batch",)},
        "labels",
        "batches.meta",
        "label_names",
    ),
    "cifar100": Layout(
        "cifar-100-python",
        {"train": ("train",), "test": ("test",)},
        "fine_labels",
        "meta",
        "fine_label_names",
    ),
}


def find_pickled(name: str, root: Path) -> Path | None:
    """Returns the folder of the original files of a CIFAR: `root`, or in it, or in its folder of
    the set's name.
    """
    layout = LAYOUTS[name]
    folders = (root, root / layout.folder, root / name / layout.folder, root / name)
    return next(
        (
            folder
            for folder in folders
            if (folder / layout.meta).is_file() and (folder / layout.files["test"][0]).is_file()
        ),
        None,
    )


def pickled_paths(name: str, folder: Path) -> dict[str, list[Path]]:
    """Returns the files of each split, and of "meta"."""
    layout = LAYOUTS[name]
    return {
        **{split: [folder / file for file in files] for split, files in layout.files.items()},
        "meta": [folder / layout.meta],
    }


def read_names(name: str, folder: Path, count: int) -> tuple[str, ...]:
    """Returns the names of the classes.

    Raises:
        DataError: If the file is missing or damaged, or does not name `count` different classes.
    """
    layout = LAYOUTS[name]
    names = [text(value) for value in read_dict(folder / layout.meta, layout.names)[layout.names]]
    if len(names) != count or len(set(names)) != count:
        raise DataError(
            f"{folder / layout.meta}: must name {count} different classes; it names"
            f" {len(set(names))}"
        )
    return tuple(names)


def read_split(name: str, paths: list[Path], count: int) -> tuple[Pixels, Indices]:
    """Returns the images, (N, 32, 32, 3), and the labels, (N,), of a split.

    Raises:
        DataError: If a file is missing or damaged, or has a label that is not below `count`.
    """
    parts = [read_batch(path, LAYOUTS[name].labels, count) for path in paths]
    return np.concatenate([pixels for pixels, _ in parts]), np.concatenate(
        [labels for _, labels in parts]
    )


def read_batch(path: Path, key: str, count: int) -> tuple[Pixels, Indices]:
    content = read_dict(path, "data", key)
    data, labels = content["data"], content[key]
    size = 3 * SIDE * SIDE
    if (
        not isinstance(data, Array)
        or data.shape != (len(labels), size)
        or len(data.content) != len(labels) * size
    ):
        raise DataError(f"{path}: must hold {size:,} bytes per label")
    for row, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < count:
            raise DataError(
                f"{path}, row {row}: label {label!r} is out of range, it must be 0 to {count - 1}"
            )
    pixels = np.frombuffer(data.content, np.uint8).reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), np.array(labels, np.int64)


class Array:
    """Keeps what numpy would build an array of bytes from."""

    shape: tuple[int, ...] = ()
    content = b""

    def __init__(self, *arguments: object) -> None: ...

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if not (
            isinstance(dtype, Kind)
            and dtype.name in ("u1", b"u1")
            and not fortran
            and isinstance(content, bytes)
        ):
            raise pickle.UnpicklingError("an array of other values than bytes")
        self.shape, self.content = shape, content


class Kind:
    """Keeps the name of a numpy dtype."""

    def __init__(self, name: object, *arguments: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None: ...


def encode(value: str, encoding: object) -> bytes:
    """Returns bytes that were pickled as a text."""
    return value.encode("latin-1")


STAND_INS: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy.core.multiarray", "_reconstruct"): Array,
    ("numpy._core.multiarray", "_reconstruct"): Array,
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): Kind,
    ("_codecs", "encode"): encode,
}


class Reader(pickle._Unpickler):
    """Reads pickles in Python: the reader in C trusts the sizes in a file before it reads."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return STAND_INS[module, name]


def read_dict(path: Path, *keys: str) -> dict[str, Any]:
    """Returns the entries of a pickled dictionary, of which `keys` must be there; all but "data"
    must be lists.

    Raises:
        DataError: If the file is missing, or holds anything else.
    """
    try:
        found = Reader(io.BytesIO(read_file(path, MAX_BYTES)), encoding="bytes").load()
        content = {text(key): value for key, value in found.items()}
        if any(
            key not in content or (key != "data" and not isinstance(content[key], list))
            for key in keys
        ):
            raise pickle.UnpicklingError(f"it lacks {' or '.join(keys)}")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except DataError:
        raise
    except Exception as error:  # a damaged pickle may raise any of them
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"{path}: not one of the original CIFAR files ({reason})") from error
    return content


def text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
