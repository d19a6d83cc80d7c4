"""Look at every image before anything is trained on it: all that is wrong with a set, in one list."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cpsam.data.decode import open_image, read_image, to_rgb
from cpsam.data.imagenet import ADVICE, TEST_SHARDS, has_shards
from cpsam.data.parallel import map_ordered
from cpsam.data.shards import find_shards
from cpsam.data.split import Progress
from cpsam.data.tree import read_tree
from cpsam.errors import DataError

PICTURES_A_TASK = 16
DIGEST_BYTES = 16


@dataclass(frozen=True)
class Fault:
    """Something that keeps an image, or more, from being used.

    Args:
        where: A file or a folder.
        reason: What is wrong with it.
        row: Of a shard, from 0.
        image: What to call the image where it is to be left out; None if this is not about one image.
    """

    where: str
    reason: str
    row: int | None = None
    image: str | None = None

    def __str__(self) -> str:
        return f"{named(self.where, self.row)}: {self.reason}"


def named(where: str, row: int | None) -> str:
    return where if row is None else f"{where}, row {row}"


@dataclass(frozen=True)
class Verified:
    """What was found.

    Args:
        root: The folder.
        classes: Names, in the order of the labels.
        counts: For "train" and "test", the images of each class, good or bad.
        faults: All of them.
        note: How the splits were told apart, if that is not plain.
        notes: What is not used, and what else a person must know, a line each.
    """

    root: str
    classes: tuple[str, ...]
    counts: dict[str, list[int]]
    faults: list[Fault]
    note: str
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; :func:`read_skip` reads it again."""
        splits = {}
        for split, counts in self.counts.items():
            splits[split] = {"images": sum(counts), "classes": dict(zip(self.classes, counts, strict=True))}
        faults = [asdict(fault) for fault in self.faults]
        return {"schema": 1, "root": self.root, "note": self.note, "notes": list(self.notes), "splits": splits, "faults": faults}


@dataclass(frozen=True)
class Picture:
    """An image to look at: its file or what is in it, and what to call it."""

    data: Path | bytes
    where: str
    row: int | None
    name: str

    def fault(self, reason: str) -> Fault:
        return Fault(self.where, reason, self.row, self.name)


def verify(root: Path, progress: Progress | None = None) -> Verified:
    """Decode every image of a folder of images, or of parquet shards, side by side on all processors.

    A fault is: a file that is not a whole picture of a kind that is read (JPEG, PNG, WebP, BMP); one that is animated, has more than 8 bits
    of grey, or claims so many pixels that it may be a decompression bomb; a label that is missing or out of range; a shard that is missing
    or damaged; a class without images, or one to measure on that is not trained on; an image of the train split whose decoded pixels are
    those of an image of the test split. CMYK, grey, palette and transparent images are none: they are converted to RGB.

    Args:
        root: The folder with ``train/CLASS/*`` and ``val/CLASS/*``, with ``CLASS/*``, or with parquet shards, in itself or in ``data/``.
        progress: Told how many images have been decoded.

    Raises:
        DataError: If there is nothing there to verify.
    """
    scan: Scan = Shards(root) if has_shards(root) else Tree(root)
    pictures, done, total, seen = scan.pictures, 0, sum(map(sum, scan.counts.values())), {}
    # The test split first: its digests are kept in memory, and there are more images to train on.
    for split in ("test", "train"):
        for looked in map_ordered(look, batches(pictures(split))):
            for picture, reason, digest in looked:
                if reason is None and split == "test":
                    seen[digest] = picture.name
                elif reason is None and digest in seen:
                    reason = f"the same pixels as {seen[digest]}, of the test split"
                if reason is not None:
                    scan.faults.append(picture.fault(reason))
            done += len(looked)
            if progress is not None:
                progress("decoding images", done, total)
    faults = sorted(scan.faults, key=lambda fault: (fault.where, -1 if fault.row is None else fault.row))
    return Verified(str(root), scan.classes, scan.counts, faults, scan.note, scan.notes)


def batches(pictures: Iterator[Picture]) -> Iterator[list[Picture]]:
    while batch := list(islice(pictures, PICTURES_A_TASK)):
        yield batch


def look(batch: list[Picture]) -> list[tuple[Picture, str | None, bytes]]:
    """For each picture what is wrong with it, or None, and a digest of its pixels."""
    return [(picture, *look_at(picture)) for picture in batch]


def look_at(picture: Picture) -> tuple[str | None, bytes]:
    where = named(picture.where, picture.row)
    try:
        data = picture.data if isinstance(picture.data, bytes) else read_image(picture.data)
        with open_image(data, where) as image:
            pixels = to_rgb(image, where)
            content = f"{pixels.width}x{pixels.height} ".encode() + pixels.tobytes()
            return None, hashlib.sha256(content).digest()[:DIGEST_BYTES]
    except DataError as error:
        return str(error).removeprefix(f"{where}: "), b""


