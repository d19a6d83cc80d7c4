"""Keeps decoded images on disk, so that each image is decoded once.

An entry is a folder: images and labels of each split as `.npy` files, which are mapped into memory
when they are read, and `about.json`. Nothing in it is trusted. An entry counts only if its pixels,
labels and class names give the fingerprint in `about.json`; otherwise it is built again.
"""

import os
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap, write_array_header_1_0
from numpy.typing import NDArray

from cpsam.data.dataset import Dataset
from cpsam.data.fingerprint import fingerprint
from cpsam.data.moments import Moments
from cpsam.data.split import Indices, OnProgress, Pixels, Split
from cpsam.data.storage.cache_folder import cache_folder, locked
from cpsam.errors import DataError, UserError
from cpsam.files import hash_json, read_json, remove_leftovers, replacing, write_json

SPLITS = ("train", "test")
ABOUT = "about.json"


@dataclass(frozen=True)
class UndecodedSplits:
    """Describes a data set whose images are still to be decoded.

    Args:
        classes: Names of the classes.
        image_shape: (H, W, C).
        labels: (N,) of each split.
        pixels: Decodes the images of a split, (B, H, W, C) at a time, in the order of the labels.
    """

    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    labels: dict[str, Indices]
    pixels: Callable[[str], Iterator[Pixels]]


@dataclass(frozen=True)
class About:
    """Holds the content of `about.json`."""

    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str


@dataclass(frozen=True)
class Decoded:
    """Holds the content of an entry."""

    train: Split
    test: Split
    about: About

    def to_dataset(
        self, name: str, *, padding: int, flip: bool, **notes: str | tuple[str, ...]
    ) -> Dataset:
        """Returns the data set; `notes` are the other arguments of :class:`cpsam.data.Dataset`."""
        about = self.about
        return Dataset(
            name,
            self.train,
            self.test,
            about.classes,
            about.mean,
            about.std,
            padding,
            flip,
            about.fingerprint,
            **notes,  # pyrefly: ignore
        )


def load_or_build(
    name: str,
    key: str,
    undecoded: Callable[[], UndecodedSplits],
    progress: OnProgress | None = None,
) -> Decoded:
    """Returns the decoded data set called `key`, from the cache if a sound entry is there.

    Otherwise the images are decoded, by one process while others wait.

    Args:
        name: For people who look into the folder.
        key: Hash of all that the pixels depend on.
        undecoded: Called only if something has to be decoded. Bad input is a DataError; an OSError
            would be taken for the cache's.
        progress: Told how many images have been decoded.

    Warns:
        UserWarning: If the folder cannot be written to. The images are then decoded into a
            temporary folder, for this process alone.

    Raises:
        DataError: If an image is bad, or there is no room for the images anywhere.
    """
    try:
        entry = cache_folder() / f"{name}-{key[:24]}.decoded"
        found = read_entry(entry)
        if found is not None:
            return found
        entry.parent.mkdir(parents=True, exist_ok=True)
        with locked(entry.with_suffix(".lock")):
            return read_entry(entry) or build(entry, undecoded(), progress)
    except (OSError, UserError) as error:  # UserError: the file system has no locks.
        refused = error
    warnings.warn(
        f"decoded images of {name} are not kept ({refused}); CPSAM_CACHE can name another folder",
        stacklevel=2,
    )
    try:
        with tempfile.TemporaryDirectory(prefix="cpsam-", ignore_cleanup_errors=True) as folder:
            # The mapping outlives the names of the files.
            return build(Path(folder) / "decoded", undecoded(), progress)
    except OSError as error:
        raise DataError(
            f"no room for the decoded images of {name} ({error}); CPSAM_CACHE can name a folder"
            " that has it"
        ) from error


def build(entry: Path, undecoded: UndecodedSplits, progress: OnProgress | None) -> Decoded:
    """Decodes into a temporary folder, which takes the entry's name when it is on the disk."""
    remove_leftovers(entry.parent, entry.name)
    with replacing(entry) as unfinished:
        unfinished.mkdir()
        moments = write_arrays(unfinished, undecoded, progress)
        arrays = map_arrays(unfinished)
        name = fingerprint(undecoded.classes, arrays)
        about = About(undecoded.classes, moments.mean, moments.std, name)
        write_json(unfinished / ABOUT, {**asdict(about), "sha256": hash_json(asdict(about))})
    return decoded(arrays, about)


def write_arrays(folder: Path, undecoded: UndecodedSplits, progress: OnProgress | None) -> Moments:
    """Writes images and labels of both splits; returns the moments of the train split."""
    moments = Moments(undecoded.image_shape[-1])
    total, done = sum(len(labels) for labels in undecoded.labels.values()), 0

    def seen(split: str) -> Iterator[Pixels]:
        nonlocal done
        for pixels in undecoded.pixels(split):
            yield pixels
            if split == "train":
                moments.add(pixels)
            done += len(pixels)
            if progress is not None:
                progress("decoding images", done, total)

    for split in SPLITS:
        labels = undecoded.labels[split].astype("<i8")
        write_array(folder / f"{split}-labels.npy", "<i8", labels.shape, [labels])
        shape = (len(labels), *undecoded.image_shape)
        write_array(folder / f"{split}-images.npy", "|u1", shape, seen(split))
    assert done == total, f"{done} images for {total} labels"
    return moments


def write_array(path: Path, dtype: str, shape: tuple[int, ...], parts: Iterable[NDArray]) -> None:
    # Not through mapped memory: there a full disk is a fatal signal and not an OSError.
    with path.open("xb") as file:
        write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
        for part in parts:
            file.write(np.ascontiguousarray(part).data)
        file.flush()
        os.fsync(file.fileno())


def map_arrays(folder: Path) -> list[tuple[Pixels, Indices]]:
    """Returns pixels, (N, H, W, C), and labels of each split."""
    return [
        (
            map_array(folder / f"{split}-images.npy", "|u1"),
            map_array(folder / f"{split}-labels.npy", "<i8"),
        )
        for split in SPLITS
    ]


def map_array(path: Path, dtype: str) -> NDArray:
    """Maps an array into memory; what is written to it never reaches the file.

    Raises:
        ValueError: If the file is a link or not regular, or holds another type of values.
    """
    array = open_memmap(require_regular(path), mode="c")
    if array.dtype.str != dtype:
        raise ValueError(f"{path} must hold {dtype}; it holds {array.dtype.str}")
    return array


def require_regular(path: Path) -> Path:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise ValueError(f"{path} must be a regular file")
    return path


def read_entry(entry: Path) -> Decoded | None:
    """Returns an entry; None if there is none or it is not, byte for byte, what was written."""
    try:
        if entry.is_symlink():
            return None
        content = read_json(require_regular(entry / ABOUT)) or {}
        if content.pop("sha256", None) != hash_json(content):
            return None
        classes, mean, std = (tuple(content[key]) for key in ("classes", "mean", "std"))
        about = About(classes, mean, std, content["fingerprint"])
        arrays = map_arrays(entry)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        raise
    except Exception:  # numpy documents no closed list of what a damaged header raises
        return None
    if fingerprint(about.classes, arrays) != about.fingerprint:
        return None
    return decoded(arrays, about)


def decoded(arrays: list[tuple[Pixels, Indices]], about: About) -> Decoded:
    train, test = (
        Split(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(labels))
        for pixels, labels in arrays
    )
    return Decoded(train, test, about)
