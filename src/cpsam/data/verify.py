"""Checks every image before training: all faults of a data set in one list."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageOps

from cpsam.data.decode import open_image, read_image, to_rgb
from cpsam.data.load_options import LoadOptions
from cpsam.data.parallel import map_ordered
from cpsam.data.sets.cifar import HUB_DATASETS
from cpsam.data.split import OnProgress
from cpsam.data.storage.cifar_pickles import LAYOUTS, find_pickled
from cpsam.data.storage.shard_files import has_shards
from cpsam.data.verify_layouts import Fault, Layout, Pickled, Picture, Rows, Tree, named
from cpsam.errors import DataError
from cpsam.files import RECORD_BYTES, parse_json, read_file

PICTURES_PER_TASK = 16
DIGEST_BYTES = 16


@dataclass(frozen=True)
class Verified:
    """Holds what was found.

    Args:
        root: The folder.
        classes: Names, in the order of the labels.
        counts: For "train" and "test", the images of each class, good or bad.
        faults: All of them.
        note: How the splits were told apart, if that is not plain.
        notes: What is not used, and what else a person must know, one line each.
    """

    root: str
    classes: tuple[str, ...]
    counts: dict[str, list[int]]
    faults: list[Fault]
    note: str
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of the JSON list, which :func:`read_skip` reads."""
        splits = {}
        for split, counts in self.counts.items():
            splits[split] = {
                "images": sum(counts),
                "classes": dict(zip(self.classes, counts, strict=True)),
            }
        faults = [asdict(fault) for fault in self.faults]
        return {
            "schema": 1,
            "root": self.root,
            "note": self.note,
            "notes": list(self.notes),
            "splits": splits,
            "faults": faults,
        }


def verify(
    root: Path,
    progress: OnProgress | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Verified:
    """Decodes every image of a folder, of parquet shards or of a CIFAR, on all processors.

    These are faults:

    - a file that is not a whole image of a format that is read;
    - an image that is animated, has more than 8 bits of grey, or claims so many pixels that it may
      be a decompression bomb;
    - a label that is missing or out of range;
    - a shard that is missing or damaged;
    - a class without images, or a class of the test split that is not in the train split;
    - an image of the train split with the same decoded pixels as one of the test split.

    CMYK, grey, palette and transparent images are not faults: they are converted to RGB.

    Args:
        root: The folder with ``train/CLASS/*`` and ``val/CLASS/*``, with ``CLASS/*``, or with
            parquet shards, in itself or in ``data/``.
        progress: Told how many images have been decoded.
        image_column: Of parquet shards; None: as :func:`cpsam.data.load_dataset` finds it.
        label_column: Likewise.

    Raises:
        DataError: If there is nothing there to verify.
    """
    original = next((name for name in LAYOUTS if find_pickled(name, root) == root), None)
    if original is not None:
        layout: Layout = Pickled(root, original, HUB_DATASETS[original].num_classes)
    elif has_shards(root):
        layout = Rows(root, image_column, label_column)
    else:
        LoadOptions(image_column=image_column, label_column=label_column).refuse_columns(root)
        layout = Tree(root)
    done, total = 0, sum(map(sum, layout.counts.values()))
    # Digests of pixels are kept in memory, with the class; those of the test split with the name.
    tested: dict[bytes, tuple[str, int]] = {}
    trained: dict[bytes, int] = {}
    for split in ("test", "train"):
        for looked in map_ordered(look, batches(layout.pictures(split))):
            for picture, reason, digest in looked:
                if reason is None:
                    reason = repeated(picture, digest, split, layout.classes, tested, trained)
                if reason is not None:
                    layout.faults.append(picture.fault(reason))
            done += len(looked)
            if progress is not None:
                progress("decoding images", min(done, total), total)
    faults = sorted(
        layout.faults, key=lambda fault: (fault.where, -1 if fault.row is None else fault.row)
    )
    return Verified(str(root), layout.classes, layout.counts, faults, layout.note, layout.notes)


def repeated(
    picture: Picture,
    digest: bytes,
    split: str,
    classes: tuple[str, ...],
    tested: dict[bytes, tuple[str, int]],
    trained: dict[bytes, int],
) -> str | None:
    """Returns what is wrong if the test split or another class has the same pixels."""
    if split == "test":
        name, label = tested.setdefault(digest, (picture.name, picture.label))
        return None if label == picture.label else f"the same pixels as {name}, of another class"
    if digest in tested:
        return f"the same pixels as {tested[digest][0]}, of the test split"
    label = trained.setdefault(digest, picture.label)
    return (
        None
        if label == picture.label or picture.label < 0
        else f"the same pixels as an image of class {classes[label]!r}"
    )


def batches(pictures: Iterator[Picture]) -> Iterator[list[Picture]]:
    while batch := list(islice(pictures, PICTURES_PER_TASK)):
        yield batch


def look(batch: list[Picture]) -> list[tuple[Picture, str | None, bytes]]:
    """Returns what is wrong with each picture, or None, and a digest of its pixels."""
    return [(picture, *look_at(picture)) for picture in batch]


def look_at(picture: Picture) -> tuple[str | None, bytes]:
    where = named(picture.where, picture.row)
    if isinstance(picture.data, np.ndarray):
        return None, hashlib.sha256(picture.data.tobytes()).digest()[:DIGEST_BYTES]
    try:
        data = picture.data if isinstance(picture.data, bytes) else read_image(picture.data)
        with open_image(data, where) as image:
            ImageOps.exif_transpose(image, in_place=True)
            pixels = to_rgb(image, where)
            content = f"{pixels.width}x{pixels.height} ".encode() + pixels.tobytes()
            return None, hashlib.sha256(content).digest()[:DIGEST_BYTES]
    except DataError as error:
        return str(error).removeprefix(f"{where}: "), b""


def read_skip(path: Path) -> frozenset[str]:
    """Returns the images in a list of faults, as ``cpsam data verify --json`` prints it.

    Raises:
        DataError: If it cannot be read, or is not such a list.
    """
    try:
        images = [fault["image"] for fault in parse_json(read_file(path, RECORD_BYTES))["faults"]]
        if not all(image is None or isinstance(image, str) for image in images):
            raise TypeError("an image is named by a text")
        return frozenset(images) - {None}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not a list of faults as cpsam data verify prints it in JSON"
        ) from error
