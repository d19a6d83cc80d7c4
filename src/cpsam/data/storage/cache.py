"""Decoded images on disk, so that they are decoded once: one safetensors file a data set,
memory-mapped when read.

Nothing in it is trusted: a file counts only if its pixels, labels and class names give the
fingerprint written in it. Otherwise it is built again and replaced.
"""

import hashlib
import json
import os
import secrets
import struct
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from cpsam.data.moments import Moments
from cpsam.data.split import Indices, OnProgress, Pixels, Split
from cpsam.data.storage.digest import fingerprint
from cpsam.errors import DataError

ABOUT = "cpsam"  # the key of our own part of the header
SPLITS = ("train", "test")
MAX_HEADER_BYTES = 100_000_000  # the limit of the format itself


@dataclass(frozen=True)
class UndecodedSplits:
    """A data set whose images are still to be decoded.

    Args:
        classes: Names of the classes.
        image_shape: (H, W, C).
        labels: (N,) of each split.
        pixels: Decodes the images of each split, (B, H, W, C) at a time, in the order of the
            labels.
    """

    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    labels: dict[str, Indices]
    pixels: Callable[[str], Iterator[Pixels]]


@dataclass(frozen=True)
class Decoded:
    """What a cache file holds."""

    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str


def cache_folder() -> Path:
    """``CPSAM_CACHE``, or ``~/.cache/cpsam``.

    Raises:
        OSError: If this account has no home folder, as in some containers.
    """
    try:
        return Path(os.environ.get("CPSAM_CACHE") or "~/.cache/cpsam").expanduser()
    except RuntimeError as error:
        raise OSError(str(error)) from error


def load_or_build(
    name: str, key: str, recipe: Callable[[], UndecodedSplits], progress: OnProgress | None = None
) -> Decoded:
    """The decoded data set called `key`, from the cache if it is there and sound, otherwise built
    and, if that can be, kept.

    Args:
        name: For people who look into the folder.
        key: Hash of all that the pixels depend on.
        recipe: Called only if something has to be decoded. Bad input is a DataError; an OSError
            would be taken for the cache's.
        progress: Told how many images have been decoded.

    Warns:
        UserWarning: If the folder cannot be written to. The images are then decoded into a
            temporary file, for this process alone.

    Raises:
        DataError: If an image is bad, or there is no room for the images anywhere.
    """
    try:
        path = cache_folder() / f"{name}-{key[:24]}.safetensors"
        found = load(path)
        if found is not None:
            return found
        path.parent.mkdir(parents=True, exist_ok=True)
        return build(path, recipe(), progress)
    except OSError as error:
        refused = error
    warnings.warn(
        f"decoded images of {name} are not kept ({refused}); CPSAM_CACHE can name another folder",
        stacklevel=2,
    )
    try:
        with tempfile.TemporaryDirectory(prefix="cpsam-", ignore_cleanup_errors=True) as folder:
            # the mapping outlives the file's name
            return build(Path(folder) / "decoded.safetensors", recipe(), progress)
    except OSError as error:
        raise DataError(
            f"no room for the decoded images of {name} ({error}); CPSAM_CACHE can name a folder"
            " that has it"
        ) from error


def build(path: Path, recipe: UndecodedSplits, progress: OnProgress | None) -> Decoded:
    """Decode into a temporary file beside `path`, which takes its name only when it is complete and
    on the disk.
    """
    layout = plan(recipe)
    unfinished = path.with_name(f".{path.stem}-{secrets.token_hex(4)}")
    try:
        with unfinished.open("xb") as file:
            start = 8 + header_bytes(recipe)
            file.seek(start)
            for split in SPLITS:
                file.write(recipe.labels[split].astype("<i8").tobytes())
            moments = write_pixels(file, recipe, progress)
            file.flush()
            parts = map_parts(unfinished, layout, start)
            about = {
                "classes": recipe.classes,
                "mean": moments.mean,
                "std": moments.std,
                "fingerprint": fingerprint(recipe.classes, parts),
            }
            text = json.dumps(about)
            metadata = {ABOUT: text, f"{ABOUT}.sha256": hashlib.sha256(text.encode()).hexdigest()}
            header = json.dumps({"__metadata__": metadata, **layout}).encode().ljust(start - 8)
            assert len(header) == start - 8, "the room set aside for the header is too small"
            file.seek(0)
            file.write(struct.pack("<Q", len(header)) + header)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return decoded(about, parts)


def write_pixels(file: BinaryIO, recipe: UndecodedSplits, progress: OnProgress | None) -> Moments:
    """Decode both splits into a file; returns the moments of the train split."""
    moments = Moments(recipe.image_shape[-1])
    total, done = sum(len(labels) for labels in recipe.labels.values()), 0
    for split in SPLITS:
        for pixels in recipe.pixels(split):
            file.write(np.ascontiguousarray(pixels).data)
            if split == "train":
                moments.add(pixels)
            done += len(pixels)
            if progress is not None:
                progress("decoding images", done, total)
    assert done == total, f"{done} images for {total} labels"
    return moments


def header_bytes(recipe: UndecodedSplits) -> int:
    """Room for the header, in whole cache lines: class names, escaped at most twice, and a few
    numbers.
    """
    return (len(json.dumps(json.dumps(recipe.classes))) + 4096) // 64 * 64


def plan(recipe: UndecodedSplits) -> dict[str, dict[str, object]]:
    """The safetensors entry of every tensor. Labels come first, so that no odd number of pixels
    puts them at an odd address.
    """
    counts = {split: len(recipe.labels[split]) for split in SPLITS}
    tensors: list[tuple[str, str, tuple[int, ...]]] = [
        (f"{split}.labels", "I64", (counts[split],)) for split in SPLITS
    ]
    tensors += [(f"{split}.images", "U8", (counts[split], *recipe.image_shape)) for split in SPLITS]
    layout: dict[str, dict[str, object]] = {}
    offset = 0
    for name, dtype, shape in tensors:
        end = offset + prod(shape) * (8 if dtype == "I64" else 1)
        layout[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    return layout


def map_parts(path: Path, layout: dict[str, dict], start: int) -> list[tuple[Pixels, Indices]]:
    """Pixels, (N, H, W, C), and labels of each split; private mappings, so that writing to them
    never reaches the file.
    """

    def array(name: str, dtype: str) -> NDArray:
        entry = layout[name]
        return np.memmap(path, dtype, "c", start + entry["data_offsets"][0], tuple(entry["shape"]))

    return [(array(f"{split}.images", "u1"), array(f"{split}.labels", "<i8")) for split in SPLITS]


def load(path: Path) -> Decoded | None:
    """Read a cache file; None if there is none or it is not, byte for byte, what was written."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            layout = json.loads(file.read(length) if length <= MAX_HEADER_BYTES else "")
        metadata = layout.pop("__metadata__")
        if hashlib.sha256(metadata[ABOUT].encode()).hexdigest() != metadata[f"{ABOUT}.sha256"]:
            return None
        about = json.loads(metadata[ABOUT])
        parts = map_parts(path, layout, 8 + length)
    except (
        FileNotFoundError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        struct.error,
    ):
        return None
    return (
        decoded(about, parts)
        if fingerprint(about["classes"], parts) == about["fingerprint"]
        else None
    )


def decoded(about: dict, parts: list[tuple[Pixels, Indices]]) -> Decoded:
    train, test = (
        Split(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(labels))
        for pixels, labels in parts
    )
    return Decoded(
        train,
        test,
        tuple(about["classes"]),
        tuple(about["mean"]),
        tuple(about["std"]),
        about["fingerprint"],
    )
