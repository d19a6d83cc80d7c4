"""Lists the images of each layout, and the faults that are found without decoding."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cpsam.data.split import Pixels
from cpsam.data.storage.cifar_pickles import pickled_paths, read_names, read_split
from cpsam.data.storage.shard_labels import NONE, read_shards, row_name
from cpsam.data.storage.tree import read_tree
from cpsam.errors import DataError


@dataclass(frozen=True)
class Fault:
    """Says why an image, or several, cannot be used.

    Args:
        where: The file or folder.
        reason: What is wrong with it.
        row: Of a shard, from 0.
        image: The name of the image in a list of images to leave out; None if the fault is not
            about one image.
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
class Picture:
    """Holds an image to check: its file or content, and its name."""

    data: Path | bytes | Pixels
    where: str
    row: int | None
    name: str
    label: int

    def fault(self, reason: str) -> Fault:
        return Fault(self.where, reason, self.row, self.name)


class Layout:
    """Holds what is known before an image is decoded: classes, counts, notes and faults so far."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.faults: list[Fault] = []
        self.classes: tuple[str, ...] = ()
        self.counts: dict[str, list[int]] = {}
        self.note = ""
        self.notes: tuple[str, ...] = ()

    def pictures(self, split: str) -> Iterator[Picture]:
        """Yields the images of "train" or "test"."""
        raise NotImplementedError


class Tree(Layout):
    """Lists a folder per class."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        tree = read_tree(root, on_fault=self.note_fault)
        self.parts, self.note, self.notes = tree.parts, tree.note, tree.notes
        self.classes = self.parts["train"].classes
        self.counts = {
            split: np.bincount(part.labels, minlength=len(self.classes)).tolist()
            for split, part in self.parts.items()
        }

    def note_fault(self, where: Path, reason: str) -> None:
        image = None if where.is_dir() else where.relative_to(self.root).as_posix()
        self.faults.append(Fault(str(where), reason, image=image))

    def pictures(self, split: str) -> Iterator[Picture]:
        for path, label in zip(
            self.parts[split].paths, self.parts[split].labels.tolist(), strict=True
        ):
            file = self.root / path
            yield Picture(file, str(file), None, path, label)


class Pickled(Layout):
    """Lists the original files of a CIFAR, which are read as a whole."""

    def __init__(self, root: Path, name: str, count: int) -> None:
        super().__init__(root)
        self.paths = pickled_paths(name, root)
        self.classes = read_names(name, root, count)
        self.parts = {
            split: read_split(name, self.paths[split], count) for split in ("train", "test")
        }
        self.counts = {
            split: np.bincount(labels, minlength=count).tolist()
            for split, (_, labels) in self.parts.items()
        }

    def pictures(self, split: str) -> Iterator[Picture]:
        where = str(self.paths[split][0])
        for row, (pixels, label) in enumerate(zip(*self.parts[split], strict=True)):
            yield Picture(pixels, where, row, f"{split}, row {row}", int(label))


class Rows(Layout):
    """Lists parquet files in the layout of the hub."""

    def __init__(self, root: Path, image_column: str | None, label_column: str | None) -> None:
        super().__init__(root)
        self.shards = read_shards(root, image_column, label_column, on_fault=self.note_fault)
        self.classes, self.notes = self.shards.classes, self.shards.notes
        for split in self.shards.files:
            labels = self.shards.joined(split)
            self.counts[split] = np.bincount(
                labels[labels != NONE], minlength=len(self.classes)
            ).tolist()

    def note_fault(self, path: Path, row: int | None, reason: str) -> None:
        self.faults.append(
            Fault(str(path), reason, row, None if row is None else row_name(path, row))
        )

    def pictures(self, split: str) -> Iterator[Picture]:
        from cpsam.data.storage.parquet import read_bytes

        for path in self.shards.files[split]:
            if path not in self.shards.labels:
                continue
            labels = self.shards.labels[path].tolist()
            row = 0
            try:
                for part in read_bytes(path, *self.shards.columns):
                    for data in part.to_pylist():
                        if data is None:
                            self.note_fault(path, row, "no image")
                        else:
                            yield Picture(data, str(path), row, row_name(path, row), labels[row])
                        row += 1
            except DataError as error:
                self.faults.append(
                    Fault(
                        str(path),
                        f"{str(error).removeprefix(f'{path}: ')}; rows {row} and after were not"
                        " looked at",
                    )
                )