class Scan:
    """What one layout tells without decoding an image: `classes`, `counts`, `note`, and the `faults` so far."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.faults: list[Fault] = []
        self.classes: tuple[str, ...] = ()
        self.counts: dict[str, list[int]] = {}
        self.note = ""
        self.notes: tuple[str, ...] = ()

    def pictures(self, split: str) -> Iterator[Picture]:
        """The images of "train" or "test"."""
        raise NotImplementedError


class Tree(Scan):
    """A folder a class."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        tree = read_tree(root, on_fault=self.note_fault)
        self.parts, self.note, self.notes = tree.parts, tree.note, tree.notes
        self.classes = self.parts["train"].classes
        self.counts = {split: np.bincount(part.labels, minlength=len(self.classes)).tolist() for split, part in self.parts.items()}

    def note_fault(self, where: Path, reason: str) -> None:
        image = None if where.is_dir() else where.relative_to(self.root).as_posix()
        self.faults.append(Fault(str(where), reason, image=image))

    def pictures(self, split: str) -> Iterator[Picture]:
        for path in self.parts[split].paths:
            file = self.root / path
            yield Picture(file, str(file), None, path)


class Shards(Scan):
    """Parquet files in the layout of the hub."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        test = next((name for name in TEST_SHARDS if self.glob(name)), TEST_SHARDS[0])
        self.files = {"train": self.find("train"), "test": self.find(test)}
        self.labels: dict[Path, np.ndarray] = {}
        names = {path: self.read_labels(path) for files in self.files.values() for path in files}
        self.classes = next((given for given in names.values() if given), ())
        if not self.classes:
            trained = [self.labels[path].max(initial=-1) for path in self.files["train"] if path in self.labels]
            self.classes = tuple(map(str, range(1 + int(max(trained, default=-1)))))
        for path, given in names.items():
            if given not in (None, self.classes):
                self.faults.append(Fault(str(path), "its metadata names other classes than the first shard's"))
        self.counts = {split: self.count(files) for split, files in self.files.items()}

    def glob(self, name: str) -> list[Path]:
        return next((found for place in (self.root, self.root / "data") if (found := sorted(place.glob(f"{name}-*.parquet")))), [])

    def find(self, name: str) -> list[Path]:
        try:
            return find_shards((self.root, self.root / "data"), name, ADVICE)
        except DataError as error:
            self.faults.append(Fault(str(self.root), str(error)))
            return self.glob(name)

    def read_labels(self, path: Path) -> tuple[str, ...] | None:
        # Here because pyarrow takes half a second to import, and a tree does not need it.
        from cpsam.data.parquet import find_columns, label_column_of

        try:
            self.labels[path], missing, names = label_column_of(path, *find_columns(path))
        except DataError as error:
            self.faults.append(Fault(str(path), str(error).removeprefix(f"{path}: ")))
            return None
        for row in np.flatnonzero(missing).tolist():
            self.faults.append(self.picture(path, row, b"").fault("no label"))
        self.labels[path] = np.where(missing, np.iinfo(np.int64).min, self.labels[path])  # missing, not out of range as well
        return names

    def count(self, files: list[Path]) -> list[int]:
        """Images of each class; labels that are of none are faults."""
        counts = np.zeros(len(self.classes), np.int64)
        for path in files:
            labels = self.labels.get(path, np.zeros(0, np.int64))
            inside = (labels >= 0) & (labels < len(self.classes))
            counts += np.bincount(labels[inside], minlength=len(counts))
            for row in np.flatnonzero(~inside & (labels != np.iinfo(np.int64).min)).tolist():
                reason = f"label {labels[row]} is out of range, it must be 0 to {len(self.classes) - 1}"
                self.faults.append(self.picture(path, row, b"").fault(reason))
        return counts.tolist()

    def picture(self, path: Path, row: int, data: bytes) -> Picture:
        return Picture(data, str(path), row, f"{path.name}, row {row}")

    def pictures(self, split: str) -> Iterator[Picture]:
        from cpsam.data.parquet import find_columns, read_bytes

        for path in self.files[split]:
            if path not in self.labels:
                continue
            row = 0
            try:
                for part in read_bytes(path, *find_columns(path)):
                    for data in part.to_pylist():
                        if data is None:
                            self.faults.append(self.picture(path, row, b"").fault("no image"))
                        else:
                            yield self.picture(path, row, data)
                        row += 1
            except DataError as error:
                self.faults.append(Fault(str(path), f"{str(error).removeprefix(f'{path}: ')}; rows {row} and after were not looked at"))


def read_skip(path: Path) -> frozenset[str]:
    """The images that a list of faults names, as ``cpsam data verify --json`` prints it.

    Raises:
        DataError: If it cannot be read, or is not such a list.
    """
    try:
        return frozenset(fault["image"] for fault in json.loads(path.read_bytes())["faults"] if fault["image"] is not None)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a list of faults as cpsam data verify --json prints it") from error
